//! Converts pixels to a network's input values.

use super::expect_len;
use crate::{Error, Result};

/// `(x / 255 - mean) / std` per channel, as a lookup table over pixel values.
#[derive(Debug, Clone)]
pub struct Normaliser {
    table: [[f32; 256]; 3],
}

impl Normaliser {
    /// `mean` and `std` of red, green and blue, for pixels scaled to 0..1.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if a value is not finite or a standard deviation is not positive.
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Result<Normaliser> {
        if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::BadRequest {
                what: format!("normalisation by mean {mean:?} and standard deviation {std:?}"),
                want: "finite means and positive standard deviations".into(),
            });
        }
        let mut table = [[0.0; 256]; 3];
        for (row, (mean, std)) in table.iter_mut().zip(mean.into_iter().zip(std)) {
            for (value, out) in row.iter_mut().enumerate() {
                *out = (value as f32 / 255.0 - mean) / std;
            }
        }
        Ok(Normaliser { table })
    }

    /// The input value of `pixel` in `channel` (0 red, 1 green, 2 blue; others wrap around).
    pub fn value(&self, channel: usize, pixel: u8) -> f32 {
        self.table[channel % 3][usize::from(pixel)]
    }

    /// Normalises `pixels` `(area, channels)`, 1 or 3 channels, into `input` `(3, area)`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the lengths are not `area * channels` and `3 * area`.
    pub fn normalise(&self, pixels: &[u8], channels: usize, input: &mut [f32]) -> Result<()> {
        let area = input.len() / 3;
        expect_len("the network's input", input.len(), area * 3)?;
        if channels != 1 && channels != 3 {
            return Err(Error::BadRequest {
                what: format!("an image with {channels} channels"),
                want: "1 (grey) or 3 (RGB)".into(),
            });
        }
        expect_len("the image", pixels.len(), area.saturating_mul(channels))?;
        if area == 0 {
            return Ok(());
        }
        for (c, (plane, table)) in input.chunks_exact_mut(area).zip(&self.table).enumerate() {
            let values = pixels.iter().skip(if channels == 3 { c } else { 0 }).step_by(channels);
            for (out, &value) in plane.iter_mut().zip(values) {
                *out = table[usize::from(value)];
            }
        }
        Ok(())
    }
}
