//! One backbone with tasks of many image sizes, and with some that demand too much.

use super::naive;
use super::store::{self, Packed};
use bundles::container::golden_input;
use bundles::plan::{Cell, Conv, Gate, Linear, Op, Owner, Path, Plan, Role, Shape};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Error, Options, Packing, Session, Task, pack_backbone};

const ARCH: &str = "cifar-resnet20-b";

/// Compares every task on `backbone` with the naive interpreter.
fn assert_agreement(backbone: &std::sync::Arc<Backbone>, packed: &Packed, what: &str) {
    let mut session = Session::new(2);
    for (name, bytes, plan, all) in &packed.tasks {
        let task = Task::from_bytes(backbone, name, bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut image = vec![0.0; plan.input.len()];
        golden_input(3, &mut image);
        let want = naive::scores(plan, all, &image);
        let size = want.iter().fold(1e-2f64, |size, x| size.max(x.abs()));
        for (got, want) in session.run(&task, &image).unwrap().iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() <= 1e-4 * size, "{what}, {name}: {got} {want}");
        }
    }
}

#[test]
fn a_backbone_packed_for_one_size_runs_tasks_of_others() {
    let packed = store::packed(ARCH, 24, 61);
    for isa in Isa::available() {
        let bytes = pack_backbone("b", &packed.backbone, Packing::For(isa), &[]).unwrap();
        let options = Options { isa: Some(isa), ..Options::default() };
        let backbone = Backbone::from_bytes("packed", bytes, &options).unwrap();
        for size in [8, 13, 40] {
            assert_agreement(&backbone, &store::resized(&packed, size), &format!("{isa}, {size} px"));
        }
        assert_eq!(backbone.repacked().kernels, 0, "{isa}");
    }
}

#[test]
fn a_kernel_is_repacked_once_for_each_form_and_not_for_each_size() {
    let packed = store::packed(ARCH, 12, 62);
    let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
    let sizes = [8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 32, 33];
    for size in sizes {
        let resized = store::resized(&packed, size);
        for (name, bytes, ..) in &resized.tasks {
            Task::from_bytes(&backbone, name, bytes).unwrap();
        }
    }
    // At most the direct and both Winograd forms of each kernel.
    let kernels = backbone.repacked().kernels;
    assert!((19..=3 * 21).contains(&kernels), "{kernels}");
}

#[test]
fn a_task_that_would_need_too_much_scratch_is_refused() {
    let packed = store::packed(ARCH, 12, 63);
    let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
    let plan = |c_in: usize, pad: usize| {
        let conv = Conv {
            name: "c".into(),
            owner: Owner::Task,
            c_in,
            c_out: 1,
            kernel: 1,
            stride: 2,
            pad,
            bias: false,
        };
        let path = Path { ops: vec![] };
        let gate = Gate { role: Role::Block, source: 0, scaled: false, paths: vec![path] };
        let linear = Linear { name: "fc".into(), c_in: 1, c_out: 2 };
        Plan {
            arch: "x".into(),
            input: Shape::new(1, 1, 1),
            stem: vec![Op::PadChannels { front: 0, back: c_in - 1 }, Op::Conv(conv)],
            cells: vec![Cell { gates: vec![gate], relu: true }],
            head: vec![Op::GlobalAvgPool, Op::Linear(linear)],
        }
    };
    let load = |plan: &Plan| Task::from_bytes(&backbone, "t", &store::constant(&packed, "t", plan));
    // A file of a few kilobytes whose padded map would take a terabyte.
    let error = load(&plan(65_536, 1_000)).unwrap_err();
    assert!(matches!(&error, Error::TooLarge { what, .. } if what.contains("scratch")), "{error}");
    let task = load(&plan(64, 10)).unwrap();
    Session::new(1).reserve(&task).unwrap();
}
