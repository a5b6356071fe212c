//! Finite differences on random shapes: the value of each operation equals the reference, and its gradient
//! along a direction equals the reference's slope in that direction, at every level this CPU supports.

use super::plain::{self, Array};
use super::{Rng, close};
use crate::ops::cpu::level::Level;
use crate::ops::{self, ProxyTrace};
use candle_core::{Device, Result, Tensor, Var};

/// Half the distance for a slope: curvature (STEP^2), rounding (1e-16 / STEP) and crossed ReLUs stay
/// negligible.
const STEP: f64 = 1e-7;
/// Relative to the sum of magnitudes in an `f32` gradient's product with a direction.
const TOLERANCE: f64 = 3e-5;
const EPS: f64 = 1e-5;

/// Compares `fast` with `plain`: values, slopes of the inputs in `trained`, and that no other input gets a
/// gradient.
fn agree(
    what: &str,
    rng: &mut Rng,
    inputs: &[Array],
    trained: &[usize],
    fast: impl Fn(&[Tensor]) -> Result<Tensor>,
    plain: impl Fn(&[Array]) -> Array,
) {
    let value = plain(inputs);
    let cotangent = Array::random(rng, &value.shape);
    let moved = |i: usize, direction: &[f64], by: f64| {
        let mut inputs = inputs.to_vec();
        inputs[i].values.iter_mut().zip(direction).for_each(|(v, d)| *v += by * d);
        plain(&inputs).values.iter().zip(&cotangent.values).map(|(y, c)| y * c).sum::<f64>()
    };
    let mut slopes = Vec::new();
    for &i in trained {
        let count = inputs[i].values.len();
        let mut directions = vec![Array::random(rng, &[count]).values, Array::random(rng, &[count]).values];
        for place in [0, count - 1, rng.below(count)] {
            directions.push((0..count).map(|at| if at == place { 1.0 } else { 0.0 }).collect());
        }
        for direction in directions {
            let slope = (moved(i, &direction, STEP) - moved(i, &direction, -STEP)) / (2.0 * STEP);
            slopes.push((i, direction, slope));
        }
    }
    let tensor = |a: &Array| {
        let values: Vec<f32> = a.values.iter().map(|v| *v as f32).collect();
        Tensor::from_vec(values, a.shape.as_slice(), &Device::Cpu)
    };
    let run = || -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let vars: Vec<Var> = inputs.iter().map(|a| Var::from_tensor(&tensor(a)?)).collect::<Result<_>>()?;
        let arguments: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = fast(&arguments)?;
        let grads = ops::backward(&(&y * tensor(&cotangent)?)?.sum_all()?)?;
        Ok((y, vars.iter().map(|v| grads.get(v).cloned()).collect()))
    };
    for level in Level::available() {
        let what = format!("{level:?}, {what}");
        let (y, grads) = level.force(run).unwrap();
        assert_eq!(y.dims(), value.shape, "{what}");
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        close(&what, &flat(&y), &value.values.iter().map(|v| *v as f32).collect::<Vec<_>>(), 1e-5);
        let given: Vec<usize> = (0..grads.len()).filter(|&i| grads[i].is_some()).collect();
        assert_eq!(given, trained, "{what}: inputs with a gradient");
        for (i, direction, slope) in &slopes {
            let grad = flat(grads[*i].as_ref().unwrap());
            let products = || grad.iter().zip(direction).map(|(g, d)| f64::from(*g) * d);
            let largest = grad.iter().fold(0f32, |a, g| a.max(g.abs()));
            let size = products().map(f64::abs).sum::<f64>().max(f64::from(largest)).max(1e-3);
            let along: f64 = products().sum();
            let far = (along - slope).abs() / size;
            assert!(far <= TOLERANCE, "{what}: input {i}: {along}, slope {slope}, {far:e} of {size}");
        }
    }
}

/// A number from `low` to `high`, inclusive.
fn between(rng: &mut Rng, low: usize, high: usize) -> usize {
    low + rng.below(high - low + 1)
}

