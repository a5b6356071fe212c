//! Several methods in one folder: what is refused before any training, and what remains when one fails.

use crate::baselines::{Comparison, Method, Outcome};
use crate::data::{Dataset, Images, Split};
use crate::fit::testing::ground;
use crate::fit::{Ground, Recipe};
use crate::progress::Progress;
use candle_core::Device;
use std::path::Path;

fn comparison(ground: &Ground, seed: u64) -> Comparison {
    let mut recipe = Recipe { seed, ..Recipe::small() };
    (recipe.teach.epochs, recipe.teach.batch) = (1, 8);
    Comparison::new(ground.source.clone(), recipe, &[], Device::Cpu, Progress::hidden())
}

fn dataset(ground: &Ground) -> Dataset {
    let Ground { classes, train, val, .. } = ground.clone();
    Dataset { place: "images".into(), classes, train, val: Some(val), test: None }
}

/// Whether the folder has anything of `method`.
fn has(folder: &Path, method: Method) -> bool {
    folder.join(method.name()).exists()
}

#[test]
fn results_of_other_options_are_refused_without_looking_at_images() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), ground(1, true));
    let folder = folder.path();
    let made = [Method::FineTune, Method::PackNet50];
    comparison(&ground, 1).on(&made, "a", dataset(&ground), folder, &mut Vec::new()).unwrap();
    let refused = |seed: u64, classes: &[String], methods: &[Method]| {
        let size = ground.train.images.size();
        comparison(&ground, seed).refuse_others(methods, size, classes, folder).map_err(|e| e.to_string())
    };
    let (same, fewer) = (&ground.classes[..], &ground.classes[..2]);
    assert_eq!(refused(1, same, &Method::ALL), Ok(()));
    let why = refused(2, same, &[Method::Features, Method::PackNet50]).unwrap_err();
    assert!(why.contains("packnet-50/result.json") && why.contains("seed 1 there, 2 now"), "{why}");
    let why = refused(1, fewer, &made).unwrap_err();
    assert!(why.contains("fine-tune/result.json") && why.contains("3 there, 2 now"), "{why}");
    assert_eq!(refused(2, same, &[Method::Features]), Ok(()), "others' results are of no concern");

    // Without a result, there may be a checkpoint to continue.
    let [finetuned, tailor] = [Method::FineTune, Method::Tailor].map(|method| folder.join(method.name()));
    std::fs::create_dir(&tailor).unwrap();
    std::fs::copy(finetuned.join("teach.safetensors"), tailor.join("teach.safetensors")).unwrap();
    std::fs::remove_file(finetuned.join("result.json")).unwrap();
    for method in [Method::FineTune, Method::Tailor] {
        assert_eq!(refused(1, same, &[method]), Ok(()));
        let why = refused(2, same, &[method]).unwrap_err();
        assert!(why.contains(&format!("{method}/teach.safetensors")), "{why}");
    }
}

#[test]
fn results_of_other_images_are_refused_before_anything_is_trained() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), ground(1, true));
    let folder = folder.path();
    let run = |methods: &[Method], dataset: Dataset| {
        let mut finished = Vec::new();
        comparison(&ground, 1).on(methods, "a", dataset, folder, &mut finished).map(|()| finished)
    };
    run(&[Method::Dan], dataset(&ground)).unwrap();
    let mut other = dataset(&ground);
    let size = other.train.images.size();
    let black = Images::new(vec![0; other.train.len() * size.area() * 3], size).unwrap();
    other.train = Split { images: black, ..other.train };
    let why = run(&[Method::FineTune, Method::Dan], other).unwrap_err().to_string();
    assert!(why.contains("dan/result.json") && why.contains("other options or images"), "{why}");
    assert!(!has(folder, Method::FineTune));
}

#[test]
fn results_before_a_failure_are_kept_and_in_order() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), ground(1, true));
    let folder = folder.path();
    let broken = folder.join("dan/dan.safetensors");
    std::fs::create_dir(folder.join("dan")).unwrap();
    std::fs::write(&broken, "not a checkpoint").unwrap();
    let methods = [Method::FineTune, Method::Features, Method::Dan, Method::Series];
    let run = |finished: &mut Vec<Outcome>| {
        comparison(&ground, 1).on(&methods, "a", dataset(&ground), folder, finished)
    };
    let mut finished = Vec::new();
    let why = run(&mut finished).unwrap_err().to_string();
    assert!(why.contains("dan.safetensors"), "{why}");
    let done = |finished: &[Outcome]| finished.iter().map(|outcome| outcome.method).collect::<Vec<_>>();
    assert_eq!(done(&finished), methods[..2]);
    assert!(!has(folder, Method::Series));

    std::fs::remove_file(&broken).unwrap();
    let mut again = Vec::new();
    run(&mut again).unwrap();
    assert_eq!(done(&again), methods);
    let shown = |finished: &[Outcome]| finished.iter().map(Outcome::json).collect::<Vec<_>>();
    assert_eq!(shown(&again[..2]), shown(&finished), "read back");
}
