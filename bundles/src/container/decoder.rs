//! Decodes stored blocks into tensors, without an allocation for each.

use super::half::f16_to_f32;
use super::planes::Place;
use super::reader::Bundle;
use super::{Block, Codec, Dtype, Section, frame};
use crate::{Error, Result};
use zstd::bulk::Decompressor;

/// Decodes sections of any bundle. Keeps its zstd context and the last block, so that sections requested in
/// file order cost one decompression per block.
pub struct Decoder {
    pub(super) zstd: Decompressor<'static>,
    /// Buffer for a decompressed block.
    room: Vec<u8>,
    /// Buffer for a stored block.
    stored: Vec<u8>,
    /// Reading number and index of the last block whose hash was verified. If that block is compressed, its
    /// decompressed bytes are in `room`.
    held: Option<(u64, usize)>,
}

impl Decoder {
    /// A decoder with empty buffers.
    ///
    /// # Errors
    /// `Io` if memory is exhausted.
    pub fn new() -> Result<Decoder> {
        Ok(Decoder { zstd: frame::unpacker()?, room: Vec::new(), stored: Vec::new(), held: None })
    }

    /// Frees its buffers if either exceeds `most` bytes.
    pub fn shrink(&mut self, most: usize) {
        if self.room.capacity().max(self.stored.capacity()) > most {
            (self.room, self.stored, self.held) = (Vec::new(), Vec::new(), None);
        }
    }

    /// Decodes `section` of `bundle` into `out`, which must have `section.raw_len` bytes.
    ///
    /// Stored bytes are hashed before they are decoded; on error `out` holds zeros.
    ///
    /// # Errors
    /// `HashMismatch`, `Corrupt` (not a valid zstd frame of that length), or `BadRequest` if `out` has
    /// another length or `section` does not belong to the bundle.
    pub fn decode_into(&mut self, bundle: &Bundle<'_>, section: &Section, out: &mut [u8]) -> Result<()> {
        let outcome = if out.len() as u64 == section.raw_len {
            self.bytes(bundle, section, out)
        } else {
            Err(wrong_room(section, out.len(), section.raw_len))
        };
        if outcome.is_err() {
            out.fill(0);
        }
        outcome
    }

    /// Decodes a tensor of f32 or f16 elements into `out`, in layout order.
    ///
    /// # Errors
    /// As [`Decoder::decode_into`]; `Unsupported` for other element types.
    pub fn decode_f32_into(&mut self, bundle: &Bundle<'_>, section: &Section, out: &mut [f32]) -> Result<()> {
        let len = section.dtype.width().saturating_mul(out.len());
        if len as u64 == section.raw_len {
            return self.decode_f32_run(bundle, section, 0, out);
        }
        out.fill(0.0);
        Err(wrong_room(section, len, section.raw_len))
    }

    /// Decodes `out.len()` elements of a tensor from index `start` on. Reading a large tensor sequentially
    /// costs one decompression and little memory.
    ///
    /// # Errors
    /// As [`Decoder::decode_f32_into`].
    pub fn decode_f32_run(
        &mut self,
        bundle: &Bundle<'_>,
        section: &Section,
        start: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let half = |b| f16_to_f32(u16::from_le_bytes(b));
        let outcome = match section.dtype {
            Dtype::F32 => self.elements(bundle, section, start, out, f32::from_le_bytes),
            Dtype::F16 => self.elements(bundle, section, start, out, half),
            _ => Err(Error::Unsupported {
                what: format!("element type of tensor {}", section.name),
                want: "F32 or F16 here".into(),
                got: format!("{:?}", section.dtype),
            }),
        };
        if outcome.is_err() {
            out.fill(0.0);
        }
        outcome
    }

    fn bytes(&mut self, bundle: &Bundle<'_>, section: &Section, out: &mut [u8]) -> Result<()> {
        match section.dtype.width() {
            4 => self.elements::<[u8; 4], 4>(bundle, section, 0, out.as_chunks_mut().0, |x| x),
            2 => self.elements::<[u8; 2], 2>(bundle, section, 0, out.as_chunks_mut().0, |x| x),
            _ => self.elements::<u8, 1>(bundle, section, 0, out, |[x]| x),
        }
    }

