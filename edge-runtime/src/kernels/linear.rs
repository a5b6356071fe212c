//! The fully connected layer.

use super::isa::{Isa, KernelError, take, take_mut};
use crate::pool::Pool;

/// Partial sums of a dot product: enough independent chains to hide the latency of an addition.
const LANES: usize = 32;

/// `out[o] = bias[o] + sum_i weight[o][i] * x[i]`; weights plain `(c_out, c_in)`, `x` and `out` plain vectors.
///
/// A blocked `(c, 1, 1)` map is a plain vector of its channels, so pooled features go in as they are.
///
/// # Errors
/// A slice shorter than its shape.
#[allow(clippy::too_many_arguments)]
pub fn linear(
    _isa: Isa,
    c_in: usize,
    c_out: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    if c_in == 0 || c_out == 0 {
        return Err(KernelError::Shape { what: "a linear layer without inputs or outputs" });
    }
    let weight = take("weight", weight, c_in.saturating_mul(c_out))?;
    let bias = bias.map(|bias| take("bias", bias, c_out)).transpose()?;
    let input = take("input", input, c_in)?;
    let out = take_mut("output", out, c_out)?;
    const ROWS: usize = 16;
    pool.for_each_chunk(out, ROWS, &|index, out| {
        for (o, out) in out.iter_mut().enumerate() {
            let row = index * ROWS + o;
            *out = dot(&weight[row * c_in..][..c_in], input) + bias.map_or(0.0, |bias| bias[row]);
        }
    });
    Ok(())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_full, a_rest) = a.as_chunks::<LANES>();
    let (b_full, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_full.iter().zip(b_full) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
