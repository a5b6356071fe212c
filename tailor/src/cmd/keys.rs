//! `tailor keygen` and `tailor sign`: creates signing keys and signs bundles.

use crate::destination;
use crate::output::{note, out};
use crate::{Error, Result};
use anyhow::Context;
use bundles::container::{Bundle, KeyId, SigningKey, Trust, TrustedKey, hex, sign, unsign, write_atomically};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Creates a signing key: FILE (secret, keep it off devices) and FILE.pub (for verification).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor keygen --out release.key --name \"fleet release 2026\"")]
pub struct Keygen {
    /// Where to write the secret key; the public key gets `.pub` appended to the name.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Name of the key's owner or purpose.
    #[arg(long, default_value = "unnamed")]
    name: String,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

impl Keygen {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let public = with_suffix(&self.out, "pub");
        for path in [&self.out, &public] {
            if path.exists() {
                let want = "already exists; keys are never overwritten";
                return Err(Error::config(format!("--out {}", path.display()), want).into());
            }
            destination::check("--out", path, &[])?;
        }
        let key = SigningKey::from_seed(random_seed()?);
        write_secret(&self.out, &key.to_text(&self.name))?;
        let trusted = TrustedKey { name: self.name.clone(), key: key.public() };
        write_atomically(&public, trusted.to_text().as_bytes())?;
        let (secret, public, id) = (self.out.display(), public.display(), key.public().id());
        if self.json {
            let line = serde_json::json!({
                "file": secret.to_string(), "public": public.to_string(), "key": id.to_string(),
                "name": self.name,
            });
            out!("{line}");
        } else {
            out!("{secret} (secret)\n{public} (public, key {id})");
        }
        Ok(())
    }
}

/// Adds a signature to an intact bundle or removes one.
///
/// A bundle has room for four. To rotate keys in one step, `--remove` the old key's signature and sign with
/// the new `--key`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tailor sign digits.task --key release.key\n  \
                  tailor sign digits.task --remove 0123456789abcdef --key new.key")]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["key", "remove"]))]
pub struct Sign {
    /// Backbone or task bundle.
    file: PathBuf,
    /// Secret key made by `tailor keygen`.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Remove the signature by this key, given by its id as shown by `tailor inspect`; repeatable.
    #[arg(long, value_name = "KEYID")]
    remove: Vec<KeyId>,
    /// Where to write the signed bundle; replaces the input if omitted.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

impl Sign {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let place = || self.file.display().to_string();
        let mut bytes = std::fs::read(&self.file).with_context(place)?;
        let key = self.key.as_deref().map(read_key).transpose()?;
        // A signature vouches for every byte: sign nothing that `verify` would refuse.
        Bundle::parse(&bytes)
            .and_then(|bundle| bundle.verify_sections().and_then(|()| bundle.verify_identity()))
            .with_context(place)?;
        for &id in &self.remove {
            bytes = unsign(&bytes, id).with_context(place)?;
        }
        if let Some(key) = &key {
            bytes = sign(&bytes, key).with_context(place)?;
        }
        let out = self.out.as_ref().unwrap_or(&self.file);
        let keys: Vec<&Path> = self.key.iter().map(PathBuf::as_path).collect();
        destination::check(if self.out.is_some() { "--out" } else { "FILE" }, out, &keys)?;
        let bundle = Bundle::parse(&bytes).with_context(place)?;
        let trust = bundle.verify(&[]).with_context(place)?;
        write_atomically(out, &bytes)?;
        let out = out.display();
        if trust == Trust::Unsigned {
            note!("tailor: {out} has no signature left: only devices that require none will accept it");
        }
        let key = key.map(|key| key.public().id());
        if self.json {
            let id = |id: &KeyId| id.to_string();
            let signers: Vec<String> = bundle.signers().iter().map(|key| id(&key.id())).collect();
            let removed: Vec<String> = self.remove.iter().map(id).collect();
            let line = serde_json::json!({
                "file": out.to_string(), "key": key.as_ref().map(id), "removed": removed,
                "signers": signers, "digest": hex(&bundle.digest()),
            });
            out!("{line}");
            return Ok(());
        }
        for id in &self.remove {
            out!("{out}: signature by key {id} removed");
        }
        if let Some(id) = key {
            out!("{out} signed with key {id}");
        }
        Ok(())
    }
}

/// Reads the key at `path`.
pub(super) fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    SigningKey::read(path).with_context(|| path.display().to_string())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn random_seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let mut source = std::fs::File::open("/dev/urandom").context("/dev/urandom, the source of randomness")?;
    source.read_exact(&mut seed).context("/dev/urandom")?;
    Ok(seed)
}

/// Writes a secret key readable only by its owner.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(Error::io(path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(path))
}
