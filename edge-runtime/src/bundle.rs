//! What this runtime asks of a container before it uses it, and a task bundle as a source of tensors.

use crate::engine::Tensors;
use crate::{Error, Result};
use bundles::container::{Bundle, Decoder, Kind, Layout, Manifest, RUNTIME_ABI, Trust, TrustedKey};
use bundles::plan::Owner;
use std::cell::RefCell;

/// Whose files are accepted.
#[derive(Debug, Default)]
pub(crate) struct Trusting {
    keys: Vec<TrustedKey>,
}

impl Trusting {
    pub fn new(keys: Vec<TrustedKey>) -> Trusting {
        Trusting { keys }
    }

    /// What the signatures of `bundle` amount to.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when there are trusted keys and none of them signed it.
    pub fn check(&self, file: &str, bundle: &Bundle<'_>) -> Result<Trust> {
        let trust = bundle.verify(&self.keys).map_err(Error::container(file))?;
        match trust {
            Trust::Trusted { .. } => Ok(trust),
            _ if self.keys.is_empty() => Ok(trust),
            _ => Err(Error::Untrusted { file: file.into(), trust: trust.to_string() }),
        }
    }
}

/// Refuses the other kind of container, and one for another runtime.
pub(crate) fn check_kind(file: &str, manifest: &Manifest, want: Kind) -> Result<()> {
    if manifest.kind != want {
        return Err(Error::Usage {
            got: format!("{file} is a {}", manifest.kind.word()),
            want: format!("a {}", want.word()),
        });
    }
    if manifest.abi != RUNTIME_ABI {
        return Err(Error::Incompatible {
            file: file.into(),
            want: format!("runtime ABI {}", manifest.abi),
            got: format!("runtime ABI {RUNTIME_ABI}"),
        });
    }
    Ok(())
}

/// Refuses a bundle that lacks a tensor of its plan, before any memory is reserved for it.
pub(crate) fn check_tensors(file: &str, bundle: &Bundle<'_>) -> Result<()> {
    for spec in bundle.manifest().plan.tensors().iter().filter(|spec| spec.owner == Owner::Task) {
        let found = bundle.section(&spec.name).ok();
        let elements = found.map(|section| section.shape.iter().product());
        if elements != Some(spec.len()) {
            return Err(Error::Tensor {
                file: file.into(),
                name: spec.name.clone(),
                want: spec.len(),
                got: elements,
            });
        }
        if let Some(section) = found.filter(|section| section.layout != Layout::Canonical) {
            return Err(Error::Incompatible {
                file: file.into(),
                want: format!("tensor `{}` in {:?} order", spec.name, section.layout),
                got: "a program that reads task tensors in plain order".into(),
            });
        }
    }
    Ok(())
}

/// A task bundle's tensors; keeps its decoder from one to the next.
pub(crate) struct BundleTensors<'a> {
    file: String,
    bundle: &'a Bundle<'a>,
    decoder: RefCell<Decoder>,
}

impl<'a> BundleTensors<'a> {
    /// # Errors
    /// [`Error::Container`] when the decoder gets no memory.
    pub fn new(file: &str, bundle: &'a Bundle<'a>) -> Result<BundleTensors<'a>> {
        let decoder = Decoder::new().map_err(Error::container(file))?;
        Ok(BundleTensors { file: file.into(), bundle, decoder: RefCell::new(decoder) })
    }
}

impl Tensors for BundleTensors<'_> {
    fn name(&self) -> String {
        self.file.clone()
    }

    fn read(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let section = self.bundle.section(name).map_err(Error::container(&self.file))?;
        // The section's length was compared with the plan's when the bundle was accepted; `out` may be
        // padded to a whole cache line.
        let len = section.shape.iter().product();
        let got = out.len();
        let out = out.get_mut(..len).ok_or_else(|| Error::Tensor {
            file: self.file.clone(),
            name: name.into(),
            want: got,
            got: Some(len),
        })?;
        self.decoder
            .borrow_mut()
            .decode_f32_into(self.bundle, section, out)
            .map_err(Error::container(&self.file))
    }
}
