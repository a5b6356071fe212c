//! Image folders made on the spot, good ones and broken ones.

use super::*;
use candle_core::Device;
use image::{ImageFormat, Luma, Rgb, RgbImage};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Cursor, Write},
    path::PathBuf,
};
use tempfile::TempDir;

type Tree = Vec<(String, Vec<u8>)>;

fn encode(image: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// A PNG of one colour.
fn png(r: u8, g: u8, b: u8) -> Vec<u8> {
    encode(RgbImage::from_pixel(5, 4, Rgb([r, g, b])), ImageFormat::Png)
}

/// Two classes of four training and two test images; image `i` of class `c` has the colour `(10 i, 100 c, 7)`.
fn good() -> Tree {
    let mut tree = Tree::new();
    for (split, n) in [("train", 4), ("test", 2)] {
        for (c, class) in ["cat", "dog"].into_iter().enumerate() {
            for i in 0..n {
                tree.push((format!("{split}/{class}/{i}.png"), png(10 * i, 100 * c as u8, 7)));
            }
        }
    }
    tree
}

fn directory(tree: &Tree) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in tree {
        let path = dir.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

fn zipped(tree: &Tree) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.zip");
    let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
    for (name, bytes) in tree {
        let options = zip::write::SimpleFileOptions::default();
        if name.ends_with('/') {
            zip.add_directory(name.as_str(), options).unwrap();
            continue;
        }
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    (dir, path)
}

fn read(path: &Path) -> Result<Dataset> {
    load(path, &Options::new(8, 8), &|_, _| {})
}

#[test]
fn a_directory_and_its_zip_give_the_same_set() {
    let tree = good();
    let dir = directory(&tree);
    let (_keep, zip) = zipped(&tree);
    let wrapped: Tree = tree.iter().map(|(name, bytes)| (format!("set/{name}"), bytes.clone())).collect();
    let wrapped_dir = directory(&wrapped);
    let (_keep_too, wrapped_zip) = zipped(&wrapped);
    for path in [dir.path(), &zip, wrapped_dir.path(), &wrapped_zip] {
        let set = read(path).unwrap();
        assert_eq!(set.classes, ["cat", "dog"]);
        assert_eq!(set.train.labels, [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(set.train.files[5], "train/dog/1.png");
        assert_eq!(set.test.as_ref().unwrap().labels, [0, 0, 1, 1]);
        assert!(set.val.is_none());
        for (i, &label) in set.train.labels.iter().enumerate() {
            let want = [10 * (i % 4) as u8, 100 * label as u8, 7];
            assert!(set.train.images.get(i).chunks_exact(3).all(|pixel| pixel == want), "image {i}");
        }
    }
}

#[test]
fn reads_jpeg_grey_alpha_and_wrong_endings() {
    let grey = image::GrayImage::from_pixel(3, 9, Luma([77]));
    let deep = image::ImageBuffer::from_pixel(3, 3, Luma([77u16 * 257]));
    let clear = image::RgbaImage::from_pixel(2, 2, image::Rgba([1, 2, 3, 0]));
    let red = RgbImage::from_pixel(16, 16, Rgb([200, 30, 30]));
    let tree = vec![
        ("train/a/jpeg.JPG".into(), encode(red.clone(), ImageFormat::Jpeg)),
        ("train/a/wrong-ending.png".into(), encode(red, ImageFormat::Jpeg)),
        ("train/a/deep/er.png".into(), encode(clear, ImageFormat::Png)),
        ("train/b/grey.png".into(), encode(grey, ImageFormat::Png)),
        ("train/b/sixteen.png".into(), encode(image::DynamicImage::ImageLuma16(deep), ImageFormat::Png)),
        ("train/b/notes.txt".into(), b"not an image".to_vec()),
        ("train/b/.hidden.png".into(), b"not an image".to_vec()),
        ("README.md".into(), b"passed over".to_vec()),
    ];
    let dir = directory(&tree);
    let set = read(dir.path()).unwrap();
    let names: Vec<&str> = set.train.files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["er.png", "jpeg.JPG", "wrong-ending.png", "grey.png", "sixteen.png"]);
    assert_eq!(set.train.images.get(0)[..3], [1, 2, 3]);
    for i in [1, 2] {
        let pixel = &set.train.images.get(i)[..3];
        assert!(pixel.iter().zip([200, 30, 30]).all(|(&v, want)| v.abs_diff(want) <= 3), "{pixel:?}");
    }
    for i in [3, 4] {
        assert!(set.train.images.get(i).iter().all(|&v| v == 77), "image {i}");
    }
    assert!(!set.train.images.is_grey() && set.train.images.gather(&[3, 4]).is_grey());
}

#[test]
fn bad_sets_are_refused_by_the_name_of_what_is_wrong() {
    let mut huge = png(1, 2, 3);
    // Width in the header becomes 2^31 - 1; the checksum is mended so that only the size is wrong.
    huge[16..20].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    let crc = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut nothing = png(1, 2, 3);
    nothing[16..20].copy_from_slice(&[0; 4]);
    let crc = crc32(&nothing[12..29]);
    nothing[29..33].copy_from_slice(&crc.to_be_bytes());

    let with = |name: &str, bytes: Vec<u8>| {
        let mut tree = good();
        tree.push((name.into(), bytes));
        tree
    };
    let without = |prefix: &str| good().into_iter().filter(|(n, _)| !n.starts_with(prefix)).collect::<Tree>();
    // Large enough that half of it is more than a header.
    let noise = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, (x * 7) as u8, (y * 13) as u8]));
    let whole = encode(noise, ImageFormat::Jpeg);
    let cut = whole[..whole.len() / 2].to_vec();
    let mut twice = with("val/dog/0.png", png(0, 0, 0));
    twice.push(("validation/dog/0.png".into(), png(0, 0, 0)));
    let cases: Vec<(Tree, [&str; 2])> = vec![
        (without("train"), ["", "no `train` folder"]),
        (without("train/dog"), ["train", "only one class, `cat`"]),
        (without("test/dog"), ["test", "no image of class `dog`"]),
        (with("train/empty/", vec![]), ["train/empty", "without images"]),
        (with("train/empty/x.txt", vec![1]), ["train/empty", "without images"]),
        (with("test/bird/0.png", png(0, 0, 0)), ["test/bird/0.png", "class `bird`"]),
        (with("val/bird/0.png", png(0, 0, 0)), ["val/bird/0.png", "class `bird`"]),
        (with("train/dog/x.png", b"no image".to_vec()), ["train/dog/x.png", "cannot be decoded"]),
        (with("train/dog/x.png", vec![]), ["train/dog/x.png", "empty file"]),
        (with("train/dog/x.png", png(1, 1, 1)[..50].to_vec()), ["train/dog/x.png", "cannot be decoded"]),
        (with("train/dog/x.jpg", vec![0xff, 0xd8, 0xff, 0xe0]), ["train/dog/x.jpg", "cannot be decoded"]),
        (with("train/dog/x.jpg", cut), ["train/dog/x.jpg", "cut short"]),
        (with("train/dog/x.jfif", b"<html>".to_vec()), ["train/dog/x.jfif", "neither PNG nor JPEG"]),
        (twice, ["", "both val/ and validation/"]),
        (with("val/dog/", vec![]), ["", "a val/ folder without images"]),
        (with("test/dog/x.png", huge), ["test/dog/x.png", "cannot be decoded"]),
        (with("test/dog/x.png", nothing), ["test/dog/x.png", "cannot be decoded"]),
        (with("train/dog/x.webp", vec![1]), ["train/dog/x.webp", "only PNG and JPEG"]),
        (with("train/x.png", png(0, 0, 0)), ["train/x.png", "outside any class folder"]),
    ];
    for (tree, [place, what]) in cases {
        let dir = directory(&tree);
        let (_keep, zip) = zipped(&tree);
        for path in [dir.path(), &zip] {
            let message = read(path).expect_err(what).to_string();
            assert!(message.contains(place) && message.contains(what), "{what}: {message}");
        }
    }
}

