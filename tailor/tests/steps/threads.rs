//! A training step is the same, bit for bit, on any number of threads.

use crate::cases::{Case, Kind};
use crate::networks;
use tailor::net::Formula;

/// Bits of every number after one step on `threads` threads.
fn after_a_step(case: Case, threads: usize) -> Vec<(String, Vec<u32>)> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut training = case.start();
        let loss = training.loss(&networks::batch(0, 0, case.size));
        let grads = tailor::ops::backward(&loss.total).unwrap();
        training.update(loss, &grads, 0.05);
        let bits = |t: &candle_core::Tensor| {
            let values: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        training.params.iter().map(|(name, t)| (name.to_string(), bits(t))).collect()
    })
}

#[test]
fn a_step_does_not_depend_on_the_number_of_threads() {
    let student =
        |free_norms, local| Kind::Student { free_norms, local, formula: Formula::Product, cut: &[] };
    // Full width: the kernels split large weights by channel, small ones by image.
    let cases = [
        ("cifar-resnet8-b", 32, student(false, true)),
        ("cifar-resnet8-b", 20, student(true, false)),
        ("resnet18-s2", 32, Kind::Teacher),
        ("wrn10-1", 32, Kind::Teacher),
    ];
    for (arch, size, kind) in cases {
        let case = Case { arch, width: (1, 1), size, smoothing: 0.1, kind };
        let one = after_a_step(case, 1);
        for threads in [2, 3, 5] {
            for ((name, one), (other, many)) in one.iter().zip(after_a_step(case, threads)) {
                assert_eq!(*name, other);
                assert!(*one == many, "{arch}, {kind:?}: {name} differs with {threads} threads");
            }
        }
    }
}
