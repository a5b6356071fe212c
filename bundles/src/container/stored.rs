//! Where a bundle's bytes are.

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

/// Bytes that are read before it is known how many lie in front of the sections: more than most files have
/// there.
const FIRST: usize = 16 * 1024;

/// What is being done when a file fails.
const READ: &str = "read it";

/// All bytes of a bundle, in memory or in its file.
#[derive(Debug)]
pub enum Stored<'a> {
    /// The whole file.
    Memory(Cow<'a, [u8]>),
    /// What lies in front of the sections; those are read when they are decoded, by whoever decodes them.
    File(Opened),
}

/// A bundle's file, of which the beginning was read.
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
    /// A file of `len` bytes. Reads what lies in front of its sections.
    ///
    /// # Errors
    /// `Io`. (What is wrong with those bytes is for [`Bundle::parse_known`](super::Bundle::parse_known) to
    /// say.)
    pub fn of_file(file: File, len: usize) -> Result<Stored<'static>> {
        let mut opened = Opened { file, len, head: Vec::new() };
        opened.extend(FIRST)?;
        if let Ok(preamble) = Preamble::parse(&opened.head, len) {
            let fixed = PREAMBLE + preamble.manifest + DIGEST + SIGNATURES;
            opened.extend(fixed + group_alignment(Kind::Backbone) as usize)?;
        }
        Ok(Stored::File(opened))
    }

    /// Bytes of the bundle.
    pub fn len(&self) -> usize {
        match self {
            Stored::Memory(bytes) => bytes.len(),
            Stored::File(opened) => opened.len,
        }
    }

    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is in memory: all of it, or at least what lies in front of the sections.
    pub(super) fn head(&self) -> &[u8] {
        match self {
            Stored::Memory(bytes) => bytes,
            Stored::File(opened) => &opened.head,
        }
    }

    /// Some of its bytes, which are read to `room` unless they are in memory. `what` they are, for messages.
    ///
    /// # Errors
    /// `Io`, also for a file that was cut short since it was opened.
    pub(super) fn fetch<'b>(
        &'b self,
        range: Range<usize>,
        room: &'b mut Vec<u8>,
        what: impl FnOnce() -> String,
    ) -> Result<&'b [u8]> {
        if let Stored::File(opened) = self {
            let len = range.len();
            if room.len() < len {
                // What is there need not be moved.
                room.clear();
                room.resize(len, 0);
            }
            let out = room.get_mut(..len).unwrap_or_default();
            read_at(&opened.file, range.start as u64, out).map_err(|e| Error::io(what(), READ)(e))?;
        }
        Ok(self.fetched(range, room))
    }

    /// As the last [`fetch`](Stored::fetch), of the same range and to the same room, gave them.
    pub(super) fn fetched<'b>(&'b self, range: Range<usize>, room: &'b [u8]) -> &'b [u8] {
        let bytes = match self {
            Stored::Memory(bytes) => bytes.get(range),
            Stored::File(_) => room.get(..range.len()),
        };
        bytes.unwrap_or_default()
    }
}

impl Opened {
    /// Sees to it that the first `len` bytes are in memory, or all there are.
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

/// Fills `out` from byte `at` on. Several threads may do so at once.
#[cfg(unix)]
fn read_at(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

/// Fills `out` from byte `at` on. Several threads may do so at once.
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

    /// A bundle of several blocks, with more in front of them than is read at first.
    fn large() -> Vec<u8> {
        let mut writer = tiny_task();
        writer.labels(["a".repeat(200), "b".repeat(200)]);
        for i in 0..150 {
            let name = format!("fc.weight#{}-{i}", "long".repeat(20));
            writer.tensor_f32(&name, Owner::Task, &[500], &Rng(i).weights(500)).unwrap();
        }
        writer.finish(&[]).unwrap()
    }

    /// Everything in a bundle, or the first thing that is wrong with it.
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
    fn a_file_says_what_its_bytes_say_whatever_is_wrong_with_them() {
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
    fn what_happens_to_an_open_file_is_noticed() {
        let path = std::env::temp_dir().join(format!("stored-open-{}.task", std::process::id()));
        let good = large();
        std::fs::write(&path, &good).unwrap();
        let opened = open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(good.len() as u64 - 1).unwrap();
        let error = all(opened).unwrap_err();
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("read it"), "{error}");
        // Another file in its place is not what was opened.
        std::fs::write(&path, &good).unwrap();
        let opened = open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(all(opened).is_ok());
    }
}
