//! A task without its parameters: its bundle's header, checked against the backbone, and its compiled plan.

use crate::backbone::Backbone;
use crate::engine::Program;
use crate::input::Preparation;
use crate::kernels::int8::Grid;
use crate::{Error, Result, bundle};
use bundles::container::{Bundle, Header, Kind, Manifest, Stored, Trust, hex};
use bundles::plan::Plan;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Outline {
    name: String,
    /// `None` for a task that was not loaded from a bundle.
    pub header: Option<Arc<Header>>,
    pub trust: Trust,
    /// Number of universal blocks that remain, and of cells in the backbone.
    pub blocks: (usize, usize),
    pub preparation: Option<Preparation>,
    pub program: Program,
    /// Approximate heap usage in bytes.
    pub bytes: usize,
}

impl Outline {
    /// Parses a task bundle, checks it and compiles its plan; or reuses the cached outline of a bundle that
    /// was loaded onto this backbone before and is identical except (perhaps) for the contents of its
    /// sections.
    ///
    /// # Errors
    /// As for [`Task::load`](crate::Task::load), except for invalid tensors.
    pub fn open<'a>(
        backbone: &Backbone,
        file: &str,
        stored: Stored<'a>,
    ) -> Result<(Arc<Outline>, Bundle<'a>)> {
        let known = Header::stated_digest(&stored).and_then(|digest| backbone.kept.outline(&digest));
        let header = known.as_ref().and_then(|outline| outline.header.as_ref());
        let mut reader = backbone.kept.reader(file)?;
        let bundle = Bundle::parse_known(stored, header, &mut reader.decoder).map_err(Error::container(file));
        backbone.kept.keep_reader(reader);
        let bundle = bundle?;
        let same = header.is_some_and(|header| Arc::ptr_eq(header, bundle.header()));
        let outline = match known.filter(|_| same) {
            Some(known) => {
                // The quantisation parameters are part of the program but stored in a section.
                bundle::grids(file, &bundle)?;
                known
            }
            None => Arc::new(Outline::of_bundle(backbone, file, &bundle)?),
        };
        backbone.kept.keep_outline(bundle.digest(), &outline);
        Ok((outline, bundle))
    }

    fn of_bundle(backbone: &Backbone, file: &str, bundle: &Bundle<'_>) -> Result<Outline> {
        let manifest = bundle.manifest();
        let trust = backbone.trusting.check(file, bundle)?;
        bundle::check_kind(file, manifest, Kind::Task)?;
        if let Some(open) = backbone.reference() {
            let want = &manifest.backbone;
            if want.id != open.id {
                return Err(Error::WrongBackbone {
                    task: manifest.name.clone(),
                    want: hex(&want.id),
                    got: hex(&open.id),
                });
            }
            if !want.variant.is_empty() && want.variant != open.variant {
                return Err(Error::Incompatible {
                    file: file.into(),
                    want: format!("backbone packing `{}`", want.variant),
                    got: format!("packing `{}`", open.variant),
                    // Only int8 tasks need one packing.
                    remedy: "use the backbone of the task's precision (`tailor pack NET --precision int8`)",
                });
            }
        }
        bundle::check_tensors(file, manifest)?;
        let grids = bundle::grids(file, bundle)?;
        if grids.is_none() && backbone.is_int8() {
            return Err(Error::Incompatible {
                file: file.into(),
                want: "an f32 or f16 backbone, as it holds no scales of int8 maps".into(),
                got: "packing `int8`".into(),
                remedy: "use such a backbone, or the int8 task (`tailor pack TASK --precision int8`)",
            });
        }
        let preparation = Preparation::new(file, &manifest.preprocess)?;
        let outline = Outline::compile(backbone, &manifest.name, &manifest.plan, grids.as_deref())?;
        Ok(Outline {
            header: Some(Arc::clone(bundle.header())),
            trust,
            preparation: Some(preparation),
            bytes: outline.bytes + bundle.header().bytes(),
            ..outline
        })
    }

    /// The outline of a task without a bundle.
    ///
    /// # Errors
    /// If the plan is invalid or cannot be compiled.
    pub fn of_plan(backbone: &Backbone, name: &str, plan: &Plan, grids: Option<&[Grid]>) -> Result<Outline> {
        plan.check().map_err(Error::container(name))?;
        Outline::compile(backbone, name, plan, grids)
    }

    /// Compiles a plan that has passed its checks.
    fn compile(backbone: &Backbone, name: &str, plan: &Plan, grids: Option<&[Grid]>) -> Result<Outline> {
        let program = match grids {
            None => {
                let kernel = |conv: &_, shape: &_| backbone.kernel(conv, shape);
                Program::compile(name, plan, backbone.isa, &kernel)?
            }
            Some(grids) => {
                let kernel = |conv: &_| backbone.kernel8(conv);
                Program::compile_int8(name, plan, backbone.isa, &kernel, grids)?
            }
        };
        Ok(Outline {
            name: name.into(),
            header: None,
            trust: Trust::Unsigned,
            blocks: (plan.blocks(), plan.cells.len()),
            preparation: None,
            bytes: program.bytes(),
            program,
        })
    }

    /// Memory that a task with this outline uses, in bytes, excluding the backbone and the arena that all
    /// tasks share.
    pub fn resident_bytes(&self) -> usize {
        let parts: usize = self.program.parts.iter().map(|part| 4 * part.len).sum();
        parts + self.bytes
    }

    /// Refuses a task of more than `most` bytes before allocating memory for it.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_budget(&self, most: usize) -> Result<()> {
        if self.resident_bytes() <= most {
            return Ok(());
        }
        let what = format!("task `{}`, in bytes", self.name);
        Err(Error::TooLarge { what, need: self.resident_bytes(), limit: most })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn manifest(&self) -> Option<&Manifest> {
        self.header.as_ref().map(|header| header.manifest())
    }
}
