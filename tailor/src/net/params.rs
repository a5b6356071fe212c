//! The parameters of a network in training: named tensors, each frozen, trained, or derived from others.

use super::Gating;
use crate::{Error, Result, ops};
use bundles::plan::{Op, Owner, Plan, Role};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;

/// Added to a variance before the square root, as in PyTorch's batch-norm.
pub const NORM_EPS: f64 = 1e-5;

/// Weight of the newest batch in running statistics.
const STAT_MOMENTUM: f64 = 0.1;

#[derive(Debug, Clone)]
enum Slot {
    Frozen(Tensor),
    Free(Var),
    /// A function of trained tensors, to which its gradient is propagated.
    Derived(Tensor),
}

/// Named tensors of one network: free ones are trained, frozen ones only read.
///
/// Names are the plan's, with two exceptions: a norm in training has `weight`, `bias`, `running_mean` and
/// `running_var` where the packed network has `scale` and `shift`, and a cell's alpha tensor holds logits,
/// from which alphas are computed by [`Gating`].
#[derive(Debug, Clone, Default)]
pub struct Params {
    slots: BTreeMap<String, Slot>,
    /// Whether these are a packed network's parameters: alpha tensors hold alphas, norms hold scale and
    /// shift.
    packed: bool,
    gating: Gating,
}

impl Params {
    /// An empty set for the tensors of a packed network (listed by [`Plan::tensors`]): alpha tensors will
    /// hold alphas instead of logits, norms `scale` and `shift` instead of four vectors.
    pub fn packed() -> Params {
        Params { packed: true, ..Params::default() }
    }

    /// Whether these are a packed network's parameters.
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// How alphas are computed from logits.
    pub fn gating(&self) -> Gating {
        self.gating
    }

    /// Adds or replaces a frozen tensor.
    pub fn freeze(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.slots.insert(name.into(), Slot::Frozen(tensor.detach()));
    }

    /// Adds or replaces a trained tensor (its values are copied).
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn free(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        self.slots.insert(name.into(), Slot::Free(Var::from_tensor(&tensor.detach())?));
        Ok(())
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        match self.slots.get(name) {
            Some(Slot::Frozen(tensor) | Slot::Derived(tensor)) => Ok(tensor),
            Some(Slot::Free(var)) => Ok(var.as_tensor()),
            None => Err(Error::MissingTensor { name: name.into() }),
        }
    }

    /// Whether the tensor called `name` needs a gradient: it is trained, or derived from one that is.
    pub fn is_free(&self, name: &str) -> bool {
        match self.slots.get(name) {
            Some(Slot::Free(_)) => true,
            Some(Slot::Derived(tensor)) => tensor.track_op(),
            Some(Slot::Frozen(_)) | None => false,
        }
    }

    /// The same parameters (shared, not copied), with each of `derived` replacing the tensor of its name. A
    /// network reads it like any other; its gradient is propagated to the trained tensors it was computed
    /// from, so it is valid for one step.
    #[must_use]
    pub fn with_derived(&self, derived: impl IntoIterator<Item = (String, Tensor)>) -> Params {
        let mut out = self.clone();
        out.slots.extend(derived.into_iter().map(|(name, tensor)| (name, Slot::Derived(tensor))));
        out
    }

    /// Adds or replaces every tensor of `other` (shared, not copied), free or frozen as in `other`.
    pub fn extend(&mut self, other: &Params) {
        self.slots.extend(other.slots.iter().map(|(name, slot)| (name.clone(), slot.clone())));
    }

