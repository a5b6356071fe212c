//! Nodes in candle's graph: many arguments, trained tensors in several places, gradients requested the wrong
//! way.

use super::{Rng, close_tensors};
use crate::ops::{self, stock};
use candle_core::{Tensor, Var};

/// Computed terms are attached to carriers: four to eleven tensors, including alpha.
#[test]
fn a_sum_of_many_computed_terms_has_all_gradients() {
    let mut rng = Rng::new(40);
    for count in 3..=10 {
        let logits = rng.var(&[3]);
        let vars: Vec<Var> = (0..count).map(|_| rng.var(&[2, 3, 4, 5])).collect();
        let gates: Vec<Option<usize>> =
            (0..count).map(|i| [Some(0), Some(2), None, Some(1)][i % 4]).collect();
        let cotangent = rng.var(&[2, 3, 4, 5]).as_detached_tensor();
        let grads = |sum: &dyn Fn(&[Tensor], &Tensor) -> candle_core::Result<Tensor>| {
            let terms: Vec<Tensor> = vars.iter().map(|v| (v.as_tensor() * 1.5).unwrap()).collect();
            let y = sum(&terms, &ops::softmax(&logits).unwrap()).unwrap();
            ops::backward(&(y * &cotangent).unwrap().sum_all().unwrap()).unwrap()
        };
        let fast = grads(&|terms, alpha| ops::gated_sum(terms, &gates, Some(alpha), true));
        let slow = grads(&|terms, alpha| stock::gated_sum(terms, &gates, Some(alpha), true));
        for (i, var) in vars.iter().chain([&logits]).enumerate() {
            let (fast, slow) = (fast.get(var).unwrap(), slow.get(var).unwrap());
            close_tensors(&format!("{count} terms: gradient {i}"), fast, slow, 1e-5);
        }
    }
}

#[test]
fn a_trained_tensor_has_the_sum_of_what_all_its_places_give() {
    let mut rng = Rng::new(41);
    let var = rng.var(&[1, 2, 4, 4]);
    // Twice in one node, once in another, once in one of candle's operations.
    let twice =
        ops::gated_sum(&[var.as_tensor().clone(), var.as_tensor().clone()], &[None, None], None, false);
    let pooled = ops::avg_pool2d(&var, 2, 2).unwrap().sum_all().unwrap();
    let sum = (twice.unwrap().sum_all().unwrap() + pooled).unwrap();
    let loss = (sum + (var.as_tensor() * 3.0).unwrap().sum_all().unwrap()).unwrap();
    let grads = ops::backward(&loss).unwrap();
    let want = Tensor::full(2f32 + 0.25 + 3.0, (1, 2, 4, 4), var.device()).unwrap();
    close_tensors("gradient", grads.get(&var).unwrap(), &want, 1e-6);
}

#[test]
fn gradients_outside_ops_backward_are_refused() {
    let var = Rng::new(42).var(&[1, 2, 4, 4]);
    let loss = || ops::avg_pool2d(&var, 2, 2).unwrap().sum_all().unwrap();
    let error = loss().backward().unwrap_err().to_string();
    assert!(error.contains("ops::backward"), "{error}");
    assert!(ops::backward(&loss()).is_ok());
    assert!(loss().backward().is_err(), "collecting went on");
}

#[test]
fn known_slopes_are_gradients() {
    let (a, b) = (Rng::new(43).var(&[2]), Rng::new(44).var(&[3]));
    let slopes = [vec![0.5, -2.0], vec![1.0, 0.0, 4.0]];
    let y = ops::scalar("known", &[a.as_tensor(), b.as_tensor()], 7.0, &slopes).unwrap();
    assert_eq!(y.to_scalar::<f32>().unwrap(), 7.0);
    let grads = ops::backward(&(y * 2.0).unwrap()).unwrap();
    assert_eq!(grads.get(&a).unwrap().to_vec1::<f32>().unwrap(), [1.0, -4.0]);
    assert_eq!(grads.get(&b).unwrap().to_vec1::<f32>().unwrap(), [2.0, 0.0, 8.0]);
    let error = ops::scalar("known", &[a.as_tensor()], 7.0, &slopes).unwrap_err().to_string();
    assert!(error.contains("known: [2, 3] slopes"), "{error}");
}
