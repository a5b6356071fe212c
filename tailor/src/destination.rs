//! Checks a command's output path before any work is done.

use crate::{Error, Result};
use bundles::container::check_writable;
use std::path::Path;

/// Rejects `out`, given with `option`, if it is one of `inputs` or cannot be written.
///
/// # Errors
/// [`Error::Config`] for one of the inputs, a folder, or a path in a folder that does not exist;
/// [`Error::Bundle`] if the system does not allow a file to be created.
pub(crate) fn check(option: &str, out: &Path, inputs: &[&Path]) -> Result<()> {
    let refuse = |want: String| Err(Error::config(format!("{option} {}", out.display()), want));
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return refuse(format!("must be a file in an existing folder; {} is not one", folder.display()));
    }
    if out.is_dir() || out.as_os_str().to_string_lossy().ends_with(std::path::is_separator) {
        return refuse("must be a file; this is a folder".into());
    }
    if let Ok(there) = out.canonicalize() {
        let same = |input: &&&Path| input.canonicalize().is_ok_and(|input| input == there);
        if let Some(input) = inputs.iter().find(same) {
            return refuse(format!("must be another file than {}, which is an input", input.display()));
        }
    }
    Ok(check_writable(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_must_not_overwrite_an_input_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("in"), b"x").unwrap();
        std::fs::create_dir(at("inner")).unwrap();
        let check = |out: &str| check("--out", &at(out), &[&at("absent"), &at("in")]);
        for out in ["out", "inner/out", "absent"] {
            check(out).unwrap();
            assert!(!at(out).exists(), "{out}");
        }
        let mut cases = vec![
            ("in", "another file than"),
            ("inner/../in", "another file than"),
            ("inner", "this is a folder"),
            ("new/", "this is a folder"),
            ("none/out", "none is not one"),
            ("in/out", "in is not one"),
        ];
        if cfg!(unix) {
            std::os::unix::fs::symlink(at("in"), at("link")).unwrap();
            cases.push(("link", "another file than"));
        }
        for (out, word) in cases {
            let error = check(out).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(word), "{out}: {error}");
        }
        assert_eq!(std::fs::read(at("in")).unwrap(), b"x");
    }
}
