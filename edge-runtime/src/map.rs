//! The backbone's bytes: a read-only memory-mapped file, or a copy in memory.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

/// Read-only bytes that live as long as anything that reads kernels from them.
pub(crate) struct Map {
    bytes: Bytes,
}

enum Bytes {
    File(memmap2::Mmap),
    Memory(Vec<u8>),
}

impl Map {
    /// Maps a file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(path: &Path) -> Result<Map> {
        let file = File::open(path).map_err(Error::file(path, "open"))?;
        if file.metadata().is_ok_and(|is| is.is_dir()) {
            // Mapping it would fail without a reason.
            return Err(Error::file(path, "read")(ErrorKind::IsADirectory.into()));
        }
        // SAFETY: the map is read-only, and this process does not write to the file. It shows what others
        // write to it, but the store's contract is that a backbone file is immutable: installing writes a new
        // file and renames it, so neither length nor contents of this inode change. Breaking that contract
        // from outside results in a bus error or wrong scores, as with any mapped file.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::file(path, "map"))?;
        Ok(Map { bytes: Bytes::File(map) })
    }

    /// Wraps bytes that are already in memory.
    pub fn memory(bytes: Vec<u8>) -> Map {
        Map { bytes: Bytes::Memory(bytes) }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::File(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }

    /// The floats in a byte range, in place. `None` if the range is out of bounds or not aligned for floats,
    /// or if the machine is big-endian (files hold little-endian numbers).
    pub fn floats(&self, range: Range<usize>) -> Option<&[f32]> {
        let bytes = self.bytes().get(range)?;
        let aligned = bytes.as_ptr().cast::<f32>().is_aligned() && bytes.len().is_multiple_of(4);
        if !aligned || cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: the pointer is aligned for f32 and the length is whole floats of memory that `bytes`
        // borrows from `self`; every bit pattern is a valid f32; nobody writes to the map.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) })
    }

    /// Tells the OS that the pages are not needed for now. They are read from the file again on access.
    pub fn release(&self) {
        if let Bytes::File(map) = &self.bytes {
            // SAFETY: for a read-only file mapping this drops clean pages, which later reads bring back
            // unchanged; only the contents of private anonymous mappings would be destroyed.
            #[cfg(unix)]
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("bytes", &self.bytes().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_come_only_from_whole_aligned_ranges() {
        let mut bytes = vec![0u8; 24];
        let start = bytes.as_ptr().align_offset(4);
        bytes[start..start + 4].copy_from_slice(&1.5f32.to_le_bytes());
        let map = Map::memory(bytes);
        assert_eq!(map.floats(start..start + 8), Some(&[1.5, 0.0][..]));
        for range in [start + 1..start + 5, start..start + 6, 0..4000] {
            assert_eq!(map.floats(range.clone()), None, "{range:?}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Map::open(Path::new("/nowhere/at.backbone")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at.backbone"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_called_one() {
        let error = Map::open(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
        assert!(error.to_string().ends_with(": cannot read it: is a directory"), "{error}");
    }
}
