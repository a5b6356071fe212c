//! The methods NetTailor is compared with, each on the same backbone and images.
//!
//! | name | method | what it changes of the backbone |
//! |---|---|---|
//! | `fine-tune` | every weight trained: the teacher | everything |
//! | `features` | a linear classifier on frozen features | nothing |
//! | `packnet-50`, `packnet-75` | PackNet, Mallya & Lazebnik, CVPR 2018 | frees half or three quarters of the weights |
//! | `piggyback` | Piggyback, Mallya, Davis & Lazebnik, ECCV 2018 | which weights are used |
//! | `lwf` | Learning without Forgetting, Li & Hoiem, ECCV 2016 | everything, held to the old responses |
//! | `dan` | Deep Adaptation Networks, Rosenfeld & Tsotsos, 2017 | combines each layer's filters linearly |
//! | `adapters-series`, `adapters-parallel` | residual adapters, Rebuffi, Bilen & Vedaldi, 2017 and 2018 | adds 1x1 kernels |
//! | `tailor` | NetTailor, by this project's own `fit` | drops whole blocks, adds proxies |
//!
//! Each file starts with the paper it follows, and holds what users are told of its deviations
//! ([`Method::published`]). Shared by the published methods: SGD with the recipe's momentum and weight
//! decay (Piggyback's masks: Adam), the teacher's number of epochs (features without augmentation: ten times
//! that) and batch size, the run's augmentation, a one-cycle schedule with a peak rate per method
//! ([`Method::peak`]), and norms trained for the task wherever the method allows it, as in this project's
//! students (where a published method freezes them, that is a deviation in its favour). Tailoring follows its
//! own recipe and trains several times as long.

mod adapters;
mod bench;
mod comparison;
mod dan;
mod features;
mod finetune;
mod kernels;
mod lwf;
mod method;
mod outcome;
mod packnet;
mod piggyback;
mod published;
mod size;
mod tailored;
#[cfg(test)]
mod tests;
mod together;

pub use bench::{Bench, Trained};
pub use comparison::Comparison;
pub use method::Method;
pub use outcome::{Gap, Outcome};
pub use packnet::Packed;
pub use size::Size;
