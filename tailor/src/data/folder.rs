//! What lies in an ImageFolder, a directory or a .zip of one, before any image is decoded.

use super::Part;
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

/// Deepest folder searched, so that a link to a parent ends.
const MAX_DEPTH: usize = 8;

/// Endings of images in formats that are not read: ignoring them would silently shrink a class.
const OTHER_FORMATS: [&str; 19] = [
    "bmp", "gif", "webp", "tif", "tiff", "avif", "heic", "heif", "hif", "jp2", "jxl", "ppm", "pgm", "tga",
    "npy", "dng", "cr2", "nef", "arw",
];

/// One image file: its class and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Name of the class, a folder's name.
    pub class: String,
    /// Path below the root, with `/`.
    pub file: String,
}

/// The image files and class folders of `train`, `val` and `test`.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub train: Vec<Entry>,
    pub val: Vec<Entry>,
    pub test: Vec<Entry>,
    /// Class folders of `train`, with and without images in them.
    pub classes: Vec<String>,
    /// What lies among the images and is none.
    pub passed_over: Option<PassedOver>,
}

impl Listing {
    /// The images of `part`.
    pub fn of(&self, part: Part) -> &[Entry] {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
            Part::Test => &self.test,
        }
    }
}

/// Files in the folders of a set that are no images, by their names: notes, films, photographs without an ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: String,
}

/// What file managers leave behind: nobody misses it.
const LEFTOVERS: [&str; 2] = ["thumbs.db", "desktop.ini"];

/// Where image files are read from.
pub(super) enum Source {
    /// Files below this directory.
    Directory(PathBuf),
    /// Entries of this archive whose names begin with `prefix`.
    Zip { path: PathBuf, archive: Box<ZipArchive<BufReader<fs::File>>>, prefix: String },
}

impl Source {
    /// Opens a directory or .zip and lists `splits` of it.
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
        let file = fs::File::open(path).map_err(Error::io(path))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            let want = "--data takes an ImageFolder directory (train/CLASS/*.png), a .zip of one, or a directory of IDX files";
            Error::data(path.display(), format!("neither a directory nor a readable .zip ({error})"), want)
        })?;
        for name in archive.file_names() {
            let name = name.map_err(|error| {
                Error::data(
                    path.display(),
                    format!("an entry name that cannot be read ({error})"),
                    "pack it anew",
                )
            })?;
            found.push((name.to_string(), name.ends_with('/')));
        }
        // As `tar -a -cf set.zip .` names them.
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

    /// How messages name `file`.
    pub fn place(&self, file: &str) -> String {
        match self {
            Source::Directory(root) => root.join(file).display().to_string(),
            Source::Zip { path, prefix, .. } => format!("{}: {prefix}{file}", path.display()),
        }
    }

    /// The bytes of `file`.
    pub fn read(&mut self, file: &str) -> Result<Vec<u8>> {
        let place = self.place(file);
        let broken = |error: &dyn std::fmt::Display| {
            Error::data(&place, format!("cannot be read ({error})"), "replace or remove this file")
        };
        let mut bytes = Vec::new();
        let limit = MAX_FILE + 1;
        match self {
            Source::Directory(root) => {
                let file = fs::File::open(root.join(file)).map_err(|e| broken(&e))?;
                file.take(limit).read_to_end(&mut bytes).map_err(|e| broken(&e))?;
            }
            Source::Zip { archive, prefix, .. } => {
                let entry = archive.by_name(&format!("{prefix}{file}")).map_err(|e| broken(&e))?;
                entry.take(limit).read_to_end(&mut bytes).map_err(|e| broken(&e))?;
            }
        }
        if bytes.len() as u64 > MAX_FILE {
            return Err(Error::data(place, "an image file above 256 MiB", "replace or remove this file"));
        }
        Ok(bytes)
    }
}

/// A split with the folder names it goes by.
pub(super) type SplitNames = (&'static str, &'static [&'static str]);

/// The splits.
pub(super) const SPLITS: [SplitNames; 3] =
    [("train", &["train"]), ("val", &["val", "valid", "validation"]), ("test", &["test"])];

fn no_train(place: impl std::fmt::Display) -> Error {
    let want = "images must lie in train/CLASS/, one folder per class (val/ and test/ are optional), or as IDX files \
                (train-images-idx3-ubyte and train-labels-idx1-ubyte, or .gz) in the folder given";
    Error::data(place, "no `train` folder", want)
}

/// `path`, or the one folder in it that holds `train`.
fn directory_root(path: &Path) -> Result<PathBuf> {
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
        Err(_) => {
            for entry in fs::read_dir(path).map_err(Error::io(path))? {
                let entry = entry.map_err(Error::io(path))?;
                if entry.path().is_dir() {
                    check_case(path, &entry.file_name().to_string_lossy(), &SPLITS)?;
                }
            }
            Err(no_train(path.display()))
        }
    }
}

/// Adds everything below `root/below` to `found`, as (path below root, is a folder).
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
        let file = format!("{below}/{name}");
        // Follows links: data sets are often made of them.
        let is_dir = fs::metadata(entry.path()).map_err(Error::io(entry.path()))?.is_dir();
        found.push((file.clone(), is_dir));
        if is_dir && !name.starts_with('.') {
            walk(root, &file, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Refuses names that would lead out of the archive were it unpacked.
fn check_zip_name(path: &Path, name: &str) -> Result<()> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !name.contains('\\') && !name.contains('\0') {
        return Ok(());
    }
    let place = format!("{}: {}", path.display(), name.escape_debug());
    Err(Error::data(
        place,
        "an entry name that leads out of the archive",
        "do not trust this .zip; pack it anew",
    ))
}

/// What comes before `train/` in every entry: nothing, or one folder.
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
        _ => {
            let tops = found.iter().filter_map(|(name, _)| name.split_once('/'));
            tops.map(|(top, _)| top).try_for_each(|top| check_case(path, top, &SPLITS))?;
            Err(no_train(path.display()))
        }
    }
}

