//! Held-out splits, and batches for training and evaluation.

use super::*;
use candle_core::Device;
use std::collections::BTreeSet;

/// `n` images of 4x4 pixels, each filled with the image's index and labelled by index modulo `classes`.
fn numbered(n: usize, classes: usize) -> Split {
    let size = Size { height: 4, width: 4 };
    let pixels = (0..n).flat_map(|i| vec![i as u8; 48]).collect();
    Split {
        images: Images::new(pixels, size).unwrap(),
        labels: (0..n).map(|i| (i % classes) as u32).collect(),
        files: (0..n).map(|i| format!("train/{}/{i}.png", i % classes)).collect(),
    }
}

#[test]
fn holding_out_is_stratified_seeded_and_loses_nothing() {
    for (n, classes, fraction) in [(40, 4, 0.25), (40, 4, 0.01), (40, 4, 0.99), (11, 5, 0.5)] {
        let HeldOut { train: kept, val: held, overlap } =
            hold_out(numbered(n, classes), fraction, 3).unwrap();
        assert_eq!(overlap, None);
        let mut files: Vec<_> = kept.files.iter().chain(&held.files).cloned().collect();
        files.sort();
        let mut all = numbered(n, classes).files;
        all.sort();
        assert_eq!(files, all);
        for side in [&kept, &held] {
            let seen: BTreeSet<u32> = side.labels.iter().copied().collect();
            assert_eq!(seen.len(), classes, "{n} {classes} {fraction}");
            for (i, file) in side.files.iter().enumerate() {
                assert!(file.ends_with(&format!("/{}.png", side.images.get(i)[0])));
            }
        }
        assert_eq!(hold_out(numbered(n, classes), fraction, 3).unwrap().val.files, held.files);
    }
    // A quarter of ten, rounded half away from zero: three of each class. Finished work is known by this choice.
    let held = |seed| numbers(&hold_out(numbered(40, 4), 0.25, seed).unwrap().val);
    assert_eq!(held(3), [0, 2, 3, 4, 5, 7, 19, 21, 22, 24, 37, 38]);
    assert_eq!(held(4), [1, 6, 11, 12, 14, 19, 20, 29, 31, 32, 33, 38]);
    let message = hold_out(numbered(5, 4), 0.5, 0).unwrap_err().to_string();
    assert!(message.contains("train/1/1.png"), "{message}");
    assert!(hold_out(numbered(8, 4), 1.0, 0).is_err());
}

/// The numbers that the images of `split` are filled with.
fn numbers(split: &Split) -> Vec<u8> {
    (0..split.len()).map(|i| split.images.get(i)[0]).collect()
}

/// Images of 4x4 pixels filled with these numbers, by class.
fn filled(classes: &[&[u8]]) -> Split {
    let all = classes.iter().zip(0..).flat_map(|(class, label)| class.iter().map(move |&n| (n, label)));
    let all: Vec<(u8, u32)> = all.collect();
    let pixels = all.iter().flat_map(|&(n, _)| [n; 48]).collect();
    Split {
        images: Images::new(pixels, Size { height: 4, width: 4 }).unwrap(),
        labels: all.iter().map(|&(_, label)| label).collect(),
        files: all.iter().enumerate().map(|(i, (_, label))| format!("train/{label}/{i}.png")).collect(),
    }
}