    /// Decodes `out.len()` elements of `W` bytes from index `start` on.
    fn elements<T, const W: usize>(
        &mut self,
        bundle: &Bundle<'_>,
        section: &Section,
        start: usize,
        out: &mut [T],
        value: impl Fn([u8; W]) -> T,
    ) -> Result<()> {
        let (bytes, place) = self.find(bundle, section, start, out.len())?;
        let found = match place {
            Some(place) => place.scatter(bytes, out, value),
            None => {
                let (elements, _) = bytes.as_chunks::<W>();
                out.iter_mut().zip(elements).for_each(|(to, &from)| *to = value(from));
                elements.len() == out.len()
            }
        };
        if found { Ok(()) } else { Err(wrong_room(section, W.saturating_mul(out.len()), section.raw_len)) }
    }

    /// The bytes of `len` elements from index `start` on; if they are compressed, the bytes of their block
    /// and their place in it.
    fn find<'b>(
        &'b mut self,
        bundle: &'b Bundle<'_>,
        section: &Section,
        start: usize,
        len: usize,
    ) -> Result<(&'b [u8], Option<Place>)> {
        let (index, block) = bundle.block_of(section)?;
        let width = section.dtype.width();
        let room = || wrong_room(section, start.saturating_add(len).saturating_mul(width), section.raw_len);
        self.check(bundle, index, block)?;
        if block.codec == Codec::Raw {
            let stored = bundle.held(block, &self.stored);
            let stored = start.checked_mul(width).and_then(|start| stored.get(start..));
            let run = stored.zip(len.checked_mul(width)).and_then(|(stored, len)| stored.get(..len));
            return Ok((run.ok_or_else(room)?, None));
        }
        let place = block.place_of(section).and_then(|place| place.run(start, len));
        Ok((&self.room, Some(place.ok_or_else(room)?)))
    }

    /// Ensures that a block's stored bytes have been verified; if it is compressed, `room` then holds its
    /// contents.
    fn check(&mut self, bundle: &Bundle<'_>, index: usize, block: &Block) -> Result<()> {
        if self.held == Some((bundle.reading(), index)) {
            return Ok(());
        }
        self.held = None;
        let stored = bundle.checked(block, &mut self.stored)?;
        if block.codec == Codec::Zstd {
            // Bounded by the file size; see `rules::largest_raw`.
            let len = usize::try_from(block.raw_len).unwrap_or(usize::MAX);
            if self.room.len() < len {
                // The old contents need not be moved.
                self.room.clear();
                self.room.resize(len, 0);
            }
            let what = || format!("compressed {}", bundle.tensors_of(block));
            frame::unpack(&mut self.zstd, what, stored, self.room.get_mut(..len).unwrap_or_default())?;
        }
        self.held = Some((bundle.reading(), index));
        Ok(())
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

fn wrong_room(section: &Section, bytes: usize, want: u64) -> Error {
    Error::BadRequest {
        what: format!("{bytes} bytes of room for tensor {}", section.name),
        want: format!("it needs {want}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::testing::tiny_task;

    #[test]
    fn buffers_are_freed_and_regrown() {
        let bytes = tiny_task().finish(&[]).unwrap();
        let bundle = Bundle::parse(&bytes).unwrap();
        let mut decoder = Decoder::new().unwrap();
        let mut bias = [0.0; 2];
        for (most, kept) in [(1 << 20, true), (100, false)] {
            let section = bundle.section("fc.bias").unwrap();
            decoder.decode_f32_into(&bundle, section, &mut bias).unwrap();
            assert_eq!(bias, [0.1, -0.1]);
            decoder.shrink(most);
            assert_eq!((decoder.room.capacity() > 0, decoder.held.is_some()), (kept, kept));
        }
        decoder.decode_f32_into(&bundle, bundle.section("fc.bias").unwrap(), &mut bias).unwrap();
        assert_eq!(bias, [0.1, -0.1]);
    }
}
