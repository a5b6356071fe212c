//! The fully connected layer.
#![allow(unsafe_code)]

use super::isa::{Isa, KernelError, take, take_mut};
use super::simd::{ChunkWork, Simd, load, run_chunks, store};
use crate::pool::Pool;

/// Outputs per chunk.
const ROWS: usize = 16;

/// Independent partial sums of a dot product, to hide the latency of additions.
const CHAINS: usize = 4;

/// `out[o] = bias[o] + sum_i weight[o][i] * x[i]`; weights are plain `(c_out, c_in)`, `x` and `out` plain
/// vectors.
///
/// A blocked `(c, 1, 1)` map is a plain vector of its channels, so pooled features can be passed as they are.
///
/// # Errors
/// If a slice is shorter than its shape requires.
#[allow(clippy::too_many_arguments)]
pub fn linear(
    isa: Isa,
    c_in: usize,
    c_out: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    if c_in == 0 || c_out == 0 {
        return Err(KernelError::Shape { what: "linear layer without inputs or outputs" });
    }
    let weight = take("weight", weight, c_in.saturating_mul(c_out))?;
    let bias = bias.map(|bias| take("bias", bias, c_out)).transpose()?;
    let input = take("input", input, c_in)?;
    let out = take_mut("output", out, c_out)?;
    run_chunks(isa, out, ROWS, &Rows { weight, bias, input }, pool)
}

struct Rows<'a> {
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    input: &'a [f32],
}

impl ChunkWork for Rows<'_> {
    #[inline(always)]
    unsafe fn chunk<V: Simd>(&self, index: usize, out: &mut [f32]) {
        let n = self.input.len();
        let whole = n / (CHAINS * V::LANES) * (CHAINS * V::LANES);
        for (o, out) in out.iter_mut().enumerate() {
            let row = &self.weight[(index * ROWS + o) * n..][..n];
            let mut lanes = [0.0f32; 16];
            // SAFETY: the caller guarantees the CPU features.
            unsafe {
                let mut sums = [V::splat(0.0); CHAINS];
                for at in (0..whole).step_by(CHAINS * V::LANES) {
                    for (chain, sum) in sums.iter_mut().enumerate() {
                        let at = at + chain * V::LANES;
                        *sum = sum.fma(load(row, at), load(self.input, at));
                    }
                }
                let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
                store(sum, &mut lanes, 0);
            }
            let mut sum = 0.0;
            for lane in lanes {
                sum += lane;
            }
            for (w, x) in row[whole..].iter().zip(&self.input[whole..]) {
                sum += w * x;
            }
            *out = sum + self.bias.map_or(0.0, |bias| bias[index * ROWS + o]);
        }
    }
}
