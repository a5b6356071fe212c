//! Signing and public keys, and their text file format.

use super::hex;
use crate::{Error, Result};
use ed25519_dalek::Signer;
use std::path::Path;
use std::str::FromStr;
use std::{fmt, fs};

/// Seed of the development key. It is public, so its signatures protect against damage but not against
/// tampering.
const DEVELOPMENT_SEED: [u8; 32] = *b"tailor development key, insecure";
/// Its public half.
const DEVELOPMENT_PUBLIC: [u8; 32] = [
    0x6d, 0x32, 0x93, 0xbe, 0x9f, 0x13, 0x09, 0xdb, 0xb4, 0xcf, 0xc6, 0xa4, 0x41, 0x37, 0x86, 0x0a, 0x53,
    0x38, 0x45, 0xf2, 0x0a, 0x01, 0xd0, 0xd3, 0x18, 0x11, 0xe5, 0x28, 0xc3, 0x55, 0x55, 0xd0,
];
const PUBLIC_HEADER: &str = "tailor public key v1";
const SECRET_HEADER: &str = "tailor secret key v1, keep this file to yourself";

/// Short form of a public key: the first eight bytes of its BLAKE3 hash, shown as sixteen hexadecimal digits.
///
/// For people and messages only; keys are compared in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// An Ed25519 signing key. Wiped from memory when dropped; never shown by `Debug`.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

/// A public key its owner chose to trust, with a display name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// Display name, for example `release 2026`.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

