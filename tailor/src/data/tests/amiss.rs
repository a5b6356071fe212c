//! Messages about a set before it is decoded, and errors that name all faulty files at once.

use super::sets::{Tree, directory, encode, good, png, read, zipped};
use super::*;
use image::{GrayImage, ImageFormat, Luma};

fn with(more: &[(&str, Vec<u8>)]) -> Tree {
    let more = more.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
    good().into_iter().chain(more).collect()
}

#[test]
fn one_line_summarises_what_was_found_and_what_is_missing() {
    let summary = |tree: &Tree, holds_out| {
        let (dir, (_keep, zip)) = (directory(tree), zipped(tree));
        let [said, of_zip] = [dir.path(), &zip].map(|path| {
            let said = find(path).unwrap().summary(holds_out);
            said.strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned()
        });
        assert_eq!(said, of_zip);
        said
    };
    let held_out = "2 classes, 8 training images (4 of each class); no val/ (the --validation \
                    fraction is held out); 4 in test/";
    assert_eq!(summary(&good(), true), held_out);
    let alone = "2 classes, 8 training images (4 of each class); no val/; 4 in test/";
    assert_eq!(summary(&good(), false), alone);
    let mut tree = with(&[("train/bird/0.png", png(1, 1, 1)), ("val/bird/0.png", png(1, 1, 1))]);
    tree.retain(|(name, _)| !name.starts_with("test"));
    tree.extend(["cat", "dog"].map(|class| (format!("val/{class}/0.png"), png(0, 0, 0))));
    tree.extend(["dev/cat/0.png", ".git/config", "__MACOSX/x", "README"].map(|name| (name.into(), vec![1])));
    let uneven = "3 classes, 9 training images (bird has 1, the fewest; dog 4, the most); 3 in val/; no \
                  test/; ignored: dev/";
    assert_eq!(summary(&tree, true), uneven);
}

#[test]
fn a_split_skipped_on_purpose_is_not_reported_as_ignored() {
    let dir = directory(&good());
    let said = find_labelled(dir.path()).unwrap().summary(true);
    assert!(!said.contains("ignored"), "{said}");
}

#[test]
fn a_test_without_labels_is_left_out_where_asked_for_and_said_so() {
    let mut tree: Tree = good().into_iter().filter(|(name, _)| !name.starts_with("test")).collect();
    tree.extend(["test/2.png", "test/10.png", "test/list.txt"].map(|name| (name.into(), png(1, 1, 1))));
    let dir = directory(&tree);
    let refused = find(dir.path()).err().unwrap().to_string();
    assert!(refused.contains("test/10.png: an image outside any class folder"), "{refused}");
    let found = find_skipping_unlabelled(dir.path()).unwrap();
    assert_eq!((found.counts().train, found.counts().test), (8, 0));
    let said = found.summary(true);
    assert!(said.ends_with("; 2 in test/, without labels"), "{said}");
    // The same words where they are not left out but read separately.
    let separate = find_labelled(dir.path()).unwrap().beside(2);
    assert_eq!(separate.summary(true), said);
    assert!(separate.oddities().is_empty(), "{:?}", separate.oddities());
    let odd = found.oddities();
    assert!(odd.len() == 1 && odd[0].ends_with("no labels: 2, the first `test/10.png`"), "{odd:?}");

    // A single image in a class folder makes it a test that somebody has to sort.
    tree.push(("test/cat/0.png".into(), png(1, 1, 1)));
    let refused = find_skipping_unlabelled(directory(&tree).path()).err().unwrap().to_string();
    assert!(refused.contains("test/10.png: an image outside any class folder"), "{refused}");
    // What has labels is read as ever, in a folder or not.
    let (labelled, (_keep, zip)) = (directory(&good()), zipped(&good()));
    for path in [labelled.path(), &zip] {
        let found = find_skipping_unlabelled(path).unwrap();
        assert!(found.counts().test == 4 && found.oddities().is_empty());
    }
}

#[test]
fn files_are_known_by_their_paths_and_lengths() {
    let tree = good();
    let dir = directory(&tree);
    let digest = |parts: &[Part]| find(dir.path()).unwrap().digest_of(parts).unwrap().unwrap();
    let (train, test) = (digest(&[Part::Train]), digest(&[Part::Test]));
    assert_ne!(train, test);
    assert_ne!(digest(&[Part::Train, Part::Test]), train);
    std::fs::write(dir.path().join("train/cat/0.png"), "longer or shorter").unwrap();
    assert_ne!(digest(&[Part::Train]), train);
    assert_eq!(digest(&[Part::Test]), test);
    std::fs::rename(dir.path().join("test/cat/0.png"), dir.path().join("test/cat/00.png")).unwrap();
    assert_ne!(digest(&[Part::Test]), test);
    let (_keep, zip) = zipped(&tree);
    assert_eq!(find(&zip).unwrap().digest_of(&[Part::Train]).unwrap(), None);
}

#[test]
fn a_class_with_one_image_is_known_from_the_listing() {
    let tree = with(&[("train/bird/x.png", b"no image".to_vec()), ("test/bird/x.png", png(1, 1, 1))]);
    let dir = directory(&tree);
    let found = find(dir.path()).unwrap();
    let only = format!("{}: the only image of its class", dir.path().join("train/bird/x.png").display());
    let said = found.counts().check_division(0.1).unwrap_err().to_string();
    assert!(said.starts_with(&only), "{said}");
    found.counts().check_division(0.0).unwrap();
    // With its own val/, nothing is held out.
    let mut tree = tree;
    tree.extend(["bird", "cat", "dog"].map(|class| (format!("val/{class}/0.png"), png(0, 0, 0))));
    let found = find(directory(&tree).path()).unwrap();
    found.counts().check_division(0.1).unwrap();
}

