//! Executes int8 steps.

use super::step::{Finish, To, Weights, Work};
use crate::engine::step::Step;
use crate::engine::{Program, Workspace};
use crate::kernels::int8::{self, Out, Term};
use crate::kernels::{self, KernelError, MAX_TERMS};
use crate::pool::Pool;
use crate::{Error, Result};

impl Program {
    pub(in crate::engine) fn step8(
        &self,
        step: &Step,
        work: &Work,
        part: &[f32],
        input: &[f32],
        space: &mut Workspace,
        pool: &Pool,
    ) -> Result<()> {
        let (maps, floats) = self.maps(step, input, &mut space.arena)?;
        let from = maps.of(step.reads)?;
        let bytes = kernels::bytes(from);
        let finish = |finish: &Finish| -> Result<int8::Finish<'_>> {
            let add = match finish.add {
                Some((value, factor)) => {
                    let factor = factor.of(part).first().copied().unwrap_or(f32::NAN);
                    Some((kernels::bytes(maps.of(value)?), factor))
                }
                None => None,
            };
            let terms = match finish.terms {
                Some((value, factor)) => Some((maps.of(value)?, factor)),
                None => None,
            };
            Ok(int8::Finish { shift: finish.shift.of(part), add, terms })
        };
        let (isa, x) = (self.isa, step.from);
        let done: Result<(), KernelError> = match work {
            &Work::Quantise { to, image } => {
                int8::quantise(isa, x, to, image, from, kernels::bytes_mut(floats), pool)
            }
            Work::Conv { shape, kernel, zero, finish: f } => {
                let weights = match kernel {
                    Weights::Backbone(kernel) => kernel.weights(),
                    Weights::Task(at) => kernels::signed(kernels::bytes(at.of(part))),
                };
                let (scale, e, mut out) = (f.scale.of(part), finish(f)?, out_of(f.to, floats));
                let scratch = kernels::bytes_mut(&mut space.scratch);
                int8::conv(isa, shape, weights, scale, bytes, *zero, &e, &mut out, scratch, pool)
            }
            Work::Proxies { terms, finish: f } => {
                let mut sum = [Term::default(); MAX_TERMS];
                let scales = f.scale.of(part).chunks_exact(int8::padded(step.to.c));
                for ((to, term), scale) in sum.iter_mut().zip(terms).zip(scales) {
                    let weights = kernels::signed(kernels::bytes(term.weights.of(part)));
                    let input = kernels::bytes(maps.of(term.reads)?);
                    *to = Term { channels: term.c_in, weights, scale, input };
                }
                let (sum, mut out) = (sum.get(..terms.len()).unwrap_or(&[]), out_of(f.to, floats));
                int8::pointwise(isa, step.to, sum, &finish(f)?, &mut out, pool)
            }
            Work::Remap(f) => {
                let (scale, e, mut out) = (f.scale.of(part), finish(f)?, out_of(f.to, floats));
                int8::remap(isa, x, scale, bytes, &e, &mut out, pool)
            }
            Work::MaxPool(window) => int8::max_pool(x, *window, bytes, kernels::bytes_mut(floats), pool),
            Work::AvgPool(window) => int8::avg_pool(x, *window, bytes, kernels::bytes_mut(floats), pool),
            Work::Subsample { stride } => {
                int8::subsample(x, *stride, bytes, kernels::bytes_mut(floats), pool)
            }
            &Work::PadChannels { front, back, zero } => {
                int8::pad_channels(x, front, back, zero, bytes, kernels::bytes_mut(floats), pool)
            }
            Work::GlobalAvgPool { of } => {
                // Padding channels of the last block stay zero, as every f32 kernel expects.
                floats.iter_mut().skip(x.c).for_each(|padding| *padding = 0.0);
                int8::global_avg_pool(x, *of, bytes, floats, pool)
            }
        };
        done.map_err(|source| Error::Kernel { step: step.name.clone(), source })
    }
}

fn out_of(to: To, floats: &mut [f32]) -> Out<'_> {
    match to {
        To::Bytes => Out::Bytes(kernels::bytes_mut(floats)),
        To::Floats => Out::Floats(floats),
        To::Onto => Out::Onto(floats),
    }
}
