//! This runtime's checks on a container, and a task bundle as a source of tensors.

use crate::engine::{self, Tensors};
use crate::kernels::{self, int8::Grid};
use crate::{Error, Result};
use bundles::container::{
    Bundle, Decoder, Dtype, Kind, Layout, Manifest, RUNTIME_ABI, Section, Trust, TrustedKey,
};
use std::cell::RefCell;
use std::fs::File;
use std::io::Read;

/// The keys whose files are accepted.
#[derive(Debug, Default)]
pub(crate) struct Trusting {
    keys: Vec<TrustedKey>,
}

impl Trusting {
    pub fn new(keys: Vec<TrustedKey>) -> Trusting {
        Trusting { keys }
    }

    /// Verifies the signatures of `bundle`.
    ///
    /// # Errors
    /// [`Error::Untrusted`] if there are trusted keys and none of them signed it.
    pub fn check(&self, file: &str, bundle: &Bundle<'_>) -> Result<Trust> {
        let trust = bundle.verify(&self.keys).map_err(Error::container(file))?;
        match trust {
            Trust::Trusted { .. } => Ok(trust),
            _ if self.keys.is_empty() => Ok(trust),
            _ => Err(Error::Untrusted { file: file.into(), trust: trust.to_string() }),
        }
    }
}

/// Reads the public key in the file at `path`, as written by `tailor keygen`.
///
/// # Errors
/// [`Error::File`]; [`Error::Container`] if the file is not a key.
pub fn trusted_key(path: impl AsRef<std::path::Path>) -> Result<TrustedKey> {
    let path = path.as_ref();
    // Keys are short; a device may have no end.
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut bytes));
    read.map_err(Error::file(path, "read"))?;
    TrustedKey::from_bytes(&bytes).map_err(Error::container(&path.display().to_string()))
}

/// Refuses containers of another kind or for another runtime.
pub(crate) fn check_kind(file: &str, manifest: &Manifest, want: Kind) -> Result<()> {
    if manifest.kind != want {
        return Err(Error::Usage {
            got: format!("{file} is a {}", manifest.kind.word()),
            want: format!("a {}", want.word()),
        });
    }
    if manifest.abi != RUNTIME_ABI {
        return Err(unsupported(file, "runtime ABI", RUNTIME_ABI.to_string(), manifest.abi.to_string()));
    }
    Ok(())
}

/// [`Error::Container`] for something that another version of this program may support.
pub(crate) fn unsupported(file: &str, what: &str, want: String, got: String) -> Error {
    Error::Container {
        file: file.into(),
        source: bundles::Error::Unsupported { what: what.into(), want, got },
    }
}

/// Refuses task tensors that are not in plain order. (Parsing has checked that each of the plan's tensors is
/// present with its shape.)
pub(crate) fn check_tensors(file: &str, manifest: &Manifest) -> Result<()> {
    match manifest.sections.iter().find(|section| section.layout != Layout::Canonical) {
        Some(section) => {
            Err(unsupported(file, &section.name, "plain order".into(), format!("{:?}", section.layout)))
        }
        None => Ok(()),
    }
}

/// Refuses scales that are not positive normal numbers.
pub(crate) fn check_scales(file: &str, name: &str, scales: &[f32]) -> Result<()> {
    match scales.iter().find(|scale| !(scale.is_normal() && **scale > 0.0)) {
        Some(scale) => Err(corrupt(file, format!("tensor {name}"), "finite scales above zero", scale)),
        None => Ok(()),
    }
}

/// [`Error::Container`] for numbers that the container itself does not validate.
pub(crate) fn corrupt(file: &str, what: String, want: &str, got: impl ToString) -> Error {
    let source = bundles::Error::Corrupt { what, want: want.into(), got: got.to_string() };
    Error::Container { file: file.into(), source }
}

/// The quantisation parameters of an int8 task's feature maps, in the order of
/// [`Plan::maps`](bundles::plan::Plan::maps); `None` for a task that computes in floats.
///
/// # Errors
/// [`Error::Container`] for invalid scales or zero points.
pub(crate) fn grids(file: &str, bundle: &Bundle<'_>) -> Result<Option<Vec<Grid>>> {
    let plan = &bundle.manifest().plan;
    let Some(name) = plan.maps_name().filter(|name| bundle.section(name).is_ok()) else { return Ok(None) };
    // The container has checked that there are as many rows as the plan has maps.
    let numbers = bundle.decode_f32(&name).map_err(Error::container(file))?;
    let mut grids = Vec::with_capacity(numbers.len() / 2);
    for (&[scale, zero], map) in numbers.as_chunks::<2>().0.iter().zip(plan.maps()) {
        check_scales(file, &name, &[scale])?;
        let most = if map.relu { 0.0 } else { 255.0 };
        if !(0.0..=most).contains(&zero) || zero.fract() != 0.0 {
            let what = format!("tensor {name}, zero point of {:?}", map.place);
            return Err(corrupt(file, what, "an integer from 0 to 255, 0 after a ReLU", zero));
        }
        grids.push(Grid { scale, zero: zero as u8 });
    }
    Ok(Some(grids))
}

