//! Values and gradients of the public functions against the stock compositions, through candle's autograd.

use super::{Rng, close_tensors};
use crate::ops::cpu::level::Level;
use crate::ops::{self, stock};
use candle_core::{Device, Result, Tensor, Var};

/// Compares value and gradients (weighted by a random cotangent) of two functions of the same variables.
fn agree(
    what: &str,
    rng: &mut Rng,
    vars: &[Var],
    fast: impl Fn(&[Var]) -> Result<Tensor>,
    slow: impl Fn(&[Var]) -> Result<Tensor>,
) {
    let (a, b) = (fast(vars).unwrap(), slow(vars).unwrap());
    close_tensors(&format!("{what}: value"), &a, &b, 3e-5);
    let cotangent = rng.var(a.dims());
    let grads = |y: &Tensor| {
        ops::backward(&(y * cotangent.as_detached_tensor()).unwrap().sum_all().unwrap()).unwrap()
    };
    let (a, b) = (grads(&a), grads(&b));
    for (i, var) in vars.iter().enumerate() {
        match (a.get(var), b.get(var)) {
            (Some(a), Some(b)) => close_tensors(&format!("{what}: gradient {i}"), a, b, 1e-4),
            (a, b) => assert_eq!(a.is_some(), b.is_some(), "{what}: gradient {i} of only one"),
        }
    }
}

#[test]
fn convolution() {
    let mut rng = Rng::new(10);
    for (stride, pad, k) in [(1, 1, 3), (2, 1, 3), (1, 0, 1)] {
        let vars = [rng.var(&[3, 5, 10, 10]), rng.var(&[7, 5, k, k])];
        let fast = |v: &[Var]| ops::conv2d(&v[0], &v[1], stride, pad, false);
        agree("conv2d", &mut rng, &vars, fast, |v| stock::conv2d(&v[0], &v[1], stride, pad));
    }
    let vars = [rng.var(&[2, 3, 8, 8]), rng.var(&[4, 3, 3, 3])];
    let y = ops::conv2d(&vars[0], &vars[1], 1, 1, true).unwrap();
    let grads = ops::backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
    assert!(grads.get(&vars[0]).is_some() && grads.get(&vars[1]).is_none(), "a frozen kernel got a gradient");
}

#[test]
fn normalisation() {
    let mut rng = Rng::new(11);
    let vars = [rng.var(&[4, 6, 5, 5]), rng.var(&[6]), rng.var(&[6])];
    for relu in [false, true] {
        let fast = |v: &[Var]| ops::batch_norm(&v[0], &v[1], &v[2], 1e-5, relu, false).map(|o| o.y);
        let slow = |v: &[Var]| stock::batch_norm(&v[0], &v[1], &v[2], 1e-5, relu).map(|o| o.y);
        agree("batch_norm", &mut rng, &vars, fast, slow);
        let fixed = |v: &[Var]| (v[1].as_detached_tensor(), v[2].as_detached_tensor());
        let fast = |v: &[Var]| ops::batch_norm(&v[0], &v[1], &v[2], 1e-5, relu, true).map(|o| o.y);
        let slow = |v: &[Var]| stock::batch_norm(&v[0], &fixed(v).0, &fixed(v).1, 1e-5, relu).map(|o| o.y);
        agree("batch_norm frozen", &mut rng, &vars, fast, slow);
        let fast = |v: &[Var]| ops::affine(&v[0], &v[1], &v[2], relu);
        let slow = |v: &[Var]| stock::affine(&v[0], &fixed(v).0, &fixed(v).1, relu);
        agree("affine", &mut rng, &vars, fast, slow);
    }
    let (a, b) = (
        ops::batch_norm(&vars[0], &vars[1], &vars[2], 1e-5, true, false).unwrap(),
        stock::batch_norm(&vars[0], &vars[1], &vars[2], 1e-5, true).unwrap(),
    );
    close_tensors("mean", &a.mean, &b.mean, 1e-6);
    close_tensors("var", &a.var, &b.var, 1e-5);
}

#[test]
fn no_gradient_is_lost_in_a_window_of_nan() {
    for level in Level::available() {
        level.force(|| {
            let mut x = vec![f32::NAN; 16];
            x[15] = 1.0;
            let x = Var::from_vec(x, (1, 1, 4, 4), &Device::Cpu).unwrap();
            let sum = ops::max_pool2d(&x, 2, 2, 0).unwrap().sum_all().unwrap();
            let grads = ops::backward(&sum).unwrap();
            let given: Vec<f32> = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let mut want = vec![0.0; 16];
            // The first element of each window, except for the window that has a maximum.
            [0, 2, 8, 15].into_iter().for_each(|at| want[at] = 1.0);
            assert_eq!(given, want, "{level:?}");
        });
    }
}

