//! Executes int8 steps.

use super::step::{Finish, To, Weights, Work};
use crate::engine::step::Step;
use crate::engine::{Program, Workspace};
use crate::kernels::int8::{self, Out};
use crate::kernels::{self, KernelError};
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
        let finish = |finish: &Finish| -> Result<Terms<'_>> {
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
            Ok(Terms { e: *finish, add, terms })
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
                let (e, mut out) = (finish(f)?, out_of(f.to, floats));
                let scratch = kernels::bytes_mut(&mut space.scratch);
                int8::conv(isa, shape, weights, bytes, *zero, &e.of(part), &mut out, scratch, pool)
            }
            Work::Remap(f) => {
                let (e, mut out) = (finish(f)?, out_of(f.to, floats));
                int8::remap(isa, x, bytes, &e.of(part), &mut out, pool)
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

/// A [`Finish`] with its maps resolved.
struct Terms<'a> {
    e: Finish,
    add: Option<(&'a [u8], f32)>,
    terms: Option<(&'a [f32], f32)>,
}

impl<'a> Terms<'a> {
    fn of(&self, part: &'a [f32]) -> int8::Finish<'a> {
        let Terms { e, add, terms } = *self;
        int8::Finish { scale: e.scale.of(part), shift: e.shift.of(part), add, terms }
    }
}

fn out_of(to: To, floats: &mut [f32]) -> Out<'_> {
    match to {
        To::Bytes => Out::Bytes(kernels::bytes_mut(floats)),
        To::Floats => Out::Floats(floats),
        To::Onto => Out::Onto(floats),
    }
}
