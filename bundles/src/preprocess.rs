//! From a camera frame to a network's input: one resampler and one normaliser for host and device.
//!
//! Training and inference must see the same pixels, so both programs call this module. It does what
//! Pillow's `resize(..., BILINEAR)` does, within one level: a separable triangle filter, widened when shrinking so that
//! nothing aliases, in fixed point with a rounding to 8 bits between the passes. Fixed point makes the
//! result the same on every CPU, bit for bit. Images are squashed to the target size, not cropped.
//!
//! Pixels are `u8` in `(height, width, channels)` order with 1 (grey) or 3 (RGB) channels; a network's
//! input is `f32` in `(3, height, width)` order, grey replicated.

use crate::{Error, Result};

/// Longest side accepted, in pixels.
pub const MAX_SIDE: usize = 1 << 15;

/// Most pixels accepted in one image.
pub const MAX_AREA: usize = 1 << 26;

/// Binary places of a filter weight: 8 bits of pixel and 22 of weight stay below `i32::MAX`.
const PLACES: u32 = 22;

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// Pixels in the image.
    pub const fn area(self) -> usize {
        self.height.saturating_mul(self.width)
    }

    fn check(self, what: &str) -> Result<()> {
        let sides = [self.height, self.width].iter().all(|side| (1..=MAX_SIDE).contains(side));
        if sides && self.area() <= MAX_AREA {
            return Ok(());
        }
        Err(Error::BadRequest {
            what: format!("{what} of {}x{} pixels", self.width, self.height),
            want: format!("each side must have 1 to {MAX_SIDE} pixels, {MAX_AREA} together at most"),
        })
    }
}

/// Filter of one axis: which source pixels make each target pixel, and how much of each.
#[derive(Debug, Clone)]
struct Axis {
    /// First source pixel and number of source pixels, for each target pixel.
    windows: Vec<(usize, usize)>,
    /// `stride` weights for each target pixel, as integers of [`PLACES`] binary places.
    weights: Vec<i32>,
    stride: usize,
}

impl Axis {
    fn new(from: usize, to: usize) -> Axis {
        let scale = from as f64 / to as f64;
        let reach = scale.max(1.0);
        let stride = (reach.ceil() as usize) * 2 + 1;
        let mut axis = Axis { windows: Vec::with_capacity(to), weights: vec![0; to * stride], stride };
        for (i, row) in axis.weights.chunks_exact_mut(stride).enumerate() {
            let centre = (i as f64 + 0.5) * scale;
            let start = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let triangle = |x: usize| (1.0 - ((x as f64 - centre + 0.5) / reach).abs()).max(0.0);
            let total: f64 = (start..end).map(triangle).sum();
            for (weight, x) in row.iter_mut().zip(start..end) {
                *weight = (triangle(x) / total * f64::from(1 << PLACES)).round() as i32;
            }
            axis.windows.push((start, end - start));
        }
        axis
    }

    /// Source window and weights of each target pixel in turn.
    fn rows(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.windows
            .iter()
            .zip(self.weights.chunks_exact(self.stride))
            .map(|(&(start, len), weights)| (start, &weights[..len]))
    }
}

fn to_u8(sum: i32) -> u8 {
    (sum >> PLACES).clamp(0, 255) as u8
}

/// Resamples images of one size to another; all its memory is allocated when it is made.
#[derive(Debug, Clone)]
pub struct Resizer {
    from: Size,
    to: Size,
    channels: usize,
    /// `None` where the axis keeps its length.
    across: Option<Axis>,
    down: Option<Axis>,
    /// Between the two passes: the smaller of `(from.height, to.width, channels)`, when the horizontal pass
    /// comes first, and `(to.height, from.width, channels)`.
    between: Vec<u8>,
}

impl Resizer {
    /// A resampler for images of `from` pixels with `channels` channels.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a side of zero or above [`MAX_SIDE`], an area above [`MAX_AREA`], or other than
    /// 1 or 3 channels.
    pub fn new(from: Size, to: Size, channels: usize) -> Result<Resizer> {
        from.check("an image")?;
        to.check("a target size")?;
        if channels != 1 && channels != 3 {
            return Err(Error::BadRequest {
                what: format!("an image with {channels} channels"),
                want: "1 (grey) or 3 (RGB)".into(),
            });
        }
        let across = (from.width != to.width).then(|| Axis::new(from.width, to.width));
        let down = (from.height != to.height).then(|| Axis::new(from.height, to.height));
        let held = match (&across, &down) {
            (Some(_), Some(_)) => across_first(from, to).0 * channels,
            _ => 0,
        };
        Ok(Resizer { from, to, channels, across, down, between: vec![0; held] })
    }

    /// Size of the images it takes.
    pub fn from(&self) -> Size {
        self.from
    }

    /// Size of the images it makes.
    pub fn to(&self) -> Size {
        self.to
    }

