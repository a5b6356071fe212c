//! A backbone's kernels as this machine reads them: in place in the file, or repacked once.

use super::{Backbone, Contents, isa_in_files};
use crate::kernels::{self, ConvShape, Floats, Isa, int8};
use crate::map::Map;
use crate::{Error, Result, bundle};
use bundles::container::{self, Dtype, Layout, Section};
use bundles::plan::Conv;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Revision of the packed order of int8 kernels, which is the same for every instruction set.
pub const INT8_REVISION: u32 = 1;

/// Revision of the packed kernel order, written to files packed for an instruction set. Bumped whenever the
/// output of [`kernels::pack`] changes.
pub const LAYOUT_REVISION: u32 = 2;

/// A convolution kernel in the layout that its compute kernel reads.
#[derive(Debug, Clone)]
pub(crate) enum Kernel {
    /// In place, in the mapped file.
    Mapped { map: Arc<Map>, range: Range<usize> },
    /// Repacked at open.
    Packed(Arc<Floats>),
}

impl Kernel {
    /// The packed weights.
    pub fn floats(&self) -> &[f32] {
        match self {
            // The range was checked when this value was created.
            Kernel::Mapped { map, range } => map.floats(range.clone()).unwrap_or(&[]),
            Kernel::Packed(floats) => floats,
        }
    }
}

/// A convolution kernel as bytes in the order that [`int8::conv`] reads, with a scale per output channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kernel8 {
    bytes: Bytes8,
    pub scales: Arc<Vec<f32>>,
}

#[derive(Debug, Clone)]
enum Bytes8 {
    Mapped { map: Arc<Map>, range: Range<usize> },
    Packed(Arc<Vec<i8>>),
}

impl Default for Bytes8 {
    fn default() -> Bytes8 {
        Bytes8::Packed(Arc::default())
    }
}

impl Kernel8 {
    /// The packed weights.
    pub fn weights(&self) -> &[i8] {
        match &self.bytes {
            // The range was checked when this value was created.
            Bytes8::Mapped { map, range } => kernels::signed(map.bytes().get(range.clone()).unwrap_or(&[])),
            Bytes8::Packed(bytes) => bytes,
        }
    }
}

