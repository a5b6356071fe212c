//! Labelled images: read from an ImageFolder (directory or .zip), checked, resized, held decoded, and fed
//! to training in batches.
//!
//! [`load`] reads and checks everything once; [`hold_out`] sets a validation split apart; a [`Loader`]
//! turns a split into normalised batches, prepared ahead on another thread. Every random choice is a
//! function of the seed, the epoch and the image, never of timing, so a resumed run sees what an
//! uninterrupted one would have seen.

mod decode;
mod folder;
mod hold_out;
mod loader;
#[cfg(test)]
mod tests;

pub use bundles::preprocess::Size;
pub use hold_out::hold_out;
pub use loader::{Augment, Batch, Batches, Loader};

use crate::{Error, Result};
use folder::{Entry, Source};
use std::{collections::BTreeSet, path::Path, sync::Arc};

/// Decoded images of one size, `u8` in `(n, height, width, 3)` order. Cheap to clone: the pixels are shared.
#[derive(Debug, Clone)]
pub struct Images {
    pixels: Arc<Vec<u8>>,
    size: Size,
}

impl Images {
    /// Takes `pixels` `(n, height, width, 3)` as they are.
    ///
    /// # Errors
    /// [`Error::Data`] when they are no whole number of images.
    pub fn new(pixels: Vec<u8>, size: Size) -> Result<Images> {
        let each = size.area().saturating_mul(3);
        if each == 0 || !pixels.len().is_multiple_of(each) {
            let found = format!("{} bytes", pixels.len());
            let want = format!("whole images of {}x{} RGB pixels are needed", size.width, size.height);
            return Err(Error::data("decoded images", found, want));
        }
        Ok(Images { pixels: Arc::new(pixels), size })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / (self.size.area() * 3)
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Height and width of every image.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Image `i`, `(height, width, 3)`.
    ///
    /// # Panics
    /// When there is no image `i`.
    pub fn get(&self, i: usize) -> &[u8] {
        let each = self.size.area() * 3;
        &self.pixels[i * each..(i + 1) * each]
    }

    /// True when no image has any colour, so that a device may turn its frames to grey first.
    pub fn is_grey(&self) -> bool {
        self.pixels.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
    }

    /// A copy of the images at `indices`, in that order.
    ///
    /// # Panics
    /// When an index is out of range.
    pub fn gather(&self, indices: &[usize]) -> Images {
        let pixels = indices.iter().flat_map(|&i| self.get(i)).copied().collect();
        Images { pixels: Arc::new(pixels), size: self.size }
    }
}

/// Images with their labels.
#[derive(Debug, Clone)]
pub struct Split {
    /// The images.
    pub images: Images,
    /// Class of each image, an index into [`Dataset::classes`].
    pub labels: Vec<u32>,
    /// Where each image came from, below the data set's root: `train/CLASS/NAME.png`.
    pub files: Vec<String>,
}

impl Split {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True when there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A copy of the images at `indices`, in that order.
    ///
    /// # Panics
    /// When an index is out of range.
    pub fn gather(&self, indices: &[usize]) -> Split {
        Split {
            images: self.images.gather(indices),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            files: indices.iter().map(|&i| self.files[i].clone()).collect(),
        }
    }
}

/// An ImageFolder in memory.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Class names in label order: the folders' names, sorted as text.
    pub classes: Vec<String>,
    /// `train/`.
    pub train: Split,
    /// `val/` (or `valid/`, `validation/`), where there is one.
    pub val: Option<Split>,
    /// `test/`, where there is one.
    pub test: Option<Split>,
}

/// How images are held.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every image is resized to this, without regard to its aspect.
    pub size: Size,
    /// Most bytes that decoded images may take.
    pub memory: usize,
}

impl Options {
    /// Images of `height` x `width` pixels, at most 8 GiB of them.
    pub fn new(height: usize, width: usize) -> Options {
        Options { size: Size { height, width }, memory: 8 << 30 }
    }
}

