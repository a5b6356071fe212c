//! State dicts made from plans, under the names used by other programs, intact and damaged.

use super::*;
use crate::net::{Net, Pass, without_classifier};
use crate::weights::Tensor;
use bundles::plan::Op;
use candle_core::Device;

type Tensors = BTreeMap<String, Tensor>;

/// A tensor of distinct small values.
fn tensor(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor { shape: shape.to_vec(), data: (0..n).map(|i| 0.01 + (i % 97) as f32 * 0.001).collect() }
}

/// The state dict a program that trained this architecture would have saved.
fn saved(arch: &str, classes: usize) -> Tensors {
    let arch: Arch = arch.parse().unwrap();
    let plan = arch.plan(arch.native_size(), arch.native_size(), classes).unwrap();
    let mut tensors = Tensors::new();
    for op in plan.ops() {
        match op {
            Op::Affine(norm) => {
                for part in ["weight", "bias", "running_mean", "running_var"] {
                    tensors.insert(format!("{}.{part}", norm.name), tensor(&[norm.channels]));
                }
                tensors.insert(format!("{}.num_batches_tracked", norm.name), tensor(&[]));
            }
            op => tensors.extend(op.tensors().into_iter().map(|spec| (spec.name, tensor(&spec.shape)))),
        }
    }
    tensors
}

/// The same network with every norm folded into the convolution before it.
fn folded(arch: &str, classes: usize) -> Tensors {
    let mut tensors = Tensors::new();
    for (name, value) in saved(arch, classes) {
        let Some((norm, part)) = name.rsplit_once('.') else { continue };
        let conv = match norm.strip_suffix(".1").filter(|n| n.ends_with("downsample")) {
            Some(before) => format!("{before}.0"),
            None => norm.replace("bn", "conv"),
        };
        match part {
            "weight" if value.shape.len() > 1 => drop(tensors.insert(name, value)),
            "bias" => drop(tensors.insert(format!("{conv}.bias"), value)),
            _ => {}
        }
    }
    tensors
}

fn dict(tensors: Tensors) -> StateDict {
    StateDict { tensors, metadata: BTreeMap::new() }
}

fn fit(tensors: Tensors) -> Result<Imported> {
    from_state_dict(dict(tensors), &Request::default(), "weights.pt")
}

#[test]
fn every_architecture_is_recognised_from_its_tensors() {
    let names = [
        "cifar-resnet8-b",
        "cifar-resnet20-a",
        "cifar-resnet56-b",
        "resnet18",
        "resnet18-s3",
        "resnet18-s1",
        "resnet34-s2",
        "resnet50-s3",
        "wrn16-1",
        "wrn28-2",
        "wrn10-4",
        "wrn26-decathlon",
    ];
    for name in names {
        let source = saved(name, 7);
        let imported = fit(source.clone()).unwrap();
        assert_eq!(imported.arch.to_string(), name);
        assert!(imported.classifier && !imported.folded);
        assert_eq!(imported.plan.classes(), 7);
        let want: BTreeMap<_, _> = source
            .into_iter()
            .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
            .map(|(name, tensor)| (name, (tensor.shape, tensor.data)))
            .collect();
        assert!(imported.tensors == want, "{name}");
    }
}

#[test]
fn foreign_names_are_understood() {
    let wrn = |name: String| {
        let name = name.replace("fc.", "linear.").replace(".shortcut.", ".convShortcut.");
        (1..4).fold(name, |name, s| name.replace(&format!("layer{s}."), &format!("layer{s}.layer.")))
    };
    let renamed = |arch, rename: &dyn Fn(String) -> String| -> Tensors {
        saved(arch, 10).into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
    };
    assert_eq!(fit(renamed("wrn16-2", &wrn)).unwrap().arch.to_string(), "wrn16-2");
    let imported = fit(renamed("cifar-resnet20-a", &|name| name.replace("fc.", "linear."))).unwrap();
    assert!(imported.classifier);
    let imported = fit(renamed("cifar-resnet20-b", &|name| name.replace("downsample", "shortcut"))).unwrap();
    assert_eq!(imported.arch.to_string(), "cifar-resnet20-b");
}

#[test]
fn folded_norms_are_exact_in_inference() {
    for arch in ["resnet18-s3", "cifar-resnet20-a", "cifar-resnet20-b"] {
        let source = folded(arch, 10);
        let imported = fit(source.clone()).unwrap();
        assert_eq!(imported.arch.to_string(), arch);
        assert!(imported.folded);
        let get = |name: &str| &imported.tensors[name].1;
        for (conv, norm) in [("conv1", "bn1"), ("layer2.0.conv2", "layer2.0.bn2")] {
            assert_eq!(get(&format!("{norm}.bias")), &source[&format!("{conv}.bias")].data);
            assert!(get(&format!("{norm}.weight")).iter().all(|&v| v == 1.0));
            assert!(get(&format!("{norm}.running_mean")).iter().all(|&v| v == 0.0));
            assert!(get(&format!("{norm}.running_var")).iter().all(|&v| (v + NORM_EPS).sqrt() == 1.0));
        }
    }
}

