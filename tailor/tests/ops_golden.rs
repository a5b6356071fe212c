//! Values and gradients of every operation against PyTorch's (`fixtures/ops.py` makes the figures), both for
//! the CPU kernels and for the stock compositions other devices use.

#[path = "steps/device.rs"]
mod device;

use candle_core::{DType, Result, Tensor, Var};
use std::collections::HashMap;
use tailor::ops::{self, ProxyTrace, stock};

type Figures = HashMap<String, Tensor>;
type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

fn figures() -> Figures {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/ops.safetensors");
    candle_core::safetensors::load(path, device::device()).unwrap()
}

#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "{what}: shape");
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (got, want) = (flat(got), flat(want));
    let scale = want.iter().fold(1e-2f32, |a, b| a.max(b.abs()));
    let worst = got.iter().zip(&want).fold(0f32, |a, (g, w)| a.max((g - w).abs()));
    assert!(worst <= 2e-5 * scale, "{what}: {worst} off PyTorch's values of magnitude {scale}");
}

/// Runs `function` on the case's inputs and compares value and every gradient.
fn check(figures: &Figures, case: &str, function: &Function) {
    let inputs: Vec<Tensor> = (0..).map_while(|i| figures.get(&format!("{case}/in/{i}")).cloned()).collect();
    assert!(!inputs.is_empty(), "no case {case:?} in the fixture");
    let vars: Vec<Option<Var>> = (0..inputs.len())
        .map(|i| {
            figures.contains_key(&format!("{case}/grad/{i}")).then(|| Var::from_tensor(&inputs[i]).unwrap())
        })
        .collect();
    let arguments: Vec<Tensor> =
        vars.iter().zip(&inputs).map(|(v, x)| v.as_ref().map_or(x, |v| v.as_tensor()).clone()).collect();
    let out = function(&arguments).unwrap();
    close(case, &out, &figures[&format!("{case}/out")]);
    let grads =
        ops::backward(&(out * &figures[&format!("{case}/cotangent")]).unwrap().sum_all().unwrap()).unwrap();
    for (i, var) in vars.iter().enumerate() {
        if let Some(var) = var {
            let got = grads.get(var).unwrap_or_else(|| panic!("{case}: no gradient for input {i}"));
            close(&format!("{case}: gradient {i}"), got, &figures[&format!("{case}/grad/{i}")]);
        }
    }
}

fn gated(x: &[Tensor]) -> (Vec<Tensor>, [Option<usize>; 3]) {
    (x[..3].to_vec(), [Some(0), Some(0), Some(1)])
}

/// The cell of the fixture: its traces, its block terms, its gates and its output.
fn cell(x: &[Tensor], relu: bool) -> Result<(Vec<ProxyTrace>, Vec<Tensor>, Tensor, Tensor)> {
    let alpha = candle_nn::ops::softmax(&x[11], 0)?;
    let mut traces = Vec::new();
    let (mut terms, mut gates) = (vec![x[1].clone(), x[2].clone()], vec![Some(0), Some(0)]);
    for (gate, at) in [(1, 3), (2, 7)] {
        let conv_out = ops::conv2d(&x[at], &x[at + 1], 1, 0, false)?;
        let norm = ops::batch_norm(&conv_out, &x[at + 2], &x[at + 3], 1e-5, false, false)?;
        terms.push(norm.y);
        gates.push(Some(gate));
        traces.push(ProxyTrace {
            pooled: x[at].clone(),
            conv_out,
            weight: x[at + 1].clone(),
            norm_weight: x[at + 2].clone(),
            norm_bias: x[at + 3].clone(),
            mean: norm.mean,
            var: norm.var,
            eps: 1e-5,
            gate,
        });
    }
    let y = ops::gated_sum(&terms, &gates, Some(&alpha), relu)?;
    Ok((traces, vec![x[1].clone(), x[2].clone()], alpha, y))
}

#[test]
fn every_operation_agrees_with_pytorch() {
    let figures = figures();
    let mut cases: Vec<(String, Function, Function)> = Vec::new();
    for (k, stride, pad) in [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (7, 2, 3), (5, 1, 2)] {
        cases.push((
            format!("conv2d k{k} s{stride} p{pad}"),
            Box::new(move |x| ops::conv2d(&x[0], &x[1], stride, pad, false)),
            Box::new(move |x| stock::conv2d(&x[0], &x[1], stride, pad)),
        ));
    }
    for (relu, word) in [(false, "False"), (true, "True")] {
        cases.push((
            format!("batch_norm relu={word}"),
            Box::new(move |x| Ok(ops::batch_norm(&x[0], &x[1], &x[2], 1e-5, relu, false)?.y)),
            Box::new(move |x| Ok(stock::batch_norm(&x[0], &x[1], &x[2], 1e-5, relu)?.y)),
        ));
        cases.push((
            format!("affine relu={word}"),
            Box::new(move |x| ops::affine(&x[0], &x[1], &x[2], relu)),
            Box::new(move |x| stock::affine(&x[0], &x[1], &x[2], relu)),
        ));
        cases.push((
            format!("gated_sum relu={word}"),
            Box::new(move |x| ops::gated_sum(&gated(x).0, &gated(x).1, Some(&x[3]), relu)),
            Box::new(move |x| stock::gated_sum(&gated(x).0, &gated(x).1, Some(&x[3]), relu)),
        ));
        cases.push((
            format!("local_match relu={word}"),
            Box::new(move |x| {
                let (traces, block, alpha, y) = cell(x, relu)?;
                ops::local_match(&y, &x[0], relu, &block, 0, &traces, &alpha)
            }),
            Box::new(move |x| {
                let (traces, block, alpha, _) = cell(x, relu)?;
                stock::local_match(&x[0], relu, &block, 0, &traces, &alpha)
            }),
        ));
    }
    for (k, s) in [(2, 2), (3, 2)] {
        cases.push((
            format!("avg_pool2d k{k} s{s}"),
            Box::new(move |x| ops::avg_pool2d(&x[0], k, s)),
            Box::new(move |x| stock::avg_pool2d(&x[0], k, s)),
        ));
    }
    cases.push((
        "subsample s2".into(),
        Box::new(|x| ops::subsample(&x[0], 2)),
        Box::new(|x| stock::subsample(&x[0], 2)),
    ));
    cases.push(("mse".into(), Box::new(|x| ops::mse(&x[0], &x[1])), Box::new(|x| stock::mse(&x[0], &x[1]))));
    for (case, fast, stock) in &cases {
        check(&figures, case, fast);
        check(&figures, case, stock);
    }
}

