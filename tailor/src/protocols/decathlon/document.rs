//! JSON files that may be absent.

use crate::{Error, Result};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// The document at `path`; `None` if there is no such file. `remedy` says what to do about one that is damaged.
///
/// # Errors
/// [`Error::Data`] if it is not JSON; [`Error::Io`].
pub(super) fn read(path: &Path, remedy: &str) -> Result<Option<Value>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::data(path.display(), format!("not valid JSON ({error})"), remedy)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}
