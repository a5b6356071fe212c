//! Networks in f16 and int8: identical on every machine, close to floats, and refused when they do not fit.

use super::naive::{self, Tensors};
use super::random::{self, Rng};
use super::rounded::{self, grids};
use super::store;
use bundles::container::Bundle;
use bundles::plan::{Arch, Conv, Op, Owner, Plan, Role, Skips};
use edge_runtime::kernels::{Isa, MAX_TERMS};
use edge_runtime::{
    Backbone, Error, Layer, Options, Packing, Session, Task, needs, needs_int8, pack_backbone,
};
use std::sync::Arc;

pub(super) fn of(all: &Tensors, plan: &Plan, owner: Owner) -> Tensors {
    let specs = plan.tensors().into_iter().filter(|spec| spec.owner == owner);
    specs.map(|spec| (spec.name.clone(), all[&spec.name].clone())).collect()
}

/// Largest difference, relative to the largest of `want`.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    let size = want.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
    got.iter().zip(want).fold(0.0, |far: f32, (a, b)| far.max((a - b).abs() / size))
}

#[test]
fn random_plans_give_the_same_integers_on_every_instruction_set_and_number_of_threads() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 1..=80 {
        let rng = &mut Rng::new(seed);
        let plan = random::plan(rng);
        kinds.extend(plan.ops().map(|op| op.kind()));
        let all = random::tensors(&plan, rng);
        let input: Vec<f32> = (0..plan.input.len()).map(|_| rng.float()).collect();
        let scores = |isa, threads| {
            let backbone = Backbone::from_tensors(isa, of(&all, &plan, Owner::Backbone));
            let own = of(&all, &plan, Owner::Task);
            let task = Task::from_tensors_int8(&backbone, "random", &plan, &own, &grids(&plan)).unwrap();
            Session::new(threads).run(&task, &input).unwrap().to_vec()
        };
        let want = scores(Isa::Portable, 1);
        assert!(want.iter().all(|x| x.is_finite()), "seed {seed}");
        for isa in Isa::available() {
            let got = scores(isa, 1);
            // Sums of the linear layers are floats, in an order that depends on the instruction set.
            assert!(distance(&got, &want) <= 1e-5, "seed {seed}, {isa}: {got:?} against {want:?}");
            assert_eq!(scores(isa, 3), got, "seed {seed}, {isa}");
        }
    }
    assert_eq!(kinds.len(), 9, "every primitive must have been drawn: {kinds:?}");
}

/// Only kernels that the task owns are summed at once. If the backbone owns them, they have the same bytes
/// and are steps of their own.
#[test]
fn proxies_summed_at_once_give_what_they_give_one_by_one() {
    let (mut sums, mut kinds) = (0, [0; 3]);
    for seed in 1..=160 {
        let rng = &mut Rng::new(seed);
        let mut plan = random::plan(rng);
        let each = |plan: &mut Plan, change: &dyn Fn(&mut Conv)| {
            let gates = plan.cells.iter_mut().flat_map(|cell| &mut cell.gates);
            for op in gates.flat_map(|gate| &mut gate.paths).flat_map(|path| &mut path.ops) {
                if let Op::Conv(conv) = op {
                    change(conv);
                }
            }
        };
        each(&mut plan, &|conv| (conv.kernel, conv.pad) = (1, 0));
        let all = random::tensors(&plan, rng);
        let input: Vec<f32> = (0..plan.input.len()).map(|_| rng.float()).collect();
        let run = |owner: Owner| {
            let mut plan = plan.clone();
            each(&mut plan, &|conv| conv.owner = owner);
            let backbone = Backbone::from_tensors(Isa::detect(), of(&all, &plan, Owner::Backbone));
            let own = of(&all, &plan, Owner::Task);
            let task = Task::from_tensors_int8(&backbone, "random", &plan, &own, &grids(&plan)).unwrap();
            (Session::new(1).run(&task, &input).unwrap().to_vec(), task.layers())
        };
        let ((got, layers), (want, alone)) = (run(Owner::Task), run(Owner::Backbone));
        // The order of the terms differs, and with it how the last bit of a float is rounded: now and then, a
        // byte of a map is one more or less.
        assert!(distance(&got, &want) <= 4e-3, "seed {seed}: {got:?} against {want:?}");
        let macs = |layers: &[Layer]| layers.iter().map(|layer| layer.macs).sum::<u64>();
        assert_eq!(macs(&layers), macs(&alone), "seed {seed}");
        assert!(alone.iter().all(|layer| layer.gates.len() <= 1), "seed {seed}: {alone:?}");
        for sum in layers.iter().filter(|layer| layer.gates.len() > 1) {
            assert_eq!(sum.gates.iter().map(|gate| gate.2).sum::<u64>(), sum.macs, "seed {seed}");
            sums += 1;
            // A norm of a proxy's own, a finished map taken on, and an f32 sum of what came before.
            for (kind, word) in kinds.iter_mut().zip(["norm", " + add", " + sum"]) {
                *kind += usize::from(sum.name.contains(word));
            }
        }
    }
    assert!(sums > 20 && kinds.iter().all(|kind| *kind > 2), "{sums} sums, {kinds:?}");
}

