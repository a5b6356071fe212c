//! From a trained, pruned student to the plan and tensors a device runs, and the bundle that carries them.

use crate::net::{Net, Params, Pass, alphas};
use crate::source::Source;
use crate::{Error, Result};
use bundles::container::{Bundle, Golden, Kind, Manifest, Preprocess, SigningKey, Writer, golden_input};
use bundles::plan::{Op, Owner, Plan, Role};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Seeds of the golden vectors in every bundle.
const GOLDEN_SEEDS: [u64; 2] = [1, 2];

/// Maximum deviation of a device's scores from the golden ones, relative to the largest score: allows for a
/// different order of summation, but not for a wrong kernel.
const GOLDEN_TOLERANCE: f32 = 1e-3;

/// A tensor ready to be packed.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Name in the deployed plan.
    pub name: String,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Folds norms and alphas. Returns the deployed plan and its task-owned tensors in execution order.
///
/// Exact up to rounding: a proxy `alpha (norm (W x))` becomes `W' x + b'`; norms after universal kernels
/// become per-channel scale and shift.
///
/// # Errors
/// [`Error::MissingTensor`] if `params` does not belong to `plan`.
pub fn deploy(plan: &Plan, params: &Params) -> Result<(Plan, Vec<Packed>)> {
    let folded = plan.folded();
    let mut values: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let gates = alphas(plan, params)?;
    for op in plan.stem.iter().chain(&plan.head) {
        plain(op, params, &mut values)?;
    }
    for (i, cell) in plan.cells.iter().enumerate() {
        let alpha: Vec<f32> = match &gates[i] {
            Some(alpha) => alpha.to_vec1()?,
            None => vec![1.0; cell.gates.len()],
        };
        let mut kept = Vec::new();
        for (g, gate) in cell.gates.iter().enumerate() {
            let scaled_after = folded.cells[i].gates[g].scaled;
            if scaled_after {
                kept.push(alpha[g]);
            }
            let factor = if gate.scaled && !scaled_after { alpha[g] } else { 1.0 };
            for path in &gate.paths {
                match gate.role {
                    Role::Block => {
                        for op in &path.ops {
                            plain(op, params, &mut values)?;
                        }
                    }
                    Role::Proxy => proxy(&path.ops, factor, params, &mut values)?,
                }
            }
        }
        if !kept.is_empty() {
            values.insert(Plan::alpha_name(i + 1), kept);
        }
    }
    let mut packed = Vec::new();
    for spec in folded.tensors().into_iter().filter(|t| t.owner == Owner::Task) {
        let Some(values) = values.remove(&spec.name) else {
            return Err(Error::MissingTensor { name: spec.name });
        };
        packed.push(Packed { name: spec.name, shape: spec.shape, values });
    }
    Ok((folded, packed))
}

/// Packs an operation unchanged; norms become scale and shift.
fn plain(op: &Op, params: &Params, values: &mut BTreeMap<String, Vec<f32>>) -> Result<()> {
    if let Op::Affine(norm) = op {
        let (scale, shift) = params.scale_shift(&norm.name)?;
        values.insert(format!("{}.scale", norm.name), scale.to_vec1()?);
        values.insert(format!("{}.shift", norm.name), shift.to_vec1()?);
        return Ok(());
    }
    for spec in op.tensors().into_iter().filter(|t| t.owner == Owner::Task) {
        let flat = params.values(&spec.name)?;
        values.insert(spec.name, flat);
    }
    Ok(())
}

/// Packs a proxy: the norm after each convolution is folded into it, and the gate's `factor` into the last
/// one.
fn proxy(ops: &[Op], factor: f32, params: &Params, values: &mut BTreeMap<String, Vec<f32>>) -> Result<()> {
    let last_conv = ops.iter().rposition(|op| matches!(op, Op::Conv(_)));
    let mut i = 0;
    while i < ops.len() {
        match (&ops[i], ops.get(i + 1)) {
            (Op::Conv(conv), Some(Op::Affine(norm))) if conv.owner == Owner::Task && !conv.bias => {
                let (scale, shift) = params.scale_shift(&norm.name)?;
                let (scale, shift): (Vec<f32>, Vec<f32>) = (scale.to_vec1()?, shift.to_vec1()?);
                let factor = if last_conv == Some(i) { factor } else { 1.0 };
                let mut weight = params.values(&format!("{}.weight", conv.name))?;
                let row = conv.c_in * conv.kernel * conv.kernel;
                for (row, scale) in weight.chunks_mut(row).zip(&scale) {
                    row.iter_mut().for_each(|w| *w *= scale * factor);
                }
                values.insert(format!("{}.weight", conv.name), weight);
                values.insert(format!("{}.bias", conv.name), shift.iter().map(|s| s * factor).collect());
                i += 2;
            }
            (op, _) => {
                plain(op, params, values)?;
                if last_conv == Some(i) {
                    for spec in op.tensors() {
                        values.entry(spec.name).and_modify(|all| all.iter_mut().for_each(|v| *v *= factor));
                    }
                }
                i += 1;
            }
        }
    }
    Ok(())
}

