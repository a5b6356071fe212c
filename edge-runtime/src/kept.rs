//! Caches that one load leaves for the next: readers, memory of dropped tasks, outlines of known bundles.

use crate::kernels::{Floats, Reserved};
use crate::outline::Outline;
use crate::{Error, Result};
use bundles::container::{Decoder, Stored};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
#[cfg(unix)]
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum bytes of cached outlines, including those of resident tasks.
const OUTLINES: usize = 512 * 1024;

/// Bundles up to this many bytes are read at once, and a file buffer up to this size is cached.
const FILE: usize = 256 * 1024;

/// Maximum bytes of a dropped task's parameters that are cached. More would be a noticeable part of the
/// process's memory, while faulting in new pages is a small part of what loading such a task costs.
const MEMORY: usize = 1024 * 1024;

/// Maximum bytes of a reader's tensor buffer that are cached.
const ROOM: usize = 256 * 1024;

/// Maximum bytes of a decoder's block buffer that are cached: twice a block of the common networks' largest
/// kernel.
const BLOCK: usize = 2 * 1024 * 1024;

/// Cached memory is reused for a part if at most 1/`SLACK` of the part's length would lie idle.
const SLACK: usize = 16;

/// Maximum number of cached readers: at most two threads take part in a load.
const READERS: usize = 2;

/// Working memory for reading a bundle.
#[derive(Debug)]
pub(crate) struct Reader {
    pub decoder: Decoder,
    /// Buffer for the tensor being read.
    pub room: Vec<f32>,
}

/// Memory for one part of a task's parameters.
#[derive(Debug)]
pub(crate) enum Memory {
    /// From a dropped task, with its old contents.
    Used(Floats),
    /// Fresh from the allocator.
    Fresh(Reserved),
}

impl Memory {
    /// Floats with unspecified contents.
    pub fn floats(self) -> Floats {
        match self {
            Memory::Used(floats) => floats,
            Memory::Fresh(reserved) => reserved.zeros(),
        }
    }
}

