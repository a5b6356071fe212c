//! Labelled images: read from an ImageFolder (directory or .zip) or IDX files, checked, resized, kept decoded
//! in memory, and fed to training in batches.
//!
//! [`load`] reads and checks everything once; [`hold_out`] sets a validation split apart; a [`Loader`]
//! turns a split into normalised batches, prepared ahead on another thread. Every random choice is a
//! function of the seed, the epoch and the image, never of timing, so a resumed run sees the same
//! images as an uninterrupted one.

mod augment;
mod decode;
mod digest;
mod divide;
mod folder;
mod found;
mod hold_out;
mod idx;
mod listing;
mod loader;
mod memory;
mod missing;
mod overlap;
mod summary;
#[cfg(test)]
mod tests;
mod unlabelled;

pub use augment::{Augment, Jitter, Padding, Policy};
pub use bundles::preprocess::Size;
pub use decode::{Photo, read_photo};
pub(crate) use digest::digest_of;
pub use digest::digest_of_files;
pub(crate) use divide::divide;
pub use found::{Counts, Found, Part, find, find_labelled, find_skipping_unlabelled};
pub use hold_out::{HeldOut, hold_out};
pub use listing::Tally;
pub use loader::{Batch, Batches, Loader};
pub use memory::Memory;
pub use overlap::Overlap;
pub(crate) use summary::passed_over;
pub use unlabelled::{images_below, photos_in, read_images};

use crate::{Error, Result};
use std::{path::Path, sync::Arc};

/// Decoded images of one size, `u8` in `(height, width, 3)` order. Cheap to clone and to split: the pixels
/// are shared.
#[derive(Debug, Clone)]
pub struct Images {
    /// The images, one after another.
    pixels: Arc<Vec<u8>>,
    /// The positions of this set's images; `None` for all of them.
    places: Option<Arc<Vec<usize>>>,
    size: Size,
}

impl Images {
    /// Takes `pixels` `(n, height, width, 3)` as they are.
    ///
    /// # Errors
    /// [`Error::Data`] if they are not a whole number of images.
    pub fn new(pixels: Vec<u8>, size: Size) -> Result<Images> {
        let each = size.area().saturating_mul(3);
        if each == 0 || !pixels.len().is_multiple_of(each) {
            let found = format!("{} bytes", pixels.len());
            let want = format!("whole images of {}x{} RGB pixels are needed", size.width, size.height);
            return Err(Error::data("decoded images", found, want));
        }
        Ok(Images { pixels: Arc::new(pixels), places: None, size })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.places.as_ref().map_or(self.pixels.len() / (self.size.area() * 3), |places| places.len())
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height and width of every image.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Image `i`, `(height, width, 3)`.
    ///
    /// # Panics
    /// If there is no image `i`.
    pub fn get(&self, i: usize) -> &[u8] {
        let (each, place) = (self.size.area() * 3, self.place(i));
        &self.pixels[place * each..(place + 1) * each]
    }

    fn place(&self, i: usize) -> usize {
        self.places.as_ref().map_or(i, |places| places[i])
    }

    /// True if no image has any colour, so that a device may convert its frames to grey first.
    pub fn is_grey(&self) -> bool {
        let is_grey = |pixel: &[u8]| pixel[0] == pixel[1] && pixel[1] == pixel[2];
        (0..self.len()).all(|i| self.get(i).chunks_exact(3).all(is_grey))
    }

    /// The same images without colour: luma in every channel, as a device prepares frames for a grey task.
    fn in_grey(&self) -> Images {
        let images = (0..self.len()).flat_map(|i| self.get(i).as_chunks().0);
        let pixels = images.flat_map(|&pixel| [bundles::preprocess::luma(pixel); 3]).collect();
        Images { pixels: Arc::new(pixels), places: None, size: self.size }
    }

    /// The images at `indices`, in that order; nothing is copied.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn gather(&self, indices: &[usize]) -> Images {
        assert!(indices.iter().all(|&i| i < self.len()), "index out of range");
        let places = indices.iter().map(|&i| self.place(i)).collect();
        Images { pixels: Arc::clone(&self.pixels), places: Some(Arc::new(places)), size: self.size }
    }
}

