//! Atomic file writes: a reader, or a power cut, sees either the old file or the new one.

use crate::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Distinguishes temporary files written concurrently by threads of one process.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Atomically replaces the contents of `path` with `bytes`.
///
/// Anything that is not a regular file (a device, a pipe) is refused; a symbolic link is kept and its target
/// replaced. Writes `.{process}.{serial}.tmp` in the same directory, syncs it, renames it, and syncs the
/// directory. Permissions are preserved. A file that is currently mapped keeps its old contents: it is never
/// truncated or overwritten.
///
/// # Errors
/// `Io` naming the file and the step; the temporary file is removed and `path` is left unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = &target(path)?;
    let (temporary, file) = create(path)?;
    let outcome = fill(file, path, bytes).and_then(|()| {
        fs::rename(&temporary, path).map_err(failed(path, "put the temporary file in its place"))
    });
    if outcome.is_err() {
        // Report the first error; a leftover temporary file is harmless.
        let _ = fs::remove_file(&temporary);
        return outcome;
    }
    sync_directory(directory(path))
}

/// Checks that [`write_atomically`] could write `path` now, before the work that produces the contents.
/// Leaves nothing behind.
///
/// # Errors
/// `Io` naming the file: it has no file name, its directory is missing, or no file can be created there.
pub fn check_writable(path: &Path) -> Result<()> {
    let path = target(path)?;
    let (temporary, _) = create(&path)?;
    fs::remove_file(temporary).map_err(failed(&path, "remove the temporary file beside it"))
}

/// Where the bytes for `path` go: `path` itself, or the target of a symbolic link there.
fn target(path: &Path) -> Result<PathBuf> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => {
            Err(failed(path, "replace it")(io::Error::other("it is not a regular file")))
        }
        Ok(_) => fs::canonicalize(path).map_err(failed(path, "find it")),
        Err(_) if path.file_name().is_none() => {
            Err(failed(path, "write it")(io::Error::other("it names no file")))
        }
        Err(_) => Ok(path.into()),
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a new file beside `path`. A name that is taken is skipped: it may be left over from a killed
/// process whose id this one has been given (as happens in containers).
fn create(path: &Path) -> Result<(PathBuf, File)> {
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let temporary = directory(path).join(format!(".{}.{serial}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(path, "make a file there")(error)),
        }
    }
}

fn fill(mut file: File, path: &Path, bytes: &[u8]) -> Result<()> {
    if let Ok(before) = fs::metadata(path) {
        file.set_permissions(before.permissions()).map_err(failed(path, "keep its permissions"))?;
    }
    file.write_all(bytes).map_err(failed(path, "write it"))?;
    file.sync_all().map_err(failed(path, "sync it"))
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(failed(directory, "sync the directory"))
}

/// Other systems cannot open a directory; the rename has to do.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> Result<()> {
    Ok(())
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    Error::io(path.display().to_string(), action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("tailor-atomic-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn replaces_atomically_and_leaves_nothing_behind() {
        let directory = scratch("replace");
        let path = directory.join("a.task");
        write_atomically(&path, b"old").unwrap();
        let mut open_before = File::open(&path).unwrap();
        write_atomically(&path, b"new and longer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new and longer");
        // A reader that had the old file open (or mapped) still sees the old bytes.
        let mut old = String::new();
        io::Read::read_to_string(&mut open_before, &mut old).unwrap();
        assert_eq!(old, "old");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn leftovers_of_a_killed_process_with_the_same_id_are_skipped() {
        let directory = scratch("left");
        let next = SERIAL.load(Ordering::Relaxed);
        // Other tests write files concurrently.
        for serial in next..next + 50 {
            fs::write(directory.join(format!(".{}.{serial}.tmp", std::process::id())), b"left").unwrap();
        }
        let path = directory.join("a.task");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 51);
        fs::remove_dir_all(directory).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_preserved() {
        use std::os::unix::fs::PermissionsExt;
        let directory = scratch("mode");
        let path = directory.join("a.task");
        fs::write(&path, b"old").unwrap();
        for mode in [0o600, 0o640, 0o444] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            write_atomically(&path, b"new").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn failure_names_the_file_and_cleans_up() {
        let directory = scratch("fail");
        let path = directory.join("occupied");
        fs::create_dir_all(path.join("by a directory")).unwrap();
        let error = write_atomically(&path, b"x").unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
        assert!(error.to_string().contains("occupied"), "{error}");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        #[cfg(unix)]
        {
            let socket = directory.join("socket");
            let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            assert!(write_atomically(&socket, b"x").unwrap_err().to_string().contains("not a regular file"));
            let (file, link) = (directory.join("file"), directory.join("link"));
            fs::write(&file, b"old").unwrap();
            std::os::unix::fs::symlink(&file, &link).unwrap();
            write_atomically(&link, b"new").unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"new");
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
        // Errors name the requested file, not the temporary one.
        for (target, word) in
            [("missing/x", "missing/x: cannot make a file there"), ("..", "not a regular file")]
        {
            for outcome in [write_atomically, |path: &Path, _: &[u8]| check_writable(path)] {
                let error = outcome(&directory.join(target), b"x").unwrap_err().to_string();
                assert!(error.contains(word) && !error.contains(".tmp"), "{error}");
            }
        }
        check_writable(&directory.join("new")).unwrap();
        assert!(!directory.join("new").exists());
        // The longest possible file name.
        write_atomically(&directory.join("n".repeat(255)), b"x").unwrap();
        fs::remove_dir_all(directory).unwrap();
    }
}
