//! A network with its weights, read from bundles.

use crate::pack::{check_backbone, check_kind};
use crate::precision::File;
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
    /// [`Error::Container`], naming the file: `Incompatible` if the task was made for another backbone or
    /// either is packed in int8 or for a device, `HashMismatch` for damaged bytes; [`Error::Config`] if the two
    /// are swapped.
    pub fn task(task: File<'_>, backbone: File<'_>) -> Result<Network> {
        let backbone = Opened::of(backbone, Kind::Backbone)?;
        let task = Opened::of(task, Kind::Task)?;
        let id = &backbone.bundle.manifest().backbone.id;
        check_backbone(task.bundle.manifest(), id).map_err(Error::container(task.file))?;
        Network::read(&task, &backbone, true)
    }

    /// A backbone's own network, without its classifier if the file has none.
    ///
    /// # Errors
    /// As [`Network::task`].
    pub fn backbone(backbone: File<'_>) -> Result<Network> {
        let backbone = Opened::of(backbone, Kind::Backbone)?;
        let bundle = &backbone.bundle;
        let classifier = match bundle.manifest().plan.head.last() {
            Some(last @ Op::Linear(_)) => last.tensors().iter().all(|t| bundle.section(&t.name).is_ok()),
            _ => true,
        };
        Network::read(&backbone, &backbone, classifier)
    }

    fn read(own: &Opened<'_>, backbone: &Opened<'_>, classifier: bool) -> Result<Network> {
        let manifest = own.bundle.manifest();
        let plan = manifest.plan.clone();
        let dropped: Vec<_> = match plan.head.last() {
            Some(last) if !classifier => last.tensors().into_iter().map(|t| t.name).collect(),
            _ => Vec::new(),
        };
        let mut tensors = HashMap::new();
        for spec in plan.tensors().into_iter().filter(|spec| !dropped.contains(&spec.name)) {
            let bundle = if spec.owner == Owner::Backbone { backbone } else { own };
            let values = bundle.values(&spec.name, &spec.shape).map_err(Error::container(bundle.file))?;
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

/// A bundle and the name of its file in messages.
struct Opened<'a> {
    file: &'a str,
    bundle: Bundle<'a>,
}

impl<'a> Opened<'a> {
    fn of(file: File<'a>, kind: Kind) -> Result<Opened<'a>> {
        let bundle = file.parse()?;
        check_kind(file.name, bundle.manifest(), kind)?;
        Ok(Opened { file: file.name, bundle })
    }

    /// The values of the tensor `name`, which the plan gives this `shape`.
    fn values(&self, name: &str, shape: &[usize]) -> bundles::Result<Vec<f32>> {
        let section = self.bundle.section(name)?;
        let packed = match (section.dtype, section.layout) {
            (Dtype::F32 | Dtype::F16, Layout::Canonical) => None,
            (Dtype::F32 | Dtype::F16, Layout::Blocked { isa, .. }) => Some(format!("for {}", isa.word())),
            _ => Some("in int8".into()),
        };
        if let Some(packed) = packed {
            return Err(bundles::Error::Incompatible {
                what: "export".into(),
                want: "f32 files, as `tailor import` and `tailor fit` write them".into(),
                got: format!("tensor `{name}` packed {packed}"),
            });
        }
        if section.shape != shape {
            return Err(bundles::Error::ShapeMismatch {
                place: format!("tensor `{name}`"),
                want: format!("{shape:?}"),
                got: format!("{:?}", section.shape),
            });
        }
        self.bundle.decode_f32(name)
    }
}
