//! Runs tailored networks on the device: one backbone, mapped into memory once and shared by every task, and
//! any number of small tasks that a robot can switch between from one frame to the next.
//!
//! A [`Backbone`] is opened once. A [`Task`] is loaded onto it from its bundle; all allocation happens there.
//! A [`Runtime`] keeps tasks in slots and switches between them; frames do not allocate. A [`Session`] is the
//! lower-level part that runs a given task.
//!
//! ```no_run
//! use edge_runtime::{Backbone, Frame, Options, Runtime};
//!
//! # fn camera() -> Vec<u8> { vec![0; 640 * 480 * 3] }
//! let backbone = Backbone::open("store/net.backbone", &Options::default())?;
//! let mut runtime = Runtime::new(backbone, 1);
//! let signs = runtime.load("store/signs.task")?;
//! // Another thread decodes this one while frames continue.
//! let doors = runtime.prefetch("store/doors.task")?;
//!
//! runtime.switch(signs)?;
//! let pixels = camera();
//! let scores = runtime.frame(Frame { width: 640, height: 480, channels: 3, pixels: &pixels })?;
//! println!("{}: {} ({:.2})", scores.task, scores.label, scores.score);
//!
//! runtime.poll()?;
//! if !runtime.is_loading(doors) {
//!     runtime.switch(doors)?;
//! }
//! # Ok::<(), edge_runtime::Error>(())
//! ```

mod backbone;
mod bundle;
mod engine;
mod error;
pub mod ffi;
mod input;
mod kept;
mod layers;
mod loader;
mod map;
mod needs;
mod outline;
mod repack;
mod runtime;
mod session;
mod stats;
mod task;

pub use ::{bundles, kernels};
pub use backbone::{Backbone, INT8_REVISION, LAYOUT_REVISION, Options, Repacked, isa_in_files};
pub use bundle::trusted_key;
pub use engine::Tensors;
pub use error::{Error, Result};
pub use input::Frame;
pub use kernels::pool;
pub use layers::Layer;
pub use needs::{Needs, needs, needs_int8};
pub use repack::{Packing, in_rows, pack_backbone};
pub use runtime::{Runtime, Scores, Switcher, TaskId};
pub use session::{Replayed, Session};
pub use stats::Stats;
pub use task::Task;
