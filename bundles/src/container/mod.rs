//! The container format for backbones and tasks: [`Writer`] packs a bundle, [`Bundle`] reads one.
//!
//! ```
//! use bundles::container::{Bundle, Kind, Preprocess, Resize, Trust, Writer};
//! use bundles::plan::{Linear, Op, Owner, Plan, Shape};
//!
//! let linear = Linear { name: "fc".into(), c_in: 3, c_out: 2 };
//! let plan = Plan {
//!     arch: "mean colour".into(),
//!     input: Shape::new(3, 4, 4),
//!     stem: vec![],
//!     cells: vec![],
//!     head: vec![Op::GlobalAvgPool, Op::Linear(linear)],
//! };
//! let preprocess = Preprocess::new(3, 4, 4, Resize::Bilinear, [0.5; 3], [0.25; 3]);
//! let mut writer = Writer::new(Kind::Task, "warm-or-cold", plan, preprocess);
//! writer.labels(["warm", "cold"]).backbone([7; 32], "");
//! writer.tensor_f32("fc.weight", Owner::Task, &[2, 3], &[1.0, 0.0, -1.0, -1.0, 0.0, 1.0])?;
//! writer.tensor_f32("fc.bias", Owner::Task, &[2], &[0.0, 0.1])?;
//! let bytes = writer.finish(&[])?; // signed with the development key
//!
//! let bundle = Bundle::parse(&bytes)?;
//! assert_eq!(bundle.verify(&[])?, Trust::Development);
//! assert_eq!(bundle.decode_f32("fc.bias")?, [0.0, 0.1]);
//! # Ok::<(), bundles::Error>(())
//! ```
//!
//! The format specification, byte by byte, follows.
//!
#![doc = include_str!("../../FORMAT.md")]

mod atomic;
mod block;
mod contents;
mod decoder;
mod frame;
mod golden;
mod half;
mod header;
mod hex;
mod identity;
mod keys;
mod manifest;
mod manifest_codec;
mod planes;
mod preamble;
mod reader;
mod rules;
mod section;
mod section_codec;
mod signature;
mod stored;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writer;

pub use atomic::{check_writable, write_atomically};
pub use block::{Block, Codec};
pub use decoder::Decoder;
pub use golden::{Golden, golden_input};
pub use half::{f16_to_f32, f32_to_f16};
pub use header::Header;
pub use hex::hex;
pub use identity::backbone_id;
pub use keys::{KeyId, PublicKey, SigningKey, TrustedKey};
pub use manifest::{BackboneRef, Kind, Manifest, Preprocess, Resize};
pub use manifest_codec::{check_fact, check_label};
pub use reader::Bundle;
pub use rules::check_name;
pub use section::{Dtype, Isa, Layout, Section};
pub use signature::{Trust, sign, unsign};
pub use stored::Stored;
pub use writer::Writer;

/// Version of the contract between a bundle and the runtime that interprets its plan. A runtime refuses
/// bundles with another number; it changes when the meaning of a plan or of a tensor changes.
pub const RUNTIME_ABI: u32 = 1;
