//! `tailor verify`: is this bundle whole, and who signed it?

use crate::output::{note, out};
use anyhow::Context;
use bundles::container::{Bundle, Trust, TrustedKey};
use edge_runtime::trusted_key;
use std::path::{Path, PathBuf};

/// Checks every byte of bundles against their manifest, and their signatures against trusted keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor verify run/digits.task --key release.key.pub")]
pub struct Verify {
    /// Backbones and task bundles.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Public keys, one of which must have signed; without any, every whole file passes, and its signature is shown.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// One JSON object per file instead of text.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let trusted: Vec<TrustedKey> = self.keys.iter().map(trusted_key).collect::<Result<_, _>>()?;
        let mut failed = None;
        for path in &self.files {
            if let Err(error) = self.check(path, &trusted) {
                if self.json {
                    let file = path.display().to_string();
                    out!("{}", serde_json::json!({ "file": file, "error": format!("{error:#}") }));
                }
                // The first ends the command.
                match &failed {
                    None => failed = Some(error),
                    Some(_) => note!("tailor: {error:#}"),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Checks one file and says what it is.
    fn check(&self, path: &Path, trusted: &[TrustedKey]) -> anyhow::Result<()> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let bundle = Bundle::parse(&bytes).with_context(|| path.display().to_string())?;
        bundle.verify_sections().with_context(|| path.display().to_string())?;
        let trust = bundle.verify(trusted).with_context(|| path.display().to_string())?;
        if !self.keys.is_empty() && !matches!(trust, Trust::Trusted { .. }) {
            return Err(crate::Error::Untrusted { path: path.into(), found: trust.to_string() }.into());
        }
        let manifest = bundle.manifest();
        if self.json {
            let line = serde_json::json!({
                "file": path.display().to_string(),
                "kind": manifest.kind.word(),
                "name": manifest.name,
                "sections": manifest.sections.len(),
                "signature": trust.to_string(),
            });
            out!("{line}");
        } else {
            let (kind, name) = (manifest.kind.word(), &manifest.name);
            out!("{}: {kind} `{name}`, {} sections whole, {trust}", path.display(), manifest.sections.len());
        }
        Ok(())
    }
}
