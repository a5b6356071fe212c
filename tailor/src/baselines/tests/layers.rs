//! Effective kernels, losses and steps against the equivalent layers and optimisers in PyTorch.

use super::{bits, values};
use crate::baselines::adapters::{self, Place};
use crate::baselines::kernels::{Kernel, convs, settled, weight};
use crate::baselines::{dan, lwf, piggyback};
use crate::fit::testing::backbone;
use crate::net::{Net, Params, Pass};
use crate::ops;
use crate::train::{MASK_RATE, Sgd};
use bundles::plan::{Conv, Owner};
use candle_core::{Device, Tensor, Var};
use std::collections::HashMap;

type Figures = HashMap<String, Tensor>;

fn figures() -> Figures {
    let path = format!("{}/fixtures/baselines.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor) {
    let (got, want) = (values(got), values(want));
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0f32, |a, b| a.max(b.abs()));
    let far = got.iter().zip(&want).fold(0f32, |a, (g, w)| a.max((g - w).abs()));
    assert!(far <= 2e-6 * scale, "{what}: {far:e} off PyTorch's, whose largest is {scale}");
}

fn convolution() -> Conv {
    let name = "c".to_string();
    Conv { name, owner: Owner::Backbone, c_in: 3, c_out: 4, kernel: 3, stride: 2, pad: 1, bias: false }
}

#[test]
fn effective_kernels_are_the_layers_they_stand_for() {
    let figures = figures();
    let series = |conv: &Conv, params: &Params| adapters::kernel(Place::Series, conv, params);
    let parallel = |conv: &Conv, params: &Params| adapters::kernel(Place::Parallel, conv, params);
    let cases: [(&str, &str, Kernel<'_>); 4] = [
        ("piggyback", "c.mask", &piggyback::kernel),
        ("dan", "c.controller", &dan::kernel),
        ("series", "c.adapter", &series),
        ("parallel", "c.adapter", &parallel),
    ];
    for (method, trained, kernel) in cases {
        let mut params = Params::default();
        params.freeze("c.weight", figures["w"].clone());
        params.free(trained, &figures[method]).unwrap();
        let effective = kernel(&convolution(), &params).unwrap().unwrap();
        let y = ops::conv2d(&figures["x"], &effective, 2, 1, false).unwrap();
        close(&format!("{method}: output"), &y, &figures[&format!("y/{method}")]);
        let grads = ops::backward(&(y * &figures["r"]).unwrap().sum_all().unwrap()).unwrap();
        let (name, var) = params.vars().next().unwrap();
        assert_eq!(name, trained);
        close(&format!("{method}: gradient"), grads.get(var).unwrap(), &figures[&format!("grad/{method}")]);
    }
}

#[test]
fn responses_are_kept_as_published() {
    let figures = figures();
    let logits = Var::from_tensor(&figures["logits"]).unwrap();
    let loss = ops::soft_cross_entropy(&logits, &figures["recorded"], lwf::TEMPERATURE).unwrap();
    close("loss", &loss, &figures["y/lwf"]);
    let grads = ops::backward(&loss).unwrap();
    close("gradient", grads.get(&logits).unwrap(), &figures["grad/lwf"]);
}

#[test]
fn masks_move_by_adam_and_go_on_from_a_checkpoint() {
    let figures = figures();
    let mut params = Params::default();
    params.free("c.mask", &Tensor::full(1e-2f32, 6, &Device::Cpu).unwrap()).unwrap();
    let mut sgd = Sgd::new(0.9, 5e-4);
    for step in 0..4 {
        let gradient = figures["adam"].get(step).unwrap();
        let grads = {
            let mask = params.get("c.mask").unwrap();
            (mask * gradient).unwrap().sum_all().unwrap().backward().unwrap()
        };
        sgd.step(&params, &grads, 1e-3 / MASK_RATE).unwrap();
        close("mask", params.get("c.mask").unwrap(), &figures["y/adam"].get(step).unwrap());
        let mut continued = Sgd::new(0.9, 5e-4);
        continued.set_velocity(sgd.velocity().clone());
        sgd = continued;
    }
}

/// Before its first step, every method that only adds to the backbone is bit-identical to it.
#[test]
fn additive_methods_start_as_the_backbone() {
    let (plan, source) = backbone(4);
    let device = &Device::Cpu;
    let images = Tensor::randn(0f32, 1.0, (2, 3, 12, 12), device).unwrap();
    let scores =
        |params: &Params| bits(&Net { plan: &plan, params }.forward(&images, Pass::Infer).unwrap().logits);
    let teacher = Params::teacher(&plan, &source, 7, device).unwrap();
    let series = |conv: &Conv, params: &Params| adapters::kernel(Place::Series, conv, params);
    let parallel = |conv: &Conv, params: &Params| adapters::kernel(Place::Parallel, conv, params);
    let starts: [(&str, Params, Kernel<'_>); 4] = [
        ("piggyback", piggyback::start(&plan, &source, 7, device).unwrap(), &piggyback::kernel),
        ("dan", dan::start(&plan, &source, 7, device).unwrap(), &dan::kernel),
        ("series", adapters::start(&plan, &source, Place::Series, 7, device).unwrap(), &series),
        ("parallel", adapters::start(&plan, &source, Place::Parallel, 7, device).unwrap(), &parallel),
    ];
    for (method, params, kernel) in starts {
        assert_eq!(scores(&settled(&plan, &params, kernel).unwrap()), scores(&teacher), "{method}");
        // None of the shared kernels is trained, but something is for each.
        for conv in convs(&plan) {
            assert!(!params.is_free(&weight(conv)), "{method}: {}", conv.name);
            let own = params.vars().any(|(name, _)| name.starts_with(&format!("{}.", conv.name)));
            assert_eq!(
                own,
                conv.kernel > 1 || ["piggyback", "dan"].contains(&method),
                "{method}: {}",
                conv.name
            );
        }
    }
}

#[test]
fn derived_tensors_need_gradients_only_if_they_depend_on_trained_ones() {
    let mut params = Params::default();
    params.free("a", &Tensor::ones(2, candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
    params.freeze("b", params.get("a").unwrap().clone());
    let double = (params.get("a").unwrap() * 2.0).unwrap();
    let seen = params.with_derived([("b".to_string(), double.clone()), ("c".to_string(), double.detach())]);
    assert!(seen.is_free("b") && !seen.is_free("c") && !params.is_free("b"));
    assert_eq!(values(seen.get("b").unwrap()), [2.0, 2.0]);
    assert_eq!(seen.vars().map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
}
