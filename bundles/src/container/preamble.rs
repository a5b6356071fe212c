//! The fixed 36-byte preamble: file type, lengths, and whether this reader supports the file.

use super::hex;
use crate::wire::{Cursor, at_most, corrupt};
use crate::{Error, Result};

/// Like PNG's: a byte above 127, a name, CR LF, DOS end-of-file, LF. Any text-mode transfer breaks one.
pub(super) const MAGIC: [u8; 8] = *b"\x89TLR\r\n\x1a\n";
/// The version this code reads and writes.
pub(super) const MAJOR: u16 = 2;
pub(super) const MINOR: u16 = 0;
/// Must-understand features this code supports: none yet.
pub(super) const FEATURES: u64 = 0;
/// Length of the preamble.
pub(super) const PREAMBLE: usize = 36;
/// Maximum size of a manifest, compressed or not.
pub(super) const MAX_MANIFEST: usize = 1 << 20;

/// Maximum decompressed size of a manifest stored in `stored` bytes.
pub(super) fn largest_manifest(stored: usize) -> usize {
    stored.saturating_mul(16).saturating_add(4096).min(MAX_MANIFEST)
}

/// Decoded preamble, checked against the file length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preamble {
    /// Stored length of the manifest.
    pub manifest: usize,
    /// Decompressed length of the manifest: larger if it is compressed, otherwise equal.
    pub raw_manifest: usize,
    /// Length of the file in bytes.
    pub total: usize,
}

