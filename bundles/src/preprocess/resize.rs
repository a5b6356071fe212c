//! Resampling with a triangle filter in fixed point.

use super::{Size, expect_len};
use crate::{Error, Result};

/// Fractional bits of a filter weight: 8 bits of pixel plus 22 of weight stay below `i32::MAX`.
const PLACES: u32 = 22;

/// Filter of one axis: the source pixels of each target pixel and their weights.
#[derive(Debug, Clone)]
struct Axis {
    /// First source pixel and number of source pixels, for each target pixel.
    windows: Vec<(usize, usize)>,
    /// `stride` weights for each target pixel, as integers with [`PLACES`] fractional bits.
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

/// Resamples images from one size to another; all memory is allocated up front.
#[derive(Debug, Clone)]
pub struct Resizer {
    from: Size,
    to: Size,
    channels: usize,
    /// `None` if the axis keeps its length.
    across: Option<Axis>,
    down: Option<Axis>,
    /// Intermediate image: the smaller of `(from.height, to.width, channels)`, when the horizontal pass comes
    /// first, and `(to.height, from.width, channels)`.
    between: Vec<u8>,
}

impl Resizer {
    /// A resampler for images of `from` pixels with `channels` channels.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a side of zero or above [`MAX_SIDE`](super::MAX_SIDE), an area above
    /// [`MAX_AREA`](super::MAX_AREA), or other than 1 or 3 channels.
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

    /// Size of the source images.
    pub fn from(&self) -> Size {
        self.from
    }

    /// Size of the resized images.
    pub fn to(&self) -> Size {
        self.to
    }

    /// Resamples `source` `(from.height, from.width, channels)` into `target`
    /// `(to.height, to.width, channels)`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if either slice has another length.
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

/// Number of intermediate pixels, and whether the horizontal pass comes first: the order with fewer.
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
