//! Gradient clipping by norm.

use crate::Result;
use crate::net::Params;
use candle_core::backprop::GradStore;

/// Scales the gradient of all trained parameters together down to a Euclidean norm of at most `most`, keeping
/// its direction (Pascanu et al., 2013).
///
/// # Errors
/// If tensors live on different devices.
pub(super) fn clip(grads: &mut GradStore, params: &Params, most: f64) -> Result<()> {
    let mut squares = 0.0;
    for (_, var) in params.vars() {
        if let Some(grad) = grads.get(var) {
            squares += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
    }
    let norm = squares.sqrt();
    // A NaN or infinite norm is left to the check of the loss.
    if norm.is_finite() && norm > most {
        for (_, var) in params.vars() {
            if let Some(grad) = grads.remove(var) {
                grads.insert(var, (grad * (most / norm))?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn long_gradients_are_shortened_together_and_short_ones_left_alone() {
        let mut params = Params::default();
        params.free("a", &Tensor::ones(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
        params.free("b", &Tensor::ones(1, DType::F32, &Device::Cpu).unwrap()).unwrap();
        // Gradients (3, 0) and 4: a joint norm of 5.
        let weights = Tensor::from_vec(vec![3.0f32, 0.0], 2, &Device::Cpu).unwrap();
        let loss = (params.get("a").unwrap() * weights).unwrap().sum_all().unwrap();
        let loss = (loss + (params.get("b").unwrap() * 4.0).unwrap().sum_all().unwrap()).unwrap();
        for (most, want) in [(10.0, [3.0, 0.0, 4.0]), (5.0, [3.0, 0.0, 4.0]), (1.0, [0.6, 0.0, 0.8])] {
            let mut grads = loss.backward().unwrap();
            clip(&mut grads, &params, most).unwrap();
            let got: Vec<f32> = params
                .vars()
                .flat_map(|(_, var)| grads.get(var).unwrap().to_vec1::<f32>().unwrap())
                .collect();
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{most}: {got:?}");
        }
    }
}
