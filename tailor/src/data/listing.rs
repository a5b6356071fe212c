//! Sorts the files of an ImageFolder by name: images by split and class, and everything else.

use super::Part;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Extensions of unsupported image formats: ignoring them would silently shrink a class.
const OTHER_FORMATS: [&str; 19] = [
    "bmp", "gif", "webp", "tif", "tiff", "avif", "heic", "heif", "hif", "jp2", "jxl", "ppm", "pgm", "tga",
    "npy", "dng", "cr2", "nef", "arw",
];

/// Files left behind by file managers, ignored silently.
const LEFTOVERS: [&str; 2] = ["thumbs.db", "desktop.ini"];

/// A split and the folder names accepted for it.
pub(super) type SplitNames = (&'static str, &'static [&'static str]);

/// The splits.
pub(super) const SPLITS: [SplitNames; 3] =
    [("train", &["train"]), ("val", &["val", "valid", "validation"]), ("test", &["test"])];

/// One image file: its class and its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Name of the class: the folder's name.
    pub class: String,
    /// Path below the root, separated by `/`.
    pub file: String,
}

/// The image files and class folders of `train`, `val` and `test`.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub train: Vec<Entry>,
    pub val: Vec<Entry>,
    pub test: Vec<Entry>,
    /// Class folders of `train`, including those without images.
    pub classes: Vec<String>,
    /// Ignored files in the set's folders, which are not images: notes, videos, photographs without an
    /// extension.
    pub passed_over: Option<Tally>,
    /// Images nested deeper than `train/CLASS/`.
    pub nested: Option<Tally>,
    /// Ignored folders beside `train`.
    pub beside: BTreeSet<String>,
    /// The images of a `test` without class folders, which is left out.
    pub unlabelled: Option<Tally>,
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

/// A count of files of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Number of files.
    pub count: usize,
    /// The first of them.
    pub first: String,
}

impl Tally {
    /// Counts one file.
    pub(super) fn add(tally: &mut Option<Tally>, file: &str) {
        tally.get_or_insert(Tally { count: 0, first: file.to_owned() }).count += 1;
    }
}

/// The kind of a file, judged by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// An image in a supported format.
    Image,
    /// An image in an unsupported format, with its extension.
    Unread(String),
    /// Not an image.
    Other,
    /// A file manager's leftover.
    Leftover,
}

impl Kind {
    /// The kind of a file with this name.
    pub fn of(file: &str) -> Kind {
        let name = file.rsplit('/').next().unwrap_or(file);
        if LEFTOVERS.iter().any(|leftover| name.eq_ignore_ascii_case(leftover)) {
            return Kind::Leftover;
        }
        let Some((_, ending)) = name.rsplit_once('.') else { return Kind::Other };
        let ending = ending.to_ascii_lowercase();
        match ending.as_str() {
            "png" | "jpg" | "jpeg" | "jpe" | "jfif" => Kind::Image,
            other if OTHER_FORMATS.contains(&other) => Kind::Unread(ending),
            _ => Kind::Other,
        }
    }
}

/// Images in unsupported formats.
#[derive(Debug, Default)]
pub(super) struct Unread {
    all: Option<Tally>,
    /// Number of files by extension.
    endings: BTreeMap<String, usize>,
}

impl Unread {
    /// Counts one file.
    pub fn add(&mut self, file: &str, ending: String) {
        Tally::add(&mut self.all, file);
        *self.endings.entry(ending).or_default() += 1;
    }

    /// Reports all of them in one error, for the set at `root`.
    pub fn check(self, root: &Path) -> Result<()> {
        let Some(Tally { count, first }) = self.all else { return Ok(()) };
        let mut endings: Vec<(String, usize)> = self.endings.into_iter().collect();
        endings.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if count == 1 {
            let found = format!("a .{} image", endings[0].0);
            return Err(Error::data(
                root.join(first).display(),
                found,
                "only PNG and JPEG are read: convert it",
            ));
        }
        let endings: Vec<String> =
            endings.into_iter().map(|(ending, count)| format!(".{ending} {count}")).collect();
        let found =
            format!("{count} files in unsupported formats ({}), the first {first}", endings.join(", "));
        Err(Error::data(root.display(), found, "only PNG and JPEG are read: convert them"))
    }
}

