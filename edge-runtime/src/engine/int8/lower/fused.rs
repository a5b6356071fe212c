//! Fused steps: a convolution or an elementwise operation with all that is done to its result.

use super::{Kind, Lowering, Value};
use crate::backbone::int8_shape;
use crate::engine::int8::step::{Add, Finish, Kernel, Recipe, To, Weights, Work};
use crate::engine::lower::INPUT;
use crate::engine::params::Span;
use crate::engine::step::{self, AffineRecipe, ValueId};
use crate::kernels::ConvShape;
use crate::kernels::int8::{self, Grid};
use crate::{Error, Result};
use bundles::plan::{Affine, Conv, Owner, Place, Shape};

/// What is done with a step's input.
#[derive(Default)]
pub(super) struct Dress<'p> {
    pub(super) conv: Option<&'p Conv>,
    pub(super) affine: Option<&'p Affine>,
    pub(super) alpha: Option<usize>,
}

/// Where a step's result goes, and what is added to it.
#[derive(Default)]
pub(super) struct End {
    /// The output's grid; without one, the result is an f32 sum.
    pub(super) grid: Option<Grid>,
    /// A u8 map to add, and its alpha.
    pub(super) add: Option<(ValueId, Option<usize>)>,
    /// The sum so far, if this step completes it.
    pub(super) terms: Option<ValueId>,
    /// The existing sum to add to, if the output goes there.
    pub(super) onto: Option<ValueId>,
}

impl Lowering<'_> {
    /// The end of a step whose result is the map at `place`.
    pub(super) fn end(&self, place: Place) -> Result<End> {
        Ok(End { grid: Some(self.grid(place)?), ..End::default() })
    }

    /// One int8 step.
    pub(super) fn step(&mut self, value: ValueId, dress: Dress<'_>, end: End) -> Result<ValueId> {
        let Dress { conv, affine, alpha } = dress;
        // A kernel over few channels reads the image as it is; in blocks it would be mostly padding.
        let image = value == INPUT && conv.is_some_and(|conv| conv.c_in <= int8::IMAGE);
        let value = self.bytes(value, image)?;
        let Value { shape: x, kind } = self.values[value];
        let from = match kind {
            Kind::Bytes(grid) => grid,
            Kind::Image => self.grid(Place::Input)?,
            Kind::Input | Kind::Sum | Kind::Floats => {
                return Err(Error::Internal { what: "a step on a non-u8 map".into() });
            }
        };
        let (to, name, kernel, work_kernel) = match conv {
            None => (x, affine.map_or("sum", |affine| &affine.name).to_string(), Kernel::None, None),
            Some(conv) => {
                let s = ConvShape { h: x.h, w: x.w, input_nchw: image, ..int8_shape(conv) };
                int8::check(&s).map_err(|source| Error::Kernel { step: conv.name.clone(), source })?;
                let (recipe, weights) = match conv.owner {
                    Owner::Backbone => {
                        let kernel = (self.kernels)(conv)?;
                        (Kernel::Backbone(s, kernel.clone()), Weights::Backbone(kernel))
                    }
                    Owner::Task => {
                        let at = self.span(int8::packed_len(&s).div_ceil(4));
                        let tensor = format!("{}.weight", conv.name);
                        (Kernel::Task { tensor, shape: s, at }, Weights::Task(at))
                    }
                };
                let name = match affine {
                    Some(affine) => format!("{} + {}", conv.name, affine.name),
                    None => conv.name.clone(),
                };
                (Shape::new(conv.c_out, s.out_h(), s.out_w()), name, recipe, Some((s, weights)))
            }
        };
        let scale = self.span(int8::padded(to.c));
        let (finish, add) = self.finish(scale, to.c, &end)?;
        self.recipe(step::Recipe::Int8(Box::new(Recipe {
            affine: AffineRecipe {
                channels: to.c,
                affine: affine.map(|affine| affine.name.clone()),
                bias: conv.filter(|conv| conv.bias).map(|conv| (format!("{}.bias", conv.name), conv.owner)),
                alpha,
                scale: Some(scale),
                shift: Some(finish.shift),
            },
            kernel,
            from,
            to: end.grid,
            add,
            joins: false,
        })));
        let work = match work_kernel {
            Some((shape, kernel)) => Work::Conv { shape, kernel, zero: from.zero, finish },
            None => Work::Remap(finish),
        };
        Ok(self.finished(name, value, to, end, work))
    }

    /// The epilogue of a step whose scales are at `scale`, and the recipe for the factor of its rider.
    pub(super) fn finish(
        &mut self,
        scale: Span,
        channels: usize,
        end: &End,
    ) -> Result<(Finish, Option<Add>)> {
        let shift = self.span(int8::padded(channels));
        let ride = match end.add {
            None => None,
            Some((value, alpha)) => match self.values[value].kind {
                Kind::Bytes(from) => Some((value, Add { from, alpha, at: self.span(1) })),
                _ => return Err(Error::Internal { what: "an addend that is not a u8 map".into() }),
            },
        };
        let finish = Finish {
            scale,
            shift,
            add: ride.map(|(value, add)| (value, add.at)),
            terms: end.terms.map(|sum| (sum, end.grid.map_or(1.0, |grid| 1.0 / grid.scale))),
            to: match (end.grid, end.onto) {
                (Some(_), _) => To::Bytes,
                (None, None) => To::Floats,
                (None, Some(_)) => To::Onto,
            },
        };
        Ok((finish, ride.map(|(_, add)| add)))
    }

    /// Adds a step that writes a map of shape `to`, and names what is fused into it.
    pub(super) fn finished(
        &mut self,
        mut name: String,
        reads: ValueId,
        to: Shape,
        end: End,
        work: Work,
    ) -> ValueId {
        for (word, there) in [("add", end.add.is_some()), ("sum", end.terms.or(end.onto).is_some())] {
            if there {
                name.push_str(" + ");
                name.push_str(word);
            }
        }
        let out = end.onto.unwrap_or_else(|| self.value(to, end.grid.map_or(Kind::Sum, Kind::Bytes)));
        self.push(name, reads, out, step::Work::Int8(work));
        out
    }
}