/// Reusable objects that would be expensive to create for every load.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    readers: Mutex<Vec<Reader>>,
    /// File buffer, no longer than [`FILE`].
    file: Mutex<Vec<u8>>,
    /// Parameters of the task that was dropped last.
    memory: Mutex<Vec<Floats>>,
    /// By the digests of their bundles, most recent last.
    outlines: Mutex<Vec<([u8; 32], Arc<Outline>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True for devices such as `/dev/zero`, but not for pipes.
fn is_device(file: &Metadata) -> bool {
    #[cfg(unix)]
    return file.file_type().is_char_device() || file.file_type().is_block_device();
    #[cfg(not(unix))]
    return !file.is_file() && !file.is_dir();
}

impl Kept {
    /// Takes a reader; return it with [`keep_reader`](Kept::keep_reader).
    ///
    /// # Errors
    /// [`Error::Container`] if memory for a new one cannot be allocated.
    pub fn reader(&self, file: &str) -> Result<Reader> {
        match lock(&self.readers).pop() {
            Some(reader) => Ok(reader),
            None => Ok(Reader { decoder: Decoder::new().map_err(Error::container(file))?, room: Vec::new() }),
        }
    }

    pub fn keep_reader(&self, mut reader: Reader) {
        if size_of::<f32>() * reader.room.capacity() > ROOM {
            reader.room = Vec::new();
        }
        reader.decoder.shrink(BLOCK);
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(reader);
        }
    }

    /// Opens a bundle. A large file is not read until its sections are decoded, each by the thread that
    /// decodes it. Return the bytes of a small one with [`keep_file`](Kept::keep_file) if they are no longer
    /// needed.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Container`] if the beginning of a large file cannot be read.
    pub fn open(&self, path: &Path) -> Result<Stored<'static>> {
        let mut file = File::open(path).map_err(Error::file(path, "open"))?;
        let is = file.metadata().map_err(Error::file(path, "read"))?;
        if is_device(&is) {
            // It may be endless.
            return Err(Error::file(path, "load")(ErrorKind::Unsupported.into()));
        }
        let len = usize::try_from(is.len()).unwrap_or(usize::MAX);
        if is.is_file() && len > FILE {
            return Stored::of_file(file, len).map_err(Error::container(&path.display().to_string()));
        }
        let mut bytes = std::mem::take(&mut *lock(&self.file));
        bytes.clear();
        file.read_to_end(&mut bytes).map_err(Error::file(path, "read"))?;
        Ok(bytes.into())
    }

    pub fn keep_file(&self, bytes: Vec<u8>) {
        if bytes.capacity() <= FILE {
            *lock(&self.file) = bytes;
        }
    }

    /// Memory for `len` floats and hardly more, since a task is accounted for by what it needs. `None` if the
    /// allocation fails.
    pub fn memory(&self, len: usize) -> Option<Memory> {
        let mut memory = lock(&self.memory);
        let fits = |floats: &Floats| (len..=len.saturating_add(len / SLACK)).contains(&floats.room());
        let best = memory.iter().enumerate().filter(|(_, floats)| fits(floats));
        let best = best.min_by_key(|(_, floats)| floats.room()).map(|(at, _)| at);
        match best {
            Some(at) => Some(Memory::Used(memory.swap_remove(at).resized(len))),
            None => Reserved::new(len).map(Memory::Fresh),
        }
    }

    /// Caches the memory of a dropped task for the next one, unless it exceeds [`MEMORY`]. Frees what was
    /// cached before.
    pub fn keep_floats(&self, mut floats: Vec<Floats>) {
        let bytes: usize = floats.iter().map(|floats| size_of::<f32>() * floats.room()).sum();
        if bytes > MEMORY {
            floats.clear();
        }
        // Freed after the lock is released.
        let _before = std::mem::replace(&mut *lock(&self.memory), floats);
    }

    /// The cached outline of a bundle with that digest, if there is one. Its signatures may differ.
    pub fn outline(&self, digest: &[u8; 32]) -> Option<Arc<Outline>> {
        let outlines = lock(&self.outlines);
        outlines.iter().find(|(known, _)| known == digest).map(|(_, outline)| Arc::clone(outline))
    }

    /// Caches an outline as the most recent, replacing the one with the same digest and evicting the oldest
    /// beyond [`OUTLINES`].
    pub fn keep_outline(&self, digest: [u8; 32], outline: &Arc<Outline>) {
        let mut outlines = lock(&self.outlines);
        outlines.retain(|(known, _)| *known != digest);
        outlines.push((digest, Arc::clone(outline)));
        let mut bytes: usize = outlines.iter().map(|(_, outline)| outline.bytes).sum();
        while bytes > OUTLINES && !outlines.is_empty() {
            bytes -= outlines.remove(0).1.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_where_it_fits() {
        let kept = Kept::default();
        let mut left = Floats::zeros(100);
        left.fill(7.0);
        kept.keep_floats(vec![left]);
        // Too long for the cached memory, or so short that much of it would lie idle.
        for len in [0, 30, 90, 200] {
            assert_eq!(*kept.memory(len).unwrap().floats(), vec![0.0; len]);
        }
        assert_eq!(*kept.memory(99).unwrap().floats(), [7.0; 99]);
        assert_eq!(*kept.memory(99).unwrap().floats(), [0.0; 99]);
        assert!(kept.memory(usize::MAX / 8).is_none());
    }

    #[test]
    fn large_buffers_are_not_kept() {
        let kept = Kept::default();
        let filled = |bytes: usize| {
            let mut floats = Floats::zeros(bytes / size_of::<f32>());
            floats.fill(7.0);
            floats
        };
        kept.keep_floats(vec![filled(MEMORY / 2), filled(MEMORY)]);
        assert!(lock(&kept.memory).is_empty());
        kept.keep_floats(vec![filled(MEMORY / 2), filled(MEMORY / 4)]);
        assert_eq!(lock(&kept.memory).len(), 2);
        for (bytes, room) in [(ROOM, ROOM), (2 * ROOM, 0)] {
            let mut reader = kept.reader("t").unwrap();
            reader.room = Vec::with_capacity(bytes / size_of::<f32>());
            kept.keep_reader(reader);
            assert_eq!(size_of::<f32>() * kept.reader("t").unwrap().room.capacity(), room);
        }
    }

    #[test]
    fn two_readers_are_kept() {
        let kept = Kept::default();
        let readers: Vec<Reader> = (0..3).map(|_| kept.reader("t").unwrap()).collect();
        readers.into_iter().for_each(|reader| kept.keep_reader(reader));
        assert_eq!(lock(&kept.readers).len(), READERS);
    }
}
