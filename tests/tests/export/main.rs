//! Exported networks, decoded and run by a plain interpreter, give the scores of the plan.

mod interpreter;
#[path = "../../../edge-runtime/tests/runtime/naive.rs"]
mod naive;
#[path = "../../../edge-runtime/tests/runtime/random.rs"]
mod random;
// The module's on-disk stores are for the command's own tests.
#[allow(dead_code)]
#[path = "../../../edge-runtime/tests/runtime/store.rs"]
mod store;

use bundles::container::{Bundle, Kind, Preprocess, Resize};
use bundles::plan::{Arch, Op, Plan, Skips};
use bundles::preprocess::Normaliser;
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Frame, Packing, Runtime, pack_backbone};
use interpreter::{Value, read, run};
use random::Rng;
use tailor::export::{Network, Options, onnx};
use tailor::precision::File;

/// Maximum difference, relative to the largest score. Both sides compute in f64; only an alpha folded into a
/// norm is rounded once more.
const TOLERANCE: f64 = 1e-5;

fn file<'a>(name: &'a str, bytes: &'a [u8]) -> File<'a> {
    File { name, bytes }
}

fn network(plan: &Plan, tensors: &naive::Tensors) -> Network {
    Network {
        kind: Kind::Task,
        name: "random".into(),
        plan: plan.clone(),
        tensors: tensors.clone(),
        classifier: true,
        labels: Vec::new(),
        preprocess: Preprocess::new(3, plan.input.w, plan.input.h, Resize::Bilinear, [0.5; 3], [0.5; 3]),
        backbone: [7; 32],
        facts: Vec::new(),
    }
}

fn assert_close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().fold(1e-2f64, |size, score| size.max(score.abs()));
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= TOLERANCE * size, "{what}: {got} against {want}");
    }
}

/// Exports the network with and without a dynamic batch axis, and compares scores.
fn assert_agreement(network: &Network, rng: &mut Rng) {
    let shape = network.plan.input;
    let mut draw = || (0..shape.len()).map(|_| rng.float()).collect::<Vec<f32>>();
    let images = [draw(), draw()];
    let want = images.each_ref().map(|image| naive::scores(&network.plan, &network.tensors, image));
    let wide = |image: &[f32]| image.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let what = format!("{}: {:?}", network.name, network.plan);

    let one = onnx(network, Options::default()).unwrap();
    let input = Value { dims: vec![1, shape.c, shape.h, shape.w], data: wide(&images[0]) };
    assert_close(&run(&read(&one.bytes), &input).data, &want[0], &what);

    let any = onnx(network, Options { dynamic_batch: true, ..Options::default() }).unwrap();
    let input = Value { dims: vec![2, shape.c, shape.h, shape.w], data: wide(&images.concat()) };
    assert_close(&run(&read(&any.bytes), &input).data, &want.concat(), &what);
    assert_eq!(
        any.bytes,
        onnx(network, Options { dynamic_batch: true, ..Options::default() }).unwrap().bytes
    );
}

#[test]
fn random_plans_keep_their_scores() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 1..=80 {
        let rng = &mut Rng::new(seed);
        let plan = random::plan(rng);
        kinds.extend(plan.ops().map(Op::kind));
        let tensors = random::tensors(&plan, rng);
        assert_agreement(&network(&plan, &tensors), rng);
    }
    assert_eq!(kinds.len(), 9, "every primitive must have been drawn: {kinds:?}");
}

#[test]
fn every_family_keeps_its_scores_as_backbone_and_as_student() {
    for (name, size) in [
        ("cifar-resnet20-a", 12),
        ("resnet18-s3", 24),
        ("resnet50-s2", 16),
        ("wrn16-1", 12),
        ("wrn26-decathlon", 16),
    ] {
        let arch: Arch = name.parse().unwrap();
        let backbone = arch.plan(size, size, 6).unwrap();
        let student = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
        for plan in [backbone, student.clone(), student.folded()] {
            let rng = &mut Rng::new(5);
            let tensors = random::tensors(&plan, rng);
            assert_agreement(&network(&plan, &tensors), rng);
        }
    }
}

#[test]
fn a_network_without_classifier_ends_in_its_features() {
    for name in ["cifar-resnet20-b", "wrn16-1"] {
        let plan = name.parse::<Arch>().unwrap().plan(12, 12, 6).unwrap();
        let rng = &mut Rng::new(8);
        let tensors = random::tensors(&plan, rng);
        let mut network = network(&plan, &tensors);
        network.classifier = false;
        network.tensors.retain(|name, _| !name.starts_with("fc."));
        let exported = onnx(&network, Options::default()).unwrap();
        assert_eq!((exported.output.name, exported.output.dims.as_slice()), ("features", [64].as_slice()));
        let image: Vec<f32> = (0..plan.input.len()).map(|_| rng.float()).collect();
        let input = Value { dims: vec![1, 3, 12, 12], data: image.iter().map(|&v| f64::from(v)).collect() };
        let mut headless = plan.clone();
        headless.head.pop();
        let want = naive::scores(&headless, &tensors, &image);
        assert_close(&run(&read(&exported.bytes), &input).data, &want, name);
    }
}