#[test]
fn copies_of_an_image_are_not_divided() {
    // All images of the first class are there three times; the second has one, four times; one of the third is
    // there twice.
    let copied = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4];
    let set = filled(&[&copied, &[9; 4], &[11, 12, 13, 14, 15, 11]]);
    let mut together = 0;
    for seed in 0..20 {
        let HeldOut { train, val, overlap } = hold_out(set.clone(), 0.3, seed).unwrap();
        let of = |split: &Split, class: u32| -> Vec<u8> {
            let all = numbers(split).into_iter().zip(&split.labels);
            all.filter(|(_, label)| **label == class).map(|(n, _)| n).collect()
        };
        // Three tenths of twelve are four, rounded: all copies of one image, but not of a second.
        assert_eq!((of(&train, 0).len(), of(&val, 0).len()), (9, 3), "{seed}");
        for class in [0, 2] {
            let (kept, held) = (of(&train, class), of(&val, class));
            assert!(!kept.is_empty() && kept.iter().all(|n| !held.contains(n)), "{seed}: {kept:?} {held:?}");
        }
        let held = of(&val, 2);
        assert_eq!(held.len(), 2, "{held:?}");
        together += usize::from(held.iter().filter(|&&n| n == 11).count() == 2);
        // Copies of one image are divided like different ones: three tenths of four are one, rounded.
        assert_eq!((of(&train, 1).len(), of(&val, 1).len()), (3, 1), "{seed}");
        let overlap = overlap.unwrap();
        assert_eq!((overlap.count, overlap.of), (1, val.len()), "{seed}: {overlap}");
    }
    assert!((1..20).contains(&together), "{together}");
    // Where no copies fit, the fewest are held out.
    let HeldOut { train, val, .. } = hold_out(filled(&[&[1, 1, 1, 2, 2], &[3, 4]]), 0.1, 0).unwrap();
    assert_eq!((numbers(&val)[..2].to_vec(), train.len()), (vec![2, 2], 4));
}

#[test]
fn images_of_two_classes_on_both_sides_are_named() {
    let set = filled(&[&[5, 1, 2, 3], &[6, 5, 7, 8]]);
    let mut divided = 0;
    for seed in 0..20 {
        let HeldOut { val, overlap, .. } = hold_out(set.clone(), 0.5, seed).unwrap();
        let is_held = |file: &&str| val.files.iter().any(|held| held == file);
        let held: Vec<&str> = ["train/0/0.png", "train/1/5.png"].into_iter().filter(is_held).collect();
        match held[..] {
            [held] => {
                let other = if held == "train/0/0.png" { "train/1/5.png" } else { "train/0/0.png" };
                let said = format!(
                    "1 of 4 images of the held-out part of train also occur in the rest of it, the first {held} \
                     (as {other}): "
                );
                assert!(overlap.unwrap().to_string().starts_with(&said), "{seed}: {said}");
                divided += 1;
            }
            _ => assert_eq!(overlap, None, "{seed}"),
        }
    }
    assert!((1..20).contains(&divided), "{divided}");
}

fn loader(n: usize, batch: usize) -> Loader {
    Loader::new(&numbered(n, 3), [0.0; 3], [1.0 / 255.0; 3], batch, &Device::Cpu).unwrap()
}