#[test]
fn folded_norms_get_statistics_whether_or_not_there_is_a_classifier() {
    for classifier in [true, false] {
        let mut source = folded("cifar-resnet8-b", 10);
        source.retain(|name, _| classifier || !name.starts_with("fc."));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.backbone");
        write_backbone(&fit(source).unwrap(), &path).unwrap();
        let mut backbone = crate::source::Source::open(&path, &Device::Cpu).unwrap();
        assert!(backbone.folded && backbone.classifier == classifier);
        let images = candle_core::Tensor::rand(0f32, 1.0, (3, 3, 16, 16), &Device::Cpu).unwrap();
        let features = |source: &crate::source::Source| {
            let plan = without_classifier(&source.arch.plan(16, 16, 10).unwrap());
            let net = Net { plan: &plan, params: &source.params };
            let features = net.forward(&images, Pass::Infer).unwrap().logits.flatten_all().unwrap();
            features.to_vec1::<f32>().unwrap()
        };
        let before = features(&backbone);
        backbone.calibrate(&images).unwrap();
        assert!(!backbone.folded);
        let furthest = before.iter().zip(features(&backbone)).map(|(a, b)| (a - b).abs() / a.abs().max(1e-3));
        assert!(furthest.fold(0.0, f32::max) < 1e-3, "inference stays as it was");
        let mean = backbone.params.values("bn1.running_mean").unwrap();
        assert!(mean.iter().any(|m| m.abs() > 1e-3), "{mean:?}");
    }
}

#[test]
fn a_bias_before_a_norm_moves_into_its_mean() {
    let mut source = saved("cifar-resnet8-a", 10);
    source.insert("conv1.bias".into(), tensor(&[16]));
    let imported = fit(source.clone()).unwrap();
    assert!(!imported.folded);
    // Mean and bias have the same values.
    assert!(imported.tensors["bn1.running_mean"].1.iter().all(|&v| v == 0.0));
    assert!(!imported.tensors.contains_key("conv1.bias"));
}

#[test]
fn a_classifier_that_does_not_fit_is_dropped_and_one_without_bias_kept() {
    let mut source = saved("resnet18-s3", 10);
    source.insert("fc.weight".into(), tensor(&[1000, 512]));
    let imported = fit(source).unwrap();
    assert!(!imported.classifier && !imported.tensors.contains_key("fc.bias"));
    assert!(imported.notes.iter().any(|note| note.contains("[1000, 512]") && note.contains("256 features")));

    let mut source = saved("resnet18-s3", 10);
    source.remove("fc.bias");
    let imported = fit(source.clone()).unwrap();
    assert_eq!(imported.tensors["fc.bias"], (vec![10], vec![0.0; 10]));
    source.remove("fc.weight");
    assert!(!fit(source).unwrap().classifier);
}

#[test]
fn mismatches_are_named() {
    let change = |name: &str, tensor: Option<Tensor>| {
        let mut source = saved("cifar-resnet20-b", 10);
        match tensor {
            Some(tensor) => source.insert(name.into(), tensor),
            None => source.remove(name),
        };
        source
    };
    let poisoned = Tensor { shape: vec![32], data: vec![f32::NAN; 32] };
    let negative = Tensor { shape: vec![32], data: vec![-1.0; 32] };
    let cases = [
        (change("layer2.1.conv2.weight", None), "`layer2.1.conv2.weight`: missing; ", "[32, 32, 3, 3]"),
        (change("layer2.1.conv2.weight", Some(tensor(&[32, 16, 3, 3]))), "[32, 16, 3, 3]", "[32, 32, 3, 3]"),
        (change("layer3.0.downsample.1.bias", None), "`layer3.0.downsample.1.bias`: missing", "[64]"),
        (change("layer2.0.bn1.weight", Some(poisoned)), "`layer2.0.bn1.weight`", "NaN"),
        (change("layer2.0.bn1.running_var", Some(negative)), "`layer2.0.bn1.running_var`", "-1"),
        (change("conv1.weight", Some(tensor(&[24, 3, 3, 3]))), "no known architecture", "[24, 3, 3, 3]"),
        (change("conv1.weight", None), "no conv1.weight", "bn1.bias"),
        (
            change("layer3.3.conv1.weight", Some(tensor(&[64, 64, 3, 3]))),
            "no known architecture",
            "[3, 3, 4]",
        ),
    ];
    let squeezing = change("layer2.1.se.fc1.weight", Some(tensor(&[2, 32])));
    let message = fit(squeezing).unwrap_err().to_string();
    assert!(message.contains("`layer2.1.se.fc1.weight`: no part of cifar-resnet20-b"), "{message}");
    for (source, what, more) in cases {
        let message = fit(source).expect_err(what).to_string();
        assert!(message.contains(what) && message.contains(more), "{what}: {message}");
        assert!(message.starts_with("weights.pt"), "{message}");
    }
    let mut half = saved("cifar-resnet20-a", 10);
    for part in ["weight", "bias", "running_mean", "running_var"] {
        half.remove(&format!("layer1.0.bn1.{part}"));
    }
    half.insert("layer1.0.conv1.bias".into(), tensor(&[16]));
    assert!(fit(half).unwrap_err().to_string().contains("1 of 19 norms"));
}

