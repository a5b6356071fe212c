//! Repeated loads: of known bundles, and into memory left by another task.

use super::int8::of;
use super::naive::Tensors;
use super::random::{self, Rng};
use super::rounded::{self, grids};
use super::slots::{ARCH, SIZE, assert_scores, backbone, expected};
use super::store::{self, NAMES};
use bundles::plan::{Owner, Plan};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Options, Packing, Runtime, Session, Task, pack_backbone};
use std::sync::Arc;

#[test]
fn nothing_of_a_dropped_task_is_left_in_its_memory() {
    type Make<'a> = &'a dyn Fn(&Arc<Backbone>, &Tensors) -> Task;
    for seed in 1..=60 {
        let rng = &mut Rng::new(seed);
        let plan: Plan = random::plan(rng);
        let all = random::tensors(&plan, rng);
        let input: Vec<f32> = (0..plan.input.len()).map(|_| rng.float()).collect();
        let own = of(&all, &plan, Owner::Task);
        let nans = own.iter().map(|(name, numbers)| (name.clone(), vec![f32::NAN; numbers.len()])).collect();
        // Bytes cannot represent NaNs.
        let others = of(&random::tensors(&plan, rng), &plan, Owner::Task);
        let floats: Make<'_> = &|backbone, own| Task::from_tensors(backbone, "f", &plan, own).unwrap();
        let bytes: Make<'_> =
            &|backbone, own| Task::from_tensors_int8(backbone, "b", &plan, own, &grids(&plan)).unwrap();
        for (make, left) in [(floats, &nans), (bytes, &others)] {
            for isa in Isa::available() {
                let backbone = Backbone::from_tensors(isa, of(&all, &plan, Owner::Backbone));
                let scores = || Session::new(1).run(&make(&backbone, &own), &input).unwrap().to_vec();
                let want = scores();
                drop(make(&backbone, left));
                assert_eq!(scores(), want, "seed {seed}, {isa}");
            }
        }
    }
}

#[test]
fn a_known_bundle_is_checked_like_a_new_one() {
    let packed = store::packed(ARCH, SIZE, 51);
    let int8 = pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap();
    let int8 = Backbone::from_bytes("b", int8, &Options::default()).unwrap();
    let cases =
        [(backbone(&packed), packed.tasks[2].1.clone()), (int8, rounded::task(&packed, 0, |_, _| {}))];
    for (backbone, good) in &cases {
        let load = |bytes: &[u8]| Task::from_bytes(backbone, "t", bytes);
        let input = vec![0.25; 3 * SIZE * SIZE];
        let scores = |task: &Task| Session::new(1).run(task, &input).unwrap().to_vec();
        let want = scores(&load(good).unwrap());
        for at in (0..good.len()).step_by((good.len() / 300).max(1)) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(load(&bytes).is_err(), "byte {at} of {}", good.len());
            assert!(load(&good[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(scores(&load(good).unwrap()), want);
    }
}

#[test]
fn parameters_are_the_same_whoever_makes_them() {
    let packed = store::packed(ARCH, SIZE, 52);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    // The loader and this thread build each task together; when streaming, this thread does so while it
    // waits.
    runtime.set_stream_from(0);
    for round in 0..150 {
        let i = round % 3;
        let path = directory.path().join(NAMES[i]).with_extension("task");
        let id = if round % 2 == 0 { runtime.load(path) } else { runtime.stream(path) }.unwrap();
        runtime.switch(id).unwrap();
        assert_scores(&mut runtime, NAMES[i], &want[i]);
        runtime.settle().unwrap();
        let others: Vec<_> =
            runtime.resident().map(|(other, _)| other).filter(|other| *other != id).collect();
        others.into_iter().for_each(|other| runtime.evict(other).unwrap());
    }
    assert_eq!((runtime.stats().loads, runtime.stats().failed_loads), (150, 0));
}
