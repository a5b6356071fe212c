//! Image folders made on the fly, good and broken ones.

use super::*;
use image::{ImageFormat, Luma, Rgb, RgbImage};
use std::{
    fs::{self, File},
    io::{Cursor, Write},
    path::PathBuf,
};
use tempfile::TempDir;

pub(super) type Tree = Vec<(String, Vec<u8>)>;

pub(super) fn encode(image: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// A PNG of one colour.
pub(super) fn png(r: u8, g: u8, b: u8) -> Vec<u8> {
    encode(RgbImage::from_pixel(5, 4, Rgb([r, g, b])), ImageFormat::Png)
}

/// Two classes of four training and two test images; image `i` of class `c` has the colour `(10 i, 100 c,
/// 7)`.
pub(super) fn good() -> Tree {
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

pub(super) fn directory(tree: &Tree) -> TempDir {
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

pub(super) fn zipped(tree: &Tree) -> (TempDir, PathBuf) {
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

pub(super) fn read(path: &Path) -> Result<Dataset> {
    load(path, Size { height: 8, width: 8 }, &|_, _| {})
}

#[test]
fn a_directory_and_its_zip_give_the_same_set() {
    let tree = good();
    let dir = directory(&tree);
    let (_keep, zip) = zipped(&tree);
    let wrapped: Tree = tree.iter().map(|(name, bytes)| (format!("set/{name}"), bytes.clone())).collect();
    let dotted: Tree = tree.iter().map(|(name, bytes)| (format!("./{name}"), bytes.clone())).collect();
    let (_keep_three, dotted_zip) = zipped(&dotted);
    let wrapped_dir = directory(&wrapped);
    let (_keep_too, wrapped_zip) = zipped(&wrapped);
    for path in [dir.path(), &zip, wrapped_dir.path(), &wrapped_zip, &dotted_zip] {
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
fn reads_jpeg_grey_alpha_and_wrong_extensions() {
    let grey = image::GrayImage::from_pixel(3, 9, Luma([77]));
    let deep = image::ImageBuffer::from_pixel(3, 3, Luma([77u16 * 257]));
    let clear = image::RgbaImage::from_pixel(2, 2, image::Rgba([1, 2, 3, 0]));
    let red = RgbImage::from_pixel(16, 16, Rgb([200, 30, 30]));
    // Phones append a video.
    let moving = [encode(red.clone(), ImageFormat::Jpeg), b"film \xff\xda without end".to_vec()].concat();
    let tree = vec![
        ("train/a/jpeg.JPG".into(), encode(red.clone(), ImageFormat::Jpeg)),
        ("train/a/moving.jpg".into(), moving),
        ("train/a/wrong-ending.png".into(), encode(red, ImageFormat::Jpeg)),
        ("train/a/deep/er.png".into(), encode(clear, ImageFormat::Png)),
        ("train/b/grey.png".into(), encode(grey, ImageFormat::Png)),
        ("train/b/sixteen.png".into(), encode(image::DynamicImage::ImageLuma16(deep), ImageFormat::Png)),
        ("train/b/notes.txt".into(), b"not an image".to_vec()),
        ("train/b/.hidden.png".into(), b"not an image".to_vec()),
        ("train/b/Thumbs.db".into(), b"of a file manager".to_vec()),
        ("train/b/photograph".into(), png(1, 2, 3)),
        ("README.md".into(), b"ignored".to_vec()),
    ];
    let dir = directory(&tree);
    let odd = find(dir.path()).unwrap().oddities();
    assert!(odd[0].contains("extension: 2, the first `train/b/notes.txt`"), "{odd:?}");
    assert!(odd[1].contains("that class: 1, the first `train/a/deep/er.png` as `a`"), "{odd:?}");
    let set = read(dir.path()).unwrap();
    let names: Vec<&str> = set.train.files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["er.png", "jpeg.JPG", "moving.jpg", "wrong-ending.png", "grey.png", "sixteen.png"]);
    assert_eq!(set.train.images.get(0)[..3], [1, 2, 3]);
    for i in [1, 2, 3] {
        let pixel = &set.train.images.get(i)[..3];
        assert!(pixel.iter().zip([200, 30, 30]).all(|(&v, want)| v.abs_diff(want) <= 3), "{pixel:?}");
    }
    for i in [4, 5] {
        assert!(set.train.images.get(i).iter().all(|&v| v == 77), "image {i}");
    }
    assert!(!set.train.images.is_grey() && set.train.images.gather(&[4, 5]).is_grey());
}

#[test]
fn bad_sets_are_rejected_naming_the_culprit() {
    // Overwrites width and height in the header; the checksum is fixed so that only the size is wrong.
    let sized = |width: u32, height: u32| {
        let mut image = png(1, 2, 3);
        image[16..20].copy_from_slice(&width.to_be_bytes());
        image[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32(&image[12..29]);
        image[29..33].copy_from_slice(&crc.to_be_bytes());
        image
    };
    let (huge, nothing, large) = (sized(i32::MAX as u32, 4), sized(0, 4), sized(30_000, 30_000));

    let with = |name: &str, bytes: Vec<u8>| {
        let mut tree = good();
        tree.push((name.into(), bytes));
        tree
    };
    let without = |prefix: &str| good().into_iter().filter(|(n, _)| !n.starts_with(prefix)).collect::<Tree>();
    // Large enough that half of it exceeds the header.
    let noise = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, (x * 7) as u8, (y * 13) as u8]));
    let whole = encode(noise, ImageFormat::Jpeg);
    let cut = whole[..whole.len() / 2].to_vec();
    let mut twice = with("val/dog/0.png", png(0, 0, 0));
    twice.push(("validation/dog/0.png".into(), png(0, 0, 0)));
    let mut untested = without("test");
    untested.push(("test/dog/0.txt".into(), vec![1]));
    let cases: Vec<(Tree, [&str; 2])> = vec![
        (untested, ["", "a test/ folder without images"]),
        (with("Val/dog/0.png", png(0, 0, 0)), ["", "rename it to `val`"]),
        (vec![("Train/dog/0.png".into(), png(0, 0, 0))], ["", "rename it to `train`"]),
        (with("train/dog/x.dng", vec![1]), ["train/dog/x.dng", "only PNG and JPEG"]),
        (with("train/a\tb/0.png", png(0, 0, 0)), ["", "class `a\\tb`"]),
        (without("train"), ["", "no `train` folder"]),
        (vec![("cat/0.png".into(), vec![]), ("dog/0.png".into(), vec![])], ["", "images in cat/, dog/"]),
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
        (with("test/dog/x.png", large), ["test/dog/x.png", "30000x30000 pixels, but at most 400 million"]),
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
fn parts_can_be_read_alone() {
    let mut tree = good();
    tree.push(("train/dog/x.png".into(), b"no image".to_vec()));
    let dir = directory(&tree);
    let found = find(dir.path()).unwrap();
    assert!(found.oddities().is_empty());
    let seen = std::cell::Cell::new((0, 0));
    let (size, little) = (Size { height: 8, width: 8 }, Memory { bytes: 1000, is_option: false });
    let count = |done, all| seen.set((done, all));
    let parts = found.within(little).read_parts([Part::Test, Part::Val], size, &count);
    let [Some(test), None] = parts.unwrap() else { panic!("a test and no validation split") };
    assert_eq!((test.labels, seen.get()), (vec![0, 0, 1, 1], (4, 4)));
    let broken =
        find(dir.path()).unwrap().read_parts([Part::Train], Size { height: 8, width: 8 }, &|_, _| {});
    assert!(broken.unwrap_err().to_string().contains("train/dog/x.png"));
}

#[test]
fn zips_that_would_write_elsewhere_are_rejected() {
    for name in ["../evil.png", "train/dog/../../../evil.png", "/etc/evil.png", "train\\dog\\evil.png"] {
        let mut tree = good();
        tree.push((name.into(), png(0, 0, 0)));
        let (_keep, zip) = zipped(&tree);
        let message = read(&zip).expect_err(name).to_string();
        assert!(message.contains("leads out of the archive"), "{name}: {message}");
    }
}

#[test]
fn files_that_are_not_a_set_are_rejected() {
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
fn too_many_pixels_are_rejected_before_decoding() {
    let dir = directory(&good());
    let found = find(dir.path()).unwrap().within(Memory { bytes: 1000, is_option: false });
    let size = Size { height: 64, width: 64 };
    let message = found.check_memory(&[Part::Test, Part::Val], size).unwrap_err().to_string();
    assert!(message.contains("4 images of 64x64"), "{message}");
    let message = found.read(size, &|_, _| panic!("decoded")).unwrap_err().to_string();
    assert!(message.contains("12 images of 64x64"), "{message}");
}

/// The checksum of a PNG chunk, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}
