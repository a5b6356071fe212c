//! zstd frames: how the manifest and the blocks of a task are compressed.

use crate::wire::corrupt;
use crate::{Error, Result};
use std::io::Write;
use zstd::bulk::Decompressor;
use zstd::stream::Encoder;
use zstd::zstd_safe::{CParameter, Strategy};

/// What a frame is made of, which decides how it is best compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// The manifest: names that come again and again.
    Text,
    /// Bytes of numbers, few of which come again. Looking for those all the same saves one or two bytes in a
    /// hundred, and makes decoding three times as slow: what is left is a code for frequent bytes, of its own
    /// for each piece. (The fewest places are remembered to look in; numbers of seven bytes that come again
    /// by chance would cost more than they save.)
    Numbers,
}

/// One frame of `pieces`, with the number of their bytes. Each begins a zstd block of its own. There is no
/// checksum: what is decompressed was hashed before.
pub(super) fn pack(what: &str, contents: Contents, pieces: &[&[u8]]) -> Result<Vec<u8>> {
    let pack = || {
        let mut packer = Encoder::new(Vec::new(), if contents == Contents::Text { 19 } else { 1 })?;
        if contents == Contents::Numbers {
            packer.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
            packer.set_parameter(CParameter::MinMatch(7))?;
            packer.set_parameter(CParameter::HashLog(6))?;
        }
        packer.include_contentsize(true)?;
        packer.set_pledged_src_size(Some(pieces.iter().map(|piece| piece.len() as u64).sum()))?;
        for piece in pieces {
            packer.write_all(piece)?;
            packer.flush()?;
        }
        packer.finish()
    };
    pack().map_err(Error::io(what, "compress it"))
}

/// A decoder for [`unpack`].
///
/// # Errors
/// `Io` when there is no memory for it.
pub(super) fn unpacker() -> Result<Decompressor<'static>> {
    Decompressor::new().map_err(Error::io("a zstd decoder", "make it"))
}

/// Fills `out` from a frame of exactly that many bytes. Never writes more, whatever the frame says.
///
/// # Errors
/// `Corrupt`: no such frame.
pub(super) fn unpack(
    decoder: &mut Decompressor<'_>,
    what: impl Fn() -> String,
    stored: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let want = out.len();
    match decoder.decompress_to_buffer(stored, out) {
        Ok(n) if n == want => Ok(()),
        Ok(n) => corrupt(what(), format!("{want} bytes"), n),
        Err(e) => corrupt(what(), format!("{want} bytes"), e),
    }
}