#[test]
fn arch_overrides_and_leftovers_are_listed() {
    let request = Request { arch: Some("resnet18-s2".parse().unwrap()), ..Request::default() };
    let imported = from_state_dict(dict(saved("resnet18", 10)), &request, "weights.pt").unwrap();
    assert_eq!(imported.arch.to_string(), "resnet18-s2");
    assert!(imported.notes.iter().any(|note| note.contains("layer3.0.bn1.bias")), "{:?}", imported.notes);
    let request = Request { arch: Some("cifar-resnet32-a".parse().unwrap()), ..Request::default() };
    let error = from_state_dict(dict(saved("cifar-resnet20-a", 10)), &request, "weights.pt").unwrap_err();
    assert!(error.to_string().contains("`layer1.3.conv1.weight`: missing"), "{error}");
}

#[test]
fn normalisation_comes_from_the_user_the_file_or_the_source() {
    let with = |metadata: &[(&str, &str)], request: &Request| {
        let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let dict = StateDict { tensors: saved("cifar-resnet8-b", 100), metadata };
        from_state_dict(dict, request, "weights.pt")
    };
    let stated = [("mean", "0.1, 0.2,0.3"), ("std", "[0.4,0.5,0.6]"), ("top1", "0.63"), ("arch", "x")];
    let imported = with(&stated, &Request::default()).unwrap();
    assert_eq!((imported.mean, imported.std), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]));
    assert_eq!(imported.facts, BTreeMap::from([("top1".into(), "0.63".into())]));
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);

    let request = Request { mean: Some([0.9; 3]), ..Request::default() };
    let imported = with(&stated[1..], &request).unwrap();
    assert_eq!((imported.mean, imported.std), ([0.9; 3], [0.4, 0.5, 0.6]));

    let odd = [("folded", "true"), ("a key", "1"), ("recipe", "two\nlines")];
    let imported = with(&[&stated[..], &odd].concat(), &Request::default()).unwrap();
    assert_eq!(imported.facts, BTreeMap::from([("top1".into(), "0.63".into())]));
    assert!(
        imported.notes.len() == 2 && imported.notes[1].contains("`recipe` left out"),
        "{:?}",
        imported.notes
    );

    let imported = with(&[], &Request::default()).unwrap();
    assert_eq!(imported.mean, [0.5070, 0.4865, 0.4409]);
    assert_eq!(imported.notes.len(), 2, "{:?}", imported.notes);

    let message = with(&[("mean", "0.1,zero,0.3")], &Request::default()).unwrap_err().to_string();
    assert!(message.contains("metadata `mean`") && message.contains("zero"), "{message}");
}

#[test]
fn a_backbone_file_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.backbone");
    let mut truncated = folded("resnet18-s3", 10);
    truncated.insert("fc.weight".into(), tensor(&[1000, 512]));
    for source in [saved("cifar-resnet20-b", 10), saved("wrn16-1", 10), truncated] {
        let mut imported = fit(source).unwrap();
        imported.facts.insert("top1".into(), "0.6".into());
        let id = write_backbone(&imported, &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (mut again, same_id) = read_backbone(&path).unwrap();
        again.notes.clone_from(&imported.notes);
        assert!(again == imported, "{}", imported.arch);
        assert_eq!(id, same_id);
        assert_eq!(write_backbone(&imported, &path).unwrap(), id);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same network gives the same bytes");

        let mut flipped = bytes.clone();
        let last = flipped.len() - 5;
        flipped[last] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let error = read_backbone(&path).unwrap_err();
        assert!(error.exit_code() == 3 && error.to_string().contains("net.backbone"), "{error}");
    }
}

/// The project's own backbone, as shipped.
#[test]
fn the_sample_backbone_is_imported() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../bundles/samples/cifar100-resnet20.safetensors");
    let imported = import(Path::new(path), &Request::default()).unwrap();
    assert_eq!(imported.arch.to_string(), "cifar-resnet20-b");
    assert_eq!(imported.plan.classes(), 100);
    assert_eq!((imported.mean, imported.std), ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]));
    assert_eq!(imported.facts["top1"], "0.6359");
    assert!(imported.classifier && imported.notes.is_empty());
}
