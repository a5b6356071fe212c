//! One plan, two interpreters: random networks give the same scores in candle and in the device engine.

/// The device tests' generator of random networks, so that both sides draw from the same ones.
#[path = "../../edge-runtime/tests/runtime/random.rs"]
mod random;

mod naive {
    /// Values by tensor name.
    pub type Tensors = std::collections::HashMap<String, Vec<f32>>;
}

use bundles::plan::{Arch, Owner, Plan, Skips};
use candle_core::{Device, Tensor};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Session, Task};
use random::Rng;
use std::collections::HashMap;
use tailor::net::{Net, Params, Pass};

/// Maximum difference, relative to the largest score.
const TOLERANCE: f32 = 1e-4;

fn under_candle(plan: &Plan, all: &HashMap<String, Vec<f32>>, input: &[f32]) -> Vec<f32> {
    let mut params = Params::packed();
    for spec in plan.tensors() {
        let tensor = Tensor::from_vec(all[&spec.name].clone(), spec.shape, &Device::Cpu).unwrap();
        params.freeze(spec.name, tensor);
    }
    let shape = (1, plan.input.c, plan.input.h, plan.input.w);
    let input = Tensor::from_slice(input, shape, &Device::Cpu).unwrap();
    let forward = Net { plan, params: &params }.forward(&input, Pass::Infer).unwrap();
    forward.logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn on_the_engine(plan: &Plan, all: &HashMap<String, Vec<f32>>, input: &[f32], isa: Isa) -> Vec<f32> {
    let of = |owner| {
        let specs = plan.tensors().into_iter().filter(move |spec| spec.owner == owner);
        specs.map(|spec| (spec.name.clone(), all[&spec.name].clone())).collect::<HashMap<_, _>>()
    };
    let backbone = Backbone::from_tensors(isa, of(Owner::Backbone));
    let task = Task::from_tensors(&backbone, "random", plan, &of(Owner::Task)).unwrap();
    Session::new(1).run(&task, input).unwrap().to_vec()
}

fn assert_agreement(plan: &Plan, seed: u64) {
    let rng = &mut Rng::new(seed);
    let all = random::tensors(plan, rng);
    let input: Vec<f32> = (0..plan.input.len()).map(|_| rng.float()).collect();
    let want = under_candle(plan, &all, &input);
    let size = want.iter().fold(1e-2f32, |size, score| size.max(score.abs()));
    for isa in Isa::available() {
        let got = on_the_engine(plan, &all, &input, isa);
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            let far = (got - want).abs() / size;
            assert!(far <= TOLERANCE, "seed {seed}, {isa}: {got} against {want}\n{plan:?}");
        }
    }
}

#[test]
fn random_plans_agree() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 1..=120 {
        let plan = random::plan(&mut Rng::new(seed));
        kinds.extend(plan.ops().map(|op| op.kind()));
        assert_agreement(&plan, seed);
    }
    assert_eq!(kinds.len(), 9, "every primitive must have been drawn: {kinds:?}");
}

#[test]
fn families_agree_as_backbones_and_as_deployed_students() {
    for (name, size) in [("cifar-resnet20-a", 32), ("resnet18-s3", 40), ("resnet50-s2", 32), ("wrn16-1", 32)]
    {
        let arch: Arch = name.parse().unwrap();
        let backbone = arch.plan(size, size, 6).unwrap();
        let student = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
        for plan in [backbone, student.folded()] {
            assert_agreement(&plan, 3);
        }
    }
}
