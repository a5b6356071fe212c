//! Results kept in the work folder together with what they were made from, so that later runs need not repeat
//! them.

use crate::{Error, Result};
use bundles::container::write_atomically;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// The object kept at `path`, if it was made from the same, which `from` describes; otherwise the one that
/// `compute` makes, which is then kept there.
///
/// # Errors
/// Any error of `compute`, [`Error::Data`] if the file is not JSON, [`Error::Io`].
pub(super) fn kept_or(path: &Path, from: &str, compute: impl FnOnce() -> Result<Value>) -> Result<Value> {
    if let Some(kept) = read(path)?
        && kept["from"] == from
    {
        return Ok(kept);
    }
    let mut made = compute()?;
    made["from"] = from.into();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    write_atomically(path, format!("{made}\n").as_bytes())?;
    Ok(made)
}

/// What is kept at `path`, whatever it was made from; `None` if there is no such file.
///
/// # Errors
/// [`Error::Data`] if it is not JSON; [`Error::Io`].
pub(super) fn read(path: &Path) -> Result<Option<Value>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| malformed(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// The error for a file that holds something else.
pub(super) fn malformed(path: &Path) -> Error {
    Error::data(path.display(), "not as an earlier run left it", "remove the file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_made_from_the_same_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svhn/answers.json");
        let made = |n: u64| move || Ok(json!({ "n": n }));
        assert_eq!(kept_or(&path, "one network", made(1)).unwrap()["n"], 1);
        assert_eq!(kept_or(&path, "one network", made(2)).unwrap()["n"], 1);
        assert_eq!(kept_or(&path, "another", made(3)).unwrap()["n"], 3);
        assert_eq!(read(&path).unwrap(), Some(json!({ "from": "another", "n": 3 })));
        std::fs::write(&path, "{").unwrap();
        let said = kept_or(&path, "another", made(4)).unwrap_err().to_string();
        assert!(said.contains("svhn/answers.json") && said.contains("remove the file"), "{said}");
    }
}
