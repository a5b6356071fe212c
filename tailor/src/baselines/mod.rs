//! The methods NetTailor is compared with, each on the same backbone, images, epochs and optimiser.
//!
//! | name | method | what of the backbone it changes |
//! |---|---|---|
//! | `fine-tune` | every weight trained: the teacher | everything |
//! | `features` | a linear classifier on frozen features | nothing |
//! | `packnet-50`, `packnet-75` | PackNet, Mallya & Lazebnik, CVPR 2018 | half or three quarters of the weights make room |
//! | `piggyback` | Piggyback, Mallya, Davis & Lazebnik, ECCV 2018 | which weights are used |
//! | `lwf` | Learning without Forgetting, Li & Hoiem, ECCV 2016 | everything, gently |
//! | `dan` | Deep Adaptation Networks, Rosenfeld & Tsotsos, 2017 | filters become combinations of a layer's filters |
//! | `adapters-series`, `adapters-parallel` | residual adapters, Rebuffi, Bilen & Vedaldi, 2017 and 2018 | 1x1 kernels are added |
//! | `tailor` | NetTailor, by this project's own `fit` | whole blocks go, proxies come |
//!
//! Each file opens with the paper it follows and where it deviates. What all share: SGD with the recipe's momentum and
//! weight decay, the teacher's number of epochs and batch, the run's augmentation, one one-cycle schedule whose peak is
//! each method's own ([`Method::peak`]), and norms of the task's own wherever the method allows for them, as a
//! student of this project has (its published form may freeze them: then that is a deviation in the method's favour).

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
mod size;
mod tailored;
#[cfg(test)]
mod tests;
mod together;

pub use bench::{Bench, Trained};
pub use comparison::Comparison;
pub use method::Method;
pub use outcome::Outcome;
pub use packnet::Packed;
pub use size::Size;
pub use tailored::borrow_teacher;
