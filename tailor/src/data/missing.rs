//! Errors for a missing `train` folder: what was found instead, and what to do about it.

use super::listing::{Kind, SPLITS, check_case};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Most folders named in a message.
const NAMED: usize = 5;

/// Explains why the directory `path` is not a set of images.
pub(super) fn from_directory(path: &Path) -> Result<Error> {
    if let Some(root) = enclosing(path) {
        let want = format!("give {} instead, the whole set", root.display());
        return Ok(Error::data(path.display(), "only a part of a set of images", want));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io(path))? {
        let entry = entry.map_err(Error::io(path))?;
        let (name, below) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let is_dir = below.is_dir();
        if is_dir {
            // One image makes it a class folder. Unreadable folders count as having none.
            let inside = fs::read_dir(&below).into_iter().flatten().flatten();
            let mut names = inside.map(|entry| entry.file_name().to_string_lossy().into_owned());
            if let Some(image) = names.find(|name| Kind::of(name) == Kind::Image) {
                found.push((format!("{name}/{image}"), false));
            }
        }
        found.push((name, is_dir));
    }
    Ok(from_names(path, &found))
}

/// Explains why these entries (path below it, is a folder) are not a set of images.
pub(super) fn from_names(place: &Path, found: &[(String, bool)]) -> Error {
    let seen = Seen::of(found);
    if let Err(error) = seen.folders.iter().try_for_each(|folder| check_case(place, folder, &SPLITS)) {
        return error;
    }
    // A .zip often wraps everything in one folder.
    let inner: Vec<(String, bool)> = match (seen.folders.len(), seen.folders.first(), seen.loose) {
        (1, Some(top), None) if seen.classes.is_empty() => {
            let below = |(name, is_dir): &(String, bool)| {
                Some((name.strip_prefix(*top)?.strip_prefix('/')?.to_owned(), *is_dir))
            };
            found.iter().filter_map(below).collect()
        }
        _ => Vec::new(),
    };
    let below = Seen::of(&inner);
    let seen = if below.classes.is_empty() { seen } else { below };
    let want = "images must be in train/CLASS/, one folder per class (val/ and test/ are optional), or as \
                IDX files (train-images-idx3-ubyte and train-labels-idx1-ubyte, or .gz) in the folder given";
    let (found, want) = if let Some(class) = seen.classes.first() {
        let want = match seen.classes.len() {
            1 => format!("if that is a class, move it into a folder `train`: train/{class}/"),
            _ => {
                format!("if these are the classes, move them into a folder `train`: train/{class}/ and so on")
            }
        };
        (format!("no `train` folder, but images in {}", list(&seen.classes)), want)
    } else if let Some(first) = seen.loose {
        (format!("no `train` folder, but images outside any folder, the first {first}"), want.into())
    } else if !seen.folders.is_empty() {
        (format!("no `train` folder, only {}", list(&seen.folders)), want.into())
    } else {
        ("no `train` folder".into(), want.into())
    };
    Error::data(place.display(), found, want)
}

/// What was found where a set should be.
#[derive(Default)]
struct Seen<'a> {
    folders: BTreeSet<&'a str>,
    /// Folders that directly contain images.
    classes: BTreeSet<&'a str>,
    /// The first image outside any folder.
    loose: Option<&'a str>,
}

