//! `tailor keygen` and `tailor sign`: making a signing key, and putting its signature on a bundle.

use crate::output::out;
use anyhow::{Context, bail};
use bundles::container::{SigningKey, sign, write_atomically};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Makes a signing key: FILE (secret, keep it off devices) and FILE.pub (for whoever verifies).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor keygen --out release.key --name \"fleet release 2026\"")]
pub struct Keygen {
    /// Where the secret key goes; the public one gets `.pub` behind the name.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Who or what signs with it.
    #[arg(long, default_value = "unnamed")]
    name: String,
}

impl Keygen {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let public = with_suffix(&self.out, "pub");
        for path in [&self.out, &public] {
            if path.exists() {
                bail!("{} exists already; a key is never overwritten: choose another name", path.display());
            }
        }
        let key = SigningKey::from_seed(random_seed()?);
        write_secret(&self.out, &key.to_text(&self.name))?;
        let trusted = bundles::container::TrustedKey { name: self.name.clone(), key: key.public() };
        write_atomically(&public, trusted.to_text().as_bytes())?;
        out!("{} (secret)\n{} (public, key {})", self.out.display(), public.display(), key.public().id());
        Ok(())
    }
}

/// Adds a signature to a bundle.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor sign digits.task --key release.key")]
pub struct Sign {
    /// Backbone or task bundle.
    file: PathBuf,
    /// Secret key made by `tailor keygen`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signed bundle goes; the input is replaced when left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Sign {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let bytes = std::fs::read(&self.file).with_context(|| self.file.display().to_string())?;
        let key = read_key(&self.key)?;
        let signed = sign(&bytes, &key).with_context(|| self.file.display().to_string())?;
        let out = self.out.as_ref().unwrap_or(&self.file);
        write_atomically(out, &signed)?;
        out!("{} signed with key {}", out.display(), key.public().id());
        Ok(())
    }
}

/// The key at `path`.
pub(super) fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    // What is no text is no key either, and told of as such.
    SigningKey::from_text(&String::from_utf8_lossy(&bytes)).with_context(|| path.display().to_string())
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

/// Only the owner may read a secret key.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())
}