#[test]
fn proxies_of_a_node_run_as_one_call() {
    let arch: Arch = "cifar-resnet20-b".parse().unwrap();
    for (skips, most) in [(Skips::Nearest(3), 3), (Skips::Dense, MAX_TERMS)] {
        let backbone = arch.plan(12, 12, 4).unwrap();
        let student = backbone.with_proxies(skips, arch.proxy_form()).unwrap().folded();
        let all = random::tensors(&student, &mut Rng::new(3));
        let backbone = Backbone::from_tensors(Isa::detect(), of(&all, &student, Owner::Backbone));
        let own = of(&all, &student, Owner::Task);
        let task = Task::from_tensors_int8(&backbone, "t", &student, &own, &grids(&student)).unwrap();
        // More than fit into one call give what calls of their own do.
        let mut apart = student.clone();
        for gate in apart.cells.iter_mut().flat_map(|cell| &mut cell.gates) {
            for op in gate.paths.iter_mut().flat_map(|path| &mut path.ops) {
                if let Op::Conv(conv) = op {
                    conv.owner = Owner::Backbone;
                }
            }
        }
        let whole = Backbone::from_tensors(Isa::detect(), of(&all, &apart, Owner::Backbone));
        let head = of(&all, &apart, Owner::Task);
        let alone = Task::from_tensors_int8(&whole, "t", &apart, &head, &grids(&apart)).unwrap();
        let input = vec![0.25; 3 * 12 * 12];
        let [got, want] = [&task, &alone].map(|task| Session::new(1).run(task, &input).unwrap().to_vec());
        assert!(distance(&got, &want) <= 4e-3, "{skips:?}: {got:?} against {want:?}");
        let layers = task.layers();
        for (l, cell) in student.cells.iter().enumerate() {
            let of_proxies = |layer: &&Layer| matches!(layer.gates.first(), Some((Role::Proxy, ..)));
            let calls =
                layers.iter().filter(|layer| layer.node == l + 1 && layer.macs > 0).filter(of_proxies);
            let gates: Vec<usize> = calls.map(|layer| layer.gates.len()).collect();
            let count = cell.proxies().count();
            assert_eq!(gates.iter().sum::<usize>(), count, "node {}: {gates:?}", l + 1);
            assert_eq!(gates.len(), count.div_ceil(most), "node {}: {gates:?}", l + 1);
        }
    }
}

#[test]
fn bytes_come_close_to_floats_where_maps_fit_their_grids() {
    for (name, size) in
        [("cifar-resnet20-a", 16), ("cifar-resnet20-b", 17), ("resnet18-s3", 33), ("wrn16-1", 16)]
    {
        let plan = name.parse::<Arch>().unwrap().plan(size, size, 7).unwrap();
        let rng = &mut Rng::new(5);
        let mut all = random::tensors(&plan, rng);
        for (name, numbers) in &mut all {
            // Norms that keep sums of two branches near one, so that nothing is clamped.
            if name.ends_with(".scale") {
                numbers.iter_mut().for_each(|x| *x = 0.6 + 0.1 * *x);
            }
        }
        let input: Vec<f32> = (0..plan.input.len()).map(|_| rng.float()).collect();
        let want: Vec<f32> = naive::scores(&plan, &all, &input).into_iter().map(|x| x as f32).collect();
        let backbone = Backbone::from_tensors(Isa::detect(), of(&all, &plan, Owner::Backbone));
        let own = of(&all, &plan, Owner::Task);
        let task = Task::from_tensors_int8(&backbone, name, &plan, &own, &grids(&plan)).unwrap();
        let got = Session::new(1).run(&task, &input).unwrap().to_vec();
        let far = distance(&got, &want);
        assert!(far < 0.08, "{name}: {far} ({got:?} against {want:?})");
        let wrong = Task::from_tensors_int8(&backbone, name, &plan, &own, &grids(&plan)[1..]).unwrap_err();
        assert!(matches!(wrong, Error::Tensor { .. }), "{wrong}");
    }
}