impl<'a> Seen<'a> {
    fn of(found: &'a [(String, bool)]) -> Seen<'a> {
        let mut seen = Seen::default();
        for (file, is_dir) in found {
            let is_image = !is_dir && Kind::of(file) == Kind::Image;
            let (top, rest) = file.split_once('/').map_or((&file[..], None), |(top, rest)| (top, Some(rest)));
            if top.starts_with('.') || top == "__MACOSX" {
                continue;
            }
            if rest.is_some() || *is_dir {
                seen.folders.insert(top);
            }
            match rest {
                Some(rest) if is_image && !rest.contains('/') => drop(seen.classes.insert(top)),
                None if is_image && seen.loose.is_none_or(|first| top < first) => seen.loose = Some(top),
                _ => {}
            }
        }
        seen
    }
}

pub(super) fn list(folders: &BTreeSet<&str>) -> String {
    let named: Vec<String> = folders.iter().take(NAMED).map(|folder| format!("{folder}/")).collect();
    match folders.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The set of which `path` is a split or a class.
fn enclosing(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    (1..=2).find_map(|levels| {
        let root = real.ancestors().nth(levels)?;
        let split = real.strip_prefix(root).ok()?.iter().next()?;
        let is_split = SPLITS.iter().any(|(_, names)| names.iter().any(|name| split == *name));
        (is_split && root.join("train").is_dir()).then(|| above(path, levels).unwrap_or(root.into()))
    })
}

/// `path` as typed, without its last `levels` names; `None` if it does not end in that many.
fn above(path: &Path, levels: usize) -> Option<PathBuf> {
    let mut last = path.components().rev().take(levels);
    if path.components().count() < levels || !last.all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let root = path.ancestors().nth(levels)?;
    Some(if root.as_os_str().is_empty() { ".".into() } else { root.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("photos");
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let names: Vec<(String, bool)> = files.iter().map(|file| ((*file).to_owned(), false)).collect();
        let said = from_directory(&root).unwrap().to_string();
        assert_eq!(from_names(&root, &names).to_string(), said, "as for the names in a .zip");
        said
    }

    #[test]
    fn misplaced_folders_are_named_with_a_remedy() {
        let many: Vec<String> = (0..9).map(|i| format!("{i}/1.png")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let cases: [(&[&str], [&str; 2]); 7] = [
            (&["cat/1.png", "dog/2.jpg", "list.txt"], ["images in cat/, dog/; ", "train/cat/"]),
            (&["cat/1.png"], ["images in cat/; ", "if that is a class"]),
            (&many, ["images in 0/, 1/, 2/, 3/, 4/ and 4 more; ", "train/0/"]),
            (&["2.png", "1.png", "x/notes.txt"], ["outside any folder, the first 1.png; ", "train/CLASS/"]),
            (&["training/a/1.png", "testing/a/1.png"], ["only testing/, training/; ", "train/CLASS/"]),
            (&["notes.txt"], ["no `train` folder; ", "train/CLASS/"]),
            (&["Train/a/1.png", ".cache/1.png"], ["a folder `Train`", "rename it to `train`"]),
        ];
        for (files, words) in cases {
            let said = said(files);
            assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        }
    }

    #[test]
    fn a_folder_wrapping_the_classes_of_a_zip_is_searched() {
        let names = ["photos", "photos/cat", "photos/cat/1.png", "photos/dog/1.png", "__MACOSX/photos/._cat"];
        let found: Vec<(String, bool)> =
            names.iter().map(|name| ((*name).to_owned(), !name.contains('.'))).collect();
        let said = from_names(Path::new("set.zip"), &found).to_string();
        assert!(said.contains("set.zip: no `train` folder, but images in cat/, dog/;"), "{said}");
    }

    #[test]
    fn a_part_of_a_set_is_rejected_naming_the_whole_set() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("photos");
        for class in ["train/cat", "val/cat", "dev/cat"] {
            fs::create_dir_all(root.join(class)).unwrap();
            fs::write(root.join(class).join("1.png"), "").unwrap();
        }
        let whole = format!("give {} instead", root.display());
        for part in ["train", "train/", "train/.", "train/cat", "val", "train/cat/.."] {
            let said = from_directory(&root.join(part)).unwrap().to_string();
            assert!(said.contains(&whole), "{part}: {said}");
        }
        let said = from_directory(&root.join("dev")).unwrap().to_string();
        assert!(said.contains("images in cat/"), "{said}");
        assert_eq!(above(Path::new("photos/train"), 1), Some("photos".into()));
        assert_eq!(above(Path::new("train"), 1), Some(".".into()));
        for (typed, levels) in [(".", 1), ("..", 1), ("photos/..", 1), ("train", 2)] {
            assert_eq!(above(Path::new(typed), levels), None, "{typed}");
        }
    }
}