#[test]
fn bundles_keep_their_scores_and_say_what_they_are() {
    let packed = store::packed("cifar-resnet20-a", 12, 4);
    let (backbone, net) = (Bundle::parse(&packed.backbone).unwrap(), file("net.backbone", &packed.backbone));
    for (name, bytes, plan, tensors) in &packed.tasks {
        let network = Network::task(file(name, bytes), net).unwrap();
        assert_eq!((&network.plan, &network.tensors), (plan, tensors), "{name}");
        assert_agreement(&network, &mut Rng::new(9));
        let model = read(&onnx(&network, Options::default()).unwrap().bytes);
        let value = |key: &str| {
            let found = model.metadata_props.iter().find(|entry| entry.key == key);
            found.unwrap_or_else(|| panic!("no {key}")).value.clone()
        };
        let id: String = backbone.manifest().backbone.id.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((value("backbone"), value("name"), value("size")), (id, name.clone(), "12x12".into()));
        assert_eq!((value("mean"), value("std")), ("0.5,0.45,0.4".into(), "0.2,0.25,0.3".into()));
        assert!(value("labels").starts_with(&format!("[\"{name} 0\",\"{name} 1\"")), "{}", value("labels"));
        assert_eq!((model.producer_name.as_str(), model.opset_import[0].version), ("tailor", 13));
    }
    // The backbone of these files has no norms or classifier of its own.
    let missing = Network::backbone(net).unwrap_err();
    let said = missing.to_string();
    assert!(said.starts_with("net.backbone: ") && said.contains("bn1.scale"), "{said}");
    assert_eq!(missing.exit_code(), 4);
}

#[test]
fn a_task_of_another_backbone_and_swapped_bundles_are_refused() {
    let (one, other) = (store::packed("wrn16-1", 12, 1), store::packed("wrn16-1", 12, 2));
    let (task, backbone) = (file("one.task", &one.tasks[0].1), file("other.backbone", &other.backbone));
    let error = Network::task(task, backbone).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let ids = [task, backbone].map(|file| {
        let id = file.parse().unwrap().manifest().backbone.id;
        id[..8].iter().map(|b| format!("{b:02x}")).collect()
    });
    assert!(ids.iter().all(|id: &String| error.to_string().contains(id)), "{error}");
    for (error, blamed) in [
        (Network::task(backbone, task).unwrap_err(), "one.task: a task; a backbone"),
        (Network::task(backbone, backbone).unwrap_err(), "other.backbone: a backbone; a task"),
        (Network::backbone(task).unwrap_err(), "one.task: a task; a backbone"),
    ] {
        assert_eq!(error.exit_code(), 2);
        assert_eq!(error.to_string(), format!("{blamed} is needed here"));
    }

    for (packing, how) in [
        (Packing::For(Isa::Neon), "for neon"),
        (Packing::For(Isa::NeonFp16), "for neon-fp16"),
        (Packing::Int8, "in int8"),
    ] {
        let packed = pack_backbone("one", &one.backbone, packing, &[]).unwrap();
        let error = Network::task(task, file("packed.backbone", &packed)).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.exit_code(), 4);
        // The file at fault, and which ones to give instead.
        assert!(said.starts_with("packed.backbone: ") && said.contains("tailor import"), "{said}");
        assert!(said.ends_with(&format!("tensor `conv1.weight` packed {how}")), "{said}");
    }
    // f16 values are exported like any others.
    let packed = pack_backbone("one", &one.backbone, Packing::F16, &[]).unwrap();
    assert_agreement(&Network::task(task, file("packed", &packed)).unwrap(), &mut Rng::new(3));
}

#[test]
fn a_model_with_preprocessing_takes_the_pixels_that_the_runtime_takes() {
    let packed = store::packed("cifar-resnet20-b", 12, 6);
    let backbone = Backbone::from_bytes("net", packed.backbone.clone(), &Default::default()).unwrap();
    let mut runtime = Runtime::new(backbone, 1);
    for (i, (name, bytes, ..)) in packed.tasks.iter().enumerate() {
        let network = Network::task(file(name, bytes), file("net", &packed.backbone)).unwrap();
        let channels = if network.preprocess.grey { 1 } else { 3 };
        assert_eq!(network.preprocess.grey, i == 1, "one of them is grey");
        let pixels: Vec<u8> = (0..144 * channels).map(|i| (i * 37 + i / 7 * 11) as u8).collect();
        let id = runtime.load_bytes(name, bytes).unwrap();
        runtime.switch(id).unwrap();
        let scores = runtime.frame(Frame { width: 12, height: 12, channels, pixels: &pixels }).unwrap();
        let want: Vec<f64> = scores.logits.iter().map(|&v| f64::from(v)).collect();

        let model = onnx(&network, Options { with_preprocessing: true, ..Options::default() }).unwrap();
        assert_eq!(
            (model.input.name, model.input.dims.as_slice()),
            ("pixels", [channels, 12, 12].as_slice())
        );
        let planes = (0..channels).flat_map(|c| pixels.iter().skip(c).step_by(channels));
        let input = Value { dims: vec![1, channels, 12, 12], data: planes.map(|&v| f64::from(v)).collect() };
        let got = run(&read(&model.bytes), &input).data;
        let size = want.iter().fold(1e-2f64, |size, score| size.max(score.abs()));
        // Against the engine, which computes in f32.
        assert!(
            got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= 1e-4 * size),
            "{got:?} {want:?}"
        );
        // Without preprocessing, the caller normalises.
        let normaliser = Normaliser::new(network.preprocess.mean, network.preprocess.std).unwrap();
        let mut image = vec![0.0; 3 * 144];
        normaliser.normalise(&pixels, channels, &mut image).unwrap();
        let input = Value { dims: vec![1, 3, 12, 12], data: image.iter().map(|&v| f64::from(v)).collect() };
        let plain = onnx(&network, Options::default()).unwrap();
        assert_close(&run(&read(&plain.bytes), &input).data, &got, name);
    }
}
