//! The compute device: the CPU, or a GPU if the program was built with support for one.

use crate::{Error, Result};
use candle_core::Device;
use std::{fmt, str::FromStr};

/// The values of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// `cpu`.
    #[default]
    Cpu,
    /// `cuda` or `cuda:N`: the NVIDIA GPU with that number, without a fallback.
    Cuda(usize),
    /// `auto`: the first NVIDIA GPU if there is one, otherwise the CPU.
    Auto,
}

impl Choice {
    /// Opens the device. The note says how it was chosen, where that needs saying.
    ///
    /// # Errors
    /// [`Error::Device`] if the requested GPU is not available.
    pub fn open(self) -> Result<(Device, Option<String>)> {
        match self {
            Choice::Cpu => Ok((Device::Cpu, None)),
            Choice::Cuda(number) => Ok((cuda(number).map_err(|why| unavailable(number, &why))?, None)),
            Choice::Auto => Ok(match cuda(0) {
                Ok(device) => (device, Some("computing on GPU 0".into())),
                Err(why) => (Device::Cpu, Some(format!("{why}: computing on the CPU"))),
            }),
        }
    }
}

fn unavailable(number: usize, why: &str) -> Error {
    let want = if cfg!(feature = "cuda") {
        "`nvidia-smi` should list it; --device auto falls back to the CPU, --device cpu always uses it"
    } else {
        "rebuild with `cargo build --release -p tailor --features cuda` (needs the CUDA toolkit), or use --device cpu"
    };
    Error::Device { device: format!("cuda:{number}"), found: why.into(), want: want.into() }
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Device, String> {
    // The driver bindings panic if the driver is too old to have a symbol they need.
    let opened = std::panic::catch_unwind(|| {
        let device = Device::new_cuda(number)?;
        tune(&device)?;
        candle_core::Result::Ok(device)
    });
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(format!("no usable NVIDIA GPU {number} ({})", first_line(&error.to_string()))),
        Err(_) => Err(format!("no usable NVIDIA GPU {number} (its driver does not fit this program)")),
    }
}

/// Avoids two overheads for the hundreds of short-lived tensors of a training step: two events created and
/// destroyed for each, and memory returned to the driver whenever a loss is read.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
fn tune(device: &Device) -> candle_core::Result<()> {
    use candle_core::cuda::WrapErr;
    use candle_core::cuda::cudarc::driver::sys::{
        self, CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
    };
    let cuda = device.as_cuda_device()?;
    // SAFETY: events order work across streams; cudarc uses them only once a program creates additional
    // streams, and candle creates none.
    unsafe { cuda.disable_event_tracking() };
    let context = cuda.cuda_stream().context().clone();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let (mut pool, mut all) = (std::ptr::null_mut(), u64::MAX);
    // SAFETY: the device is open; the driver fills in its default pool, and reads one u64 for this attribute.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result().w()?;
        sys::cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut all).cast())
            .result()
            .w()
    }
}

#[cfg(feature = "cuda")]
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, String> {
    Err("this program was built without GPU support".into())
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Cpu => f.write_str("cpu"),
            Choice::Cuda(0) => f.write_str("cuda"),
            Choice::Cuda(number) => write!(f, "cuda:{number}"),
            Choice::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Choice> {
        let parsed = match (text, text.strip_prefix("cuda:")) {
            ("cpu", _) => Some(Choice::Cpu),
            ("cuda", _) => Some(Choice::Cuda(0)),
            ("auto", _) => Some(Choice::Auto),
            (_, Some(number)) => number.parse().ok().map(Choice::Cuda),
            _ => None,
        };
        parsed.ok_or_else(|| Error::config(format!("--device {text}"), "cpu, cuda, cuda:N or auto"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        for (text, want) in [
            ("cpu", Choice::Cpu),
            ("cuda", Choice::Cuda(0)),
            ("cuda:3", Choice::Cuda(3)),
            ("auto", Choice::Auto),
        ] {
            assert_eq!(text.parse::<Choice>().unwrap(), want);
            assert_eq!(want.to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "CPU"] {
            assert_eq!(text.parse::<Choice>().unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_gpu_support_cuda_is_refused_and_auto_says_what_it_does() {
        let error = Choice::Cuda(1).open().unwrap_err();
        assert_eq!(error.exit_code(), 4);
        let message = error.to_string();
        assert!(message.contains("cuda:1") && message.contains("--features cuda"), "{message}");
        let (device, note) = Choice::Auto.open().unwrap();
        assert!(device.is_cpu() && note.unwrap().contains("computing on the CPU"));
        assert!(Choice::Cpu.open().unwrap().1.is_none());
    }
}
