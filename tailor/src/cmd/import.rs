//! `tailor import`: converts published weights to a backbone file.

use crate::cmd::channels;
use crate::destination;
use crate::import::{self, Request};
use crate::output::{note, out};
use anyhow::Context;
use bundles::plan::{Arch, Counter};
use std::path::PathBuf;

/// Converts a PyTorch or safetensors state dict to a backbone: universal kernels, norms, source classifier.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor import resnet20-12fca82f.th --out resnet20.backbone")]
pub struct Import {
    /// Weights: .th, .pth, .pt or .safetensors.
    weights: PathBuf,
    /// Where to write the backbone; the weights' name with `.backbone` if omitted.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Architecture, if it cannot be recognised from the tensors (cifar-resnet20-a, resnet34, wrn16-1, …).
    #[arg(long)]
    arch: Option<Arch>,
    /// Mean of each channel of pixels scaled to 0..1, overriding the file's value or the architecture's usual
    /// one.
    #[arg(long, value_name = "R,G,B", value_parser = channels)]
    mean: Option<[f32; 3]>,
    /// Standard deviation of each channel.
    #[arg(long, value_name = "R,G,B", value_parser = channels)]
    std: Option<[f32; 3]>,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let request = Request { arch: self.arch, mean: self.mean, std: self.std };
        let out = self.out.clone().unwrap_or_else(|| self.weights.with_extension("backbone"));
        destination::check("--out", &out, &[&self.weights])?;
        let imported = import::import(&self.weights, &request)?;
        let id = import::write_backbone(&imported, &out)?;
        let bytes = std::fs::metadata(&out).with_context(|| out.display().to_string())?.len();
        let cost = imported.plan.costs(Counter::True)?.without_head();
        for note in &imported.notes {
            note!("tailor: {note}");
        }
        if self.json {
            let line = serde_json::json!({
                "file": out.display().to_string(),
                "arch": imported.arch.to_string(),
                "id": bundles::container::hex(&id),
                "blocks": imported.plan.blocks(),
                "params": cost.params,
                "macs": cost.macs,
                "bytes": bytes,
                "classifier": imported.classifier,
                "folded": imported.folded,
            });
            out!("{line}");
        } else {
            out!(
                "{}: {}, {} blocks, {} parameters, {} multiply-adds, id {}",
                out.display(),
                imported.arch,
                imported.plan.blocks(),
                crate::fit::count(cost.params),
                crate::fit::count(cost.macs),
                bundles::container::hex(&id[..8])
            );
        }
        Ok(())
    }
}
