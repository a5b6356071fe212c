//! Results kept in the work folder together with what they were made from, so that later runs need not repeat
//! them.

use super::document;
use crate::{Error, Result};
use bundles::container::write_atomically;
use serde_json::Value;
use std::path::Path;

/// What to do about a file that was changed since.
const REMEDY: &str = "remove the file";

/// The object kept at `path`, if it was made from the same, which `from` describes; otherwise the one that
/// `compute` makes, which is then kept there with `from`.
///
/// # Errors
/// Any error of `compute`, [`Error::Data`] if the file is not JSON, [`Error::Io`].
pub(super) fn kept_or(
    path: &Path,
    from: impl Into<Value>,
    compute: impl FnOnce() -> Result<Value>,
) -> Result<Value> {
    let from: Value = from.into();
    if let Some(kept) = read(path)?
        && kept["from"] == from
    {
        return Ok(kept);
    }
    let mut made = compute()?;
    made["from"] = from;
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
    document::read(path, REMEDY)
}

/// The error for a file that holds something else.
pub(super) fn malformed(path: &Path) -> Error {
    Error::data(path.display(), "not as an earlier run left it", REMEDY)
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