#[test]
fn an_f16_backbone_is_half_the_file_and_runs_every_task() {
    let packed = store::packed("cifar-resnet20-b", 12, 31);
    let bytes = pack_backbone("b", &packed.backbone, Packing::F16, &[]).unwrap();
    assert!((bytes.len() as f64) < 0.52 * packed.backbone.len() as f64, "{} bytes", bytes.len());
    let backbone = open(bytes).unwrap();
    assert_eq!(backbone.reference().unwrap().variant, "f16");
    let id = |bytes: &[u8]| Bundle::parse(bytes).unwrap().manifest().backbone.id;
    assert_eq!(backbone.reference().unwrap().id, id(&packed.backbone));
    let input = vec![0.25; 3 * 12 * 12];
    for (name, bytes, plan, all) in &packed.tasks {
        let task = Task::from_bytes(&backbone, name, bytes).unwrap();
        let want: Vec<f32> = naive::scores(plan, all, &input).into_iter().map(|x| x as f32).collect();
        let far = distance(Session::new(1).run(&task, &input).unwrap(), &want);
        assert!(far < 4e-3, "{name}: {far}");
    }
}

fn open(bytes: Vec<u8>) -> Result<Arc<Backbone>, Error> {
    Backbone::from_bytes("net.backbone", bytes, &Options { isa: Some(Isa::detect()), ..Options::default() })
}

#[test]
fn an_int8_backbone_is_a_quarter_of_the_file_and_is_read_in_place_by_every_instruction_set() {
    let packed = store::packed("resnet18-s3", 20, 32);
    let bytes = pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap();
    assert!((bytes.len() as f64) < 0.26 * packed.backbone.len() as f64, "{} bytes", bytes.len());
    let task = rounded::task(&packed, 0, |_, _| ());
    // Uniform noise: compression saves on the exponents of floats, but not on bytes.
    let before = packed.tasks[0].1.len();
    assert!(3 * task.len() < before, "{} of {before} bytes", task.len());
    let input: Vec<f32> = (0..3 * 20 * 20).map(|i| (i % 17) as f32 / 17.0 - 0.4).collect();
    let scores = |isa| {
        let options = Options { isa: Some(isa), ..Options::default() };
        let backbone = Backbone::from_bytes("b", bytes.clone(), &options).unwrap();
        assert!(backbone.is_int8());
        let task = Task::from_bytes(&backbone, "digits", &task).unwrap();
        assert_eq!(backbone.repacked().kernels, 0, "{isa}");
        Session::new(1).run(&task, &input).unwrap().to_vec()
    };
    let want = scores(Isa::Portable);
    for isa in Isa::available() {
        assert!(distance(&scores(isa), &want) <= 1e-5, "{isa}");
    }
}

#[test]
fn memory_needs_are_known_before_loading() {
    let packed = store::packed("cifar-resnet20-b", 20, 38);
    let (plan, threads) = (&packed.tasks[0].2, 2);
    let int8 = pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap();
    for isa in Isa::available() {
        let options = Options { isa: Some(isa), ..Options::default() };
        let cases = [
            (&packed.backbone, packed.tasks[0].1.clone(), needs(plan, isa, threads).unwrap()),
            (&int8, rounded::task(&packed, 0, |_, _| ()), needs_int8(plan, isa, threads).unwrap()),
        ];
        for (backbone, task, needs) in cases {
            let backbone = Backbone::from_bytes("b", backbone.clone(), &options).unwrap();
            let task = Task::from_bytes(&backbone, "digits", &task).unwrap();
            assert_eq!(needs.workspace(), task.workspace_bytes(threads), "{isa}");
            // Plus the bundle's header, which the plan does not determine.
            let header = task.resident_bytes() - needs.task;
            assert!((1..64 * 1024).contains(&header), "{isa}: {header} bytes");
            assert!(needs.kernels > 0 && needs.kernels < 8 * 4 * plan.backbone_params() as usize, "{isa}");
        }
    }
}