/// Sorts what was found into splits and classes.
fn sort(mut found: Vec<(String, bool)>, root: &Path, splits: &[SplitNames]) -> Result<Listing> {
    found.sort();
    let mut listing = Listing::default();
    let mut classes = BTreeSet::new();
    let (mut names, mut holding_out) = (Vec::new(), [false; 2]);
    for (file, is_dir) in found {
        let parts: Vec<&str> = file.split('/').collect();
        let Some((split, _)) = splits.iter().find(|(_, names)| names.contains(&parts[0])) else {
            if is_dir || parts.len() > 1 {
                check_case(root, parts[0], splits)?;
            }
            continue;
        };
        if parts.iter().any(|part| part.starts_with('.')) {
            continue;
        }
        // Images that are in two folders would count twice.
        match names.iter().find(|(of, _)| of == split) {
            None => names.push((*split, parts[0].to_owned())),
            Some((_, name)) if name != parts[0] => {
                let found = format!("both {name}/ and {}/", parts[0]);
                return Err(Error::data(
                    root.display(),
                    found,
                    format!("one folder with images for `{split}`"),
                ));
            }
            Some(_) => {}
        }
        for (there, of) in holding_out.iter_mut().zip(["val", "test"]) {
            *there |= *split == of && parts.len() > 1;
        }
        let in_class = if is_dir || parts.len() > 2 { parts.get(1) } else { None };
        if let (&"train", Some(&class)) = (split, in_class) {
            classes.insert(class.to_owned());
        }
        if is_dir {
            continue;
        }
        if !is_image(&file, root)? {
            if !LEFTOVERS.iter().any(|name| parts[parts.len() - 1].eq_ignore_ascii_case(name)) {
                let passed = listing.passed_over.get_or_insert(PassedOver { count: 0, first: file.clone() });
                passed.count += 1;
            }
            continue;
        }
        let [_, class, _, ..] = parts[..] else {
            let want = "move it into the folder of its class";
            return Err(Error::data(root.join(&file).display(), "an image outside any class folder", want));
        };
        let entry = Entry { class: class.to_owned(), file: file.clone() };
        match *split {
            "train" => listing.train.push(entry),
            "val" => listing.val.push(entry),
            _ => listing.test.push(entry),
        }
    }
    let [validated, tested] = holding_out;
    if validated && listing.val.is_empty() {
        let want = "put some there, or remove it: a share of train/ is held out then";
        return Err(Error::data(root.display(), "a val/ folder without images", want));
    }
    if tested && listing.test.is_empty() {
        let want = "put some there, or remove it: nothing is tested then";
        return Err(Error::data(root.display(), "a test/ folder without images", want));
    }
    classes.iter().try_for_each(|class| check_class(root, class))?;
    listing.classes = classes.into_iter().collect();
    Ok(listing)
}

/// Refuses a class that no bundle could name, before hours of training find it out.
pub(super) fn check_class(place: &Path, class: &str) -> Result<()> {
    bundles::container::check_label(class).map_err(|error| {
        Error::data(
            place.display(),
            format!("class `{}`: {error}", class.escape_debug()),
            "give it another name",
        )
    })
}

/// Refuses a folder beside `train` that a split is called but for capitals: its images would be passed over.
fn check_case(place: &Path, name: &str, splits: &[SplitNames]) -> Result<()> {
    let mut usual = splits.iter().flat_map(|(_, names)| *names);
    match usual.find(|usual| name != **usual && name.eq_ignore_ascii_case(usual)) {
        None => Ok(()),
        Some(usual) => {
            Err(Error::data(place.display(), format!("a folder `{name}`"), format!("call it `{usual}`")))
        }
    }
}

/// Whether `file` is to be read; files that are no images at all are passed over.
pub(super) fn is_image(file: &str, root: &Path) -> Result<bool> {
    let Some((_, ending)) = file.rsplit_once('.') else { return Ok(false) };
    let ending = ending.to_ascii_lowercase();
    if OTHER_FORMATS.contains(&ending.as_str()) {
        let want = "only PNG and JPEG are read: convert it";
        return Err(Error::data(root.join(file).display(), format!("a .{ending} image"), want));
    }
    Ok(matches!(ending.as_str(), "png" | "jpg" | "jpeg" | "jpe" | "jfif"))
}
