//! Signatures over preamble and manifest, which contain the hash of every block: nothing is unsigned.

use super::keys::{KeyId, PublicKey, SigningKey, TrustedKey};
use super::reader::Bundle;
use crate::wire::{Cursor, corrupt};
use crate::{Error, Result};
use std::fmt;

/// Prevents a signature made for a bundle from being passed off as one for anything else.
const DOMAIN: &[u8] = b"tailor bundle signature v1\0";
/// Maximum number of signatures on a bundle.
pub(super) const SLOTS: usize = 4;
/// A public key and a signature.
const SLOT: usize = 96;
/// Length of the signature block, used or not, so that signing never moves a section.
pub(super) const SIGNATURES: usize = SLOTS * SLOT;

/// Result of evaluating a bundle's signatures. An invalid signature is always an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// No signature: protected against damage only.
    Unsigned,
    /// Signed with the development key, which is public: protected against damage only.
    Development,
    /// Signed with a key the caller trusts.
    Trusted {
        /// The key.
        key: KeyId,
        /// The name under which it is trusted.
        name: String,
    },
    /// Validly signed with a key the caller does not know.
    Unknown {
        /// The first such key.
        key: KeyId,
    },
}

impl Trust {
    /// A stable word for scripts: `trusted`, `unknown`, `development` or `unsigned`.
    pub fn word(&self) -> &'static str {
        match self {
            Trust::Unsigned => "unsigned",
            Trust::Development => "development",
            Trust::Trusted { .. } => "trusted",
            Trust::Unknown { .. } => "unknown",
        }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trust::Unsigned => f.write_str("not signed"),
            Trust::Development => f.write_str("signed with the public development key"),
            Trust::Trusted { key, name } => write!(f, "signed by {name} ({key})"),
            Trust::Unknown { key } => write!(f, "signed by unknown key {key}"),
        }
    }
}

/// Adds a signature to a bundle and returns the new file. A development signature is replaced.
///
/// # Errors
/// As [`Bundle::parse`] for `file`; `BadRequest` if all four slots are taken.
pub fn sign(file: &[u8], key: &SigningKey) -> Result<Vec<u8>> {
    let bundle = Bundle::parse(file)?;
    let header = bundle.signed();
    let mut entries: Vec<Entry> = decode(bundle.slots())?;
    entries.retain(|(public, _)| *public != key.public() && !public.is_development());
    if entries.len() == SLOTS {
        return Err(Error::BadRequest {
            what: format!("signatures by {}", ids(&bundle)),
            want: format!("at most {SLOTS}; remove one first (`tailor sign FILE --remove KEYID`)"),
        });
    }
    entries.push((key.public(), key.sign(&message(header))));
    with_entries(file, &bundle, entries)
}

/// Removes the signature by `key` and returns the new file, which may be left unsigned.
///
/// # Errors
/// As [`Bundle::parse`] for `file`; `BadRequest` if that key did not sign it.
pub fn unsign(file: &[u8], key: KeyId) -> Result<Vec<u8>> {
    let bundle = Bundle::parse(file)?;
    let mut entries: Vec<Entry> = decode(bundle.slots())?;
    let before = entries.len();
    entries.retain(|(public, _)| public.id() != key);
    if entries.len() == before {
        let what = format!("no signature by {key}");
        return Err(Error::BadRequest { what, want: format!("one by {}", ids(&bundle)) });
    }
    with_entries(file, &bundle, entries)
}

/// `file` with exactly these signatures.
fn with_entries(file: &[u8], bundle: &Bundle<'_>, entries: Vec<Entry>) -> Result<Vec<u8>> {
    let block = encode(entries)?;
    let mut out = file.to_vec();
    if let Some(slots) = out.get_mut(bundle.slots_range()) {
        slots.copy_from_slice(&block);
    }
    Ok(out)
}

/// The signers of a bundle, for messages.
fn ids(bundle: &Bundle<'_>) -> String {
    let ids: Vec<String> = bundle.signers().iter().map(|key| key.id().to_string()).collect();
    if ids.is_empty() { "nobody".into() } else { ids.join(", ") }
}

type Entry = (PublicKey, [u8; 64]);

/// The signature block over `header` (preamble and manifest), signed by `signers`.
pub(super) fn block(header: &[u8], signers: &[SigningKey]) -> Result<[u8; SIGNATURES]> {
    let message = message(header);
    encode(signers.iter().map(|key| (key.public(), key.sign(&message))).collect())
}

/// Verifies every signature in `block` and returns the signing keys.
pub(super) fn check(header: &[u8], block: &[u8]) -> Result<Vec<PublicKey>> {
    let message = message(header);
    let entries = decode(block)?;
    let mut keys: Vec<PublicKey> = Vec::new();
    for (key, signature) in entries {
        if !key.verifies(&message, &signature) {
            return Err(Error::BadSignature { key: key.id().to_string() });
        }
        if keys.last().is_some_and(|last| *last >= key) {
            return corrupt("signatures", "keys in ascending order", "another order");
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Evaluates valid signatures by `keys`, given the keys in `trusted`.
pub(super) fn judge(keys: &[PublicKey], trusted: &[TrustedKey]) -> Trust {
    let known = |key: &&PublicKey| !key.is_development() && trusted.iter().any(|t| t.key == **key);
    if let Some(key) = keys.iter().find(known) {
        let name = trusted.iter().find(|t| t.key == *key).map(|t| t.name.clone()).unwrap_or_default();
        return Trust::Trusted { key: key.id(), name };
    }
    match keys.iter().find(|key| !key.is_development()) {
        Some(key) => Trust::Unknown { key: key.id() },
        None if keys.is_empty() => Trust::Unsigned,
        None => Trust::Development,
    }
}

fn message(header: &[u8]) -> Vec<u8> {
    [DOMAIN, header].concat()
}

fn encode(mut entries: Vec<Entry>) -> Result<[u8; SIGNATURES]> {
    if entries.len() > SLOTS {
        let (size, limit) = (entries.len() as u64, SLOTS as u64);
        return Err(Error::TooLarge { what: "signatures on the bundle".into(), size, limit });
    }
    entries.sort_unstable();
    entries.dedup();
    let mut block = [0; SIGNATURES];
    for (slot, (key, signature)) in block.chunks_exact_mut(SLOT).zip(&entries) {
        for (to, from) in slot.iter_mut().zip(key.0.iter().chain(signature)) {
            *to = *from;
        }
    }
    Ok(block)
}

fn decode(block: &[u8]) -> Result<Vec<Entry>> {
    let mut from = Cursor::new(block, "the signature block");
    let mut entries = Vec::new();
    let mut ended = false;
    for _ in 0..SLOTS {
        let key = from.array::<32>()?;
        let signature = from.array::<64>()?;
        if key == [0; 32] && signature == [0; 64] {
            ended = true;
        } else if ended {
            return corrupt("signatures", "no empty slot in front", "one");
        } else {
            entries.push((PublicKey(key), signature));
        }
    }
    from.finish()?;
    Ok(entries)
}
