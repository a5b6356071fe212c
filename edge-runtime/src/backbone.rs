//! The backbone: frozen kernels, held once for every task that runs on them.

use crate::engine::{Tensors, params};
use crate::kernels::{self, ConvShape, Isa};
use crate::{Error, Result};
use bundles::plan::Conv;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A convolution kernel in the layout its kernel function reads.
#[derive(Debug, Clone)]
pub(crate) enum Kernel {
    /// Repacked at open.
    Packed(Arc<[f32]>),
}

impl Kernel {
    /// The packed weights.
    pub fn floats(&self) -> &[f32] {
        match self {
            Kernel::Packed(floats) => floats,
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
/// Kernels that the file holds in this machine's layout are read where they lie in the memory map. Others
/// are repacked once, on opening; [`Backbone::repacked`] says what that cost.
#[derive(Debug)]
pub struct Backbone {
    pub(crate) isa: Isa,
    source: Source,
    packed: Mutex<HashMap<(String, ConvShape), Kernel>>,
    repacked: Mutex<Repacked>,
}

/// Where unpacked kernels and biases come from.
#[derive(Debug)]
enum Source {
    /// Tensors in memory, for tests and tools that never wrote a file.
    Memory(HashMap<String, Vec<f32>>),
}

impl Backbone {
    /// A backbone from tensors in memory: the backbone-owned tensors that tasks will name.
    pub fn from_tensors(isa: Isa, tensors: HashMap<String, Vec<f32>>) -> Arc<Backbone> {
        Arc::new(Backbone {
            isa,
            source: Source::Memory(tensors),
            packed: Mutex::default(),
            repacked: Mutex::default(),
        })
    }

    /// The instruction set its kernels are packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What repacking has cost so far; zero for a file packed for this machine.
    pub fn repacked(&self) -> Repacked {
        *self.repacked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel of `conv`, packed for `shape`.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the backbone has no such kernel.
    pub(crate) fn kernel(&self, conv: &Conv, shape: &ConvShape) -> Result<Kernel> {
        let key = (format!("{}.weight", conv.name), *shape);
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = packed.get(&key) {
            return Ok(kernel.clone());
        }
        let start = Instant::now();
        let plain = self.tensor(&key.0, conv.c_out * conv.c_in * conv.kernel * conv.kernel)?;
        let mut floats = vec![0.0; kernels::packed_len(self.isa, shape)];
        kernels::pack(self.isa, shape, &plain, &mut floats)
            .map_err(|source| Error::Kernel { step: key.0.clone(), source })?;
        let kernel = Kernel::Packed(floats.into());
        let mut repacked = self.repacked.lock().unwrap_or_else(PoisonError::into_inner);
        repacked.kernels += 1;
        repacked.bytes += 4 * kernel.floats().len();
        repacked.time += start.elapsed();
        packed.insert(key, kernel.clone());
        Ok(kernel)
    }

    /// Reads a backbone-owned tensor in its plain order.
    pub(crate) fn tensor(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        match &self.source {
            Source::Memory(tensors) => params::read(tensors as &dyn Tensors, name, len),
        }
    }
}