#[test]
fn zips_that_would_write_elsewhere_are_refused() {
    for name in ["../evil.png", "train/dog/../../../evil.png", "/etc/evil.png", "train\\dog\\evil.png"] {
        let mut tree = good();
        tree.push((name.into(), png(0, 0, 0)));
        let (_keep, zip) = zipped(&tree);
        let message = read(&zip).expect_err(name).to_string();
        assert!(message.contains("leads out of the archive"), "{name}: {message}");
    }
}

#[test]
fn what_is_no_set_at_all_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.zip");
    fs::write(&text, b"PK? no").unwrap();
    assert!(read(&text).unwrap_err().to_string().contains("readable .zip"));
    let missing = dir.path().join("missing");
    assert!(read(&missing).unwrap_err().to_string().contains("missing"));
    let (_keep, zip) = zipped(&good());
    let bytes = fs::read(&zip).unwrap();
    for cut in (0..bytes.len()).step_by(97) {
        fs::write(&text, &bytes[..cut]).unwrap();
        assert!(read(&text).is_err(), "cut at {cut}");
    }
}

#[test]
fn too_many_pixels_are_refused_before_they_are_decoded() {
    let dir = directory(&good());
    let options = Options { memory: 1000, ..Options::new(64, 64) };
    let message = load(dir.path(), &options, &|_, _| panic!("decoded")).unwrap_err().to_string();
    assert!(message.contains("12 images of 64x64"), "{message}");
}

