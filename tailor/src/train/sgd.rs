//! Stochastic gradient descent with momentum and weight decay, as in PyTorch's `SGD`; Adam for masks.

use crate::Result;
use crate::net::Params;
use crate::ops;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use std::collections::BTreeMap;

/// `v = momentum v + (grad + decay w)`, `w = w - rate v`.
///
/// Alpha logits are not decayed (METHOD: a pull towards zero would be a pull towards diffuse gates).
///
/// Tensors whose names end in [`MASK`] are updated by Adam instead (Kingma & Ba, ICLR 2015; betas 0.9 and
/// 0.999, no decay) at [`MASK_RATE`] times the learning rate: the scores behind a binary mask matter only by
/// their sign relative to a threshold, and have gradients as small as the weights they mask.
#[derive(Debug, Clone)]
pub struct Sgd {
    momentum: f64,
    decay: f64,
    velocity: BTreeMap<String, Tensor>,
}

/// Suffix of tensors behind a binary mask.
pub const MASK: &str = ".mask";

/// Learning rate of masks relative to the others: Piggyback's 1e-4 next to the 1e-3 of its classifier.
pub const MASK_RATE: f64 = 0.1;

/// Adam's decay rates of both moments. [`ADAM_EPS`] is added to the root of the second.
const BETAS: [f64; 2] = [0.9, 0.999];
const ADAM_EPS: f64 = 1e-8;

impl Sgd {
    /// Without any velocity yet.
    pub fn new(momentum: f64, decay: f64) -> Sgd {
        Sgd { momentum, decay, velocity: BTreeMap::new() }
    }

    /// Velocities by tensor name, for a checkpoint.
    pub fn velocity(&self) -> &BTreeMap<String, Tensor> {
        &self.velocity
    }

    /// Restores velocities from a checkpoint.
    pub fn set_velocity(&mut self, velocity: BTreeMap<String, Tensor>) {
        self.velocity = velocity;
    }

    /// One step over every free tensor that has a gradient.
    ///
    /// # Errors
    /// If tensors live on different devices.
    pub fn step(&mut self, params: &Params, grads: &GradStore, rate: f64) -> Result<()> {
        for (name, var) in params.vars() {
            let Some(grad) = grads.get(var) else { continue };
            if name.ends_with(MASK) {
                self.adapt(name, var, grad, MASK_RATE * rate)?;
                continue;
            }
            let decay = if name.ends_with(".alpha") { 0.0 } else { self.decay };
            if !self.velocity.contains_key(name) {
                self.velocity.insert(name.to_string(), var.zeros_like()?.detach());
            }
            if let Some(velocity) = self.velocity.get_mut(name) {
                ops::sgd_step(var, grad, velocity, rate, self.momentum, decay)?;
            }
        }
        Ok(())
    }

    /// Adam: both moments and the step count are stored among the velocities, and so in checkpoints.
    fn adapt(&mut self, name: &str, var: &Var, grad: &Tensor, rate: f64) -> Result<()> {
        let [first, square, steps] = ["", "/square", "/steps"].map(|part| format!("{name}{part}"));
        let kept = |key: &str| self.velocity.get(key).cloned();
        let grad = grad.detach();
        let moment = |kept: Option<Tensor>, new: &Tensor, beta: f64| -> Result<Tensor> {
            let old = match kept {
                Some(old) => old,
                None => new.zeros_like()?,
            };
            Ok(((old * beta)? + (new * (1.0 - beta))?)?.detach())
        };
        let m = moment(kept(&first), &grad, BETAS[0])?;
        let v = moment(kept(&square), &grad.sqr()?, BETAS[1])?;
        let t = match kept(&steps) {
            Some(t) => t.to_vec1::<f32>()?.first().copied().unwrap_or(0.0) + 1.0,
            None => 1.0,
        };
        let [less, least] = BETAS.map(|beta| 1.0 - beta.powi(t as i32));
        let step = ((&m / less)? / ((&v / least)?.sqrt()? + ADAM_EPS)?)?;
        var.set(&(var.as_detached_tensor() - (step * rate)?)?)?;
        let t = Tensor::from_vec(vec![t], 1, var.device())?;
        self.velocity.extend([(first, m), (square, v), (steps, t)]);
        Ok(())
    }
}
