//! What a load leaves for the next one: readers, memory of tasks that are gone, outlines of bundles seen before.

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

/// Most bytes of outlines that are kept, whether or not their tasks are resident.
const OUTLINES: usize = 512 * 1024;

/// Most bytes of a bundle that are read before it is looked at, and of room for them that are kept.
const FILE: usize = 256 * 1024;

/// Most bytes of a dropped task's parameters that are kept. More is a visible part of what the process holds, and its pages a
/// small part of what loading it takes.
const MEMORY: usize = 1024 * 1024;

/// Most bytes of a reader's room for a tensor that are kept.
const ROOM: usize = 256 * 1024;

/// Most bytes of a decoder's room for a block that are kept: a block of the common networks' largest kernel, twice over.
const BLOCK: usize = 2 * 1024 * 1024;

/// Memory is used again for a part that leaves less than this fraction of it idle.
const SLACK: usize = 16;

/// Readers that are kept: a load is done by two threads at most.
const READERS: usize = 2;

/// What reading a bundle takes.
#[derive(Debug)]
pub(crate) struct Reader {
    pub decoder: Decoder,
    /// Room for a tensor on its way.
    pub room: Vec<f32>,
}

/// Memory for one part of a task's parameters.
#[derive(Debug)]
pub(crate) enum Memory {
    /// Of a task that is gone, with what that left in it.
    Used(Floats),
    /// From the allocator.
    Fresh(Reserved),
}

impl Memory {
    /// Floats of any contents.
    pub fn floats(self) -> Floats {
        match self {
            Memory::Used(floats) => floats,
            Memory::Fresh(reserved) => reserved.zeros(),
        }
    }
}

/// Things whose making would take a good part of a load.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    readers: Mutex<Vec<Reader>>,
    /// Room for a file, no longer than [`FILE`].
    file: Mutex<Vec<u8>>,
    /// Parameters of the task that was dropped last.
    memory: Mutex<Vec<Floats>>,
    /// By the digests of their bundles, the latest at the end.
    outlines: Mutex<Vec<([u8; 32], Arc<Outline>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True for `/dev/zero` and its like, but not for pipes.
fn is_device(file: &Metadata) -> bool {
    #[cfg(unix)]
    return file.file_type().is_char_device() || file.file_type().is_block_device();
    #[cfg(not(unix))]
    return !file.is_file() && !file.is_dir();
}

impl Kept {
    /// A reader; give it back by [`keep_reader`](Kept::keep_reader).
    ///
    /// # Errors
    /// [`Error::Container`] when there is no memory for one.
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

    /// A bundle's bytes: a large file stays where it is until its sections are decoded, each by the thread that decodes it. Those of
    /// a small one are given back by [`keep_file`](Kept::keep_file), if they are not needed any more.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Container`] when the beginning of a large file cannot be read.
    pub fn open(&self, path: &Path) -> Result<Stored<'static>> {
        let mut file = File::open(path).map_err(Error::file(path, "open"))?;
        let is = file.metadata().map_err(Error::file(path, "read"))?;
        if is_device(&is) {
            // It may have no end.
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

    /// Memory for `len` floats, of which hardly more is held: a task's bytes are counted by what it needs.
    /// None where the system gives no more.
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

    /// Keeps the memory of a dropped task for the next one, unless it is more than [`MEMORY`]. What was kept before is freed.
    pub fn keep_floats(&self, mut floats: Vec<Floats>) {
        let bytes: usize = floats.iter().map(|floats| size_of::<f32>() * floats.room()).sum();
        if bytes > MEMORY {
            floats.clear();
        }
        // Freed behind the lock.
        let _before = std::mem::replace(&mut *lock(&self.memory), floats);
    }

    /// The outline of a bundle with that digest, if one was loaded lately. It may differ in signatures.
    pub fn outline(&self, digest: &[u8; 32]) -> Option<Arc<Outline>> {
        let outlines = lock(&self.outlines);
        outlines.iter().find(|(known, _)| known == digest).map(|(_, outline)| Arc::clone(outline))
    }

    /// Keeps an outline, as the latest, in the place of the one with its digest, or of the oldest.
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
    fn memory_is_used_again_where_it_fits() {
        let kept = Kept::default();
        let mut left = Floats::zeros(100);
        left.fill(7.0);
        kept.keep_floats(vec![left]);
        // Too long for it, and so short that a good part of it would lie idle.
        for len in [0, 30, 90, 200] {
            assert_eq!(*kept.memory(len).unwrap().floats(), vec![0.0; len]);
        }
        assert_eq!(*kept.memory(99).unwrap().floats(), [7.0; 99]);
        assert_eq!(*kept.memory(99).unwrap().floats(), [0.0; 99]);
        assert!(kept.memory(usize::MAX / 8).is_none());
    }

    #[test]
    fn what_is_large_is_not_kept() {
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
    fn readers_are_kept_for_two() {
        let kept = Kept::default();
        let readers: Vec<Reader> = (0..3).map(|_| kept.reader("t").unwrap()).collect();
        readers.into_iter().for_each(|reader| kept.keep_reader(reader));
        assert_eq!(lock(&kept.readers).len(), READERS);
    }
}