/// `n` images of 4x4 pixels whose pixels all hold the image's number, labelled by number modulo `classes`.
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
        let (kept, held) = hold_out(numbered(n, classes), fraction, 3).unwrap();
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
        assert_eq!(hold_out(numbered(n, classes), fraction, 3).unwrap().1.files, held.files);
    }
    let (_, held) = hold_out(numbered(40, 4), 0.25, 3).unwrap();
    // A quarter of ten, rounded away from zero.
    assert_eq!(held.len(), 12);
    assert_ne!(hold_out(numbered(40, 4), 0.25, 4).unwrap().1.files, held.files);
    let message = hold_out(numbered(5, 4), 0.5, 0).unwrap_err().to_string();
    assert!(message.contains("train/1/1.png"), "{message}");
    assert!(hold_out(numbered(8, 4), 1.0, 0).is_err());
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
    assert_eq!(indices.len(), 48, "the last two images make no batch");
    assert_eq!(indices.iter().collect::<BTreeSet<_>>().len(), 48);
    assert_eq!(epoch(1, 2), (indices.clone(), values.clone()));
    assert_ne!(epoch(1, 3).0, indices);
    assert_ne!(epoch(2, 2).0, indices);

    // Only black and the image's own value occur, and shifts do occur.
    let mut shifted = 0;
    for (&i, image) in indices.iter().zip(values.chunks(48)) {
        assert!(image.iter().all(|&v| v == 0.0 || (v - i as f32).abs() < 1e-4));
        shifted += usize::from(i > 0 && image.contains(&0.0));
    }
    assert!(shifted > 24, "{shifted} of 48");

    // The same image is changed alike whatever the batch it comes in.
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
            assert!(most - least <= 1, "class {c}: an image comes {most} times and another {least}");
        }
        assert_eq!(drawn, indices(1, epoch));
    }
    assert_eq!(extra.len(), 3, "the class with fewer images differs from epoch to epoch");
    assert_ne!(indices(1, 0), indices(2, 0));
    assert_ne!(indices(1, 0), indices(1, 1));

    // An image that comes twice in an epoch comes differently.
    let mut seen: std::collections::BTreeMap<usize, BTreeSet<Vec<u32>>> = Default::default();
    let augment = Augment { jitter: 0.9, ..Augment::default() };
    for batch in loader.train(1, 0, augment).unwrap() {
        let batch = batch.unwrap();
        let values = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (i, image) in batch.indices.iter().zip(values.chunks(48)) {
            seen.entry(*i).or_default().insert(image.iter().map(|v| v.to_bits()).collect());
        }
    }
    assert!((36..39).all(|i| seen[&i].len() >= 3), "the three images of the last class come four times");
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
    let counts = |train, val| Counts { train, val, test: 0 };
    assert!(counts(100, 0).check_batch(90, 0.1).is_ok());
    assert!(counts(99, 0).check_batch(90, 0.1).is_err());
    assert!(counts(90, 10).check_batch(90, 0.1).is_ok());
}

/// The checksum of a PNG chunk, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn looks_are_at_every_image_in_order_and_repeat() {
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
