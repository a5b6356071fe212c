//! Storage of a bundle's bytes: in memory or in a file.

use super::Kind;
use super::header::DIGEST;
use super::preamble::{PREAMBLE, Preamble};
use super::section::group_alignment;
use super::signature::SIGNATURES;
use crate::{Error, Result};
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;

/// Number of bytes read before the header's length is known: larger than most headers.
const FIRST: usize = 16 * 1024;

/// The action reported when reading fails.
const READ: &str = "read it";

/// All bytes of a bundle, in memory or in its file.
#[derive(Debug)]
pub enum Stored<'a> {
    /// The whole file.
    Memory(Cow<'a, [u8]>),
    /// The header; sections are read by whoever decodes them.
    File(Opened),
}

/// A bundle's file, of which the beginning has been read.
#[derive(Debug)]
pub struct Opened {
    file: File,
    len: usize,
    head: Vec<u8>,
}

impl<'a> From<&'a [u8]> for Stored<'a> {
    fn from(bytes: &'a [u8]) -> Stored<'a> {
        Stored::Memory(bytes.into())
    }
}

impl From<Vec<u8>> for Stored<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Stored::Memory(bytes.into())
    }
}

impl Stored<'_> {
    /// A file of `len` bytes. Reads its header.
    ///
    /// # Errors
    /// `Io`. (The bytes are validated by [`Bundle::parse_known`](super::Bundle::parse_known).)
    pub fn of_file(file: File, len: usize) -> Result<Stored<'static>> {
        let mut opened = Opened { file, len, head: Vec::new() };
        opened.extend(FIRST)?;
        if let Ok(preamble) = Preamble::parse(&opened.head, len) {
            let fixed = PREAMBLE + preamble.manifest + DIGEST + SIGNATURES;
            opened.extend(fixed + group_alignment(Kind::Backbone) as usize)?;
        }
        Ok(Stored::File(opened))
    }

    /// Length of the bundle in bytes.
    pub fn len(&self) -> usize {
        match self {
            Stored::Memory(bytes) => bytes.len(),
            Stored::File(opened) => opened.len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in memory: all of them, or at least the header.
    pub(super) fn head(&self) -> &[u8] {
        match self {
            Stored::Memory(bytes) => bytes,
            Stored::File(opened) => &opened.head,
        }
    }

    /// The bytes in a range, read into `room` unless they are in memory. `what` names them in messages.
    ///
    /// # Errors
    /// `Io`, also for a file truncated since it was opened.
    pub(super) fn fetch<'b>(
        &'b self,
        range: Range<usize>,
        room: &'b mut Vec<u8>,
        what: impl FnOnce() -> String,
    ) -> Result<&'b [u8]> {
        if let Stored::File(opened) = self {
            let len = range.len();
            if room.len() < len {
                // The old contents need not be moved.
                room.clear();
                room.resize(len, 0);
            }
            let out = room.get_mut(..len).unwrap_or_default();
            read_at(&opened.file, range.start as u64, out).map_err(|e| Error::io(what(), READ)(e))?;
        }
        Ok(self.fetched(range, room))
    }

    /// The bytes returned by the last [`fetch`](Stored::fetch) of the same range into the same buffer.
    pub(super) fn fetched<'b>(&'b self, range: Range<usize>, room: &'b [u8]) -> &'b [u8] {
        let bytes = match self {
            Stored::Memory(bytes) => bytes.get(range),
            Stored::File(_) => room.get(..range.len()),
        };
        bytes.unwrap_or_default()
    }
}

impl Opened {
    /// Ensures that the first `len` bytes, or all there are, are in memory.
    fn extend(&mut self, len: usize) -> Result<()> {
        let have = self.head.len();
        let want = len.min(self.len);
        if want > have {
            self.head.resize(want, 0);
            let out = self.head.get_mut(have..).unwrap_or_default();
            read_at(&self.file, have as u64, out).map_err(Error::io("the bundle's header", READ))?;
        }
        Ok(())
    }
}

/// Fills `out` from offset `at`. Safe to call from several threads at once.
#[cfg(unix)]
fn read_at(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

/// Fills `out` from offset `at`. Safe to call from several threads at once.
#[cfg(windows)]
fn read_at(file: &File, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => (at, out) = (at + n as u64, out.get_mut(n..).unwrap_or_default()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::testing::{Rng, tiny_task};
    use crate::container::{Bundle, Decoder};
    use crate::plan::Owner;

    /// A bundle of several blocks, whose header exceeds the first read.
    fn large() -> Vec<u8> {
        let mut writer = tiny_task();
        writer.labels(["a".repeat(200), "b".repeat(200)]);
        for i in 0..150 {
            let name = format!("fc.weight#{}-{i}", "long".repeat(20));
            writer.tensor_f32(&name, Owner::Task, &[500], &Rng(i).weights(500)).unwrap();
        }
        writer.finish(&[]).unwrap()
    }

    /// Decodes everything in a bundle, or returns the first error.
    fn all(stored: Stored<'_>) -> Result<Vec<Vec<u8>>> {
        let mut decoder = Decoder::new()?;
        let bundle = Bundle::parse_known(stored, None, &mut decoder)?;
        let mut tensors = Vec::new();
        for section in &bundle.manifest().sections {
            let mut out = vec![0; section.raw_len as usize];
            decoder.decode_into(&bundle, section, &mut out)?;
            tensors.push(out);
        }
        bundle.verify_sections().map(|()| tensors)
    }

    fn open(path: &std::path::Path) -> Result<Stored<'static>> {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len() as usize;
        Stored::of_file(file, len)
    }

    #[test]
    fn a_file_and_its_bytes_in_memory_give_the_same_outcome() {
        let path = std::env::temp_dir().join(format!("stored-{}.task", std::process::id()));
        let good = large();
        std::fs::write(&path, &good).unwrap();
        let Stored::File(opened) = open(&path).unwrap() else { panic!("not in a file") };
        assert!(opened.head.len() > FIRST && opened.head.len() < good.len());
        assert_eq!(all(open(&path).unwrap()).unwrap(), all(good[..].into()).unwrap());
        for at in (0..40).chain((40..good.len()).step_by(good.len() / 60)) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            for bytes in [&bytes[..], &good[..at]] {
                std::fs::write(&path, bytes).unwrap();
                let error = all(bytes.into()).unwrap_err();
                assert_eq!(open(&path).and_then(all).unwrap_err(), error, "{at}");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn changes_to_an_open_file_are_noticed() {
        let path = std::env::temp_dir().join(format!("stored-open-{}.task", std::process::id()));
        let good = large();
        std::fs::write(&path, &good).unwrap();
        let opened = open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(good.len() as u64 - 1).unwrap();
        let error = all(opened).unwrap_err();
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("read it"), "{error}");
        // Replacing the file does not affect the opened one.
        std::fs::write(&path, &good).unwrap();
        let opened = open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(all(opened).is_ok());
    }
}