    /// Trained tensors, sorted by name.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Free(var) => Some((name.as_str(), var)),
            Slot::Frozen(_) | Slot::Derived(_) => None,
        })
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.slots.iter().map(|(name, slot)| match slot {
            Slot::Frozen(tensor) | Slot::Derived(tensor) => (name.as_str(), tensor),
            Slot::Free(var) => (name.as_str(), var.as_tensor()),
        })
    }

    /// Whether every number of every tensor is finite.
    ///
    /// # Errors
    /// If a tensor cannot be read from its device.
    pub fn is_finite(&self) -> Result<bool> {
        for (_, tensor) in self.iter() {
            // A sum is finite only if all its terms are.
            if !tensor.sum_all()?.to_scalar::<f32>()?.is_finite() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The device of the tensors; the CPU if there are none.
    pub fn device(&self) -> Device {
        self.iter().next().map_or(Device::Cpu, |(_, tensor)| tensor.device().clone())
    }

    /// Overwrites the values of an existing tensor, which stays free or frozen (a derived one no longer
    /// depends on anything).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], or if the shape differs.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<()> {
        match self.slots.get_mut(name) {
            Some(Slot::Free(var)) => var.set(value)?,
            Some(Slot::Frozen(tensor) | Slot::Derived(tensor)) if tensor.shape() == value.shape() => {
                *tensor = value.detach();
            }
            Some(Slot::Frozen(tensor) | Slot::Derived(tensor)) => {
                return Err(Error::TensorShape {
                    name: name.into(),
                    want: tensor.dims().to_vec(),
                    got: value.dims().to_vec(),
                });
            }
            None => return Err(Error::MissingTensor { name: name.into() }),
        }
        Ok(())
    }

    /// Moves the running statistics of norm `name` towards this batch's.
    ///
    /// `mean` and `var` are `(channels,)`; `var` is the unbiased estimate, as in PyTorch.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn track(&mut self, name: &str, mean: &Tensor, var: &Tensor) -> Result<()> {
        for (part, new) in [("running_mean", mean), ("running_var", var)] {
            let full = format!("{name}.{part}");
            let next = ops::follow(self.get(&full)?, new, STAT_MOMENTUM)?;
            self.set(&full, &next)?;
        }
        Ok(())
    }

    /// The scale and shift to which norm `name` reduces with its running statistics, each `(channels,)`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn scale_shift(&self, name: &str) -> Result<(Tensor, Tensor)> {
        if self.packed {
            let part = |part: &str| self.get(&format!("{name}.{part}")).cloned();
            return Ok((part("scale")?, part("shift")?));
        }
        let var = self.get(&format!("{name}.running_var"))?;
        let scale = (self.get(&format!("{name}.weight"))? / (var + NORM_EPS)?.sqrt()?)?;
        let shifted = (self.get(&format!("{name}.running_mean"))? * &scale)?;
        let shift = (self.get(&format!("{name}.bias"))? - shifted)?;
        Ok((scale, shift))
    }

    /// Values of a tensor, row-major.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.get(name)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    /// A teacher: every kernel and norm of `backbone` is trained, and the classifier is new.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if `backbone` lacks something `plan` needs.
    pub fn teacher(plan: &Plan, backbone: &Params, seed: u64, device: &Device) -> Result<Params> {
        let mut teacher = Params::default();
        for op in plan.ops() {
            teacher.inherit(op, backbone, |_| true)?;
        }
        teacher.fresh_head(plan, seed, device)?;
        Ok(teacher)
    }

    /// A student before training: frozen kernels from `backbone`, new proxies, gates at +2 (blocks) and -2
    /// (proxies), and a new classifier. Norms of blocks start as the backbone's; their weight and bias are
    /// trained only with `free_norms`, their running statistics always adapt to the task. `gating` gives
    /// logits their meaning; these initial ones amount to 0.948 and 0.017 (softmax, three proxies) or 0.957
    /// and 0.043.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if `backbone` lacks something `plan` needs.
    pub fn student(
        plan: &Plan,
        backbone: &Params,
        free_norms: bool,
        gating: Gating,
        seed: u64,
        device: &Device,
    ) -> Result<Params> {
        let mut student = Params { gating, ..Params::default() };
        let mut noise = Noise::new(seed);
        for op in &plan.stem {
            student.inherit(op, backbone, |op| free_norms && matches!(op, Op::Affine(_)))?;
        }
        for (i, cell) in plan.cells.iter().enumerate() {
            let mut logits = Vec::new();
            for gate in &cell.gates {
                logits.push(if gate.role == Role::Block { 2f32 } else { -2.0 });
                for op in gate.paths.iter().flat_map(|p| &p.ops) {
                    match gate.role {
                        Role::Block => {
                            student.inherit(op, backbone, |op| free_norms && matches!(op, Op::Affine(_)))?
                        }
                        Role::Proxy => student.fresh(op, &mut noise, device)?,
                    }
                }
            }
            let n = logits.len();
            student.free(Plan::alpha_name(i + 1), &Tensor::from_vec(logits, n, device)?)?;
        }
        for op in &plan.head {
            if matches!(op, Op::Affine(_)) {
                student.inherit(op, backbone, |_| true)?;
            }
        }
        student.fresh_head(plan, seed, device)?;
        Ok(student)
    }

    /// Copies only the tensors that `plan` reads. `kept` lists, for each cell, the surviving gates by their
    /// index in the old plan; alpha logits of the others are dropped.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn pruned(&self, plan: &Plan, kept: &[Vec<usize>]) -> Result<Params> {
        let mut out = Params { gating: self.gating, ..Params::default() };
        let names: std::collections::HashSet<String> = plan.ops().flat_map(training_tensors).collect();
        for (name, slot) in &self.slots {
            if names.contains(name) {
                let copy = match slot {
                    Slot::Frozen(tensor) | Slot::Derived(tensor) => Slot::Frozen(tensor.detach()),
                    Slot::Free(var) => Slot::Free(Var::from_tensor(&var.as_tensor().detach())?),
                };
                out.slots.insert(name.clone(), copy);
            }
        }
        for (i, kept) in kept.iter().enumerate() {
            if kept.is_empty() {
                continue;
            }
            let name = Plan::alpha_name(i + 1);
            let logits = self.get(&name)?;
            let index: Vec<u32> = kept.iter().map(|&g| g as u32).collect();
            let index = Tensor::from_vec(index, kept.len(), logits.device())?;
            out.free(name, &logits.detach().index_select(&index, 0)?)?;
        }
        Ok(out)
    }

    fn inherit(&mut self, op: &Op, from: &Params, free: impl Fn(&Op) -> bool) -> Result<()> {
        if matches!(op, Op::Linear(_)) {
            return Ok(());
        }
        for name in training_tensors(op) {
            let tensor = from.get(&name)?.clone();
            if free(op) && !name.contains(".running_") {
                self.free(name, &tensor)?;
            } else {
                self.freeze(name, tensor.copy()?);
            }
        }
        Ok(())
    }

    fn fresh(&mut self, op: &Op, noise: &mut Noise, device: &Device) -> Result<()> {
        match op {
            Op::Conv(conv) if conv.owner == Owner::Task => {
                let shape = (conv.c_out, conv.c_in, conv.kernel, conv.kernel);
                let n = conv.c_out * conv.c_in * conv.kernel * conv.kernel;
                self.free(format!("{}.weight", conv.name), &noise.normal(n, 0.01, device)?.reshape(shape)?)
            }
            Op::Affine(norm) => {
                let shape = norm.channels;
                let ones = Tensor::ones(shape, DType::F32, device)?;
                self.free(format!("{}.weight", norm.name), &ones)?;
                self.free(format!("{}.bias", norm.name), &ones.zeros_like()?)?;
                self.freeze(format!("{}.running_mean", norm.name), ones.zeros_like()?);
                self.freeze(format!("{}.running_var", norm.name), ones);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fresh_head(&mut self, plan: &Plan, seed: u64, device: &Device) -> Result<()> {
        let mut noise = Noise::new(seed ^ 0x6865_6164);
        for op in &plan.head {
            if let Op::Linear(linear) = op {
                let weight = noise.normal(linear.c_in * linear.c_out, 0.01, device)?;
                self.free(format!("{}.weight", linear.name), &weight.reshape((linear.c_out, linear.c_in))?)?;
                let bias = Tensor::zeros(linear.c_out, DType::F32, device)?;
                self.free(format!("{}.bias", linear.name), &bias)?;
            }
        }
        Ok(())
    }
}

/// Names of an operation's tensors in training.
pub(crate) fn training_tensors(op: &Op) -> Vec<String> {
    match op {
        Op::Affine(norm) => ["weight", "bias", "running_mean", "running_var"]
            .iter()
            .map(|part| format!("{}.{part}", norm.name))
            .collect(),
        _ => op.tensors().into_iter().map(|t| t.name).collect(),
    }
}

/// Seeded noise, identical on every device.
pub(crate) struct Noise {
    state: u64,
}

impl Noise {
    pub(crate) fn new(seed: u64) -> Noise {
        Noise { state: seed }
    }

    /// Uniform in (0, 1), by splitmix64.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 4.0
    }

    /// `n` samples from N(0, `std`), by the Box-Muller transform.
    pub(crate) fn normal(&mut self, n: usize, std: f64, device: &Device) -> Result<Tensor> {
        let draw = |noise: &mut Noise| {
            let radius = (-2.0 * noise.uniform().ln()).sqrt();
            (std * radius * (std::f64::consts::TAU * noise.uniform()).cos()) as f32
        };
        let values: Vec<f32> = (0..n).map(|_| draw(self)).collect();
        Ok(Tensor::from_vec(values, n, device)?)
    }
}