fn collect(batches: Batches) -> (Vec<usize>, Vec<f32>) {
    let (mut indices, mut values) = (Vec::new(), Vec::new());
    for batch in batches {
        let batch = batch.unwrap();
        assert_eq!(batch.images.dims(), [batch.indices.len(), 3, 4, 4]);
        let labels: Vec<u32> = batch.indices.iter().map(|i| (i % 3) as u32).collect();
        assert_eq!(batch.labels.to_vec1::<u32>().unwrap(), labels);
        values.extend(batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        indices.extend(batch.indices);
    }
    (indices, values)
}

#[test]
fn evaluation_sees_every_image_once_in_order() {
    let loader = loader(10, 4);
    assert_eq!(loader.eval().len(), 3);
    let (indices, values) = collect(loader.eval());
    assert_eq!(indices, (0..10).collect::<Vec<_>>());
    for (i, image) in values.chunks(48).enumerate() {
        assert!(image.iter().all(|v| (v - i as f32).abs() < 1e-4), "image {i}: {image:?}");
    }
}

#[test]
fn training_is_a_function_of_seed_epoch_and_index() {
    let loader = loader(50, 8);
    let augment = Augment { crop_pad: 2, flip: true, ..Augment::default() };
    let epoch = |seed, epoch| collect(loader.train(seed, epoch, augment).unwrap());
    let (indices, values) = epoch(1, 2);
    assert_eq!(indices.len(), 48, "the last two images do not fill a batch");
    assert_eq!(indices.iter().collect::<BTreeSet<_>>().len(), 48);
    assert_eq!(epoch(1, 2), (indices.clone(), values.clone()));
    assert_ne!(epoch(1, 3).0, indices);
    assert_ne!(epoch(2, 2).0, indices);

    // Only black and the image's own value occur, and some images are shifted.
    let mut shifted = 0;
    for (&i, image) in indices.iter().zip(values.chunks(48)) {
        assert!(image.iter().all(|&v| v == 0.0 || (v - i as f32).abs() < 1e-4));
        shifted += usize::from(i > 0 && image.contains(&0.0));
    }
    assert!(shifted > 24, "{shifted} of 48");

    // An image is augmented the same way in whichever batch it occurs.
    let (again, values_again) = collect(self::loader(50, 3).train(1, 2, augment).unwrap());
    assert_eq!(again[..48], indices);
    assert_eq!(values_again[..48 * 48], values);
}

#[test]
fn balanced_epochs_draw_every_class_equally_often() {
    // Class 0 has 30 images, class 1 six and class 2 three.
    let label = |i: usize| if i < 30 { 0 } else { 1 + usize::from(i >= 36) };
    let mut split = numbered(39, 3);
    split.labels = (0..39).map(|i| label(i) as u32).collect();
    let loader = Loader::new(&split, [0.0; 3], [1.0 / 255.0; 3], 5, &Device::Cpu).unwrap().balanced(true);
    let indices = |seed, epoch| -> Vec<usize> {
        let augment = Augment { crop_pad: 1, ..Augment::default() };
        loader.train(seed, epoch, augment).unwrap().flat_map(|batch| batch.unwrap().indices).collect()
    };
    let mut extra = BTreeSet::new();
    for epoch in 0..20 {
        let drawn = indices(1, epoch);
        assert_eq!(drawn.len(), 35);
        let mut images = [0; 39];
        drawn.iter().for_each(|&i| images[i] += 1);
        let of_class = |c| images.iter().enumerate().filter(move |(i, _)| label(*i) == c).map(|(_, &n)| n);
        let counts: [usize; 3] = std::array::from_fn(|c| of_class(c).sum());
        assert!(counts.iter().all(|n| (11..=12).contains(n)), "{counts:?}");
        extra.extend((0..3).filter(|&c| counts[c] == 11));
        for c in 0..3 {
            let (least, most) = (of_class(c).min().unwrap(), of_class(c).max().unwrap());
            assert!(most - least <= 1, "class {c}: one image occurs {most} times and another {least}");
        }
        assert_eq!(drawn, indices(1, epoch));
    }
    assert_eq!(extra.len(), 3, "the class with fewer images differs from epoch to epoch");
    assert_ne!(indices(1, 0), indices(2, 0));
    assert_ne!(indices(1, 0), indices(1, 1));

    // An image that occurs twice in an epoch is augmented differently each time.
    let mut seen: std::collections::BTreeMap<usize, BTreeSet<Vec<u32>>> = Default::default();
    let augment = Augment { jitter: Jitter::all(0.9), ..Augment::default() };
    for batch in loader.train(1, 0, augment).unwrap() {
        let batch = batch.unwrap();
        let values = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (i, image) in batch.indices.iter().zip(values.chunks(48)) {
            seen.entry(*i).or_default().insert(image.iter().map(|v| v.to_bits()).collect());
        }
    }
    assert!((36..39).all(|i| seen[&i].len() >= 3), "the three images of the last class occur four times");
}

#[test]
fn mirroring_swaps_left_and_right() {
    let size = Size { height: 1, width: 3 };
    let images = Images::new(vec![1, 1, 1, 2, 2, 2, 3, 3, 3], size).unwrap();
    let split = Split { images, labels: vec![0], files: vec!["x".into()] };
    let loader = Loader::new(&split, [0.0; 3], [1.0 / 255.0; 3], 1, &Device::Cpu).unwrap();
    let mut seen = BTreeSet::new();
    for epoch in 0..32 {
        let batch = loader
            .train(0, epoch, Augment { flip: true, ..Augment::default() })
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let row = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        seen.insert(row[..3].iter().map(|v| v.round() as u8).collect::<Vec<_>>());
    }
    assert_eq!(seen, BTreeSet::from([vec![1, 2, 3], vec![3, 2, 1]]));
}

#[test]
fn stopping_early_and_impossible_batches() {
    let mut batches = loader(50, 2).train(0, 0, Augment::default()).unwrap();
    batches.next().unwrap().unwrap();
    drop(batches);
    let message = loader(5, 8).train(0, 0, Augment::default()).err().unwrap().to_string();
    assert!(message.contains("--batch 8") && message.contains("at most 5"), "{message}");
    assert!(Loader::new(&numbered(5, 3), [0.0; 3], [1.0; 3], 0, &Device::Cpu).is_err());
}

#[test]
fn a_batch_must_find_enough_images() {
    let counts = |train, val| Counts { train, val, test: 0, lone: None };
    assert!(counts(100, 0).check_batch(90, 0.1).is_ok());
    assert!(counts(99, 0).check_batch(90, 0.1).is_err());
    assert!(counts(90, 10).check_batch(90, 0.1).is_ok());
}

#[test]
fn statistics_cover_only_the_images_given() {
    let (mean, std) = statistics(&numbered(10, 3).gather(&[2, 4, 6]).gather(&[0, 2]).images);
    for c in 0..3 {
        assert!(
            (mean[c] - 4.0 / 255.0).abs() < 1e-6 && (std[c] - 2.0 / 255.0).abs() < 1e-6,
            "{mean:?} {std:?}"
        );
    }
}

#[test]
fn looks_cover_every_image_in_order_and_are_reproducible() {
    let loader = loader(10, 4);
    let augment = Augment { crop_pad: 2, ..Augment::default() };
    let (order, plain) = collect(loader.eval());
    let (first, changed) = collect(loader.look(7, 1, augment));
    assert_eq!(first, order, "the incomplete last batch included");
    assert_ne!(changed, plain);
    assert_eq!(collect(loader.look(7, 1, augment)).1, changed);
    assert_ne!(collect(loader.look(7, 2, augment)).1, changed, "another look");
    assert_ne!(collect(loader.look(8, 1, augment)).1, changed, "another seed");
}

#[test]
fn a_sample_is_spread_over_the_whole_set() {
    assert_eq!(spread(10, 4), [0, 2, 5, 7]);
    assert_eq!(spread(3, 10), [0, 1, 2]);
    assert!(spread(0, 4).is_empty());
    // A sample of a sample is of the same images.
    let split = numbered(10, 3).gather(&[1, 4, 7, 9]).gather(&[3, 1]);
    assert_eq!((split.images.get(0)[0], split.images.get(1)[0]), (9, 4));
    assert_eq!((split.len(), split.images.len(), &split.labels[..]), (2, 2, &[0, 1][..]));
}

#[test]
fn images_without_colour_hold_luma_in_every_channel() {
    let pixels = [[200, 30, 30], [7, 7, 7], [0, 255, 0], [0, 0, 255]].concat();
    let images = Images::new(pixels, Size { height: 1, width: 2 }).unwrap();
    let grey = images.gather(&[1, 0]).in_grey();
    assert!(grey.is_grey() && !images.is_grey());
    // 0.299 R + 0.587 G + 0.114 B, rounded.
    assert_eq!((grey.get(0), grey.get(1)), (&[150, 150, 150, 29, 29, 29][..], &[81, 81, 81, 7, 7, 7][..]));
}
