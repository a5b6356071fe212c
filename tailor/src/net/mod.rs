//! Plans under autograd: parameters, forward passes, gates and expected complexity.

mod complexity;
mod forward;
mod gates;
mod kaiming;
mod params;
#[cfg(test)]
mod tests;

pub use complexity::{Complexity, Formula};
pub(crate) use forward::without_classifier;
pub use forward::{Forward, Net, Pass, Stats};
pub use gates::{Gating, Sampled, alphas, sampled};
pub(crate) use params::training_tensors;
pub use params::{NORM_EPS, Params};
