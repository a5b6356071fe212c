//! The backbone: frozen kernels, shared by every task that runs on them.

mod choice;
mod kernels;

use crate::bundle::{self, Trusting};
use crate::engine::{Program, Tensors, params};
use crate::kept::Kept;
use crate::kernels::Isa;
use crate::map::Map;
use crate::{Error, Result};
use bundles::container::{self, BackboneRef, Bundle, Dtype, Kind, Layout, Manifest, Trust, TrustedKey};
use bundles::plan::{Op, Owner};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::kernels::{INT8_REVISION, LAYOUT_REVISION};
pub(crate) use self::kernels::{Kernel, Kernel8, int8_shape, kernel_dtype};

/// How to open a backbone, and what to require of the tasks loaded onto it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Instruction set to run on. `None` stands for the one that the file is packed for, if this machine
    /// supports it, and otherwise for the fastest one; for f16 backbones with half precision, where the
    /// machine has that. (int8 files are packed for all.)
    pub isa: Option<Isa>,
    /// Keys that files must be signed with. If empty, unsigned files are accepted, and so is any file with
    /// valid signatures.
    pub trusted: Vec<TrustedKey>,
}

/// The cost of converting a generic backbone to this machine's layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repacked {
    /// Kernels that were repacked.
    pub kernels: usize,
    /// Bytes of memory they use, in addition to the file.
    pub bytes: usize,
    /// Time it took.
    pub time: Duration,
}

/// A backbone, open for any number of tasks on any number of threads.
///
/// The file is mapped and checked once. Kernels stored in this machine's layout are read in place; others are
/// repacked once, at open, and [`Backbone::repacked`] reports the cost.
#[derive(Debug)]
pub struct Backbone {
    pub(crate) isa: Isa,
    pub(crate) trusting: Trusting,
    source: Source,
    packed: Mutex<Packed>,
    /// Caches that loads leave for the next one.
    pub(crate) kept: Kept,
}

#[derive(Debug, Default)]
struct Packed {
    /// Keyed by tensor, number of floats and whether the input is a plain image: one packed form serves many
    /// map sizes.
    kernels: HashMap<(String, usize, bool), Kernel>,
    int8: HashMap<String, Kernel8>,
    cost: Repacked,
}

/// The source of unpacked kernels and biases.
#[derive(Debug)]
enum Source {
    /// Tensors in memory, for tests and tools that never write a file.
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
    /// Maps the backbone file at `path`, checks all of it, and prepares its kernels.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Container`] for a damaged file; [`Error::Incompatible`] for a file packed for
    /// another instruction set than asked for or supported here, or half precision for a file that is not
    /// f16; [`Error::Usage`] for an instruction set that this machine does not support;
    /// [`Error::Untrusted`].
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Arc<Backbone>> {
        let path = path.as_ref();
        Backbone::read(path.display().to_string(), Map::open(path)?, options)
    }

    /// Like [`open`](Backbone::open), from bytes in memory; `name` stands in for the path in messages.
    ///
    /// # Errors
    /// As for [`open`](Backbone::open).
    pub fn from_bytes(name: &str, bytes: Vec<u8>, options: &Options) -> Result<Arc<Backbone>> {
        Backbone::read(name.into(), Map::memory(bytes), options)
    }

    fn read(file: String, map: Map, options: &Options) -> Result<Arc<Backbone>> {
        if let Some(isa) = options.isa.filter(|isa| !isa.runs_here()) {
            return Err(Error::Usage {
                got: format!("kernels for {isa}"),
                want: "an instruction set supported here".into(),
            });
        }
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
        let isa = choice::isa(&file, &manifest, options.isa)?;
        let contents = Contents { file: file.clone(), map: Arc::clone(&map), manifest, trust, tensors };
        let source = Source::File(Box::new(contents));
        let backbone = Backbone { isa, trusting, source, packed: Mutex::default(), kept: Kept::default() };
        // Prepare every kernel in the shape the backbone's own network runs it, so that tasks find it ready.
        if backbone.is_int8() {
            let convs = plan.ops().filter_map(|op| if let Op::Conv(conv) = op { Some(conv) } else { None });
            for conv in convs.filter(|conv| conv.owner == Owner::Backbone) {
                backbone.kernel8(conv)?;
            }
        } else {
            Program::compile(&file, &plan, isa, &|conv, shape| backbone.kernel(conv, shape))?;
        }
        if backbone.repacked().kernels > 0 {
            // Repacked kernels are not read again in their plain order.
            map.release();
        }
        Ok(Arc::new(backbone))
    }

    /// A backbone from tensors in memory: the backbone-owned tensors that tasks refer to.
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

    /// The file's manifest; `None` for a backbone that was not read from a file.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.contents().map(|contents| &contents.manifest)
    }

    /// Identity and packing; `None` for a backbone that was not read from a file.
    pub fn reference(&self) -> Option<&BackboneRef> {
        self.manifest().map(|manifest| &manifest.backbone)
    }

    /// The result of verifying its signatures; `None` for a backbone that was not read from a file.
    pub fn trust(&self) -> Option<&Trust> {
        self.contents().map(|contents| &contents.trust)
    }

    /// Size of the file in bytes.
    pub fn file_bytes(&self) -> usize {
        self.contents().map_or(0, |contents| contents.map.bytes().len())
    }

    /// Whether its file holds int8 kernels; it then runs only tasks that were packed for that.
    pub fn is_int8(&self) -> bool {
        let sections = self.contents().map_or(&[][..], |contents| &contents.manifest.sections);
        sections.iter().any(|section| section.owner == Owner::Backbone && section.dtype == Dtype::I8)
    }

    /// The cost of repacking so far; zero for a file packed for this machine.
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

    /// A backbone-owned tensor in plain order; borrowed from the file if possible.
    pub(crate) fn tensor(&self, name: &str, len: usize) -> Result<Cow<'_, [f32]>> {
        match &self.source {
            Source::Memory(tensors) => params::read(tensors as &dyn Tensors, name, len).map(Cow::Owned),
            Source::File(contents) => contents.tensor(name, len),
        }
    }
}

impl Contents {
    /// Sections were hashed when the file was opened; only their form is checked here.
    fn tensor(&self, name: &str, want: usize) -> Result<Cow<'_, [f32]>> {
        let wrong = |got| Error::Tensor { file: self.file.clone(), name: name.into(), want, got };
        let (index, range) = self.tensors.get(name).ok_or_else(|| wrong(None))?;
        let section = self.manifest.sections.get(*index).ok_or_else(|| wrong(None))?;
        if section.owner != Owner::Backbone || section.layout != Layout::Canonical {
            return Err(Error::Incompatible {
                file: self.file.clone(),
                want: format!("tensor `{name}` in {:?} order", section.layout),
                got: "a program that reads it in plain order".into(),
                remedy: "pack it for this device",
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
                    remedy: "pack it for this device",
                });
            }
        };
        if numbers.len() == want { Ok(numbers) } else { Err(wrong(Some(numbers.len()))) }
    }
}

/// An instruction set's layout as named in files.
pub fn isa_in_files(isa: Isa) -> container::Isa {
    match isa {
        Isa::Portable => container::Isa::Portable,
        Isa::Avx2 => container::Isa::Avx2,
        Isa::Avx512 => container::Isa::Avx512,
        Isa::Neon => container::Isa::Neon,
        Isa::NeonFp16 => container::Isa::NeonFp16,
    }
}
