//! The manifest, a bundle's description of itself.

use super::{Block, Golden, Section};
use crate::plan::Plan;

/// What a bundle contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Universal kernels shared by every task; any task-owned tensors belong to the source task.
    Backbone,
    /// One tailored task.
    Task,
}

/// Resampling filter of the resize to the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resize {
    /// Triangle filter in fixed point, as implemented by [`preprocess`](crate::preprocess).
    Bilinear,
}

/// From an image to the network's input: resize to `(height, width)`, convert to `channels`, and apply
/// `(value / 255 - mean) / std` per channel, in channel-height-width order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocess {
    /// Channels of the network's input, 1 (luma) or 3 (red, green, blue).
    pub channels: usize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Filter of the resize.
    pub resize: Resize,
    /// Mean per channel, for values in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, positive.
    pub std: [f32; 3],
    /// With three channels: convert every image to luma and replicate it, because the task's images are grey.
    pub grey: bool,
}

/// The backbone a bundle holds or was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackboneRef {
    /// [`backbone_id`](super::backbone_id) of the universal kernels.
    pub id: [u8; 32],
    /// Packing of those kernels (`f32`, `int8`, ...). Empty in a task that works with any packing.
    pub variant: String,
}

/// Everything about a bundle except its tensor data. Signed as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Backbone or task.
    pub kind: Kind,
    /// Display name, subject to [`check_name`](super::check_name). An id, never a path.
    pub name: String,
    /// The network.
    pub plan: Plan,
    /// Class labels in score order. Optional in a backbone.
    pub labels: Vec<String>,
    /// How an image becomes the network's input.
    pub preprocess: Preprocess,
    /// The backbone it is, or belongs to.
    pub backbone: BackboneRef,
    /// The [`RUNTIME_ABI`](super::RUNTIME_ABI) it was packed for.
    pub abi: u32,
    /// Version counter against rollback, for the publisher to raise. It is signed and stored, but no program
    /// here compares it yet.
    pub security_counter: u64,
    /// Checks for the device to replay.
    pub golden: Vec<Golden>,
    /// Provenance, as ordered key-value pairs (`arch`, `licence`, `source-accuracy`, ...).
    pub facts: Vec<(String, String)>,
    /// The tensors in file order, which for a task is execution order.
    pub sections: Vec<Section>,
    /// How they are stored: each section lies in one block, in the same order.
    pub blocks: Vec<Block>,
}

impl Kind {
    /// Lower-case word for messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Backbone => "backbone",
            Kind::Task => "task",
        }
    }
}

impl Preprocess {
    /// For colour images; set [`Preprocess::grey`] afterwards for grey ones.
    pub fn new(
        channels: usize,
        width: usize,
        height: usize,
        resize: Resize,
        mean: [f32; 3],
        std: [f32; 3],
    ) -> Preprocess {
        Preprocess { channels, width, height, resize, mean, std, grey: false }
    }
}

impl Manifest {
    /// Bytes of the section group.
    pub(super) fn group_len(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.offset.saturating_add(block.stored_len))
    }

    /// Value of the first fact with this key.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.facts.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}