#[test]
fn operations_of_one_form_agree_with_pytorch() {
    let figures = figures();
    for (k, s, p) in [(3, 2, 1), (5, 4, 2), (2, 2, 0)] {
        let case = format!("max_pool2d k{k} s{s} p{p}");
        let pool: Function = Box::new(move |x| ops::max_pool2d(&x[0], k, s, p));
        check(&figures, &case, &pool);
        let pool: Function = Box::new(move |x| stock::max_pool2d(&x[0], k, s, p));
        check(&figures, &case, &pool);
    }
    let mean: Function = Box::new(|x| ops::global_avg_pool(&x[0]));
    check(&figures, "global_avg_pool", &mean);
    let pad: Function = Box::new(|x| ops::pad_channels(&x[0], 2, 3));
    check(&figures, "pad_channels", &pad);
    for smoothing in [0.0, 0.1] {
        let entropy: Function = Box::new(move |x| ops::cross_entropy(&x[0], &x[1], smoothing));
        check(&figures, &format!("cross_entropy smoothing={smoothing:?}"), &entropy);
    }
}

#[test]
fn running_statistics_agree_with_pytorch() {
    let figures = figures();
    let x = &figures["statistics/in/0"];
    let (one, zero) =
        (Tensor::ones(5, DType::F32, x.device()).unwrap(), Tensor::zeros(5, DType::F32, x.device()).unwrap());
    for out in [
        ops::batch_norm(x, &one, &zero, 1e-5, false, true).unwrap(),
        stock::batch_norm(x, &one, &zero, 1e-5, false).unwrap(),
    ] {
        close("mean", &out.mean, &figures["statistics/mean"]);
        close("var", &out.var, &figures["statistics/var"]);
    }
}

#[test]
fn three_steps_of_sgd_agree_with_pytorch() {
    let figures = figures();
    let parameter = Var::from_tensor(&figures["sgd/parameter"]).unwrap();
    let mut velocity = parameter.zeros_like().unwrap();
    for step in 0..3 {
        let gradient = &figures[&format!("sgd/gradient/{step}")];
        ops::sgd_step(&parameter, gradient, &mut velocity, 0.1, 0.9, 5e-4).unwrap();
    }
    close("parameter", parameter.as_tensor(), &figures["sgd/after"]);
}

/// What PyTorch's figures leave out, beside compositions of candle's operations on the same device: more
/// terms than one kernel takes, terms without a gate, one term alone, softmax.
#[test]
fn sums_of_any_length_agree_with_the_compositions() {
    let random = |shape: &[usize], seed: usize| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> =
            (0..count).map(|i| ((i * 37 + seed * 101) % 97) as f32 / 48.5 - 0.99).collect();
        Var::from_tensor(&Tensor::from_vec(values, shape, device::device()).unwrap()).unwrap()
    };
    for count in [1, 2, 7, 8, 9, 15, 16, 23] {
        for relu in [false, true] {
            let logits = random(&[11], 99);
            let vars: Vec<Var> = (0..count).map(|i| random(&[2, 3, 5, 7], i)).collect();
            let gates: Vec<Option<usize>> =
                (0..count).map(|i| if i % 4 == 3 { None } else { Some(i % 11) }).collect();
            let cotangent = random(&[2, 3, 5, 7], 1000).as_detached_tensor();
            let run = |ours: bool| {
                let alpha = if ours { ops::softmax(&logits) } else { stock::softmax(&logits) }.unwrap();
                let terms: Vec<Tensor> = vars.iter().map(|v| (v.as_tensor() * 0.5).unwrap()).collect();
                let sum = if ours { ops::gated_sum } else { stock::gated_sum };
                let y = sum(&terms, &gates, Some(&alpha), relu).unwrap();
                let grads = ops::backward(&(&y * &cotangent).unwrap().sum_all().unwrap()).unwrap();
                (y, grads)
            };
            let ((y, grads), (want, others)) = (run(true), run(false));
            let what = format!("{count} terms, relu {relu}");
            close(&what, &y, &want);
            for (i, var) in vars.iter().chain([&logits]).enumerate() {
                let what = format!("{what}: gradient {i}");
                close(&what, grads.get(var).unwrap(), others.get(var).unwrap());
            }
        }
    }
}
