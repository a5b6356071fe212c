//! zstd frames, which compress the manifest and the blocks of a task.

use crate::wire::corrupt;
use crate::{Error, Result};
use std::io::Write;
use zstd::bulk::Decompressor;
use zstd::stream::Encoder;
use zstd::zstd_safe::{CParameter, Strategy};

/// What a frame contains, which decides how to compress it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// The manifest, whose names repeat often.
    Text,
    /// Numeric data with few repeats. Match search would save only 1-2 % and make decoding three times as
    /// slow, so only entropy coding remains, with a separate code for each piece. (The search tables are the
    /// smallest possible; chance matches of seven bytes would cost more than they save.)
    Numbers,
}

/// Packs `pieces` into one frame that states its content size. Each piece starts a new zstd block. There is
/// no checksum: decompressed data was hashed beforehand.
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
/// `Io` if memory is exhausted.
pub(super) fn unpacker() -> Result<Decompressor<'static>> {
    Decompressor::new().map_err(Error::io("a zstd decoder", "make it"))
}

/// Fills `out` from what decompresses to exactly that length. Never writes more, whatever it states.
///
/// # Errors
/// `Corrupt` if it does not.
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