impl Backbone {
    /// The kernel of `conv`, packed for `shape`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backbone has no such kernel; [`Error::Incompatible`] if its shape differs or
    /// it is packed for another machine.
    pub(crate) fn kernel(&self, conv: &Conv, shape: &ConvShape) -> Result<Kernel> {
        let len = kernels::packed_len(self.isa, shape);
        let key = (format!("{}.weight", conv.name), len, shape.input_nchw);
        self.check_shape(&key.0, conv)?;
        let mut packed = self.packed();
        if let Some(kernel) = packed.kernels.get(&key) {
            return Ok(kernel.clone());
        }
        if let Some(kernel) = self.mapped(&key.0, shape)? {
            packed.kernels.insert(key, kernel.clone());
            return Ok(kernel);
        }
        let start = Instant::now();
        let plain = self.tensor(&key.0, conv.c_out * conv.c_in * conv.kernel * conv.kernel)?;
        let mut floats = Floats::zeros(len);
        kernels::pack(self.isa, shape, &plain, &mut floats)
            .map_err(|source| Error::Kernel { step: key.0.clone(), source })?;
        packed.cost.kernels += 1;
        packed.cost.bytes += 4 * floats.len();
        packed.cost.time += start.elapsed();
        let kernel = Kernel::Packed(Arc::new(floats));
        packed.kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    /// Refuses a convolution that expects a kernel of another shape than the file's, even with as many
    /// elements.
    fn check_shape(&self, name: &str, conv: &Conv) -> Result<()> {
        let Some((contents, section, _)) = self.in_file(name) else { return Ok(()) };
        let shape = [conv.c_out, conv.c_in, conv.kernel, conv.kernel];
        if section.shape == shape {
            return Ok(());
        }
        Err(Error::Incompatible {
            file: contents.file.clone(),
            want: format!("tensor `{name}` as {:?}", section.shape),
            got: format!("a network that expects {shape:?}"),
            remedy: "use the backbone that this network was made for",
        })
    }

    /// A kernel that the file stores in this machine's layout; `None` if it is stored in plain order.
    fn mapped(&self, name: &str, on: &ConvShape) -> Result<Option<Kernel>> {
        let Some((contents, section, range)) = self.in_file(name) else { return Ok(None) };
        let Layout::Blocked { isa, revision } = section.layout else { return Ok(None) };
        let here = isa_in_files(self.isa);
        let fits = (isa, revision) == (here, LAYOUT_REVISION)
            && section.dtype == kernel_dtype(self.isa, on, range.len() / 4)
            && range.len().is_multiple_of(4)
            && kernels::accepts(self.isa, on, range.len() / 4)
            && contents.map.floats(range.clone()).is_some();
        if !fits {
            return Err(Error::Incompatible {
                file: contents.file.clone(),
                want: format!("{} revision {revision} (tensor `{name}`, {} bytes)", isa.word(), range.len()),
                got: format!(
                    "{} revision {LAYOUT_REVISION} ({} bytes)",
                    here.word(),
                    4 * kernels::packed_len(self.isa, on)
                ),
                remedy: "pack it for this device",
            });
        }
        Ok(Some(Kernel::Mapped { map: Arc::clone(&contents.map), range: range.clone() }))
    }

    /// The kernel of `conv` as bytes: in place in the file, or quantised from plain numbers.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backbone has no such kernel; [`Error::Incompatible`] if its shape differs or
    /// it is packed in another order; [`Error::Container`] for invalid scales.
    pub(crate) fn kernel8(&self, conv: &Conv) -> Result<Kernel8> {
        let name = format!("{}.weight", conv.name);
        self.check_shape(&name, conv)?;
        let mut packed = self.packed();
        if let Some(kernel) = packed.int8.get(&name) {
            return Ok(kernel.clone());
        }
        let shape = int8_shape(conv);
        let kernel = match self.mapped8(&name, conv, int8::packed_len(&shape))? {
            Some(kernel) => kernel,
            None => {
                let start = Instant::now();
                let plain = self.tensor(&name, conv.c_out * conv.c_in * conv.kernel * conv.kernel)?;
                let (mut rounded, mut scales) = (vec![0; plain.len()], vec![0.0; conv.c_out]);
                let mut bytes = vec![0; int8::packed_len(&shape)];
                int8::quantise_rows(&plain, conv.c_out, int8::Bits::ALL, &mut rounded, &mut scales)
                    .and_then(|()| int8::pack(&shape, &rounded, &mut bytes))
                    .map_err(|source| Error::Kernel { step: name.clone(), source })?;
                packed.cost.kernels += 1;
                packed.cost.bytes += bytes.len();
                packed.cost.time += start.elapsed();
                Kernel8 { bytes: Bytes8::Packed(Arc::new(bytes)), scales: Arc::new(scales) }
            }
        };
        packed.int8.insert(name, kernel.clone());
        Ok(kernel)
    }

    /// A kernel that the file stores in int8; `None` if it is stored as plain numbers.
    fn mapped8(&self, name: &str, conv: &Conv, len: usize) -> Result<Option<Kernel8>> {
        let Some((contents, section, range)) = self.in_file(name) else { return Ok(None) };
        if section.dtype != Dtype::I8 {
            return Ok(None);
        }
        let layout = Layout::Blocked { isa: container::Isa::Portable, revision: INT8_REVISION };
        if section.layout != layout || range.len() != len {
            return Err(Error::Incompatible {
                file: contents.file.clone(),
                want: format!("{:?} (tensor `{name}`, {} bytes)", section.layout, range.len()),
                got: format!("{layout:?} ({len} bytes)"),
                remedy: "pack it for this device",
            });
        }
        let scale_name = Section::scale_name(name);
        let scales = contents.tensor(&scale_name, conv.c_out)?;
        bundle::check_scales(&contents.file, &scale_name, &scales)?;
        let bytes = Bytes8::Mapped { map: Arc::clone(&contents.map), range: range.clone() };
        Ok(Some(Kernel8 { bytes, scales: Arc::new(scales.into_owned()) }))
    }

    /// The file's section of that name and its byte range; `None` if there is no file or no such section.
    fn in_file(&self, name: &str) -> Option<(&Contents, &Section, &Range<usize>)> {
        let contents = self.contents()?;
        let (index, range) = contents.tensors.get(name)?;
        Some((contents, contents.manifest.sections.get(*index)?, range))
    }
}

/// The element type of a kernel that takes `floats` floats of memory in the layout of `isa`.
pub(crate) fn kernel_dtype(isa: Isa, shape: &ConvShape, floats: usize) -> Dtype {
    if kernels::holds_halves(isa, shape, floats) { Dtype::F16 } else { Dtype::F32 }
}

/// The part of a convolution's shape that determines the order of its int8 weights.
pub(crate) fn int8_shape(conv: &Conv) -> ConvShape {
    let &Conv { c_in, c_out, kernel, stride, pad, .. } = conv;
    ConvShape { c_in, h: kernel, w: kernel, c_out, kernel, stride, pad, input_nchw: false }
}