/// Sorts the files found into splits and classes. A `test` whose images have no labels is counted and left out.
pub(super) fn sort(mut found: Vec<(String, bool)>, root: &Path, splits: &[SplitNames]) -> Result<Listing> {
    found.sort();
    let is_wanted = splits.iter().any(|(split, _)| *split == "test");
    let unlabelled = if is_wanted { unlabelled_test(&found) } else { None };
    let left_out = |split: &str| split == "test" && unlabelled.is_some();
    let mut listing = Listing::default();
    let (mut classes, mut unread) = (BTreeSet::new(), Unread::default());
    let (mut names, mut holding_out) = (Vec::new(), [false; 2]);
    for (file, is_dir) in found {
        let parts: Vec<&str> = file.split('/').collect();
        let of = splits.iter().find(|(split, names)| names.contains(&parts[0]) && !left_out(split));
        let Some((split, _)) = of else {
            if is_dir || parts.len() > 1 {
                check_case(root, parts[0], splits)?;
                // Do not report a split that is ignored on purpose.
                let is_split = SPLITS.iter().any(|(_, names)| names.contains(&parts[0]));
                if !is_split && !parts[0].starts_with('.') && parts[0] != "__MACOSX" {
                    listing.beside.insert(parts[0].to_owned());
                }
            }
            continue;
        };
        if parts.iter().any(|part| part.starts_with('.')) {
            continue;
        }
        // Images in both folders would count twice.
        match names.iter().find(|(of, _)| of == split) {
            None => names.push((*split, parts[0].to_owned())),
            Some((_, name)) if name != parts[0] => {
                let found = format!("both {name}/ and {}/", parts[0]);
                return Err(Error::data(
                    root.display(),
                    found,
                    format!("only one folder may hold the images of `{split}`"),
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
        match Kind::of(&file) {
            Kind::Image => {}
            Kind::Unread(ending) => {
                unread.add(&file, ending);
                continue;
            }
            Kind::Other => {
                Tally::add(&mut listing.passed_over, &file);
                continue;
            }
            Kind::Leftover => continue,
        }
        let [_, class, _, ..] = parts[..] else {
            return Err(outside_class(root.join(&file).display()));
        };
        if parts.len() > 3 {
            Tally::add(&mut listing.nested, &file);
        }
        let entry = Entry { class: class.to_owned(), file: file.clone() };
        match *split {
            "train" => listing.train.push(entry),
            "val" => listing.val.push(entry),
            _ => listing.test.push(entry),
        }
    }
    unread.check(root)?;
    let [validated, tested] = holding_out;
    if validated && listing.val.is_empty() {
        let want = "add some, or remove it to hold out a fraction of train/";
        return Err(Error::data(root.display(), "a val/ folder without images", want));
    }
    if tested && listing.test.is_empty() {
        let want = "add some, or remove it to skip testing";
        return Err(Error::data(root.display(), "a test/ folder without images", want));
    }
    classes.iter().try_for_each(|class| check_class(root, class))?;
    listing.classes = classes.into_iter().collect();
    listing.unlabelled = unlabelled;
    Ok(listing)
}

/// The images of `test` in any format, if all of them lie directly in it, as challenges distribute them.
fn unlabelled_test(found: &[(String, bool)]) -> Option<Tally> {
    let mut unlabelled = None;
    for (file, is_dir) in found {
        let parts: Vec<&str> = file.split('/').collect();
        let is_image = !is_dir && matches!(Kind::of(file), Kind::Image | Kind::Unread(_));
        if parts[0] != "test" || !is_image || parts.iter().any(|part| part.starts_with('.')) {
            continue;
        }
        if parts.len() != 2 {
            return None;
        }
        Tally::add(&mut unlabelled, file);
    }
    unlabelled
}

/// The error for an image at `place`, which is in no class folder.
pub(super) fn outside_class(place: impl fmt::Display) -> Error {
    Error::data(place, "an image outside any class folder", "move it into the folder of its class")
}

/// Rejects a class name that no bundle can hold, before hours of training.
pub(super) fn check_class(place: &Path, class: &str) -> Result<()> {
    bundles::container::check_label(class).map_err(|error| {
        Error::data(
            place.display(),
            format!("class `{}`: {error}", class.escape_debug()),
            "give it another name",
        )
    })
}

/// Rejects a folder beside `train` that differs from a split's name only in case: it would be ignored.
pub(super) fn check_case(place: &Path, name: &str, splits: &[SplitNames]) -> Result<()> {
    let mut usual = splits.iter().flat_map(|(_, names)| *names);
    match usual.find(|usual| name != **usual && name.eq_ignore_ascii_case(usual)) {
        None => Ok(()),
        Some(usual) => {
            Err(Error::data(place.display(), format!("a folder `{name}`"), format!("rename it to `{usual}`")))
        }
    }
}
