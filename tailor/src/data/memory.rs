//! How much memory decoded images may take.

use super::Size;
use crate::{Error, Result};

/// The most memory that the decoded images of one set may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub(super) bytes: u64,
    /// Whether the user can allow more with `--memory`.
    pub(super) is_option: bool,
}

/// Bytes in a GiB.
const GIB: u64 = 1 << 30;

impl Memory {
    /// What is allowed unless the user says otherwise, in GiB.
    pub const DEFAULT: u16 = 8;

    /// As many GiB as the user allowed with `--memory`.
    pub fn option(gib: u16) -> Memory {
        Memory { bytes: u64::from(gib) * GIB, is_option: true }
    }

    /// Rejects `images` images of `size` if they would take more.
    ///
    /// # Errors
    /// [`Error::Data`] about `place`.
    pub fn check(self, place: &str, images: usize, size: Size) -> Result<()> {
        let Size { height, width } = size;
        let bytes = (images as u64).saturating_mul(size.area() as u64).saturating_mul(3);
        if bytes <= self.bytes {
            return Ok(());
        }
        let found = format!(
            "{images} images of {width}x{height} pixels take {} MiB decoded, more than the {} MiB allowed",
            bytes >> 20,
            self.bytes >> 20
        );
        let want = match self.is_option {
            true => format!(
                "allow them with --memory {}, or use a smaller image size or fewer images",
                bytes.div_ceil(GIB)
            ),
            false => "use a smaller image size or fewer images".into(),
        };
        Err(Error::data(place, found, want))
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { bytes: u64::from(Memory::DEFAULT) * GIB, is_option: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_named_only_where_there_is_one() {
        let size = Size { height: 72, width: 72 };
        // The decathlon's imagenet12: 18.6 GiB.
        let said = |memory: Memory| memory.check("imagenet12", 1_281_167, size).unwrap_err().to_string();
        let start = "imagenet12: 1281167 images of 72x72 pixels take 19001 MiB decoded, more than the \
                     8192 MiB allowed; ";
        let end = "use a smaller image size or fewer images";
        assert_eq!(said(Memory::default()), format!("{start}{end}"));
        assert_eq!(said(Memory::option(8)), format!("{start}allow them with --memory 19, or {end}"));
        Memory::option(19).check("imagenet12", 1_281_167, size).unwrap();
    }
}
