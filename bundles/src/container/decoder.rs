//! Turning stored sections back into tensors, one after the other, without allocating for each.

use super::half::f16_to_f32;
use super::reader::{Bundle, check_hash};
use super::shuffle::unshuffle;
use super::{Codec, Dtype, Filter, Section};
use crate::wire::corrupt;
use crate::{Error, Result};

/// Decodes sections of any bundle; keeps its zstd context and buffers from one to the next.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
    shuffled: Vec<u8>,
    raw: Vec<u8>,
}

impl Decoder {
    /// A decoder with empty buffers.
    ///
    /// # Errors
    /// `Io` when there is no memory for it.
    pub fn new() -> Result<Decoder> {
        let zstd = zstd::bulk::Decompressor::new().map_err(|e| Error::Io {
            path: "zstd".into(),
            action: "make a decoder",
            why: e.to_string(),
        })?;
        Ok(Decoder { zstd, shuffled: Vec::new(), raw: Vec::new() })
    }

    /// Decodes `section` of `bundle` into `out`, which has `section.raw_len` bytes.
    ///
    /// Stored bytes are hashed before they are decoded, raw bytes before this returns; on an error `out` holds
    /// zeros.
    ///
    /// # Errors
    /// `HashMismatch`, `Corrupt` (no proper zstd frame of that length), or `BadRequest` when `out` has another
    /// length or `section` is not the bundle's.
    pub fn decode_into(&mut self, bundle: &Bundle<'_>, section: &Section, out: &mut [u8]) -> Result<()> {
        let stored = bundle.stored(section)?;
        if out.len() as u64 != section.raw_len {
            return Err(Error::BadRequest {
                what: format!("{} bytes of room for tensor {}", out.len(), section.name),
                want: format!("give it {}", section.raw_len),
            });
        }
        check_hash(stored, &section.stored_hash, &section.name)?;
        let outcome = match section.codec {
            // Lengths agree by the format's rules, and the stored hash is the raw hash.
            Codec::Raw => {
                out.copy_from_slice(stored);
                return Ok(());
            }
            Codec::Zstd => self.decompress(section, stored, out),
        };
        let outcome = outcome.and_then(|()| check_hash(out, &section.raw_hash, &section.name));
        if outcome.is_err() {
            out.fill(0);
        }
        outcome
    }

    /// Decodes a tensor of f32 or f16 elements into `out`, in the order of its layout.
    ///
    /// # Errors
    /// As [`Decoder::decode_into`]; `Unsupported` for other element types.
    pub fn decode_f32_into(&mut self, bundle: &Bundle<'_>, section: &Section, out: &mut [f32]) -> Result<()> {
        let width = section.dtype.width();
        if !matches!(section.dtype, Dtype::F32 | Dtype::F16) {
            return Err(Error::Unsupported {
                what: format!("element type of tensor {}", section.name),
                want: "F32 or F16 here".into(),
                got: format!("{:?}", section.dtype),
            });
        }
        let mut raw = std::mem::take(&mut self.raw);
        raw.resize(out.len().saturating_mul(width), 0);
        let outcome = self.decode_into(bundle, section, &mut raw);
        if outcome.is_ok() {
            match section.dtype {
                Dtype::F16 => convert(&raw, out, |b| f16_to_f32(u16::from_le_bytes(b))),
                _ => convert(&raw, out, f32::from_le_bytes),
            }
        }
        self.raw = raw;
        outcome
    }

    fn decompress(&mut self, section: &Section, stored: &[u8], out: &mut [u8]) -> Result<()> {
        let want = out.len();
        let written = match section.filter {
            Filter::None => self.zstd.decompress_to_buffer(stored, out),
            Filter::ByteShuffle => {
                self.shuffled.resize(want, 0);
                self.zstd.decompress_to_buffer(stored, self.shuffled.as_mut_slice())
            }
        };
        match written {
            Ok(n) if n == want => {}
            Ok(n) => return corrupt(frame(section), format!("{want} bytes"), n),
            Err(e) => return corrupt(frame(section), format!("{want} bytes"), e),
        }
        if section.filter == Filter::ByteShuffle {
            unshuffle(&self.shuffled, section.dtype.width(), out);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

fn convert<const N: usize>(raw: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (elements, _) = raw.as_chunks::<N>();
    for (to, &from) in out.iter_mut().zip(elements) {
        *to = value(from);
    }
}

fn frame(section: &Section) -> String {
    format!("compressed tensor {}", section.name)
}