#[test]
fn tasks_and_backbones_of_other_precisions_are_refused_by_name() {
    let packed = store::packed("cifar-resnet20-b", 12, 33);
    let int8 = open(pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap()).unwrap();
    let f32 = open(packed.backbone.clone()).unwrap();
    // backbone, task, words of the message
    let cases = [
        (&int8, packed.tasks[0].1.clone(), ["packing `int8`; use such a backbone", "pack TASK --precision"]),
        (&f32, rounded::task(&packed, 0, |_, _| ()), ["packing `f32`; use the", "pack NET --precision int8"]),
    ];
    for (backbone, task, words) in cases {
        let error = Task::from_bytes(backbone, "digits.task", &task).unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    }
    // Packing starts from the imported file, not from a packed one.
    let again = pack_backbone("b", &packed.backbone, Packing::F16, &[]).unwrap();
    let error = pack_backbone("b", &again, Packing::Int8, &[]).unwrap_err();
    assert!(error.to_string().starts_with("b is already packed") && error.exit_code() == 2, "{error}");
}

#[test]
fn a_kernel_of_the_same_size_and_another_shape_is_refused() {
    let packed = store::packed("cifar-resnet20-b", 12, 35);
    let mut plan = packed.tasks[0].2.clone();
    let mut tensors = packed.tasks[0].3.clone();
    // 27 channels of one pixel each, where the backbone has three of nine.
    plan.input.c = 27;
    let Op::Conv(stem) = &mut plan.stem[0] else { panic!("{:?}", plan.stem[0]) };
    (stem.c_in, stem.kernel, stem.pad) = (27, 1, 0);
    tensors.retain(|name, _| name != "conv1.weight");
    let refusal = |outcome: Result<Task, Error>| {
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error}");
        assert!(error.to_string().contains("`conv1.weight` as [16, 3, 3, 3]"), "{error}");
    };
    let grids = grids(&plan);
    for packing in [Packing::For(Isa::detect()), Packing::F16] {
        let backbone = open(pack_backbone("b", &packed.backbone, packing, &[]).unwrap()).unwrap();
        refusal(Task::from_tensors(&backbone, "t", &plan, &tensors));
    }
    let backbone = open(pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap()).unwrap();
    refusal(Task::from_tensors_int8(&backbone, "t", &plan, &tensors, &grids));
}

#[test]
fn invalid_scales_are_refused() {
    let packed = store::packed("cifar-resnet20-b", 12, 34);
    let backbone = open(pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap()).unwrap();
    type Change = fn(&mut Vec<f32>, &mut Vec<f32>);
    // The change, and a word of the message. The container itself refuses some; then there is no bundle at
    // all.
    let cases: [(Change, &str); 13] = [
        (|scales, _| scales[1] = f32::NAN, "fc.weight#scale"),
        (|scales, _| scales[0] = f32::INFINITY, "fc.weight#scale"),
        (|scales, _| scales[0] = 0.0, "fc.weight#scale"),
        (|scales, _| scales[0] = -1.0, "fc.weight#scale"),
        (|scales, _| scales[0] = 1e-40, "fc.weight#scale"),
        (|_, maps| maps[0] = 0.0, "fc.weight#maps"),
        (|_, maps| maps[0] = -0.5, "fc.weight#maps"),
        (|_, maps| maps[2] = f32::NAN, "fc.weight#maps"),
        (|_, maps| maps[0] = f32::INFINITY, "fc.weight#maps"),
        (|_, maps| maps[1] = f32::NAN, "zero point of Input"),
        (|_, maps| maps[1] = 256.0, "zero point of Input"),
        (|_, maps| maps[1] = 0.5, "zero point of Input"),
        (|_, maps| maps[3] = 1.0, "zero point of Stem"),
    ];
    for (i, (change, word)) in cases.into_iter().enumerate() {
        let error = Task::from_bytes(&backbone, "t", &rounded::task(&packed, 0, change)).unwrap_err();
        assert_eq!(error.exit_code(), 3, "case {i}: {error}");
        assert!(error.to_string().contains(word), "case {i}: {error}");
    }
    for (i, change) in
        [(|scales, _| scales.truncate(1)) as Change, |_, maps| maps.truncate(2)].into_iter().enumerate()
    {
        assert!(
            rounded::task(&packed, 0, change).is_empty(),
            "case {i}: a bundle with scales of another number"
        );
    }
}
