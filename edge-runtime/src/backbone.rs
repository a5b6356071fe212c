//! The backbone: frozen kernels, held once for every task that runs on them.

use crate::bundle::{self, Trusting};
use crate::engine::{Program, Tensors, params};
use crate::kept::Kept;
use crate::kernels::{self, ConvShape, Floats, Isa, int8};
use crate::map::Map;
use crate::{Error, Result};
use bundles::container::{
    self, BackboneRef, Bundle, Dtype, Kind, Layout, Manifest, Section, Trust, TrustedKey,
};
use bundles::plan::{Conv, Op, Owner};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Revision of the packed order of int8 kernels, which is the same for every instruction set.
pub const INT8_REVISION: u32 = 1;

/// Revision of the packed kernel order, written into files packed for an instruction set. It changes when
/// [`kernels::pack`] changes what it writes.
pub const LAYOUT_REVISION: u32 = 2;

/// How to open a backbone, and what to ask of the tasks loaded onto it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Instruction set to run on.
    pub isa: Isa,
    /// Keys that files must be signed with. Empty: any file is taken whose signatures, if there are some,
    /// are right.
    pub trusted: Vec<TrustedKey>,
}

impl Default for Options {
    fn default() -> Options {
        Options { isa: Isa::detect(), trusted: Vec::new() }
    }
}

/// A convolution kernel in the layout its kernel function reads.
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
            // The range was checked when this value was made.
            Kernel::Mapped { map, range } => map.floats(range.clone()).unwrap_or(&[]),
            Kernel::Packed(floats) => floats,
        }
    }
}

/// A convolution kernel as bytes in the order that [`int8::conv`] reads, with the scale of each output channel.
#[derive(Debug, Clone)]
pub(crate) struct Kernel8 {
    bytes: Bytes8,
    pub scales: Arc<Vec<f32>>,
}

#[derive(Debug, Clone)]
enum Bytes8 {
    Mapped { map: Arc<Map>, range: Range<usize> },
    Packed(Arc<Vec<i8>>),
}

impl Kernel8 {
    /// The packed weights.
    pub fn weights(&self) -> &[i8] {
        match &self.bytes {
            // The range was checked when this value was made.
            Bytes8::Mapped { map, range } => kernels::signed(map.bytes().get(range.clone()).unwrap_or(&[])),
            Bytes8::Packed(bytes) => bytes,
        }
    }
}

/// What it cost to bring a generic backbone into this machine's layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repacked {
    /// Kernels that were repacked.
    pub kernels: usize,
    /// Bytes of memory they take, beside the file.
    pub bytes: usize,
    /// Time it took.
    pub time: Duration,
}

/// A backbone, open for any number of tasks on any number of threads.
///
/// The file is mapped and checked once. Kernels that it holds in this machine's layout are read where they lie
/// in the map; others are repacked once, on opening, and [`Backbone::repacked`] says what that cost.
#[derive(Debug)]
pub struct Backbone {
    pub(crate) isa: Isa,
    pub(crate) trusting: Trusting,
    source: Source,
    packed: Mutex<Packed>,
    /// What loads leave for the next one.
    pub(crate) kept: Kept,
}

#[derive(Debug, Default)]
struct Packed {
    kernels: HashMap<(String, ConvShape), Kernel>,
    int8: HashMap<String, Kernel8>,
    cost: Repacked,
}

/// Where unpacked kernels and biases come from.
#[derive(Debug)]
enum Source {
    /// Tensors in memory, for tests and tools that never wrote a file.
    Memory(HashMap<String, Vec<f32>>),
    File(Box<Contents>),
}

#[derive(Debug)]
struct Contents {
    file: String,
    map: Arc<Map>,
    manifest: Manifest,
    trust: Trust,
    /// Section number and byte range by tensor name.
    tensors: HashMap<String, (usize, Range<usize>)>,
}

impl Backbone {
    /// Maps the backbone file at `path`, checks all of it, and makes its kernels ready.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Container`] for a damaged file; [`Error::Incompatible`] for a file packed for
    /// another instruction set; [`Error::Untrusted`].
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Arc<Backbone>> {
        let path = path.as_ref();
        Backbone::read(path.display().to_string(), Map::open(path)?, options)
    }

    /// As [`open`](Backbone::open), from bytes in memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`open`](Backbone::open).
    pub fn from_bytes(name: &str, bytes: Vec<u8>, options: &Options) -> Result<Arc<Backbone>> {
        Backbone::read(name.into(), Map::memory(bytes), options)
    }

