//! `tailor pack`: a backbone in the layout that a device's kernels read, so that it is mapped and used as it is.

use super::keys::read_key;
use anyhow::Context;
use bundles::container::write_atomically;
use edge_runtime::kernels::Isa;
use edge_runtime::{Packing, pack_backbone};
use std::path::PathBuf;
use targets::Profile;

/// Packs a backbone for a device (see `tailor targets`); tasks of the backbone run on it unchanged.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor pack net.backbone --target jetson-orin-nano --out store/net.backbone"
)]
pub struct Pack {
    /// Backbone file made by `tailor import`.
    backbone: PathBuf,
    /// Device to pack for.
    #[arg(long, value_parser = Profile::named)]
    target: &'static Profile,
    /// Where the packed backbone goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Secret key to sign it with; the development key when left out.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Pack {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let signers = self.key.as_deref().map(read_key).transpose()?;
        let isa: Isa = self.target.isa.parse()?;
        let place = self.backbone.display().to_string();
        let bytes = std::fs::read(&self.backbone).with_context(|| place.clone())?;
        let packed = pack_backbone(&place, &bytes, Packing::F32(isa), signers.as_slice())?;
        write_atomically(&self.out, &packed)?;
        println!(
            "{}: packed for {} ({} bytes, from {})",
            self.out.display(),
            self.target.name,
            packed.len(),
            bytes.len()
        );
        Ok(())
    }
}