#[test]
fn images_in_two_splits_are_found_by_their_pixels() {
    // Every test image is also a training image, and so is the last validation image.
    let tree = with(&[("val/cat/0.png", png(9, 9, 9)), ("val/dog/7.png", png(30, 100, 7))]);
    let set = read(directory(&tree).path()).unwrap();
    let found: Vec<_> =
        set.overlaps().into_iter().map(|o| (o.split, o.other, o.count, o.of, o.first, o.twin)).collect();
    let want = [
        ("val", "train", 1, 2, "val/dog/7.png".to_owned(), "train/dog/3.png".to_owned()),
        ("test", "train", 4, 4, "test/cat/0.png".to_owned(), "train/cat/0.png".to_owned()),
    ];
    assert_eq!(found, want);
}

#[test]
fn unsupported_formats_are_reported_together() {
    let others = ["train/cat/b.heic", "train/cat/a.HEIC", "train/dog/x.webp", "val/dog/only.heic"];
    let tree = with(&others.map(|name| (name, vec![1])));
    let (dir, (_keep, zip)) = (directory(&tree), zipped(&tree));
    for path in [dir.path(), &zip] {
        let said = find(path).err().unwrap().to_string();
        let want = "4 files in unsupported formats (.heic 3, .webp 1), the first train/cat/a.HEIC; only PNG";
        assert!(said.contains(want), "{said}");
    }
    let said = images_below(dir.path(), "train").unwrap_err().to_string();
    assert!(said.contains("3 files in unsupported formats (.heic 2, .webp 1)"), "{said}");
}

#[test]
fn broken_images_of_all_splits_are_reported_together() {
    let mut tree = with(&[("train/cat/x.png", vec![]), ("test/dog/y.png", b"no image".to_vec())]);
    let (dir, (_keep, zip)) = (directory(&tree), zipped(&tree));
    for path in [dir.path(), &zip] {
        let said = read(path).unwrap_err().to_string();
        let want = format!(
            "{}: 2 images cannot be read: train/cat/x.png: an empty file; test/dog/y.png: cannot be decoded \
             (neither PNG nor JPEG); replace",
            path.display()
        );
        assert!(said.starts_with(&want), "{said}");
    }
    tree.extend((0..20).map(|i| (format!("train/dog/z{i}.png"), vec![])));
    let said = read(directory(&tree).path()).unwrap_err().to_string();
    assert!(said.contains("22 images cannot be read") && said.contains("; and 12 more; replace"), "{said}");
}

#[test]
#[cfg(unix)]
fn irregular_files_are_rejected_without_blocking() {
    let dir = directory(&good());
    let pipe = |name: &str| {
        let path = dir.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    pipe("train/cat/pipe.png");
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("train/dog/zero.png")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("train/dog/lost.png")).unwrap();
    let said = read(dir.path()).unwrap_err().to_string();
    let words = [
        "train/cat/pipe.png: not a regular file",
        "lost.png: cannot be read (No such",
        "zero.png: not a regular file",
    ];
    assert!(words.iter().all(|word| said.contains(word)) && said.contains("3 images"), "{said}");
    let said = read_photo(&dir.path().join("train/cat/pipe.png")).unwrap_err().to_string();
    assert!(said.contains("pipe.png: not a regular file"), "{said}");
    let said = read(&pipe("set.zip")).unwrap_err().to_string();
    assert!(said.contains("set.zip: neither a directory nor a readable .zip (not a regular file)"), "{said}");
}

#[test]
fn photos_keep_their_size_unless_huge() {
    let dir = tempfile::tempdir().unwrap();
    let photo = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_photo(&path)
    };
    // Dark on the left, bright on the right.
    let halves = |width: u32, height| {
        GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { 50 } else { 200 }]))
    };
    let size = |width, height| Size { height, width };
    let small = photo("small.png", encode(halves(6, 3), ImageFormat::Png)).unwrap();
    assert_eq!((small.size, small.channels), (size(6, 3), 1));
    assert_eq!(small.pixels, [50, 50, 50, 200, 200, 200].repeat(3));
    let coloured = photo("coloured.png", png(1, 2, 3)).unwrap();
    assert_eq!((coloured.size, coloured.channels, &coloured.pixels[..3]), (size(5, 4), 3, &[1, 2, 3][..]));
    // Too many pixels for the resampler, and too long a side.
    for (from, to) in [((9000, 9000), (4500, 4500)), ((40_000, 1), (20_000, 1))] {
        let huge = photo("huge.png", encode(halves(from.0, from.1), ImageFormat::Png)).unwrap();
        assert_eq!(huge.size, size(to.0, to.1));
        assert_eq!((huge.pixels[0], huge.pixels[to.0 / 2 - 1], huge.pixels[to.0 / 2]), (50, 50, 200));
        assert_eq!(huge.pixels.len(), to.0 * to.1);
    }
    let said = photo("no.jpg", b"GIF89a".to_vec()).unwrap_err().to_string();
    assert!(said.contains("no.jpg: cannot be decoded"), "{said}");
}

#[test]
fn photos_in_a_folder_are_listed_and_other_files_counted() {
    let names = ["b/2.png", "a.JPG", "c.heic", "notes.txt", ".hidden.png", "desktop.ini"];
    let dir = directory(&names.map(|name| (name.to_owned(), vec![1])).into());
    let (photos, other) = photos_in(dir.path()).unwrap();
    assert_eq!(photos, ["a.JPG", "b/2.png", "c.heic"].map(|name| dir.path().join(name)));
    assert_eq!(other, Some(Tally { count: 1, first: "notes.txt".into() }));
}