/// Reads, checks, decodes and resizes an ImageFolder: a directory, or a .zip of one, with `train/CLASS/`,
/// optionally `val/CLASS/` and `test/CLASS/`, of PNG and JPEG images, grey or RGB, of any size.
///
/// One folder around `train/` is accepted. `progress` is called with (images done, images in all).
///
/// # Errors
/// [`Error::Data`] naming the file or folder at fault: no `train`, fewer than two classes, an empty class,
/// classes that differ between splits, a broken or oversized image, an unsafe zip entry, too much for
/// [`Options::memory`]; [`Error::Io`] when `path` cannot be opened.
pub fn load(path: &Path, options: &Options, progress: &dyn Fn(usize, usize)) -> Result<Dataset> {
    let (mut source, listing) = Source::open(path)?;
    let classes = listing.classes;
    check_classes(&source, &classes, &listing.train)?;
    check_same_classes(&source, &classes, "val", &listing.val)?;
    check_same_classes(&source, &classes, "test", &listing.test)?;

    let total = listing.train.len() + listing.val.len() + listing.test.len();
    let bytes = total.saturating_mul(options.size.area()).saturating_mul(3);
    if bytes > options.memory {
        let found = format!(
            "{total} images of {}x{} pixels take {} MiB decoded, more than the {} MiB allowed",
            options.size.width,
            options.size.height,
            bytes >> 20,
            options.memory >> 20
        );
        return Err(Error::data(path.display(), found, "use a smaller image size or fewer images"));
    }

    let mut done = 0;
    let mut read = |entries: Vec<Entry>| -> Result<Split> {
        let label = |entry: &Entry| classes.binary_search(&entry.class).map_or(u32::MAX, |i| i as u32);
        let labels = entries.iter().map(label).collect();
        let files: Vec<String> = entries.into_iter().map(|entry| entry.file).collect();
        let images = decode::decode(&mut source, &files, options.size, &mut |n| {
            done += n;
            progress(done, total);
        })?;
        Ok(Split { images, labels, files })
    };
    let train = read(listing.train)?;
    let val = if listing.val.is_empty() { None } else { Some(read(listing.val)?) };
    let test = if listing.test.is_empty() { None } else { Some(read(listing.test)?) };
    Ok(Dataset { classes, train, val, test })
}

/// At least two classes, none of them empty.
fn check_classes(source: &Source, classes: &[String], train: &[Entry]) -> Result<()> {
    if let [] | [_] = classes {
        let found = match classes {
            [one] => format!("only one class, `{one}`"),
            _ => "no class folder".into(),
        };
        let want = "at least two folders, one per class, are needed to tell classes apart";
        return Err(Error::data(source.place("train"), found, want));
    }
    let filled: BTreeSet<&str> = train.iter().map(|entry| entry.class.as_str()).collect();
    match classes.iter().find(|class| !filled.contains(class.as_str())) {
        None => Ok(()),
        Some(empty) => {
            let want = "add PNG or JPEG images of this class, or remove the folder";
            Err(Error::data(source.place(&format!("train/{empty}")), "a class folder without images", want))
        }
    }
}

/// The same classes as `train`, if the split is there at all.
fn check_same_classes(source: &Source, classes: &[String], split: &str, entries: &[Entry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    if let Some(entry) = entries.iter().find(|entry| classes.binary_search(&entry.class).is_err()) {
        let found = format!("class `{}`, which `train` does not have", entry.class);
        let want = format!("`train` and `{split}` must have the same class folders");
        return Err(Error::data(source.place(&entry.file), found, want));
    }
    let filled: BTreeSet<&str> = entries.iter().map(|entry| entry.class.as_str()).collect();
    match classes.iter().find(|class| !filled.contains(class.as_str())) {
        None => Ok(()),
        Some(missing) => {
            let found = format!("no image of class `{missing}`, which `train` has");
            let want = format!("`train` and `{split}` must have the same class folders");
            Err(Error::data(source.place(split), found, want))
        }
    }
}
