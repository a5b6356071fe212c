//! A bundle's bytes with the name used in messages.

use crate::{Error, Result};
use bundles::container::Bundle;
use std::path::Path;

/// A bundle in memory.
#[derive(Debug, Clone)]
pub struct Loaded {
    name: String,
    bytes: Vec<u8>,
}

/// A view of a bundle's bytes.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Usually its path.
    pub name: &'a str,
    /// The whole file.
    pub bytes: &'a [u8],
}

impl Loaded {
    /// Reads the file at `path`, which need not be a bundle.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(path: &Path) -> Result<Loaded> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Ok(Loaded { name: path.display().to_string(), bytes })
    }

    /// The same name with other bytes, for a modified bundle.
    #[must_use]
    pub fn with(&self, bytes: Vec<u8>) -> Loaded {
        Loaded { name: self.name.clone(), bytes }
    }

    /// A view of it.
    pub fn file(&self) -> File<'_> {
        File { name: &self.name, bytes: &self.bytes }
    }
}

impl<'a> File<'a> {
    /// Parses its header.
    ///
    /// # Errors
    /// [`Error::Container`] with the error of [`Bundle::parse`].
    pub fn parse(&self) -> Result<Bundle<'a>> {
        Bundle::parse(self.bytes).map_err(Error::container(self.name))
    }
}
