//! Reads state dicts: named tensors from .safetensors files and from files written by PyTorch's `torch.save`.
//!
//! PyTorch files are pickles, and a pickle is a program. The reader here (see the `pickle` module) executes
//! none of it: it builds plain data, recognises the few calls that construct tensors, and keeps every other
//! global as an inert name. Malicious input results in an error, never a panic, and memory use is bounded by
//! a small constant factor of its size.

mod pickle;
mod pytorch;
mod safe;
mod storage;
#[cfg(test)]
mod tests;

use crate::{Error, Result};
use std::{collections::BTreeMap, fs, path::Path};

/// A dense, row-major tensor; every source type is converted to `f32`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values, as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// Named tensors and the file's metadata.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateDict {
    /// Tensors by name, without a prefix shared by all names (`module.` and the like).
    pub tensors: BTreeMap<String, Tensor>,
    /// The `__metadata__` of a .safetensors file; empty for PyTorch's formats.
    pub metadata: BTreeMap<String, String>,
}

/// Prefixes that wrappers add to every name (DataParallel, Lightning, `torch.compile`, ...).
const WRAPPERS: [&str; 6] = ["module.", "model.", "net.", "network.", "backbone.", "_orig_mod."];

/// Reads a state dict from a .safetensors file, or a .pt, .pth or .th of any PyTorch since 0.1.10.
///
/// The format is detected from the content. A checkpoint with the state dict under a key such as
/// `state_dict`, `model_state_dict`, `model` or `net` is unwrapped; optimiser state is ignored.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Weights`] if it has another format, is truncated or
/// damaged, or has no tensors (the message then lists its keys).
pub fn read_state_dict(path: &Path) -> Result<StateDict> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    parse(&bytes).map_err(|Fault { found, want }| Error::weights(path, found, want))
}

/// What is wrong with a file, before its path is known.
#[derive(Debug)]
struct Fault {
    found: String,
    want: String,
}

impl Fault {
    fn new(found: impl Into<String>, want: impl Into<String>) -> Fault {
        Fault { found: found.into(), want: want.into() }
    }

    /// A fault in bytes that end too early or contradict themselves.
    fn damaged(found: impl Into<String>) -> Fault {
        Fault::new(found, "truncated or damaged? Fetch the file again")
    }
}

fn parse(bytes: &[u8]) -> Result<StateDict, Fault> {
    let mut dict = match bytes {
        [] => return Err(Fault::damaged("an empty file")),
        // A .safetensors file starts with the length of its header (u64) and the header's opening brace.
        [_, _, _, _, _, _, _, _, b'{', ..] => safe::read(bytes)?,
        [b'P', b'K', 3 | 5, 4 | 6, ..] => pytorch::read_zip(bytes)?,
        [0x80, ..] => pytorch::read_legacy(bytes)?,
        _ if bytes.get(257..262) == Some(b"ustar") => {
            let want = "load it with an old PyTorch and save its state_dict() again";
            return Err(Fault::new("a tar checkpoint of a PyTorch before 0.1.10", want));
        }
        _ => {
            let want = "a .safetensors file or a state dict written by torch.save is needed";
            return Err(Fault::new("neither safetensors nor a PyTorch file", want));
        }
    };
    while let Some(prefix) = shared_wrapper(&dict.tensors) {
        let strip = |(name, tensor): (String, Tensor)| (name[prefix.len()..].to_owned(), tensor);
        dict.tensors = std::mem::take(&mut dict.tensors).into_iter().map(strip).collect();
    }
    Ok(dict)
}

fn shared_wrapper(tensors: &BTreeMap<String, Tensor>) -> Option<&'static str> {
    let shared =
        |prefix: &&str| tensors.keys().all(|name| name.len() > prefix.len() && name.starts_with(*prefix));
    WRAPPERS.into_iter().find(shared).filter(|_| !tensors.is_empty())
}
