//! Device profiles: what a bundle can be packed for, as plain data.
//!
//! A profile states the instruction set of the CPU engine, the memory, and, for future GPU support, the CUDA
//! architecture and JetPack release. Figures are the vendor's.

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Name on the command line.
    pub name: &'static str,
    /// Human-readable description.
    pub about: &'static str,
    /// Rust's target triple for `edge-runtime`.
    pub triple: &'static str,
    /// Instruction set of the CPU kernels, as printed by `edge-runtime probe`.
    pub isa: &'static str,
    /// The one for f16 backbones, if its cores compute in half precision; `edge-runtime probe` prints it, too.
    pub isa_f16: Option<&'static str>,
    /// Memory in MiB, shared by CPU and GPU on a Jetson.
    pub memory_mib: u32,
    /// CUDA compute capability as in `sm_87`, if there is a CUDA GPU.
    pub cuda: Option<u16>,
    /// Newest JetPack release that supports it, if applicable.
    pub jetpack: Option<&'static str>,
}

const AARCH64: &str = "aarch64-unknown-linux-gnu";
const X86_64: &str = "x86_64-unknown-linux-gnu";

/// Every known device, Jetsons first, oldest first.
pub const PROFILES: [Profile; 8] = [
    Profile { isa_f16: None, ..jetson("jetson-nano", "Jetson Nano (Cortex-A57, Maxwell)", 4096, 53, "4.6") },
    Profile {
        isa_f16: None,
        ..jetson("jetson-tx2", "Jetson TX2 (Cortex-A57 and Denver 2, Pascal)", 8192, 62, "4.6")
    },
    jetson("jetson-xavier-nx", "Jetson Xavier NX (Carmel, Volta)", 8192, 72, "5.1"),
    jetson("jetson-orin-nano", "Jetson Orin Nano (Cortex-A78AE, Ampere)", 8192, 87, "6.2"),
    jetson("jetson-agx-orin", "Jetson AGX Orin (Cortex-A78AE, Ampere)", 65536, 87, "6.2"),
    Profile {
        name: "raspberry-pi-4",
        about: "Raspberry Pi 4 (Cortex-A72)",
        triple: AARCH64,
        isa: "neon",
        isa_f16: None,
        memory_mib: 4096,
        cuda: None,
        jetpack: None,
    },
    x86("x86-avx2", "x86-64 with AVX2 and FMA", "avx2"),
    x86("x86-avx512", "x86-64 with AVX-512", "avx512"),
];

const fn jetson(
    name: &'static str,
    about: &'static str,
    memory_mib: u32,
    cuda: u16,
    jetpack: &'static str,
) -> Profile {
    Profile {
        name,
        about,
        triple: AARCH64,
        isa: "neon",
        isa_f16: Some("neon-fp16"),
        memory_mib,
        cuda: Some(cuda),
        jetpack: Some(jetpack),
    }
}

const fn x86(name: &'static str, about: &'static str, isa: &'static str) -> Profile {
    Profile { name, about, triple: X86_64, isa, isa_f16: None, memory_mib: 8192, cuda: None, jetpack: None }
}

impl Profile {
    /// Looks up a profile by name.
    ///
    /// # Errors
    /// The known names, as a sentence.
    pub fn named(name: &str) -> Result<&'static Profile, String> {
        PROFILES.iter().find(|p| p.name == name).ok_or_else(|| {
            let names: Vec<&str> = PROFILES.iter().map(|p| p.name).collect();
            format!("unknown target `{name}`; known: {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for profile in &PROFILES {
            assert_eq!(Profile::named(profile.name), Ok(profile));
            assert_eq!(PROFILES.iter().filter(|p| p.name == profile.name).count(), 1);
        }
        let error = Profile::named("jetson").unwrap_err();
        assert!(error.contains("jetson-nano") && error.contains("x86-avx512"), "{error}");
    }

    #[test]
    fn instruction_sets_belong_to_their_architecture() {
        for profile in &PROFILES {
            assert_eq!(profile.triple == AARCH64, profile.isa == "neon", "{}", profile.name);
            assert!(profile.isa_f16.is_none_or(|isa| isa == "neon-fp16" && profile.triple == AARCH64));
            assert_eq!(profile.cuda.is_some(), profile.jetpack.is_some(), "{}", profile.name);
        }
    }
}
