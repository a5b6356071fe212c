//! Images whose classes nobody tells, as the test images of a challenge are.

use super::folder::{Source, is_image, walk};
use super::{Images, Options, decode};
use crate::Result;
use std::path::Path;

/// Every image file below folder `below` of `root`, however deep, as paths from `root` in the order of their names. None
/// when there is no such folder.
///
/// # Errors
/// [`crate::Error::Io`]; [`crate::Error::Data`] for names that are not UTF-8 and formats that are not read.
pub fn images_below(root: &Path, below: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    walk(root, below, 0, &mut found)?;
    let mut files = Vec::new();
    for (file, is_dir) in found {
        let hidden = file.split('/').any(|part| part.starts_with('.'));
        if !is_dir && !hidden && is_image(&file, root)? {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Decodes and resizes `files` of `root`, in their order. `progress` is called with (images done, images in all).
///
/// # Errors
/// [`crate::Error::Data`] naming a broken or oversized image, or too much for [`Options::memory`].
pub fn read_images(
    root: &Path,
    files: &[String],
    options: &Options,
    progress: &dyn Fn(usize, usize),
) -> Result<Images> {
    options.check_memory(&root.display().to_string(), files.len())?;
    let mut done = 0;
    let mut count = |n| {
        done += n;
        progress(done, files.len());
    };
    decode::decode(&mut Source::Directory(root.to_path_buf()), files, options.size, &mut count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Part, find, find_labelled};
    use image::{GrayImage, Luma};

    #[test]
    fn test_images_without_a_class_are_listed_and_read_in_the_order_of_their_names() {
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
        let options = Options::new(2, 2);
        let [val, test] = found.read_parts([Part::Val, Part::Test], &options, &|_, _| {}).unwrap();
        let val = val.unwrap();
        assert_eq!((val.labels, val.images.get(0)[0], val.images.get(1)[0]), (vec![0, 1], 3, 2));
        assert!(test.is_none());

        let files = images_below(root, "test").unwrap();
        assert_eq!(files, ["test/10.png", "test/2.png", "test/deeper/5.png"]);
        assert!(images_below(root, "nowhere").unwrap().is_empty());
        let seen = std::cell::Cell::new((0, 0));
        let images = read_images(root, &files, &options, &|done, total| seen.set((done, total))).unwrap();
        assert_eq!([0, 1, 2].map(|i| images.get(i)[0]), [4, 6, 5]);
        assert_eq!(seen.get(), (3, 3));
        let little = Options { memory: 20, ..options };
        let refused = read_images(root, &files, &little, &|_, _| {}).unwrap_err().to_string();
        assert!(refused.contains("3 images of 2x2 pixels"), "{refused}");
    }
}