#[test]
fn pooling() {
    let mut rng = Rng::new(12);
    for (kernel, stride, pad) in [(3, 2, 1), (5, 4, 2), (2, 2, 0), (3, 1, 1), (9, 8, 4)] {
        let vars = [rng.var(&[2, 3, 16, 13])];
        let fast = |v: &[Var]| ops::max_pool2d(&v[0], kernel, stride, pad);
        agree("max_pool2d", &mut rng, &vars, fast, |v| stock::max_pool2d(&v[0], kernel, stride, pad));
        let fast = |v: &[Var]| ops::avg_pool2d(&v[0], kernel, stride);
        agree("avg_pool2d", &mut rng, &vars, fast, |v| stock::avg_pool2d(&v[0], kernel, stride));
        agree(
            "subsample",
            &mut rng,
            &vars,
            |v| ops::subsample(&v[0], stride),
            |v| stock::subsample(&v[0], stride),
        );
    }
}

#[test]
fn gates() {
    let mut rng = Rng::new(13);
    let shape = [3, 4, 6, 5];
    let vars = [rng.var(&[3]), rng.var(&shape), rng.var(&shape), rng.var(&shape), rng.var(&shape)];
    let cases: [&[Option<usize>]; 6] = [
        &[None],
        &[Some(2)],
        &[None, None],
        &[Some(0), Some(0), Some(1)],
        &[Some(0), Some(0), Some(1), Some(2)],
        &[None, Some(1), None, Some(2)],
    ];
    for gates in cases {
        for relu in [false, true] {
            let alpha = gates.iter().any(Option::is_some);
            let terms = |v: &[Var]| -> Vec<Tensor> {
                v[1..=gates.len()].iter().map(|v| v.as_tensor().clone()).collect()
            };
            let fast = |v: &[Var]| ops::gated_sum(&terms(v), gates, alpha.then_some(v[0].as_tensor()), relu);
            let slow =
                |v: &[Var]| stock::gated_sum(&terms(v), gates, alpha.then_some(v[0].as_tensor()), relu);
            agree(&format!("gated_sum {gates:?} relu {relu}"), &mut rng, &vars, fast, slow);
        }
    }
}

#[test]
fn losses() {
    let mut rng = Rng::new(14);
    let vars = [rng.var(&[5, 7])];
    let target = rng.var(&[5, 7]);
    agree("mse", &mut rng, &vars, |v| ops::mse(&v[0], &target), |v| stock::mse(&v[0], &target));
    let labels = Tensor::from_vec(vec![0u32, 6, 3, 3, 1], 5, vars[0].device()).unwrap();
    for smoothing in [0., 0.1] {
        // Cross-entropy from its definition: minus the sum of target times log-probability.
        let slow = |v: &[Var]| {
            let log_p = candle_nn::ops::log_softmax(&v[0], 1)?;
            let hot = Tensor::eye(7, candle_core::DType::F32, v[0].device())?.index_select(&labels, 0)?;
            let target = ((hot * (1. - smoothing))? + smoothing / 7.)?;
            (log_p * target)?.sum_all()? / -5.
        };
        agree("cross_entropy", &mut rng, &vars, |v| ops::cross_entropy(&v[0], &labels, smoothing), slow);
    }
}

/// The fused operation is bit-identical to its two parts in values, statistics and gradients, with and
/// without frozen parts.
#[test]
fn conv_norm_equals_convolution_then_norm() {
    let mut rng = Rng::new(14);
    let bits = |t: &Tensor| -> Vec<u32> {
        t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
    };
    for (c_in, k, stride, pad) in [(5, 3, 1, 1), (32, 3, 1, 1), (5, 3, 2, 1), (5, 1, 1, 0)] {
        for frozen in [(false, false), (true, true), (true, false), (false, true)] {
            for relu in [false, true] {
                let vars =
                    [rng.var(&[3, c_in, 9, 9]), rng.var(&[17, c_in, k, k]), rng.var(&[17]), rng.var(&[17])];
                let [x, kernel, weight, bias] = &vars;
                let of = ops::ConvNorm {
                    kernel,
                    stride,
                    pad,
                    frozen_kernel: frozen.0,
                    weight,
                    bias,
                    eps: 1e-5,
                    relu,
                    frozen_affine: frozen.1,
                };
                let one = ops::conv_norm(x, of).unwrap();
                let z = ops::conv2d(x, kernel, stride, pad, frozen.0).unwrap();
                let two = ops::batch_norm(&z, weight, bias, 1e-5, relu, frozen.1).unwrap();
                let pairs = [
                    (&one.conv_out, &z),
                    (&one.norm.y, &two.y),
                    (&one.norm.mean, &two.mean),
                    (&one.norm.var, &two.var),
                ];
                for (a, b) in pairs {
                    assert_eq!(bits(a), bits(b), "{of:?}");
                }
                let cotangent = rng.var(two.y.dims());
                let grads = |y: &Tensor| {
                    ops::backward(&(y * cotangent.as_detached_tensor()).unwrap().sum_all().unwrap()).unwrap()
                };
                let (a, b) = (grads(&one.norm.y), grads(&two.y));
                for (i, var) in vars.iter().enumerate() {
                    assert_eq!(a.get(var).map(bits), b.get(var).map(bits), "gradient {i}, {of:?}");
                }
            }
        }
    }
}