    fn read(file: String, map: Map, options: &Options) -> Result<Arc<Backbone>> {
        let trusting = Trusting::new(options.trusted.clone());
        let map = Arc::new(map);
        let bundle = Bundle::parse(map.bytes()).map_err(Error::container(&file))?;
        let trust = trusting.check(&file, &bundle)?;
        bundle::check_kind(&file, bundle.manifest(), Kind::Backbone)?;
        bundle.verify_sections().map_err(Error::container(&file))?;
        let mut tensors = HashMap::new();
        for (index, section) in bundle.manifest().sections.iter().enumerate() {
            let range = bundle.file_range(section).map_err(Error::container(&file))?;
            tensors.insert(section.name.clone(), (index, range));
        }
        let manifest = bundle.into_manifest();
        let plan = manifest.plan.clone();
        let contents = Contents { file: file.clone(), map: Arc::clone(&map), manifest, trust, tensors };
        let source = Source::File(Box::new(contents));
        let backbone =
            Backbone { isa: options.isa, trusting, source, packed: Mutex::default(), kept: Kept::default() };
        // Every kernel in the shape the backbone's own network runs it, so that a task finds it ready.
        if backbone.is_int8() {
            let convs = plan.ops().filter_map(|op| if let Op::Conv(conv) = op { Some(conv) } else { None });
            for conv in convs.filter(|conv| conv.owner == Owner::Backbone) {
                backbone.kernel8(conv)?;
            }
        } else {
            Program::compile(&file, &plan, options.isa, &|conv, shape| backbone.kernel(conv, shape))?;
        }
        if backbone.repacked().kernels > 0 {
            // What was repacked is not read again in its plain order.
            map.release();
        }
        Ok(Arc::new(backbone))
    }

    /// A backbone from tensors in memory: the backbone-owned tensors that tasks will name.
    pub fn from_tensors(isa: Isa, tensors: HashMap<String, Vec<f32>>) -> Arc<Backbone> {
        let source = Source::Memory(tensors);
        Arc::new(Backbone {
            isa,
            trusting: Trusting::default(),
            source,
            packed: Mutex::default(),
            kept: Kept::default(),
        })
    }

