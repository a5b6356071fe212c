//! Runs tailored networks on the device: one backbone, mapped into memory once and shared by every task, and
//! any number of small tasks that a robot switches between from one frame to the next.
//!
//! A [`Backbone`] is opened once. A [`Task`] is loaded onto it from its bundle; all allocation happens there.
//! A [`Session`] runs frames of any task in one arena and allocates nothing.

mod backbone;
mod engine;
mod error;
pub mod kernels;
mod layers;
pub mod pool;
mod session;
mod task;

pub use backbone::{Backbone, Repacked};
pub use engine::Tensors;
pub use error::{Error, Result};
pub use layers::Layer;
pub use session::Session;
pub use task::Task;
