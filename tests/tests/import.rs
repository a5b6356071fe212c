//! An imported source network, stored in a backbone file, gives PyTorch's scores on the device engine.

use bundles::container::Bundle;
use bundles::plan::{Op, Owner, Plan};
use bundles::preprocess::Normaliser;
use candle_core::{Device, Tensor};
use edge_runtime::{Backbone, Options, Runtime, Task};
use std::{collections::HashMap, path::Path};
use tailor::import::{Imported, Request, import, read_backbone, write_backbone};
use tailor::source::Source;
use tailor::weights::read_state_dict;

/// Makes a network without a classifier return its pooled features as scores.
fn with_features_as_scores(mut imported: Imported) -> Imported {
    let Some(Op::Linear(fc)) = imported.plan.head.last() else { panic!("no classifier in the plan") };
    let features = fc.c_in;
    let identity =
        (0..features * features).map(|i| if i % (features + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let (height, width) = (imported.plan.input.h, imported.plan.input.w);
    imported.plan = imported.arch.plan(height, width, features).unwrap();
    imported.tensors.insert("fc.weight".into(), (vec![features, features], identity));
    imported.tensors.insert("fc.bias".into(), (vec![features], vec![0.0; features]));
    imported.classifier = true;
    imported
}

/// Imports `weights`, writes and maps the backbone file, and runs the source network on each input: on the
/// device engine, and on the host, where folded norms are first given statistics of these inputs.
fn scores(weights: &Path, inputs: &[Vec<f32>]) -> (Imported, Vec<Vec<f32>>, Vec<f32>) {
    let mut imported = import(weights, &Request::default()).unwrap();
    if !imported.classifier {
        imported = with_features_as_scores(imported);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("source.backbone");
    write_backbone(&imported, &file).unwrap();
    assert_eq!(read_backbone(&file).unwrap().0.tensors, imported.tensors);

    let bytes = std::fs::read(&file).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    let plan: Plan = bundle.manifest().plan.clone();
    let specs = plan.tensors().into_iter().filter(|spec| spec.owner == Owner::Task);
    let decode = |name: String| (name.clone(), bundle.decode_f32(&name).unwrap());
    let owned: HashMap<String, Vec<f32>> = specs.map(|spec| decode(spec.name)).collect();
    assert!(matches!(plan.head.last(), Some(Op::Linear(_))));

    let backbone = Backbone::open(&file, &Options::default()).unwrap();
    let task = Task::from_tensors(&backbone, "source", &plan, &owned).unwrap();
    let mut runtime = Runtime::new(backbone, 1);
    let id = runtime.insert(task).unwrap();
    runtime.switch(id).unwrap();
    let run = |input: &Vec<f32>| runtime.tensor(input).unwrap().logits.to_vec();
    let on_device = inputs.iter().map(run).collect();

    let mut source = Source::open(&file, &Device::Cpu).unwrap();
    let shape = (inputs.len(), plan.input.c, plan.input.h, plan.input.w);
    let images = Tensor::from_vec(inputs.concat(), shape, &Device::Cpu).unwrap();
    source.calibrate(&images).unwrap();
    let on_host = source.classify(&images).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (imported, on_device, on_host)
}

/// Largest difference, relative to the largest score.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0.0f32, |size, v| size.max(v.abs()));
    got.iter().zip(want).fold(0.0f32, |far, (a, b)| far.max((a - b).abs())) / size
}

#[test]
fn the_sample_backbone_gives_pytorchs_scores() {
    let golden: Vec<f32> =
        include_str!("../fixtures/source_logits.txt").lines().map(|line| line.parse().unwrap()).collect();
    let weights =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundles/samples/cifar100-resnet20.safetensors");
    let imported = import(&weights, &Request::default()).unwrap();
    let normaliser = Normaliser::new(imported.mean, imported.std).unwrap();
    let picture = |n: usize| {
        let pixel = |i: usize| {
            let (c, y, x) = (i / 1024, i / 32 % 32, i % 32);
            normaliser.value(c, (37 * x + 91 * y + 53 * c + 7 * x * y + 29 * n) as u8)
        };
        (0..3 * 1024).map(pixel).collect::<Vec<f32>>()
    };
    let (_, on_device, on_host) = scores(&weights, &[picture(0), picture(1)]);
    for (place, got) in [("device", on_device.concat()), ("host", on_host)] {
        let far = distance(&got, &golden);
        assert!(far < 1e-5, "{place}: {far} of the largest score");
    }
}

/// The same for public weights, which this project may not ship: `PUBLIC_WEIGHTS` names a folder with
/// `NAME.th`, `.pt` or `.safetensors` and `NAME.golden.safetensors` (`input` `(n, 3, h, w)`; `logits` `(n,
/// classes)`, or `features` `(n, channels)` if the classifier does not match the blocks present, as made by
/// `fixtures/folded_features.py`).
#[test]
#[ignore = "needs public weights: PUBLIC_WEIGHTS=DIR cargo test -p tests --test import -- --ignored"]
fn public_weights_give_pytorchs_scores() {
    let folder = std::env::var("PUBLIC_WEIGHTS").expect("PUBLIC_WEIGHTS names a folder");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut compared = 0;
    for golden in files.iter().filter(|file| file.to_string_lossy().ends_with(".golden.safetensors")) {
        let name = golden.file_name().unwrap().to_string_lossy().replace(".golden.safetensors", ".");
        let is_weights = |file: &Path| {
            let own = file.file_name().unwrap().to_string_lossy();
            own.starts_with(&name) && !own.ends_with(".golden.safetensors")
        };
        let weights =
            files.iter().find(|file| is_weights(file)).unwrap_or_else(|| panic!("weights of {name}"));
        let golden = read_state_dict(golden).unwrap();
        let input = &golden.tensors["input"];
        let want = golden.tensors.get("logits").unwrap_or_else(|| &golden.tensors["features"]);
        let each = input.data.len() / input.shape[0];
        let inputs: Vec<Vec<f32>> = input.data.chunks(each).map(<[f32]>::to_vec).collect();
        let (imported, on_device, on_host) = scores(weights, &inputs);
        for (place, got) in [("device", on_device.concat()), ("host", on_host)] {
            let far = distance(&got, &want.data);
            let images = inputs.len();
            println!(
                "{name} {}, {place}: {far:.1e} of the largest score over {images} images",
                imported.arch
            );
            assert!(far < 1e-4, "{name} {place} {far}");
        }
        compared += 1;
    }
    assert!(compared > 0, "no *.golden.safetensors there");
}
