//! `tailor inspect`: shows the contents of a backbone or task bundle.

mod json;
mod text;

use super::verify;
use crate::output::out;
use crate::precision::{Form, needs};
use anyhow::Context;
use bundles::container::{Bundle, Kind, Trust, TrustedKey};
use bundles::plan::Counter;
use edge_runtime::Needs;
use edge_runtime::kernels::Isa;
use std::path::PathBuf;

/// Shows a bundle's network, costs, packing, memory use, labels and signatures.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor inspect run/digits.task")]
pub struct Inspect {
    /// Backbone or task bundle.
    file: PathBuf,
    /// Also list every tensor: shape, element type, element order, bytes.
    #[arg(long)]
    tensors: bool,
    /// Public key to name as a signer; repeatable. Refuses nothing: use `tailor verify` for that.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

/// The information shown about a bundle.
struct Look<'a> {
    file: String,
    bytes: usize,
    bundle: &'a Bundle<'a>,
    trust: Trust,
    trusted: Vec<TrustedKey>,
    form: Form,
    /// Multiply-adds: true, and by the paper's conventions.
    macs: (u64, u64),
    /// For each instruction set, in the arithmetic of the bundle's form.
    memory: Vec<(Isa, Needs)>,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let place = || self.file.display().to_string();
        let trusted = verify::trusted(&self.keys)?;
        let bytes = std::fs::read(&self.file).with_context(place)?;
        let bundle = Bundle::parse(&bytes).with_context(place)?;
        let trust = bundle.verify(&trusted).with_context(place)?;
        let manifest = bundle.manifest();
        let cost = |counter| manifest.plan.costs(counter).map(|c| c.total().macs);
        let macs = (cost(Counter::True)?, cost(Counter::Paper)?);
        let memory = Form::of(manifest).isas().map(|isa| Ok((isa, needs(manifest, isa)?)));
        let look = Look {
            file: place(),
            bytes: bytes.len(),
            bundle: &bundle,
            trust,
            trusted,
            form: Form::of(manifest),
            macs,
            memory: memory.collect::<crate::Result<_>>().with_context(place)?,
        };
        if self.json {
            out!("{}", json::document(&look));
        } else {
            text::show(&look, self.tensors);
        }
        Ok(())
    }
}

impl Look<'_> {
    /// The devices it is packed for.
    fn packed_for(&self) -> String {
        let manifest = self.bundle.manifest();
        match (manifest.kind, self.form) {
            (Kind::Backbone, Form::Plain) => "training, and any device (reordered when opened)".into(),
            (Kind::Backbone, Form::Blocked { isa, revision }) => {
                format!("devices with {}: read in place (layout revision {revision})", isa.word())
            }
            (Kind::Backbone, Form::F16) => "any device (reordered when opened)".into(),
            (Kind::Backbone, Form::Int8) => "any device, read in place; runs int8 tasks only".into(),
            (Kind::Task, Form::Int8) => "any device, on the int8 backbone".into(),
            (Kind::Task, _) => "any device, on an f32 or f16 backbone".into(),
        }
    }
}
