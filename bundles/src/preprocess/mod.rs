//! From a camera frame to a network's input: one resampler and normaliser for host and device.
//!
//! Training and inference must see the same pixels, so both programs call this module. It matches Pillow's
//! `resize(..., BILINEAR)` to within one level: a separable triangle filter, widened when shrinking to avoid
//! aliasing, in fixed point with rounding to 8 bits between the passes. Fixed point makes the result
//! bit-identical on every CPU. Images are stretched to the target size, not cropped.
//!
//! Pixels are `u8` in `(height, width, channels)` order with 1 (grey) or 3 (RGB) channels; a network's
//! input is `f32` in `(3, height, width)` order, grey replicated.

mod normalise;
mod resize;
#[cfg(test)]
mod tests;

pub use normalise::Normaliser;
pub use resize::Resizer;

/// ITU-R 601 luma of a pixel in fixed point, identical to Pillow's mode `L`.
pub fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = 19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000;
    (sum >> 16) as u8
}

use crate::{Error, Result};

/// Maximum side length, in pixels.
pub const MAX_SIDE: usize = 1 << 15;

/// Maximum number of pixels in one image.
pub const MAX_AREA: usize = 1 << 26;

/// [`MAX_SIDE`] and [`MAX_AREA`] in words, for messages.
pub const LIMITS: &str = "sides of 1 to 32768 pixels, 2^26 pixels in all";

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// Number of pixels.
    pub const fn area(self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// Whether images may have this size: 1 to [`MAX_SIDE`] pixels a side, at most [`MAX_AREA`] in all.
    pub fn is_within_limits(self) -> bool {
        let sides = [self.height, self.width].iter().all(|side| (1..=MAX_SIDE).contains(side));
        sides && self.area() <= MAX_AREA
    }

    fn check(self, what: &str) -> Result<()> {
        if self.is_within_limits() {
            return Ok(());
        }
        let what = format!("{what} of {}x{} pixels", self.width, self.height);
        Err(Error::BadRequest { what, want: LIMITS.into() })
    }
}

fn expect_len(what: &str, got: usize, want: usize) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(Error::BadRequest { what: format!("{what} has {got} values"), want: format!("{want} values") })
}
