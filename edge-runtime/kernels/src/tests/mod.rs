//! Every kernel against loops over plain `(c, h, w)` maps, on every instruction set this machine supports.

mod conv;
mod halves;
mod maps;
mod methods;
mod pointwise;
mod refused;

use super::*;
use crate::pool::Pool;
use bundles::plan::Shape;

/// A small deterministic generator (SplitMix64).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `low..=high`.
    pub(crate) fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// `len` floats, uniform in -1..1.
    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

fn blocked(isa: Isa, x: Shape, plain: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; blocked_len(isa, x)];
    to_blocked(isa, x, plain, &mut out, &Pool::single()).unwrap();
    out
}

/// Back to plain, after checking that padding channels are zero.
fn plain(isa: Isa, x: Shape, data: &[f32]) -> Vec<f32> {
    let (cb, pixels) = (isa.block(), x.h * x.w);
    let at = |channel: usize, pixel: usize| data[(channel / cb * pixels + pixel) * cb + channel % cb];
    let out: Vec<f32> = (0..x.len()).map(|i| at(i / pixels, i % pixels)).collect();
    assert_eq!(blocked(isa, x, &out), data, "padding channels of {x} on {isa} are not zero");
    out
}

fn padded(isa: Isa, mut v: Vec<f32>) -> Vec<f32> {
    v.resize(isa.padded(v.len()), 0.0);
    v
}

/// Largest difference relative to the largest value.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    got.iter()
        .zip(want)
        .map(|(a, b)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() / scale })
        .fold(0.0, f32::max)
}

fn shape(c_in: usize, size: usize, c_out: usize, kernel: usize, stride: usize) -> ConvShape {
    ConvShape { c_in, h: size, w: size, c_out, kernel, stride, pad: kernel / 2, input_nchw: false }
}