/// A task bundle's tensors; reuses its decoder from one to the next.
pub(crate) struct BundleTensors<'a> {
    file: &'a str,
    bundle: &'a Bundle<'a>,
    decoder: RefCell<Decoder>,
}

impl<'a> BundleTensors<'a> {
    pub fn new(file: &'a str, bundle: &'a Bundle<'a>, decoder: Decoder) -> BundleTensors<'a> {
        BundleTensors { file, bundle, decoder: RefCell::new(decoder) }
    }

    fn section(&self, name: &str) -> Result<&'a Section> {
        self.bundle.section(name).map_err(Error::container(self.file))
    }

    /// Returns the decoder for the next bundle.
    pub fn into_decoder(self) -> Decoder {
        self.decoder.into_inner()
    }
}

impl Tensors for BundleTensors<'_> {
    fn name(&self) -> String {
        self.file.into()
    }

    fn read(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let section = self.section(name)?;
        // The section's length was compared with the plan's when the bundle was accepted; `out` may be padded
        // to a whole cache line.
        let len = section.shape.iter().product();
        let got = out.len();
        let out = out.get_mut(..len).ok_or_else(|| Error::Tensor {
            file: self.file.into(),
            name: name.into(),
            want: got,
            got: Some(len),
        })?;
        if section.dtype != Dtype::I8 {
            let mut decoder = self.decoder.borrow_mut();
            let decoded = match section.dtype {
                // The in-memory byte order matches the file's.
                Dtype::F32 if cfg!(target_endian = "little") => {
                    decoder.decode_into(self.bundle, section, kernels::bytes_mut(out))
                }
                _ => decoder.decode_f32_into(self.bundle, section, out),
            };
            return decoded.map_err(Error::container(self.file));
        }
        let rows = section.shape.first().copied().unwrap_or_default();
        let (mut bytes, mut scales) = (vec![0; len], vec![0.0; rows]);
        self.read_rows(name, &mut bytes, &mut scales)?;
        let row = (len / rows.max(1)).max(1);
        for ((out, bytes), scale) in out.chunks_mut(row).zip(bytes.chunks(row)).zip(scales) {
            out.iter_mut().zip(bytes).for_each(|(x, &byte)| *x = f32::from(byte) * scale);
        }
        Ok(())
    }

    fn read_runs(
        &self,
        name: &str,
        len: usize,
        run: usize,
        room: &mut Vec<f32>,
        take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let section = self.section(name)?;
        // Bytes have a scale per row, and the two are read together.
        let run = if section.dtype == Dtype::I8 { len } else { run };
        for start in (0..len).step_by(run.max(1)) {
            let count = run.min(len - start);
            if room.len() < count {
                room.resize(count, 0.0);
            }
            let Some(out) = room.get_mut(..count) else { continue };
            if section.dtype == Dtype::I8 {
                self.read(name, out)?;
            } else {
                let mut decoder = self.decoder.borrow_mut();
                let decoded = decoder.decode_f32_run(self.bundle, section, start, out);
                decoded.map_err(Error::container(self.file))?;
            }
            take(start, out)?;
        }
        Ok(())
    }

    fn read_rows(&self, name: &str, out: &mut [i8], scales: &mut [f32]) -> Result<()> {
        let section = self.section(name)?;
        if section.dtype != Dtype::I8 {
            let plain = engine::params::read(self, name, out.len())?;
            return engine::params::round_rows(name, &plain, out, scales);
        }
        let scale_name = Section::scale_name(name);
        self.read(&scale_name, scales)?;
        check_scales(self.file, &scale_name, scales)?;
        let mut bytes = vec![0; out.len()];
        let decoded = self.decoder.borrow_mut().decode_into(self.bundle, section, &mut bytes);
        decoded.map_err(Error::container(self.file))?;
        out.copy_from_slice(kernels::signed(&bytes));
        Ok(())
    }
}
