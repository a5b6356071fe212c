//! A tensor's entry in the section table, and the alignment of stored data.

use super::Kind;
use crate::plan::Owner;
use std::fmt;

/// Separates the name of a plan tensor from that of a companion, such as the scales of an int8 kernel:
/// `layer1.0.conv1.weight#scale`.
pub(super) const COMPANION: char = '#';

/// Element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// Signed byte.
    I8,
    /// Unsigned byte.
    U8,
    /// Signed 32-bit integer.
    I32,
}

/// Instruction set a blocked layout is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Blocked, for plain Rust; also the form every instruction set can read in place.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F.
    Avx512,
    /// x86-64 with AVX-512 VNNI. Reserved.
    Avx512Vnni,
    /// AArch64.
    Neon,
    /// AArch64 with half-precision arithmetic.
    NeonFp16,
    /// AArch64 with dot products. Reserved.
    NeonDot,
}

/// Order of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row-major over the shape, as in PyTorch.
    Canonical,
    /// As read by the runtime's kernels for `isa`; may be padded. `revision` is the version of that order.
    Blocked {
        /// Instruction set.
        isa: Isa,
        /// Version of the blocked order for this instruction set.
        revision: u32,
    },
}

/// Entry of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The tensor's name in the plan.
    pub name: String,
    /// Its owner.
    pub owner: Owner,
    /// Element type.
    pub dtype: Dtype,
    /// Order of the elements.
    pub layout: Layout,
    /// Extents, outermost first; empty for a scalar. Never zero.
    pub shape: Vec<usize>,
    /// Length in bytes.
    pub raw_len: u64,
    /// Index of the block that contains it.
    pub block: usize,
    /// Number of elements of the same width before it in that block.
    pub(super) first: u64,
}

impl Dtype {
    /// Lower-case word for people and scripts.
    pub fn word(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::I8 => "i8",
            Dtype::U8 => "u8",
            Dtype::I32 => "i32",
        }
    }

    /// Bytes of one element.
    pub fn width(self) -> usize {
        match self {
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 => 2,
            Dtype::I8 | Dtype::U8 => 1,
        }
    }
}

impl Isa {
    /// Lower-case word for people and scripts.
    pub fn word(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Neon => "neon",
            Isa::NeonFp16 => "neon-fp16",
            Isa::NeonDot => "neon-dot",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Canonical => f.write_str("canonical"),
            Layout::Blocked { isa, revision } => write!(f, "blocked ({}, revision {revision})", isa.word()),
        }
    }
}

impl Section {
    /// Name of the companion that holds an int8 tensor's scales: f32, one per index of its first axis.
    pub fn scale_name(tensor: &str) -> String {
        format!("{tensor}{COMPANION}scale")
    }

    /// Whether it is a companion of a plan tensor (`tensor#word`).
    pub fn is_companion(&self) -> bool {
        self.name.contains(COMPANION)
    }

    /// Number of elements, or `None` if it exceeds u64.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |n, &extent| n.checked_mul(extent as u64))
    }
}

/// Alignment of the section group in the file: a page for mapped data, a cache line for decoded data.
pub(super) fn group_alignment(kind: Kind) -> u64 {
    match kind {
        Kind::Backbone => 4096,
        Kind::Task => 64,
    }
}

/// Alignment of each block in its group.
pub(super) fn section_alignment(kind: Kind) -> u64 {
    match kind {
        Kind::Backbone => 64,
        Kind::Task => 1,
    }
}

/// `x` rounded up to a multiple of `alignment` (a power of two), or `None` on overflow.
pub(super) fn align_up(x: u64, alignment: u64) -> Option<u64> {
    Some(x.checked_add(alignment - 1)? & !(alignment - 1))
}
