//! `tailor verify`: checks the integrity and signatures of bundles.

use crate::output::{note, out};
use anyhow::Context;
use bundles::container::{Bundle, PublicKey, Trust, TrustedKey, hex};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Verifies every byte of bundles against their manifests, and their signatures against trusted keys.
///
/// For a backbone written by `tailor import`, the id is recomputed from its kernels; packed backbones only
/// state it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor verify run/digits.task --key release.key.pub")]
pub struct Verify {
    /// Backbones and task bundles.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Public keys, one of which must have signed; without any, every intact file passes and its signatures
    /// are shown.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// One JSON object per file instead of text.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let trusted = trusted(&self.keys)?;
        let mut failed = None;
        for path in &self.files {
            if let Err(error) = self.check(path, &trusted) {
                if self.json {
                    let (file, code) = (path.display().to_string(), code(&error));
                    out!("{}", json!({ "file": file, "error": format!("{error:#}"), "code": code }));
                }
                // The first error becomes the result of the command.
                match &failed {
                    None => failed = Some(error),
                    Some(_) => note!("tailor: {error:#}"),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Checks one file and prints the result.
    fn check(&self, path: &Path, trusted: &[TrustedKey]) -> anyhow::Result<()> {
        let place = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(place)?;
        let bundle = Bundle::parse(&bytes).with_context(place)?;
        bundle.verify_sections().with_context(place)?;
        let computed = bundle.verify_identity().with_context(place)?;
        let trust = bundle.verify(trusted).with_context(place)?;
        if !self.keys.is_empty() && !matches!(trust, Trust::Trusted { .. }) {
            return Err(crate::Error::Untrusted { path: path.into(), found: trust.to_string() }.into());
        }
        let manifest = bundle.manifest();
        let (kind, name, sections) = (manifest.kind.word(), &manifest.name, manifest.sections.len());
        if self.json {
            let mut line = trust_fields(&bundle, &trust);
            let own = [
                ("file", json!(place())),
                ("kind", json!(kind)),
                ("name", json!(name)),
                ("sections", json!(sections)),
                ("backbone_computed", json!(computed)),
            ];
            line.extend(own.map(|(key, value)| (key.to_owned(), value)));
            out!("{}", Value::from(line));
        } else {
            let id = if computed { ", backbone id matches" } else { "" };
            out!("{}: {kind} `{name}`, {sections} sections intact{id}, {trust}", path.display());
        }
        Ok(())
    }
}

/// Reads public keys from files.
pub(super) fn trusted(files: &[PathBuf]) -> anyhow::Result<Vec<TrustedKey>> {
    let read = |path: &PathBuf| TrustedKey::read(path).with_context(|| path.display().to_string());
    files.iter().map(read).collect()
}

/// JSON fields about a bundle's digest and signatures.
pub(super) fn trust_fields(bundle: &Bundle<'_>, trust: &Trust) -> Map<String, Value> {
    let signers: Vec<String> = bundle.signers().iter().map(|key| key.id().to_string()).collect();
    let fields = [
        ("digest", json!(hex(&bundle.digest()))),
        ("backbone", json!(hex(&bundle.manifest().backbone.id))),
        ("signature", json!(trust.to_string())),
        ("trust", json!(trust.word())),
        ("trusted", json!(matches!(trust, Trust::Trusted { .. }))),
        ("signers", json!(signers)),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// One signature of a bundle, in readable form.
pub(super) fn signer(key: &PublicKey, trusted: &[TrustedKey]) -> String {
    let whose = match trusted.iter().find(|trusted| trusted.key == *key) {
        _ if key.is_development() => "public development key".into(),
        Some(trusted) => format!("{}, trusted", trusted.name),
        None => "unknown".into(),
    };
    format!("{} ({whose})", key.id())
}

/// A stable error code.
fn code(error: &anyhow::Error) -> &'static str {
    let words = error.chain().find_map(|cause| {
        if let Some(crate::Error::Untrusted { .. }) = cause.downcast_ref() {
            return Some("untrusted");
        }
        if cause.is::<std::io::Error>() {
            return Some("io");
        }
        cause.downcast_ref::<bundles::Error>().map(bundles::Error::code)
    });
    words.unwrap_or("failed")
}
