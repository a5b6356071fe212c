//! Operations that move pixels: nearest-neighbour sampling, filling with black unless said otherwise.

use crate::data::Size;

/// What fills the border of a shifted image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Padding {
    /// Black.
    #[default]
    Black,
    /// The image's own border, mirrored about its outermost pixels (`reflect` in torchvision and NumPy).
    Reflect,
}

impl Padding {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Padding::Black => "black",
            Padding::Reflect => "reflect",
        }
    }

    /// The pixel at `from + by` of a side of `length` pixels; `None` if it is black. Shifts are shorter than
    /// the side, so one reflection suffices.
    fn pixel(self, from: usize, by: isize, length: usize) -> Option<usize> {
        let inside = |at: isize| usize::try_from(at).ok().filter(|&at| at < length);
        let (at, last) = (from as isize + by, length as isize - 1);
        match self {
            Padding::Black => inside(at),
            Padding::Reflect if at < 0 => inside(-at),
            Padding::Reflect if at > last => inside(2 * last - at),
            Padding::Reflect => inside(at),
        }
    }
}

/// Copies `pixels`, optionally mirrored left and right, then shifted: row `y` comes from row `y + down`.
pub(super) fn shift(
    pixels: &[u8],
    size: Size,
    (down, right): (isize, isize),
    mirror: bool,
    padding: Padding,
    out: &mut Vec<u8>,
) {
    let Size { height, width } = size;
    out.clear();
    out.resize(pixels.len(), 0);
    for (y, row) in out.chunks_exact_mut(3 * width).enumerate() {
        let Some(from) = padding.pixel(y, down, height) else { continue };
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let x = if mirror { width - 1 - x } else { x };
            if let Some(x) = padding.pixel(x, right, width) {
                pixel.copy_from_slice(&pixels[3 * (from * width + x)..][..3]);
            }
        }
    }
}

/// `[a, b, c, d, e, f]`: the centre of output pixel `(x, y)` comes from `(a x + b y + c, d x + e y + f)`.
pub(super) type Affine = [f64; 6];

/// Shears along rows (`x` grows by `amount` of `y`), from the top left corner as in AutoAugment's code.
pub(super) fn shear_x(amount: f64) -> Affine {
    [1.0, amount, 0.0, 0.0, 1.0, 0.0]
}

/// Shears along columns, from the top left corner.
pub(super) fn shear_y(amount: f64) -> Affine {
    [1.0, 0.0, 0.0, amount, 1.0, 0.0]
}

/// Translates by whole pixels, as the published code does.
pub(super) fn translate(right: f64, down: f64) -> Affine {
    [1.0, 0.0, -right.trunc(), 0.0, 1.0, -down.trunc()]
}

/// Rotates counter-clockwise about the centre.
pub(super) fn rotate(degrees: f64, size: Size) -> Affine {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (x, y) = (size.width as f64 / 2.0, size.height as f64 / 2.0);
    [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y]
}

/// Moves the pixels of `image` `(height, width, 3)` in place.
pub(super) fn warp(image: &mut [u8], size: Size, [a, b, c, d, e, f]: Affine) {
    let before = image.to_vec();
    let Size { height, width } = size;
    let inside = |v: f64, bound: usize| (v >= 0.0 && v < bound as f64).then_some(v as usize);
    for (y, row) in image.chunks_exact_mut(3 * width).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
            let from = inside(a * x + b * y + c, width).zip(inside(d * x + e * y + f, height));
            match from {
                Some((x, y)) => pixel.copy_from_slice(&before[3 * (y * width + x)..][..3]),
                None => pixel.fill(0),
            }
        }
    }
}