#[test]
fn convolution() {
    let rng = &mut Rng::new(30);
    // n, c_in, h, w, c_out, k, stride, pad: cases that random draws would rarely produce.
    let mut cases = vec![
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 3, 15, 18, 9, 7, 2, 3],
        [2, 3, 33, 31, 17, 7, 2, 3],
        [1, 17, 8, 8, 23, 1, 2, 0],
        [41, 5, 3, 3, 11, 3, 1, 1],
        [37, 9, 4, 5, 7, 3, 2, 1],
        [19, 13, 1, 1, 9, 1, 1, 0],
        [23, 6, 2, 7, 10, 1, 2, 0],
        [3, 4, 3, 3, 5, 3, 3, 2],
        [2, 2, 4, 4, 3, 1, 1, 1],
        [2, 2, 5, 6, 3, 2, 3, 1],
        [6, 91, 4, 4, 90, 3, 1, 1],
        [5, 90, 5, 4, 93, 3, 2, 1],
        [3, 260, 3, 3, 270, 1, 1, 0],
    ];
    while cases.len() < 80 {
        let (k, stride, pad) = (between(rng, 1, 7), between(rng, 1, 3), between(rng, 0, 3));
        let (h, w) = (between(rng, 1, 17), between(rng, 1, 35));
        if h.min(w) + 2 * pad >= k {
            let n = if h * w < 60 { between(rng, 1, 40) } else { between(rng, 1, 5) };
            cases.push([n, between(rng, 1, 10), h, w, between(rng, 1, 19), k, stride, pad]);
        }
    }
    for [n, c_in, h, w, c_out, k, stride, pad] in cases {
        let inputs = [Array::random(rng, &[n, c_in, h, w]), Array::random(rng, &[c_out, c_in, k, k])];
        let what =
            format!("conv2d x {:?}, w {:?}, stride {stride}, pad {pad}", inputs[0].shape, inputs[1].shape);
        let plain = |x: &[Array]| plain::conv2d(&x[0], &x[1], stride, pad);
        agree(&what, rng, &inputs, &[0, 1], |x| ops::conv2d(&x[0], &x[1], stride, pad, false), plain);
        if k % 2 == 1 {
            agree(&what, rng, &inputs, &[0], |x| ops::conv2d(&x[0], &x[1], stride, pad, true), plain);
        }
    }
}

#[test]
fn normalisation() {
    let rng = &mut Rng::new(31);
    for round in 0..30 {
        let (h, w) = (between(rng, 1, 9), between(rng, 1, 40));
        let c = between(rng, 1, 19);
        // A variance needs two values.
        let n = between(rng, if h * w == 1 { 3 } else { 1 }, 12);
        let relu = round % 2 == 1;
        let inputs = [Array::random(rng, &[n, c, h, w]), Array::random(rng, &[c]), Array::random(rng, &[c])];
        let what = format!("x {:?}, relu {relu}", inputs[0].shape);
        let plain = |x: &[Array]| plain::batch_norm(&x[0], &x[1], &x[2], EPS, relu);
        for (frozen, trained) in [(false, &[0, 1, 2][..]), (true, &[0])] {
            let fast = |x: &[Tensor]| Ok(ops::batch_norm(&x[0], &x[1], &x[2], EPS, relu, frozen)?.y);
            agree(&format!("batch_norm {what}, frozen {frozen}"), rng, &inputs, trained, fast, plain);
        }
        agree(
            &format!("affine {what}"),
            rng,
            &inputs,
            &[0],
            |x| ops::affine(&x[0], &x[1], &x[2], relu),
            |x| plain::affine(&x[0], &x[1], &x[2], relu),
        );
    }
}

#[test]
fn pooling() {
    let rng = &mut Rng::new(32);
    for _ in 0..40 {
        let (k, stride) = (between(rng, 1, 9), between(rng, 1, 8));
        let pad = between(rng, 0, k / 2);
        let shape = [between(rng, 1, 7), between(rng, 1, 11), between(rng, k, 19), between(rng, k, 23)];
        let x = [Array::random(rng, &shape)];
        let what = format!("x {shape:?}, kernel {k}, stride {stride}, pad {pad}");
        let (fast, slow) = (
            |x: &[Tensor]| ops::max_pool2d(&x[0], k, stride, pad),
            |x: &[Array]| plain::max_pool2d(&x[0], k, stride, pad),
        );
        agree(&format!("max_pool2d {what}"), rng, &x, &[0], fast, slow);
        let (fast, slow) = (
            |x: &[Tensor]| ops::avg_pool2d(&x[0], k, stride),
            |x: &[Array]| plain::avg_pool2d(&x[0], k, stride),
        );
        agree(&format!("avg_pool2d {what}"), rng, &x, &[0], fast, slow);
        let (fast, slow) =
            (|x: &[Tensor]| ops::subsample(&x[0], stride), |x: &[Array]| plain::subsample(&x[0], stride));
        agree(&format!("subsample {what}"), rng, &x, &[0], fast, slow);
        let (fast, slow) = (
            |x: &[Tensor]| ops::pad_channels(&x[0], pad, k),
            |x: &[Array]| plain::pad_channels(&x[0], pad, k),
        );
        agree(&format!("pad_channels {what}"), rng, &x, &[0], fast, slow);
        let (fast, slow) =
            (|x: &[Tensor]| ops::global_avg_pool(&x[0]), |x: &[Array]| plain::global_avg_pool(&x[0]));
        agree(&format!("global_avg_pool {what}"), rng, &x, &[0], fast, slow);
    }
}

#[test]
fn gates() {
    let rng = &mut Rng::new(33);
    for round in 0..30 {
        let shape = [between(rng, 1, 5), between(rng, 1, 9), between(rng, 1, 9), between(rng, 1, 70)];
        let count = between(rng, 1, 6);
        let gates: Vec<Option<usize>> =
            (0..count).map(|i| if rng.below(5) == 0 { None } else { Some(i / 2) }).collect();
        let gated = gates.iter().any(Option::is_some);
        let mut inputs: Vec<Array> = (0..count).map(|_| Array::random(rng, &shape)).collect();
        inputs.push(Array::random(rng, &[4]));
        let relu = round % 2 == 0;
        let trained: Vec<usize> = (0..count + usize::from(gated)).collect();
        agree(
            &format!("gated_sum x {shape:?}, gates {gates:?}, relu {relu}"),
            rng,
            &inputs,
            &trained,
            |x| ops::gated_sum(&x[..count], &gates, gated.then_some(&x[count]), relu),
            |x| plain::gated_sum(&x[..count], &gates, &x[count], relu),
        );
    }
}