impl SigningKey {
    /// The key derived from 32 random bytes; the caller takes them from the system's random source.
    pub fn from_seed(seed: [u8; 32]) -> SigningKey {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// The development key: fixed and public. It earns no more than [`Trust::Development`](super::Trust).
    pub fn development() -> SigningKey {
        SigningKey::from_seed(DEVELOPMENT_SEED)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Contents of a secret key file. `name` is a single-line display name.
    pub fn to_text(&self, name: &str) -> String {
        let id = self.public().id();
        format!("{SECRET_HEADER}\nname: {}\nseed: {}\nid: {id}\n", one_line(name), hex(self.0.as_bytes()))
    }

    /// Reads the key file at `path`, in the format of [`to_text`](SigningKey::to_text).
    ///
    /// # Errors
    /// `Io`; as [`from_text`](SigningKey::from_text). The caller adds the file name.
    pub fn read(path: impl AsRef<Path>) -> Result<SigningKey> {
        let bytes = fs::read(path).map_err(Error::io("secret key", "read it"))?;
        SigningKey::from_text(&String::from_utf8_lossy(&bytes))
    }

    /// Parses a secret key file.
    ///
    /// # Errors
    /// `BadKey` if header, fields or id (which guards against typing errors) are wrong.
    pub fn from_text(text: &str) -> Result<SigningKey> {
        let [_, seed, id] = fields(text, SECRET_HEADER, ["name", "seed", "id"])?;
        let key = SigningKey::from_seed(unhex(seed)?);
        key.public().check_id(id)?;
        Ok(key)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl PublicKey {
    /// Short name for messages.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(blake3::hash(&self.0).as_bytes()) {
            *to = *from;
        }
        KeyId(id)
    }

    /// Whether this is the development key.
    pub fn is_development(&self) -> bool {
        self.0 == DEVELOPMENT_PUBLIC
    }

    /// Whether `signature` over `message` is by this key (strict verification: no weak keys, no malleable
    /// signatures).
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    fn check_id(&self, id: &str) -> Result<()> {
        let own = self.id().to_string();
        if own == id {
            return Ok(());
        }
        bad_key(format!("id `{id}` does not belong to the key (its id is {own})"), "an undamaged key file")
    }
}

impl TrustedKey {
    /// Contents of a public key file.
    pub fn to_text(&self) -> String {
        let id = self.key.id();
        format!("{PUBLIC_HEADER}\nname: {}\nkey: {}\nid: {id}\n", one_line(&self.name), hex(&self.key.0))
    }

    /// Reads the key file at `path`, in the format of [`to_text`](TrustedKey::to_text).
    ///
    /// # Errors
    /// `Io`; as [`from_text`](TrustedKey::from_text). The caller adds the file name.
    pub fn read(path: impl AsRef<Path>) -> Result<TrustedKey> {
        TrustedKey::from_bytes(&fs::read(path).map_err(Error::io("public key", "read it"))?)
    }

    /// As [`from_text`](TrustedKey::from_text), for arbitrary file contents.
    ///
    /// # Errors
    /// As [`from_text`](TrustedKey::from_text); bytes that are not text are reported as a bad key.
    pub fn from_bytes(bytes: &[u8]) -> Result<TrustedKey> {
        TrustedKey::from_text(&String::from_utf8_lossy(bytes))
    }

    /// Parses a public key file.
    ///
    /// # Errors
    /// `BadKey` if header, fields or id are wrong, or the key is not a usable curve point.
    pub fn from_text(text: &str) -> Result<TrustedKey> {
        let [name, key, id] = fields(text, PUBLIC_HEADER, ["name", "key", "id"])?;
        let key = PublicKey(unhex(key)?);
        key.check_id(id)?;
        match ed25519_dalek::VerifyingKey::from_bytes(&key.0) {
            Ok(point) if !point.is_weak() => Ok(TrustedKey { name: name.into(), key }),
            _ => {
                bad_key("the key is not a usable Ed25519 public key".into(), "a key made by `tailor keygen`")
            }
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeyId> {
        let want = "sixteen hexadecimal digits, as `tailor inspect` shows them";
        digits(text).map_or_else(|| bad_key("no key has this id".into(), want), |id| Ok(KeyId(id)))
    }
}

fn bad_key<T>(what: String, want: &str) -> Result<T> {
    Err(Error::BadKey { what, want: want.into() })
}

fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// The values of the given `field: value` lines, which must follow the given header exactly.
fn fields<'t, const N: usize>(text: &'t str, header: &str, names: [&str; N]) -> Result<[&'t str; N]> {
    let mut lines = text.lines().map(str::trim_end);
    let found = lines.next().unwrap_or_default();
    if found != header {
        return match found {
            SECRET_HEADER => {
                let what = "this is a secret key, which does not belong on a device";
                bad_key(what.into(), "the public one (.pub)")
            }
            PUBLIC_HEADER => bad_key("this is a public key".into(), "the secret one"),
            // Never echo what was found: it may be a misplaced secret.
            _ => bad_key("wrong first line".into(), &format!("`{header}`")),
        };
    }
    let mut values = [""; N];
    for (name, value) in names.into_iter().zip(&mut values) {
        let line = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(':'));
        match line {
            Some(rest) => *value = rest.trim(),
            None => {
                return bad_key(format!("no `{name}:` line where expected"), "the file as keygen wrote it");
            }
        }
    }
    if lines.any(|line| !line.is_empty()) {
        return bad_key("unknown lines at the end".into(), "the file as keygen wrote it");
    }
    Ok(values)
}

fn unhex(text: &str) -> Result<[u8; 32]> {
    let want = "64 hexadecimal digits";
    match (digits(text), text.len()) {
        (Some(bytes), _) => Ok(bytes),
        (None, 64) => bad_key("the key is not hexadecimal".into(), want),
        (None, len) => bad_key(format!("the key has {len} digits"), want),
    }
}

/// Decodes exactly `N` pairs of hexadecimal digits.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16);
    let bytes = pairs.iter().map(|&[high, low]| Some((value(high)? * 16 + value(low)?) as u8));
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_round_trip() {
        let key = SigningKey::from_seed([7; 32]);
        let again = SigningKey::from_text(&key.to_text("fleet\nof robots")).unwrap();
        assert_eq!(again.public(), key.public());
        let trusted = TrustedKey { name: "fleet".into(), key: key.public() };
        assert_eq!(TrustedKey::from_text(&trusted.to_text()).unwrap(), trusted);
        let with_carriage_returns = trusted.to_text().replace('\n', "\r\n");
        assert_eq!(TrustedKey::from_text(&with_carriage_returns).unwrap(), trusted);
    }

    /// RFC 8032, section 7.1, test 1: the secret and public key, and the signature of the empty message.
    #[test]
    fn agrees_with_the_rfc() {
        let seed = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_seed(seed);
        let public = unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        assert_eq!(key.public().0, public);
        let signature = key.sign(b"");
        assert!(
            hex(&signature)
                .starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8")
        );
        assert!(key.public().verifies(b"", &signature));
        assert!(!key.public().verifies(b"x", &signature));
    }

    #[test]
    fn damaged_key_files_are_refused_without_showing_the_secret() {
        let good = SigningKey::from_seed([7; 32]).to_text("x");
        let cases = [
            String::new(),
            good.replace("secret", "public"),
            good.replacen("07", "08", 1),
            good.replacen("07", "0", 1),
            good.replacen("07", "+7", 1),
            good.replace("seed:", "sead:"),
            format!("{good}more: 1\n"),
            good.replace("id: ", "id: 0"),
        ];
        for text in cases {
            let error = SigningKey::from_text(&text).unwrap_err();
            assert!(matches!(error, Error::BadKey { .. }), "{text}: {error}");
            assert!(!error.to_string().contains("0707"), "{error}");
        }
        let weak = TrustedKey { name: "weak".into(), key: PublicKey([0; 32]) };
        assert!(TrustedKey::from_text(&weak.to_text()).is_err());
    }

    #[test]
    fn either_half_of_a_key_is_recognised_in_place_of_the_other() {
        let key = SigningKey::from_seed([7; 32]);
        let public = TrustedKey { name: "x".into(), key: key.public() }.to_text();
        let error = SigningKey::from_text(&public).unwrap_err().to_string();
        assert_eq!(error, "key: this is a public key; expected the secret one");
        let error = TrustedKey::from_text(&key.to_text("x")).unwrap_err().to_string();
        assert!(error.starts_with("key: this is a secret key") && error.ends_with("(.pub)"), "{error}");
        assert!(!error.contains("0707"), "{error}");
    }

    #[test]
    fn key_files_may_hold_anything() {
        let path = std::env::temp_dir().join(format!("bundles-key-{}", std::process::id()));
        let key = SigningKey::from_seed([7; 32]);
        let trusted = TrustedKey { name: "fleet".into(), key: key.public() };
        fs::write(&path, trusted.to_text()).unwrap();
        assert_eq!(TrustedKey::read(&path).unwrap(), trusted);
        fs::write(&path, key.to_text("fleet")).unwrap();
        assert_eq!(SigningKey::read(&path).unwrap().public(), key.public());
        fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(matches!(TrustedKey::read(&path), Err(Error::BadKey { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(TrustedKey::read(&path), Err(Error::Io { .. })));
    }

    #[test]
    fn a_displayed_id_parses() {
        let id = SigningKey::from_seed([7; 32]).public().id();
        assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
        for text in
            ["", "0123", "0123456789abcdeg", "0123456789abcdef0", "+123456789abcdef", "ü3456789abcdef"]
        {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert!(!format!("{:?}", SigningKey::from_seed([7; 32])).contains("07070707"));
    }

    #[test]
    fn only_the_development_key_is_a_development_key() {
        assert!(SigningKey::development().public().is_development());
        assert!(!SigningKey::from_seed([1; 32]).public().is_development());
    }
}