    /// Resamples `source` `(from.height, from.width, channels)` into `target`
    /// `(to.height, to.width, channels)`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when either slice has another length.
    pub fn resize(&mut self, source: &[u8], target: &mut [u8]) -> Result<()> {
        expect_len("the source image", source.len(), self.from.area() * self.channels)?;
        expect_len("the resized image", target.len(), self.to.area() * self.channels)?;
        match (&self.across, &self.down) {
            (None, None) => target.copy_from_slice(source),
            (Some(across), None) => horizontal(across, self.channels, self.from.width, source, target),
            (None, Some(down)) => vertical(down, self.to.width * self.channels, source, target),
            (Some(across), Some(down)) if !across_first(self.from, self.to).1 => {
                vertical(down, self.from.width * self.channels, source, &mut self.between);
                horizontal(across, self.channels, self.from.width, &self.between, target);
            }
            (Some(across), Some(down)) => {
                horizontal(across, self.channels, self.from.width, source, &mut self.between);
                vertical(down, self.to.width * self.channels, &self.between, target);
            }
        }
        Ok(())
    }
}

/// Pixels between the passes, and whether the horizontal one comes first: the order with less between.
fn across_first(from: Size, to: Size) -> (usize, bool) {
    let (wide, tall) = (to.height * from.width, from.height * to.width);
    (wide.min(tall), tall <= wide)
}

fn horizontal(axis: &Axis, channels: usize, width: usize, source: &[u8], target: &mut [u8]) {
    let to = axis.windows.len() * channels;
    for (source, target) in source.chunks_exact(width * channels).zip(target.chunks_exact_mut(to)) {
        for ((start, weights), pixel) in axis.rows().zip(target.chunks_exact_mut(channels)) {
            let window = &source[start * channels..];
            for (c, out) in pixel.iter_mut().enumerate() {
                let values = window.iter().skip(c).step_by(channels);
                let sum: i32 = weights.iter().zip(values).map(|(&w, &v)| w * i32::from(v)).sum();
                *out = to_u8(sum + (1 << (PLACES - 1)));
            }
        }
    }
}

fn vertical(axis: &Axis, row: usize, source: &[u8], target: &mut [u8]) {
    for ((start, weights), out) in axis.rows().zip(target.chunks_exact_mut(row)) {
        let window = &source[start * row..];
        for (x, out) in out.iter_mut().enumerate() {
            let values = window.iter().skip(x).step_by(row);
            let sum: i32 = weights.iter().zip(values).map(|(&w, &v)| w * i32::from(v)).sum();
            *out = to_u8(sum + (1 << (PLACES - 1)));
        }
    }
}

/// `(x / 255 - mean) / std` per channel, as a table of every possible pixel value.
#[derive(Debug, Clone)]
pub struct Normaliser {
    table: [[f32; 256]; 3],
}

impl Normaliser {
    /// `mean` and `std` of red, green and blue, for pixels scaled to 0..1.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when a value is not finite or a standard deviation is not positive.
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
    /// [`Error::BadRequest`] when the lengths are not `area * channels` and `3 * area`.
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

fn expect_len(what: &str, got: usize, want: usize) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(Error::BadRequest { what: format!("{what} has {got} values"), want: format!("{want} values") })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Golden {
        from: (usize, usize),
        channels: usize,
        to: (usize, usize),
        pixels: &'static [u8],
    }

    fn size((width, height): (usize, usize)) -> Size {
        Size { height, width }
    }

    /// Same formula as the script that asked Pillow: `(37x + 91y + 53c + 7xy) mod 256`.
    fn picture(size: Size, channels: usize) -> Vec<u8> {
        let value = |y, x, c| (x * 37 + y * 91 + c * 53 + x * y * 7) as u8;
        let row = |y| (0..size.width).flat_map(move |x| (0..channels).map(move |c| value(y, x, c)));
        (0..size.height).flat_map(row).collect()
    }

    fn resized(from: Size, to: Size, channels: usize, source: &[u8]) -> Vec<u8> {
        let mut out = vec![7; to.area() * channels];
        Resizer::new(from, to, channels).unwrap().resize(source, &mut out).unwrap();
        out
    }