#[test]
fn losses() {
    let rng = &mut Rng::new(34);
    for round in 0..20 {
        let (n, classes) = (between(rng, 1, 40), between(rng, 2, 50));
        let labels: Vec<u32> = (0..n).map(|_| rng.below(classes) as u32).collect();
        let smoothing = [0.0, 0.1, 0.5][round % 3];
        let tensor = Tensor::from_vec(labels.clone(), n, &Device::Cpu).unwrap();
        let logits = [Array::random(rng, &[n, classes])];
        agree(
            &format!("cross_entropy ({n}, {classes}), smoothing {smoothing}"),
            rng,
            &logits,
            &[0],
            |x| ops::cross_entropy(&x[0], &tensor, smoothing),
            |x| plain::cross_entropy(&x[0], &labels, smoothing),
        );
        let answers = [Array::random(rng, &[n, classes]), Array::random(rng, &[n, classes])];
        let temperature = [1.0, 2.0, 4.0][round % 3];
        agree(
            &format!("soft_cross_entropy ({n}, {classes}), temperature {temperature}"),
            rng,
            &answers,
            &[0],
            |x| ops::soft_cross_entropy(&x[0], &x[1], temperature),
            |x| plain::soft_cross_entropy(&x[0], &x[1], temperature),
        );
        let shape = [n, classes, between(rng, 1, 9), between(rng, 1, 9)];
        let pair = [Array::random(rng, &shape), Array::random(rng, &shape)];
        agree(
            &format!("mse {shape:?}"),
            rng,
            &pair,
            &[0],
            |x| ops::mse(&x[0], &x[1]),
            |x| plain::mse(&x[0], &x[1]),
        );
    }
}

/// Inputs of a cell: target, block terms, then input, kernel, norm weight and norm bias of each proxy, and
/// finally the gates.
#[test]
fn local_matching() {
    let rng = &mut Rng::new(35);
    for round in 0..24 {
        let (relu, terms, proxies) = (round % 2 == 0, round % 3, (round / 3) % 4);
        if terms + proxies == 0 {
            continue;
        }
        let (n, c) = (between(rng, 2, 11), between(rng, 1, 19));
        let (h, w) = (between(rng, 1, 7), between(rng, 2, 9));
        let mut inputs: Vec<Array> = (0..=terms).map(|_| Array::random(rng, &[n, c, h, w])).collect();
        let mut trained = Vec::new();
        for _ in 0..proxies {
            let c_in = between(rng, 1, 13);
            trained.extend([1, 2, 3].map(|i| inputs.len() + i));
            inputs.push(Array::random(rng, &[n, c_in, h, w]));
            inputs.push(Array::random(rng, &[c, c_in, 1, 1]));
            inputs.extend([Array::random(rng, &[c]), Array::random(rng, &[c])]);
        }
        let first = usize::from(terms > 0);
        let last = inputs.len();
        trained.push(last);
        inputs.push(Array::random(rng, &[first + proxies]));
        let gates: Vec<Option<usize>> =
            std::iter::repeat_n(0, terms).chain(first..first + proxies).map(Some).collect();
        let fast = |x: &[Tensor]| {
            let block: Vec<Tensor> = x[1..=terms].iter().map(Tensor::detach).collect();
            let (mut sum, mut traces) = (block.clone(), Vec::new());
            for (p, x) in x[1 + terms..last].chunks(4).enumerate() {
                let conv_out = ops::conv2d(&x[0], &x[1], 1, 0, false)?;
                let norm = ops::batch_norm(&conv_out, &x[2], &x[3], EPS, false, false)?;
                sum.push(norm.y);
                traces.push(ProxyTrace {
                    pooled: x[0].clone(),
                    conv_out,
                    weight: x[1].clone(),
                    norm_weight: x[2].clone(),
                    norm_bias: x[3].clone(),
                    mean: norm.mean,
                    var: norm.var,
                    eps: EPS,
                    gate: first + p,
                });
            }
            let y = ops::gated_sum(&sum, &gates, Some(&x[last]), relu)?;
            ops::local_match(&y, &x[0], relu, &block, 0, &traces, &x[last])
        };
        let slow = |x: &[Array]| {
            let mut sum = x[1..=terms].to_vec();
            for x in x[1 + terms..last].chunks(4) {
                let conv_out = plain::conv2d(&x[0], &x[1], 1, 0);
                sum.push(plain::batch_norm(&conv_out, &x[2], &x[3], EPS, false));
            }
            plain::mse(&plain::gated_sum(&sum, &gates, &x[last], relu), &x[0])
        };
        let what =
            format!("local_match {:?}, {terms} block terms, {proxies} proxies, relu {relu}", [n, c, h, w]);
        agree(&what, rng, &inputs, &trained, fast, slow);
    }
}
