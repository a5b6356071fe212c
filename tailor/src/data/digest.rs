//! Short digests by which images, files and classes are taken to be the same.

use super::Split;
use crate::{Error, Result};
use std::path::Path;

/// A short hexadecimal digest of `parts`.
fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex()[..12].to_string()
}

/// The [digest](Split::digest) of classes: their names, in the order of their labels.
pub(crate) fn digest_of(classes: &[String]) -> String {
    digest(classes.iter().map(String::as_bytes))
}

/// A digest of the paths and lengths of `files` in the folder `root`, by which images are taken to be the same
/// without reading them.
///
/// # Errors
/// [`Error::Io`] if there is no such file.
pub fn digest_of_files<'a>(root: &Path, files: impl Iterator<Item = &'a str>) -> Result<String> {
    let described = |file: &str| -> Result<String> {
        let path = root.join(file);
        let length = std::fs::metadata(&path).map_err(Error::io(&path))?.len();
        Ok(format!("{length} {file}"))
    };
    let all: Vec<String> = files.map(described).collect::<Result<_>>()?;
    Ok(digest(all.iter().map(String::as_bytes)))
}

impl Split {
    /// A digest that identifies these images and labels.
    pub(crate) fn digest(&self) -> String {
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let images = (0..self.len()).map(|i| self.images.get(i));
        digest(std::iter::once(&labels[..]).chain(images))
    }
}
