//! Runs steps on bytes.

use super::step::{Finish, To, Weights, Work};
use crate::engine::lower::INPUT;
use crate::engine::step::{Step, ValueId};
use crate::engine::{Program, Workspace};
use crate::kernels::int8::{self, Out};
use crate::kernels::{self, KernelError};
use crate::pool::Pool;
use crate::{Error, Result};

/// The arena without the range that a step writes.
struct Rest<'a> {
    head: &'a [f32],
    tail: &'a [f32],
    /// Where `tail` starts.
    from: usize,
}

impl Rest<'_> {
    /// A value's floats; empty when it lies in the range that is written.
    fn get(&self, range: std::ops::Range<usize>) -> &[f32] {
        let behind = range.start.checked_sub(self.from).zip(range.end.checked_sub(self.from));
        let found = match behind {
            Some((start, end)) => self.tail.get(start..end),
            None => self.head.get(range),
        };
        found.unwrap_or(&[])
    }
}

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
        let range = |value: ValueId| self.ranges.get(value).cloned().unwrap_or(0..0);
        let out = range(step.writes);
        let broken = || Error::Internal { what: format!("{}: its output lies outside the arena", step.name) };
        let (head, tail) = space.arena.split_at_mut_checked(out.start).ok_or_else(broken)?;
        let (floats, tail) = tail.split_at_mut_checked(out.len()).ok_or_else(broken)?;
        let rest = Rest { head, tail, from: out.end };
        let from = if step.reads == INPUT { input } else { rest.get(range(step.reads)) };
        let bytes = kernels::bytes(from);
        let finish = |finish: &Finish| Terms {
            e: *finish,
            add: finish.add.map(|(value, factor)| {
                let factor = factor.of(part).first().copied().unwrap_or(f32::NAN);
                (kernels::bytes(rest.get(range(value))), factor)
            }),
            terms: finish.terms.map(|(value, factor)| (rest.get(range(value)), factor)),
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
                let (e, mut out) = (finish(f), out_of(f.to, floats));
                let scratch = kernels::bytes_mut(&mut space.scratch);
                int8::conv(isa, shape, weights, bytes, *zero, &e.of(part), &mut out, scratch, pool)
            }
            Work::Remap(f) => {
                let (e, mut out) = (finish(f), out_of(f.to, floats));
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
                // Channels that only fill the last block stay zero, as every kernel on floats expects.
                floats.iter_mut().skip(x.c).for_each(|padding| *padding = 0.0);
                int8::global_avg_pool(x, *of, bytes, floats, pool)
            }
        };
        done.map_err(|source| Error::Kernel { step: step.name.clone(), source })
    }
}

/// A [`Finish`] with its maps.
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
