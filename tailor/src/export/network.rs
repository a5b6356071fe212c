//! A network with its weights, read from bundles.

use crate::pack::check_backbone;
use crate::{Error, Result};
use bundles::container::{Bundle, Dtype, Kind, Layout, Preprocess};
use bundles::plan::{Op, Owner, Plan};
use std::collections::HashMap;

/// A network to export: a plan, the values of its tensors, and metadata from its bundle.
#[derive(Debug, Clone)]
pub struct Network {
    /// Backbone or task.
    pub kind: Kind,
    /// The bundle's name.
    pub name: String,
    /// The network.
    pub plan: Plan,
    /// Values by tensor name, row-major in the plan's shapes.
    pub tensors: HashMap<String, Vec<f32>>,
    /// False for a backbone without its source classifier: the last linear layer is then omitted and the
    /// network ends in features.
    pub classifier: bool,
    /// Class labels in score order, if they are known.
    pub labels: Vec<String>,
    /// How images become its input.
    pub preprocess: Preprocess,
    /// Id of its universal kernels.
    pub backbone: [u8; 32],
    /// Provenance.
    pub facts: Vec<(String, String)>,
}

impl Network {
    /// The network of a task bundle, on the kernels of its backbone.
    ///
    /// # Errors
    /// [`Error::Bundle`]: `Incompatible` if the task was made for another backbone or the kernels are packed
    /// for a device, `HashMismatch` for damaged bytes; [`Error::Import`] if the two bundles are swapped.
    pub fn task(task: &Bundle<'_>, backbone: &Bundle<'_>) -> Result<Network> {
        expect(backbone, Kind::Backbone)?;
        expect(task, Kind::Task)?;
        check_backbone(task.manifest(), &backbone.manifest().backbone.id)?;
        Network::read(task, backbone, true)
    }

    /// A backbone's own network, without its classifier if the file has none.
    ///
    /// # Errors
    /// As [`Network::task`].
    pub fn backbone(backbone: &Bundle<'_>) -> Result<Network> {
        expect(backbone, Kind::Backbone)?;
        let classifier = match backbone.manifest().plan.head.last() {
            Some(last @ Op::Linear(_)) => last.tensors().iter().all(|t| backbone.section(&t.name).is_ok()),
            _ => true,
        };
        Network::read(backbone, backbone, classifier)
    }

    fn read(own: &Bundle<'_>, backbone: &Bundle<'_>, classifier: bool) -> Result<Network> {
        let manifest = own.manifest();
        let plan = manifest.plan.clone();
        let dropped: Vec<_> = match plan.head.last() {
            Some(last) if !classifier => last.tensors().into_iter().map(|t| t.name).collect(),
            _ => Vec::new(),
        };
        let mut tensors = HashMap::new();
        for spec in plan.tensors().into_iter().filter(|spec| !dropped.contains(&spec.name)) {
            let bundle = if spec.owner == Owner::Backbone { backbone } else { own };
            let section = bundle.section(&spec.name)?;
            if section.layout != Layout::Canonical || !matches!(section.dtype, Dtype::F32 | Dtype::F16) {
                let file = &bundle.manifest().name;
                return Err(Error::Bundle(bundles::Error::Incompatible {
                    what: format!("tensor `{}` of `{file}`, which is packed for a device", spec.name),
                    want: "the backbone as `tailor import` wrote it, and the task as `tailor fit` did".into(),
                    got: format!("{:?} in {:?} order", section.dtype, section.layout),
                }));
            }
            if section.shape != spec.shape {
                let (want, got) = (spec.shape, section.shape.clone());
                return Err(Error::TensorShape { name: spec.name, want, got });
            }
            let values = bundle.decode_f32(&spec.name)?;
            tensors.insert(spec.name, values);
        }
        Ok(Network {
            kind: manifest.kind,
            name: manifest.name.clone(),
            plan,
            tensors,
            classifier,
            labels: manifest.labels.clone(),
            preprocess: manifest.preprocess,
            backbone: manifest.backbone.id,
            facts: manifest.facts.clone(),
        })
    }

    /// The values of a tensor.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<&[f32]> {
        let found = self.tensors.get(name).map(Vec::as_slice);
        found.ok_or_else(|| Error::MissingTensor { name: name.into() })
    }
}

fn expect(bundle: &Bundle<'_>, want: Kind) -> Result<()> {
    let manifest = bundle.manifest();
    if manifest.kind == want {
        return Ok(());
    }
    let (found, want) = (format!("a {}", manifest.kind.word()), format!("a {} is needed here", want.word()));
    Err(Error::import(format!("`{}`", manifest.name), found, want))
}