/// The contents of a task bundle besides its network.
#[derive(Debug, Clone)]
pub struct Label<'a> {
    /// The task's name.
    pub name: &'a str,
    /// Class labels in score order.
    pub classes: &'a [String],
    /// How images become network input.
    pub preprocess: Preprocess,
    /// The backbone it belongs to.
    pub backbone: [u8; 32],
    /// Provenance.
    pub facts: &'a [(String, String)],
}

/// A task bundle: deployed plan, task-owned tensors in execution order and golden vectors of this network,
/// signed by `signers` (with the development key if there are none).
///
/// # Errors
/// As [`deploy`] and the container.
pub fn task_bundle(
    plan: &Plan,
    params: &Params,
    label: &Label<'_>,
    signers: &[SigningKey],
) -> Result<Vec<u8>> {
    let (folded, tensors) = deploy(plan, params)?;
    let mut writer = Writer::new(Kind::Task, label.name, folded, label.preprocess);
    writer.labels(label.classes.iter().cloned()).backbone(label.backbone, "");
    for (key, value) in label.facts {
        writer.fact(key, value);
    }
    for tensor in &tensors {
        writer.tensor_f32(&tensor.name, Owner::Task, &tensor.shape, &tensor.values)?;
    }
    for seed in GOLDEN_SEEDS {
        writer.golden(golden(plan, params, seed)?);
    }
    Ok(writer.finish(signers)?)
}

/// The network's scores for the input generated from `seed`.
fn golden(plan: &Plan, params: &Params, seed: u64) -> Result<Golden> {
    let shape = plan.input;
    let mut input = vec![0.0; shape.len()];
    golden_input(seed, &mut input);
    let input = Tensor::from_vec(input, (1, shape.c, shape.h, shape.w), &params.device())?;
    let logits = Net { plan, params }.forward(&input, Pass::Infer)?.logits;
    Ok(Golden { seed, scores: logits.flatten_all()?.to_vec1()?, tolerance: GOLDEN_TOLERANCE })
}

/// Refuses a bundle of another kind; messages call it `file`.
///
/// # Errors
/// [`Error::Config`].
pub(crate) fn check_kind(file: &str, manifest: &Manifest, want: Kind) -> Result<()> {
    if manifest.kind == want {
        return Ok(());
    }
    Err(Error::config(file, format!("a {}; a {} is needed here", manifest.kind.word(), want.word())))
}

/// Refuses a task that was made for another backbone than the one with this id.
///
/// # Errors
/// [`bundles::Error::Incompatible`].
pub(crate) fn check_backbone(task: &Manifest, id: &[u8; 32]) -> bundles::Result<()> {
    if task.backbone.id == *id {
        return Ok(());
    }
    let short = |id: &[u8; 32]| bundles::container::hex(&id[..8]);
    Err(bundles::Error::Incompatible {
        what: format!("task `{}`", task.name),
        want: format!("backbone {}", short(&task.backbone.id)),
        got: format!("backbone {}; use the backbone the task was made for", short(id)),
    })
}

/// A task bundle opened on the host, with its backbone.
#[derive(Debug)]
pub struct PackedTask {
    /// The deployed network.
    pub plan: Plan,
    /// How images become network input.
    pub preprocess: Preprocess,
    /// Class labels in score order.
    pub labels: Vec<String>,
    params: Params,
}

impl PackedTask {
    /// Takes the task's tensors from `bundle` and the universal kernels from `source`.
    ///
    /// # Errors
    /// The bundle is not a task or belongs to another backbone, or a tensor is missing or damaged.
    pub fn read(bundle: &Bundle<'_>, source: &Source) -> Result<PackedTask> {
        let manifest = bundle.manifest();
        check_kind(&format!("`{}`", manifest.name), manifest, Kind::Task)?;
        check_backbone(manifest, &source.id)?;
        let mut params = Params::packed();
        for spec in manifest.plan.tensors() {
            let tensor = match spec.owner {
                Owner::Backbone => source.params.get(&spec.name)?.clone(),
                Owner::Task => {
                    let values = bundle.decode_f32(&spec.name)?;
                    Tensor::from_vec(values, spec.shape.as_slice(), &source.params.device())?
                }
            };
            params.freeze(spec.name, tensor);
        }
        let labels = manifest.labels.clone();
        Ok(PackedTask { plan: manifest.plan.clone(), preprocess: manifest.preprocess, labels, params })
    }

    /// Its parameters, including its universal kernels.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Class scores of normalised images `(n, 3, h, w)`.
    ///
    /// # Errors
    /// The images do not match the plan.
    pub fn classify(&self, images: &Tensor) -> Result<Tensor> {
        Ok(Net { plan: &self.plan, params: &self.params }.forward(images, Pass::Infer)?.logits)
    }
}