impl Preamble {
    pub fn to_bytes(self) -> [u8; PREAMBLE] {
        let mut out = [0; PREAMBLE];
        let fields: [&[u8]; 7] = [
            &MAGIC,
            &MAJOR.to_le_bytes(),
            &MINOR.to_le_bytes(),
            &(self.manifest as u32).to_le_bytes(),
            &(self.total as u64).to_le_bytes(),
            &FEATURES.to_le_bytes(),
            &(self.raw_manifest as u32).to_le_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    /// Parses the preamble from `file`, the beginning of a file of `len` bytes, which must be exactly one
    /// bundle.
    pub fn parse(file: &[u8], len: usize) -> Result<Preamble> {
        check_magic(file)?;
        let mut from = Cursor::new(file, "the bundle's preamble");
        from.take(MAGIC.len())?;
        let major = u16::from_le_bytes(from.array()?);
        // Any minor version is readable: it is raised for changes an older reader may ignore.
        let _minor = u16::from_le_bytes(from.array()?);
        let manifest = u32::from_le_bytes(from.array()?);
        let total = u64::from_le_bytes(from.array()?);
        let features = u64::from_le_bytes(from.array()?);
        if major != MAJOR {
            let (want, got) = (MAJOR.to_string(), major.to_string());
            return Err(Error::Unsupported { what: "major version of the format".into(), want, got });
        }
        if features & !FEATURES != 0 {
            let (want, got) = (format!("{FEATURES:#x}"), format!("{features:#x}"));
            return Err(Error::Unsupported { what: "features of the format".into(), want, got });
        }
        at_most("manifest of the bundle", manifest.into(), MAX_MANIFEST as u64)?;
        // Read after the fields common to all versions: a file of an older one may end here.
        let raw_manifest = u32::from_le_bytes(from.array()?);
        let largest = largest_manifest(manifest as usize);
        at_most("decompressed manifest of the bundle", raw_manifest.into(), largest as u64)?;
        if raw_manifest < manifest {
            let want = format!("at least the {manifest} bytes that are stored");
            return corrupt("bytes of the manifest", want, raw_manifest);
        }
        let have = len as u64;
        if have < total {
            return Err(Error::Truncated { what: "the bundle".into(), need: total, have });
        }
        if have > total {
            return corrupt(
                "the bundle",
                format!("{total} bytes, as its preamble says"),
                format!("{have} bytes"),
            );
        }
        // Both were compared with usize values above.
        let (manifest, raw_manifest) = (manifest as usize, raw_manifest as usize);
        Ok(Preamble { manifest, raw_manifest, total: total as usize })
    }
}

/// Major and minor version in a preamble; zeros if there is none.
pub(super) fn version(file: &[u8]) -> (u16, u16) {
    let number = |at: usize| file.get(at..).and_then(|rest| rest.first_chunk()).copied();
    let number = |at| number(at).map_or(0, u16::from_le_bytes);
    (number(MAGIC.len()), number(MAGIC.len() + 2))
}

fn check_magic(file: &[u8]) -> Result<()> {
    let have = file.len() as u64;
    match file.get(..MAGIC.len()) {
        Some(start) if start == MAGIC => Ok(()),
        None if MAGIC.starts_with(file) => {
            Err(Error::Truncated { what: "the bundle".into(), need: PREAMBLE as u64, have })
        }
        _ => {
            let start = file.get(..MAGIC.len()).unwrap_or(file);
            let got = hex(start);
            let is = |bytes: &[u8]| file.starts_with(bytes);
            let hint = if is(b"\x89TLR\n\x1a\n") || is(b"\x89TLR\r\n\x1a\r\n") || is(b"\x89TLR\r\r\n") {
                "line endings were converted in transit; copy it again in binary mode"
            } else if is(b"\x09TLR") || is(b"\xc2\x89TLR") || is(b"\xef\xbf\xbdTLR") {
                "it was transferred as text; copy it again in binary mode"
            } else {
                "give a file written by `tailor`"
            };
            Err(Error::BadMagic { got, hint })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(file: &[u8]) -> Result<Preamble> {
        Preamble::parse(file, file.len())
    }

    #[test]
    fn round_trips() {
        let preamble = Preamble { manifest: 5, raw_manifest: 7, total: PREAMBLE };
        assert_eq!(parse(&preamble.to_bytes()).unwrap(), preamble);
    }

    #[test]
    fn text_mode_damage_is_named() {
        for (bytes, hint) in [
            (&b"\x89TLR\n\x1a\n-----"[..], "line endings"),
            (b"\x89TLR\r\n\x1a\r\n----", "line endings"),
            (b"\x09TLR\r\n\x1a\n-----", "text"),
            (b"\xef\xbf\xbdTLR\r\n\x1a\n-----", "text"),
            (b"PK\x03\x04----------", "written by"),
            (b"PK", "written by"),
        ] {
            let error = parse(bytes).unwrap_err();
            assert!(matches!(error, Error::BadMagic { .. }));
            assert!(error.to_string().contains(hint), "{error}");
        }
        assert!(matches!(parse(b""), Err(Error::Truncated { .. })));
        assert!(matches!(parse(b"\x89TLR"), Err(Error::Truncated { .. })));
    }

    #[test]
    fn other_versions_and_sizes_are_refused() {
        let good = Preamble { manifest: 5, raw_manifest: 7, total: PREAMBLE }.to_bytes();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            parse(&bytes)
        };
        for other in [1, 3] {
            let error = with(8, other).unwrap_err();
            assert!(error.to_string().contains("major version") && error.exit_code() == 4, "{error}");
        }
        assert!(with(10, 9).is_ok(), "minor");
        let mut minor = good;
        minor[10] = 9;
        assert_eq!([&good[..], &minor, &good[..9]].map(version), [(2, 0), (2, 9), (0, 0)]);
        assert!(matches!(with(15, 1), Err(Error::TooLarge { .. })), "16 MiB manifest");
        assert!(matches!(with(32, 4), Err(Error::Corrupt { .. })), "shrinks when it is decompressed");
        assert!(with(33, 16).is_ok(), "4096 + 7 bytes");
        assert!(matches!(with(33, 17), Err(Error::TooLarge { limit: 4176, .. })), "a bomb");
        assert!(matches!(with(16, 37), Err(Error::Truncated { .. })), "total");
        assert!(matches!(with(16, 35), Err(Error::Corrupt { .. })), "total");
        assert!(matches!(with(23, 0xff), Err(Error::Truncated { .. })), "2^63 bytes");
        assert!(matches!(with(31, 0x80), Err(Error::Unsupported { .. })), "feature");
    }
}