    /// The instruction set its kernels are packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What the file says about itself; `None` for a backbone that never was a file.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.contents().map(|contents| &contents.manifest)
    }

    /// Identity and packing; `None` for a backbone that never was a file.
    pub fn reference(&self) -> Option<&BackboneRef> {
        self.manifest().map(|manifest| &manifest.backbone)
    }

    /// What its signatures amount to; `None` for a backbone that never was a file.
    pub fn trust(&self) -> Option<&Trust> {
        self.contents().map(|contents| &contents.trust)
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> usize {
        self.contents().map_or(0, |contents| contents.map.bytes().len())
    }

    /// Whether its file holds kernels as bytes: then it runs tasks that were packed for that, and no others.
    pub fn is_int8(&self) -> bool {
        let sections = self.contents().map_or(&[][..], |contents| &contents.manifest.sections);
        sections.iter().any(|section| section.owner == Owner::Backbone && section.dtype == Dtype::I8)
    }

    /// What repacking has cost so far; zero for a file packed for this machine.
    pub fn repacked(&self) -> Repacked {
        self.packed().cost
    }

    fn contents(&self) -> Option<&Contents> {
        match &self.source {
            Source::File(contents) => Some(contents),
            Source::Memory(_) => None,
        }
    }

    fn packed(&self) -> MutexGuard<'_, Packed> {
        self.packed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel of `conv`, packed for `shape`.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the backbone has no such kernel, [`Error::Incompatible`] when it is packed for
    /// another machine or shape.
    pub(crate) fn kernel(&self, conv: &Conv, shape: &ConvShape) -> Result<Kernel> {
        let key = (format!("{}.weight", conv.name), *shape);
        let mut packed = self.packed();
        if let Some(kernel) = packed.kernels.get(&key) {
            return Ok(kernel.clone());
        }
        let len = kernels::packed_len(self.isa, shape);
        if let Some(kernel) = self.mapped(&key.0, conv, len)? {
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

    /// A kernel that lies in the file as this machine reads it; `None` when it lies there in plain order.
    fn mapped(&self, name: &str, conv: &Conv, len: usize) -> Result<Option<Kernel>> {
        let Some(contents) = self.contents() else { return Ok(None) };
        let Some((index, range)) = contents.tensors.get(name) else { return Ok(None) };
        let Some(section) = contents.manifest.sections.get(*index) else { return Ok(None) };
        let Layout::Blocked { isa, revision } = section.layout else { return Ok(None) };
        let shape = [conv.c_out, conv.c_in, conv.kernel, conv.kernel];
        let here = isa_in_files(self.isa);
        let fits = (isa, revision) == (here, LAYOUT_REVISION)
            && section.dtype == Dtype::F32
            && section.shape == shape
            && range.len() == 4 * len
            && contents.map.floats(range.clone()).is_some();
        if !fits {
            return Err(Error::Incompatible {
                file: contents.file.clone(),
                want: format!("{isa:?} revision {revision} (tensor `{name}`, {} bytes)", range.len()),
                got: format!("{here:?} revision {LAYOUT_REVISION} ({} bytes)", 4 * len),
            });
        }
        Ok(Some(Kernel::Mapped { map: Arc::clone(&contents.map), range: range.clone() }))
    }

    /// The kernel of `conv` as bytes: where it lies in the file, or rounded from plain numbers.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the backbone has no such kernel, [`Error::Incompatible`] when it is packed in
    /// another order, [`Error::Container`] for scales that are none.
    pub(crate) fn kernel8(&self, conv: &Conv) -> Result<Kernel8> {
        let name = format!("{}.weight", conv.name);
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
                int8::quantise_rows(&plain, conv.c_out, &mut rounded, &mut scales)
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

    /// An int8 kernel that lies in the file; `None` when it lies there as plain numbers.
    fn mapped8(&self, name: &str, conv: &Conv, len: usize) -> Result<Option<Kernel8>> {
        let Some(contents) = self.contents() else { return Ok(None) };
        let Some((index, range)) = contents.tensors.get(name) else { return Ok(None) };
        let Some(section) = contents.manifest.sections.get(*index) else { return Ok(None) };
        if section.dtype != Dtype::I8 {
            return Ok(None);
        }
        let layout = Layout::Blocked { isa: container::Isa::Portable, revision: INT8_REVISION };
        let shape = [conv.c_out, conv.c_in, conv.kernel, conv.kernel];
        if section.layout != layout || section.shape != shape || range.len() != len {
            return Err(Error::Incompatible {
                file: contents.file.clone(),
                want: format!("{:?} (tensor `{name}`, {} bytes)", section.layout, range.len()),
                got: format!("{layout:?} ({len} bytes)"),
            });
        }
        let scale_name = Section::scale_name(name);
        let scales = contents.tensor(&scale_name, conv.c_out)?;
        bundle::check_scales(&contents.file, &scale_name, &scales)?;
        let bytes = Bytes8::Mapped { map: Arc::clone(&contents.map), range: range.clone() };
        Ok(Some(Kernel8 { bytes, scales: Arc::new(scales.into_owned()) }))
    }

    /// A backbone-owned tensor in its plain order: in place, where the file holds it so.
    pub(crate) fn tensor(&self, name: &str, len: usize) -> Result<Cow<'_, [f32]>> {
        match &self.source {
            Source::Memory(tensors) => params::read(tensors as &dyn Tensors, name, len).map(Cow::Owned),
            Source::File(contents) => contents.tensor(name, len),
        }
    }
}

impl Contents {
    /// Sections were hashed when the file was opened; here only their form is looked at.
    fn tensor(&self, name: &str, want: usize) -> Result<Cow<'_, [f32]>> {
        let wrong = |got| Error::Tensor { file: self.file.clone(), name: name.into(), want, got };
        let (index, range) = self.tensors.get(name).ok_or_else(|| wrong(None))?;
        let section = self.manifest.sections.get(*index).ok_or_else(|| wrong(None))?;
        if section.owner != Owner::Backbone || section.layout != Layout::Canonical {
            return Err(Error::Incompatible {
                file: self.file.clone(),
                want: format!("tensor `{name}` in {:?} order", section.layout),
                got: "a program that reads it in plain order".into(),
            });
        }
        let bytes = self.map.bytes().get(range.clone()).unwrap_or_default();
        let numbers: Cow<'_, [f32]> = match (section.dtype, self.map.floats(range.clone())) {
            (Dtype::F32, Some(in_place)) => in_place.into(),
            (Dtype::F32, None) => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            (Dtype::F16, _) => {
                let halves = bytes.as_chunks().0.iter();
                halves.map(|&b| container::f16_to_f32(u16::from_le_bytes(b))).collect()
            }
            (Dtype::I8 | Dtype::U8 | Dtype::I32, _) => {
                return Err(Error::Incompatible {
                    file: self.file.clone(),
                    want: format!("tensor `{name}` of {:?}", section.dtype),
                    got: "kernels for F32 and F16".into(),
                });
            }
        };
        if numbers.len() == want { Ok(numbers) } else { Err(wrong(Some(numbers.len()))) }
    }
}

/// The part of a convolution's shape that the order of its int8 weights depends on.
pub(crate) fn int8_shape(conv: &Conv) -> ConvShape {
    let &Conv { c_in, c_out, kernel, stride, pad, .. } = conv;
    ConvShape { c_in, h: kernel, w: kernel, c_out, kernel, stride, pad, input_nchw: false }
}

/// The name that files have for an instruction set's layout.
pub fn isa_in_files(isa: Isa) -> container::Isa {
    match isa {
        Isa::Portable => container::Isa::Portable,
        Isa::Avx2 => container::Isa::Avx2,
        Isa::Avx512 => container::Isa::Avx512,
        Isa::Neon => container::Isa::Neon,
    }
}