    /// `Image.fromarray(picture).resize(to, Image.BILINEAR)` of Pillow 13.0.0, which chooses the order of its
    /// passes by another rule and so rounds a few pixels the other way.
    #[test]
    fn resizes_like_pillow_within_one_level() {
        let cases = [
            Golden {
                from: (7, 5),
                channels: 3,
                to: (3, 4),
                pixels: &[
                    56, 109, 149, 120, 147, 174, 158, 143, 113, 147, 154, 137, 125, 110, 122, 114, 129, 136,
                    110, 117, 133, 142, 154, 139, 145, 128, 135, 140, 152, 122, 136, 129, 133, 168, 139, 110,
                ],
            },
            Golden {
                from: (8, 8),
                channels: 1,
                to: (11, 3),
                pixels: &[
                    80, 107, 120, 111, 144, 126, 103, 121, 153, 130, 77, 105, 116, 130, 142, 124, 147, 160,
                    117, 156, 149, 109, 105, 116, 124, 125, 94, 123, 149, 109, 159, 166, 141,
                ],
            },
            Golden {
                from: (5, 4),
                channels: 1,
                to: (9, 7),
                pixels: &[
                    0, 12, 33, 53, 74, 95, 115, 136, 148, 33, 46, 68, 89, 112, 134, 145, 117, 99, 85, 99,
                    123, 148, 172, 195, 193, 86, 21, 137, 153, 179, 149, 104, 130, 142, 98, 71, 170, 187,
                    216, 139, 35, 64, 93, 121, 138, 76, 94, 125, 116, 95, 126, 157, 188, 206, 17, 36, 69,
                    101, 133, 165, 197, 230, 249,
                ],
            },
            Golden {
                from: (64, 48),
                channels: 1,
                to: (6, 5),
                pixels: &[
                    128, 130, 127, 125, 130, 130, 122, 126, 123, 126, 129, 126, 127, 129, 134, 129, 133, 133,
                    134, 138, 147, 125, 127, 130, 133, 128, 129, 126, 132, 129,
                ],
            },
            Golden {
                from: (6, 6),
                channels: 1,
                to: (6, 4),
                pixels: &[
                    34, 74, 113, 153, 97, 136, 133, 183, 90, 139, 104, 125, 66, 125, 156, 131, 190, 107, 165,
                    74, 144, 117, 186, 96,
                ],
            },
            Golden {
                from: (6, 3),
                channels: 3,
                to: (2, 3),
                pixels: &[
                    46, 99, 152, 139, 192, 181, 146, 167, 156, 96, 85, 106, 150, 107, 96, 117, 170, 159,
                ],
            },
            Golden {
                from: (1, 1),
                channels: 3,
                to: (2, 2),
                pixels: &[0, 53, 106, 0, 53, 106, 0, 53, 106, 0, 53, 106],
            },
        ];
        for case in cases {
            let (from, to) = (size(case.from), size(case.to));
            let got = resized(from, to, case.channels, &picture(from, case.channels));
            assert_eq!(got.len(), case.pixels.len());
            let furthest = got.iter().zip(case.pixels).map(|(&a, &b)| a.abs_diff(b)).max();
            assert!(furthest <= Some(1), "{:?} to {:?}: {got:?}", case.from, case.to);
        }
    }

    #[test]
    fn keeps_even_images_even_at_every_size() {
        for from in 1..40 {
            for to in [1, 2, 3, 7, 8, 31, 32, 33, 64] {
                for value in [0, 1, 127, 254, 255] {
                    let (a, b) = (size((from, 40 - from)), size((to, 65 - to)));
                    let out = resized(a, b, 1, &vec![value; a.area()]);
                    assert!(out.iter().all(|&v| v == value), "{from} to {to}: {value}");
                }
            }
        }
    }

    #[test]
    fn keeps_an_image_that_has_the_right_size() {
        let from = size((9, 4));
        assert_eq!(resized(from, from, 3, &picture(from, 3)), picture(from, 3));
    }

    #[test]
    fn refuses_sizes_and_lengths_that_cannot_be() {
        let good = size((4, 4));
        for bad in [size((0, 4)), size((4, 0)), size((MAX_SIDE + 1, 1)), size((MAX_SIDE, MAX_SIDE))] {
            assert!(Resizer::new(bad, good, 3).is_err());
            assert!(Resizer::new(good, bad, 3).is_err());
        }
        for channels in [0, 2, 4] {
            assert!(Resizer::new(good, good, channels).is_err());
        }
        let mut resizer = Resizer::new(good, size((2, 2)), 3).unwrap();
        assert!(resizer.resize(&[0; 47], &mut [0; 12]).is_err());
        assert!(resizer.resize(&[0; 48], &mut [0; 11]).is_err());
    }

    #[test]
    fn normalises_by_the_formula_and_replicates_grey() {
        let (mean, std) = ([0.5, 0.25, 0.1], [0.25, 0.5, 1.0]);
        let normaliser = Normaliser::new(mean, std).unwrap();
        let mut input = [0.0; 6];
        normaliser.normalise(&[0, 128, 255, 10, 20, 30], 3, &mut input).unwrap();
        let formula = |v: f32, c: usize| (v / 255.0 - mean[c]) / std[c];
        let want = [(0, 0), (10, 0), (128, 1), (20, 1), (255, 2), (30, 2)];
        assert_eq!(input, want.map(|(v, c)| formula(v as f32, c)));
        normaliser.normalise(&[51, 204], 1, &mut input).unwrap();
        let want = [(51, 0), (204, 0), (51, 1), (204, 1), (51, 2), (204, 2)];
        assert_eq!(input, want.map(|(v, c)| formula(v as f32, c)));
        assert_eq!(normaliser.value(2, 204), formula(204.0, 2));

        assert!(normaliser.normalise(&[0; 5], 3, &mut input).is_err());
        assert!(Normaliser::new(mean, [1.0, 0.0, 1.0]).is_err());
        assert!(Normaliser::new([f32::NAN, 0.0, 0.0], std).is_err());
    }
}
