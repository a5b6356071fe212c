//! Stochastic gradient descent with momentum and weight decay, as PyTorch's `SGD` defines it.

use crate::Result;
use crate::net::Params;
use crate::ops;
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use std::collections::BTreeMap;

/// `v = momentum v + (grad + decay w)`, `w = w - rate v`.
///
/// Alpha logits never decay (METHOD: a pull towards zero would be a pull towards diffuse gates).
#[derive(Debug, Clone)]
pub struct Sgd {
    momentum: f64,
    decay: f64,
    velocity: BTreeMap<String, Tensor>,
}

impl Sgd {
    /// Without any velocity yet.
    pub fn new(momentum: f64, decay: f64) -> Sgd {
        Sgd { momentum, decay, velocity: BTreeMap::new() }
    }

    /// Velocities by tensor name, for a checkpoint.
    pub fn velocity(&self) -> &BTreeMap<String, Tensor> {
        &self.velocity
    }

    /// Takes velocities back from a checkpoint.
    pub fn set_velocity(&mut self, velocity: BTreeMap<String, Tensor>) {
        self.velocity = velocity;
    }

    /// One step over every free tensor that has a gradient.
    ///
    /// # Errors
    /// When tensors live on different devices.
    pub fn step(&mut self, params: &Params, grads: &GradStore, rate: f64) -> Result<()> {
        for (name, var) in params.vars() {
            let Some(grad) = grads.get(var) else { continue };
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
}