/// Images with their labels.
#[derive(Debug, Clone)]
pub struct Split {
    /// The images.
    pub images: Images,
    /// Class of each image, an index into [`Dataset::classes`].
    pub labels: Vec<u32>,
    /// Path of each image below the data set's root: `train/CLASS/NAME.png`.
    pub files: Vec<String>,
}

impl Split {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The same images without colour, as a device shows them to a grey task.
    pub(crate) fn in_grey(&self) -> Split {
        Split { images: self.images.in_grey(), ..self.clone() }
    }

    /// The images at `indices`, in that order; no pixels are copied.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn gather(&self, indices: &[usize]) -> Split {
        Split {
            images: self.images.gather(indices),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            files: indices.iter().map(|&i| self.files[i].clone()).collect(),
        }
    }
}

/// At most `most` of the numbers below `total`, spread over all of them: sets are sorted by class.
pub(crate) fn spread(total: usize, most: usize) -> Vec<usize> {
    let want = total.min(most);
    (0..want).map(|i| i * total / want).collect()
}

/// A set of labelled images in memory.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// How messages refer to the set: the path it was found at.
    pub place: String,
    /// Class names in label order: an ImageFolder's are the folders' names, sorted as text.
    pub classes: Vec<String>,
    /// `train/`.
    pub train: Split,
    /// `val/` (or `valid/`, `validation/`), if present.
    pub val: Option<Split>,
    /// `test/`, if present.
    pub test: Option<Split>,
}

/// Reads, checks and decodes a set of labelled images in one of two forms, and resizes every image to `size`,
/// ignoring its aspect ratio.
///
/// An ImageFolder: a directory, or a .zip of one, with `train/CLASS/`, optionally `val/CLASS/` and
/// `test/CLASS/`, of PNG and JPEG images, grey or RGB, of any size. A single folder around `train/` is
/// accepted.
///
/// IDX files: a directory with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, optionally `t10k-…`
/// of both, each plain or `.gz`. Grey is replicated; `classes.txt` may name the classes, one per
/// line.
///
/// `progress` is called with (images done, images in total).
///
/// # Errors
/// [`Error::Data`] naming the file or folder at fault: no `train`, fewer than two classes, an empty class,
/// classes that differ between splits, broken or oversized images, an unsafe zip entry, more than 8 GiB of
/// decoded images; [`Error::Io`] if `path` cannot be opened.
pub fn load(path: &Path, size: Size, progress: &dyn Fn(usize, usize)) -> Result<Dataset> {
    find(path)?.read(size, progress)
}

/// Mean and standard deviation of each channel of `images`, for pixels scaled to 0..1.
///
/// A deviation below one grey level is raised to one, so that an empty channel does no harm.
pub fn statistics(images: &Images) -> ([f32; 3], [f32; 3]) {
    let mut counts = [[0u64; 256]; 3];
    // `pixels` may hold more images than these, so go through `get`.
    for pixel in (0..images.len()).flat_map(|i| images.get(i).as_chunks::<3>().0) {
        for (counts, &value) in counts.iter_mut().zip(pixel) {
            counts[usize::from(value)] += 1;
        }
    }
    let moment = |counts: &[u64; 256], of: &dyn Fn(f64) -> f64| {
        let n = counts.iter().sum::<u64>().max(1) as f64;
        counts.iter().enumerate().map(|(v, &k)| of(v as f64 / 255.0) * k as f64).sum::<f64>() / n
    };
    let mean = counts.each_ref().map(|counts| moment(counts, &|v| v));
    let std = std::array::from_fn(|c| {
        let variance = moment(&counts[c], &|v| (v - mean[c]).powi(2));
        variance.sqrt().max(1.0 / 255.0) as f32
    });
    (mean.map(|m| m as f32), std)
}
