//! An ImageFolder on disk, as a directory or a .zip: lists its files and reads them one by one.

use super::listing::{Listing, SplitNames, sort};
use super::missing;
use crate::{Error, Result};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufReader, Read},
    path::{Component, Path, PathBuf},
};
use zip::ZipArchive;

/// Largest image file read, in bytes.
const MAX_FILE: u64 = 256 << 20;

/// Greatest folder depth searched, so that a link to a parent does not recurse for ever.
const MAX_DEPTH: usize = 8;

/// Where image files are read from.
pub(super) enum Source {
    /// Files below this directory.
    Directory(PathBuf),
    /// Entries of this archive whose names begin with `prefix`.
    Zip { path: PathBuf, archive: Box<ZipArchive<BufReader<fs::File>>>, prefix: String },
}

impl Source {
    /// Opens a directory or .zip and lists its `splits`.
    pub fn open(path: &Path, splits: &[SplitNames]) -> Result<(Source, Listing)> {
        let meta = fs::metadata(path).map_err(Error::io(path))?;
        let mut found = Vec::new();
        if meta.is_dir() {
            let root = directory_root(path)?;
            for entry in fs::read_dir(&root).map_err(Error::io(&root))? {
                let entry = entry.map_err(Error::io(&root))?;
                found.push((entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir()));
            }
            for split in splits.iter().flat_map(|(_, names)| *names) {
                walk(&root, split, 0, &mut found)?;
            }
            let listing = sort(found, &root, splits)?;
            return Ok((Source::Directory(root), listing));
        }
        let no_set = |why: &dyn std::fmt::Display| {
            let want = "--data takes an ImageFolder directory (train/CLASS/*.png), a .zip of one, or a directory of IDX \
                        files";
            Error::data(path.display(), format!("neither a directory nor a readable .zip ({why})"), want)
        };
        if !meta.is_file() {
            return Err(no_set(&IRREGULAR));
        }
        let file = fs::File::open(path).map_err(Error::io(path))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| no_set(&error))?;
        for name in archive.file_names() {
            let name = name.map_err(|error| {
                Error::data(
                    path.display(),
                    format!("an entry name that cannot be read ({error})"),
                    "create the .zip again",
                )
            })?;
            found.push((name.to_string(), name.ends_with('/')));
        }
        // `tar -a -cf set.zip .` prefixes names with `./`.
        let dots = if found.iter().all(|(name, _)| name.starts_with("./")) { "./" } else { "" };
        for (name, _) in &mut found {
            *name = name[dots.len()..].trim_end_matches('/').to_owned();
        }
        found.retain(|(name, _)| !name.is_empty());
        found.iter().try_for_each(|(name, _)| check_zip_name(path, name))?;
        let prefix = zip_prefix(path, &found)?;
        found.retain_mut(|(name, _)| match name.strip_prefix(&prefix) {
            Some(rest) => {
                *name = rest.to_owned();
                true
            }
            None => false,
        });
        let listing = sort(found, path, splits)?;
        let prefix = dots.to_owned() + &prefix;
        Ok((Source::Zip { path: path.to_owned(), archive: Box::new(archive), prefix }, listing))
    }

    /// How messages refer to `file`.
    pub fn place(&self, file: &str) -> String {
        match self {
            Source::Directory(root) => root.join(file).display().to_string(),
            Source::Zip { path, prefix, .. } => format!("{}: {prefix}{file}", path.display()),
        }
    }

    /// Reads `file`.
    ///
    /// # Errors
    /// A description of why it cannot be read.
    pub fn read(&mut self, file: &str) -> Result<Vec<u8>, String> {
        match self {
            Source::Directory(root) => read_file(&root.join(file)),
            Source::Zip { archive, prefix, .. } => {
                read_bounded(archive.by_name(&format!("{prefix}{file}")).map_err(unread)?)
            }
        }
    }
}

/// Error for a pipe or a device, which could block for ever.
const IRREGULAR: &str = "not a regular file";

/// Reads the image file at `path`.
///
/// # Errors
/// A description of why it cannot be read.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    if !fs::metadata(path).map_err(unread)?.is_file() {
        return Err(IRREGULAR.into());
    }
    read_bounded(fs::File::open(path).map_err(unread)?)
}

fn read_bounded(from: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("an image file larger than 256 MiB".into());
    }
    Ok(bytes)
}

fn unread(error: impl std::fmt::Display) -> String {
    format!("cannot be read ({error})")
}

/// `path`, or the only folder in it that contains `train`.
pub(super) fn directory_root(path: &Path) -> Result<PathBuf> {
    if path.join("train").is_dir() {
        return Ok(path.to_owned());
    }
    let mut inner = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io(path))? {
        let below = entry.map_err(Error::io(path))?.path();
        if below.join("train").is_dir() {
            inner.push(below);
        }
    }
    match <[PathBuf; 1]>::try_from(inner) {
        Ok([root]) => Ok(root),
        Err(_) => Err(missing::from_directory(path)?),
    }
}

/// Adds everything below `root/below` to `found`, as (path below root, is a folder); `below` may be empty.
pub(super) fn walk(root: &Path, below: &str, depth: usize, found: &mut Vec<(String, bool)>) -> Result<()> {
    let folder = root.join(below);
    if depth > MAX_DEPTH {
        let want = "a link to a parent folder? Remove it";
        return Err(Error::data(
            folder.display(),
            format!("folders nested more than {MAX_DEPTH} deep"),
            want,
        ));
    }
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
        let entry = entry.map_err(Error::io(&folder))?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::data(folder.join(&name).display(), "a name that is not UTF-8", "rename this file")
        })?;
        let file = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        // Follow links: data sets are often made of them. Broken links are reported when read.
        let is_dir = entry.path().is_dir();
        found.push((file.clone(), is_dir));
        if is_dir && !name.starts_with('.') {
            walk(root, &file, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Rejects names that would escape the destination folder when unpacked.
fn check_zip_name(path: &Path, name: &str) -> Result<()> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !name.contains('\\') && !name.contains('\0') {
        return Ok(());
    }
    let place = format!("{}: {}", path.display(), name.escape_debug());
    Err(Error::data(
        place,
        "an entry name that leads out of the archive",
        "do not trust this .zip; create it again yourself",
    ))
}

/// The prefix before `train/` in every entry: nothing, or one folder.
fn zip_prefix(path: &Path, found: &[(String, bool)]) -> Result<String> {
    if found.iter().any(|(name, is_dir)| name.starts_with("train/") || (name == "train" && *is_dir)) {
        return Ok(String::new());
    }
    let inner: BTreeSet<&str> = found
        .iter()
        .filter_map(|(name, _)| name.split_once('/'))
        .filter(|(top, rest)| *top != "__MACOSX" && rest.starts_with("train/"))
        .map(|(top, _)| top)
        .collect();
    match inner.into_iter().collect::<Vec<_>>()[..] {
        [top] => Ok(format!("{top}/")),
        _ => Err(missing::from_names(path, found)),
    }
}
