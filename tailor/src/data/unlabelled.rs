//! Images without labels, such as the test images of a challenge.

use super::decode::{self, Broken};
use super::folder::{Source, walk};
use super::listing::{Kind, Tally, Unread};
use super::{Images, Memory, Size};
use crate::Result;
use std::path::{Path, PathBuf};

/// Every image file below folder `below` of `root`, at any depth, as paths from `root` sorted by name. Empty
/// if there is no such folder.
///
/// # Errors
/// [`crate::Error::Io`]; [`crate::Error::Data`] for names that are not UTF-8 and unsupported formats.
pub fn images_below(root: &Path, below: &str) -> Result<Vec<String>> {
    let (mut files, mut unread) = (Vec::new(), Unread::default());
    for file in files_below(root, below)? {
        match Kind::of(&file) {
            Kind::Image => files.push(file),
            Kind::Unread(ending) => unread.add(&file, ending),
            Kind::Other | Kind::Leftover => {}
        }
    }
    unread.check(root)?;
    Ok(files)
}

/// Every image in `folder`, at any depth, sorted by name, and a count of the other files. Images in
/// unsupported formats are included, so that the caller reports an error for each.
///
/// # Errors
/// [`crate::Error::Io`]; [`crate::Error::Data`] for names that are not UTF-8.
pub fn photos_in(folder: &Path) -> Result<(Vec<PathBuf>, Option<Tally>)> {
    let (mut photos, mut passed_over) = (Vec::new(), None);
    for file in files_below(folder, "")? {
        match Kind::of(&file) {
            Kind::Image | Kind::Unread(_) => photos.push(folder.join(file)),
            Kind::Other => Tally::add(&mut passed_over, &file),
            Kind::Leftover => {}
        }
    }
    Ok((photos, passed_over))
}

/// Files that are not hidden, sorted by name.
fn files_below(root: &Path, below: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    walk(root, below, 0, &mut found)?;
    found.retain(|(file, is_dir)| !is_dir && !file.split('/').any(|part| part.starts_with('.')));
    let mut files: Vec<String> = found.into_iter().map(|(file, _)| file).collect();
    files.sort();
    Ok(files)
}

/// Decodes `files` of `root`, in order, and resizes them to `size`. `progress` is called with (images done, images in total).
///
/// # Errors
/// [`crate::Error::Data`] naming broken or oversized images, or too much for `memory`.
pub fn read_images(
    root: &Path,
    files: &[String],
    size: Size,
    memory: Memory,
    progress: &dyn Fn(usize, usize),
) -> Result<Images> {
    let place = root.display().to_string();
    memory.check(&place, files.len(), size)?;
    let mut done = 0;
    let mut count = |n| {
        done += n;
        progress(done, files.len());
    };
    let (mut source, mut broken) = (Source::Directory(root.to_path_buf()), Broken::default());
    let images = decode::decode(&mut source, files, size, &mut broken, &mut count)?;
    broken.check(&place)?;
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Part, find, find_labelled};
    use image::{GrayImage, Luma};

    #[test]
    fn unlabelled_test_images_are_listed_and_read_in_name_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let places = ["train/a/1.png", "train/b/1.png", "val/b/1.png", "val/a/1.png"];
        let tests = ["test/10.png", "test/deeper/5.png", "test/2.png", "test/.hidden.png"];
        for (i, place) in places.iter().chain(&tests).enumerate() {
            let path = root.join(place);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            GrayImage::from_pixel(2, 2, Luma([i as u8])).save(path).unwrap();
        }
        std::fs::write(root.join("test/list.txt"), "no image").unwrap();

        let refused = find(root).err().unwrap().to_string();
        assert!(refused.contains("outside any class"), "{refused}");
        let found = find_labelled(root).unwrap();
        assert_eq!((found.counts().train, found.counts().val, found.counts().test), (2, 2, 0));
        let size = Size { height: 2, width: 2 };
        let [val, test] = found.read_parts([Part::Val, Part::Test], size, &|_, _| {}).unwrap();
        let val = val.unwrap();
        assert_eq!((val.labels, val.images.get(0)[0], val.images.get(1)[0]), (vec![0, 1], 3, 2));
        assert!(test.is_none());

        let files = images_below(root, "test").unwrap();
        assert_eq!(files, ["test/10.png", "test/2.png", "test/deeper/5.png"]);
        assert!(images_below(root, "nowhere").unwrap().is_empty());
        let seen = std::cell::Cell::new((0, 0));
        let count = |done, total| seen.set((done, total));
        let images = read_images(root, &files, size, Memory::default(), &count).unwrap();
        assert_eq!([0, 1, 2].map(|i| images.get(i)[0]), [4, 6, 5]);
        assert_eq!(seen.get(), (3, 3));
        let little = Memory { bytes: 20, is_option: false };
        let refused = read_images(root, &files, size, little, &|_, _| {}).unwrap_err().to_string();
        assert!(refused.contains("3 images of 2x2 pixels"), "{refused}");
    }
}
