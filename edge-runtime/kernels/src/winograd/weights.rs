//! Kernels transformed into planes, in the order in which the products read them.

use super::Form;
use super::form::{Lanes, transform_kernels};
use crate::conv::ConvShape;
use crate::isa::Isa;
use crate::plain::{LANES, lanes, rows_of};

/// Number of floats of packed weights, saturating.
pub(in super::super) fn packed_len<F: Form>(isa: Isa, s: &ConvShape) -> usize {
    [isa.padded(s.c_out), F::A * F::A, isa.padded(s.c_in)].into_iter().fold(1, usize::saturating_mul)
}

/// Transforms and packs plain weights `(c_out, c_in, 3, 3)`. Writes all of `out`.
pub(in super::super) fn pack<F: Form>(isa: Isa, s: &ConvShape, w: &[f32], out: &mut [f32]) {
    let (cb, channels) = (isa.block(), isa.padded(s.c_in));
    let plane = channels * cb;
    for (w, out) in w.chunks(9 * s.c_in * cb).zip(out.chunks_exact_mut(F::A * F::A * plane)) {
        // A few lanes of a block at a time, so that one implementation serves every block size.
        for lane in (0..cb).step_by(LANES) {
            let rows = rows_of(w, 9 * s.c_in, lane);
            for channel in 0..channels {
                // Padding channels of the last block have all taps zero.
                let mut kernels = [Lanes([0.0; LANES]); 9];
                for (tap, kernel) in kernels.iter_mut().enumerate() {
                    *kernel = Lanes::from(lanes(&rows, 9 * channel + tap));
                }
                let transformed = transform_kernels::<F, LANES>(&kernels);
                let values = transformed.iter().flat_map(|row| &row[..F::A]);
                for (values, plane) in values.zip(out.chunks_exact_mut(plane)) {
                    plane[channel * cb + lane..][..LANES].copy_from_slice(&values.rounded());
                }
            }
        }
    }
}
