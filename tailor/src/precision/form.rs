//! The form a bundle is packed in, and the device memory it needs.

use crate::Result;
use bundles::container::{Dtype, Isa, Kind, Layout, Manifest};
use bundles::plan::Owner;
use edge_runtime::kernels;
use edge_runtime::{Needs, isa_in_files};
use std::fmt;

/// How a bundle's weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As written by `tailor import` and `tailor fit`: f32 in canonical order.
    Plain,
    /// Kernels in the order of an instruction set: f32, or f16 if it computes in half precision.
    Blocked {
        /// The instruction set.
        isa: Isa,
        /// Version of that order.
        revision: u32,
    },
    /// f16 in plain order.
    F16,
    /// Bytes in the file and in memory.
    Int8,
}

impl Form {
    /// The form of the bundle described by `manifest`: of a backbone's kernels, or of a task's own tensors.
    pub fn of(manifest: &Manifest) -> Form {
        let own = match manifest.kind {
            Kind::Backbone => Owner::Backbone,
            Kind::Task => Owner::Task,
        };
        let own = || manifest.sections.iter().filter(|s| s.owner == own && !s.is_companion());
        let maps = manifest.plan.maps_name();
        let is_int8 = match manifest.kind {
            Kind::Backbone => own().any(|section| section.dtype == Dtype::I8),
            // A device that finds map scales computes with them.
            Kind::Task => manifest.sections.iter().any(|section| Some(&section.name) == maps.as_ref()),
        };
        let blocked = own().find_map(|section| match section.layout {
            Layout::Blocked { isa, revision } => Some(Form::Blocked { isa, revision }),
            Layout::Canonical => None,
        });
        match blocked {
            _ if is_int8 => Form::Int8,
            Some(blocked) => blocked,
            None if own().any(|section| section.dtype != Dtype::F32) => Form::F16,
            None => Form::Plain,
        }
    }

    /// `f32`, `f16` or `int8`.
    pub fn precision(self) -> &'static str {
        match self {
            Form::F16 => "f16",
            Form::Blocked { .. } if self.kernels().is_some_and(kernels::Isa::is_half) => "f16",
            Form::Plain | Form::Blocked { .. } => "f32",
            Form::Int8 => "int8",
        }
    }

    /// The arithmetic of a device that runs it on `isa`: `f32`, `f16` or `int8`; or, where that is not known,
    /// `f16 or f32`.
    pub fn arithmetic(self, isa: Option<kernels::Isa>) -> &'static str {
        match (self, isa.or(self.kernels())) {
            (Form::Int8, _) => "int8",
            (_, Some(isa)) if isa.is_half() => "f16",
            (Form::F16, None) => "f16 or f32",
            _ => "f32",
        }
    }

    /// The instruction sets whose needs are worth knowing: those of its precision, packed for one or not.
    pub fn isas(self) -> impl Iterator<Item = kernels::Isa> {
        let is_f16 = self.precision() == "f16";
        kernels::Isa::ALL.into_iter().filter(move |isa| match self.kernels() {
            Some(own) if own.is_half() => *isa == own,
            _ => is_f16 || !isa.is_half(),
        })
    }

    /// The kernels that can read it in place; `None` if it is not in the order of any.
    pub fn kernels(self) -> Option<kernels::Isa> {
        let Form::Blocked { isa, .. } = self else { return None };
        kernels::Isa::ALL.into_iter().find(|&own| isa_in_files(own) == isa)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Blocked { isa, revision } => {
                write!(f, "{} for {}, revision {revision}", self.precision(), isa.word())
            }
            other => f.write_str(other.precision()),
        }
    }
}

/// Memory needed by the network of `manifest` on `isa`, on one thread and in the arithmetic it is packed for.
///
/// # Errors
/// Errors of the runtime about the plan.
pub fn needs(manifest: &Manifest, isa: kernels::Isa) -> Result<Needs> {
    let needs = match Form::of(manifest) {
        Form::Int8 => edge_runtime::needs_int8,
        Form::Plain | Form::Blocked { .. } | Form::F16 => edge_runtime::needs,
    };
    Ok(needs(&manifest.plan, isa, 1)?)
}

/// As [`needs`], with each figure the largest over all instruction sets.
///
/// # Errors
/// As [`needs`].
pub fn most_needed(manifest: &Manifest) -> Result<Needs> {
    Form::of(manifest).isas().try_fold(Needs::default(), |mut most, isa| {
        let here = needs(manifest, isa)?;
        most.arena = most.arena.max(here.arena);
        most.scratch = most.scratch.max(here.scratch);
        most.task = most.task.max(here.task);
        most.kernels = most.kernels.max(here.kernels);
        Ok(most)
    })
}
