//! The instruction sets that kernels exist for, and detection of those this machine supports.

use std::fmt;

/// An instruction set; determines the layout of activations and packed weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust; runs on any machine.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
    /// aarch64 with Advanced SIMD.
    Neon,
    /// aarch64 with Advanced SIMD and half-precision arithmetic (FP16 of Armv8.2). Feature maps are f32;
    /// direct and pointwise convolutions round their inputs and weights to f16, sum up to 64 products in
    /// f16, and add these sums up in f32. Inputs and such sums must stay below 65504.
    NeonFp16,
}

impl Isa {
    /// Every instruction set, starting with [`Isa::Portable`].
    pub const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::NeonFp16];

    /// The fastest instruction set in f32 that this machine supports.
    pub fn detect() -> Isa {
        [Isa::Avx512, Isa::Avx2, Isa::Neon].into_iter().find(|isa| isa.runs_here()).unwrap_or(Isa::Portable)
    }

    /// All instruction sets that this machine supports, starting with [`Isa::Portable`].
    pub fn supported() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.runs_here())
    }

    /// Those of them that compute in f32.
    pub fn available() -> Vec<Isa> {
        Isa::supported().filter(|isa| !isa.is_half()).collect()
    }

    /// The fastest instruction set with [half precision](Isa::is_half) that this machine supports.
    pub fn detect_half() -> Option<Isa> {
        Some(Isa::NeonFp16).filter(|isa| isa.runs_here())
    }

    /// Whether convolutions may compute in half precision.
    pub const fn is_half(self) -> bool {
        matches!(self, Isa::NeonFp16)
    }

    /// Whether this machine supports it.
    pub fn runs_here(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonFp16 => Isa::Neon.runs_here() && std::arch::is_aarch64_feature_detected!("fp16"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Channels per block, `cb`: activations are stored as `[ceil(C / cb)][H][W][cb]`, padding channels are
    /// zero.
    pub const fn block(self) -> usize {
        match self {
            Isa::Portable | Isa::Avx2 | Isa::NeonFp16 => 8,
            Isa::Avx512 => 16,
            Isa::Neon => 4,
        }
    }

    /// `channels` rounded up to whole blocks.
    pub const fn padded(self, channels: usize) -> usize {
        channels.div_ceil(self.block()).saturating_mul(self.block())
    }

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::NeonFp16 => "neon-fp16",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Isa {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Isa, KernelError> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or(KernelError::UnknownIsa)
    }
}

/// Why a kernel refused its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice holds fewer floats than its shape requires.
    Short {
        /// Which slice.
        what: &'static str,
        /// Floats needed.
        want: usize,
        /// Floats found.
        got: usize,
    },
    /// A shape that no kernel supports, for example a zero axis or a window larger than its padded map.
    Shape {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Not the name of an instruction set.
    UnknownIsa,
    /// The machine does not support the instruction set.
    Isa {
        /// The requested instruction set.
        isa: Isa,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Short { what, want, got } => {
                write!(f, "{what}: {got} floats found, {want} needed")
            }
            KernelError::Shape { what } => write!(f, "no kernel for this shape: {what}"),
            KernelError::UnknownIsa => {
                f.write_str("no such instruction set; choose portable, avx2, avx512, neon or neon-fp16")
            }
            KernelError::Isa { isa } => {
                write!(f, "this machine does not support {isa}; choose one of")?;
                Isa::supported().try_for_each(|isa| write!(f, " {isa}"))
            }
        }
    }
}

impl std::error::Error for KernelError {}

/// The first `want` floats of `data`.
pub(super) fn take<'a>(what: &'static str, data: &'a [f32], want: usize) -> Result<&'a [f32], KernelError> {
    data.get(..want).ok_or(KernelError::Short { what, want, got: data.len() })
}

/// The first `want` floats of `data`, mutably.
pub(super) fn take_mut<'a>(
    what: &'static str,
    data: &'a mut [f32],
    want: usize,
) -> Result<&'a mut [f32], KernelError> {
    let got = data.len();
    data.get_mut(..want).ok_or(KernelError::Short { what, want, got })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let error = "mmx".parse::<Isa>().unwrap_err().to_string();
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
            assert!(error.contains(isa.name()), "{error}");
        }
    }
}
