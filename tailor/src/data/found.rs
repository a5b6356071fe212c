//! A set of images found on disk: classes and counts are known and checked, but no pixels are read yet.

use super::decode::{self, Broken};
use super::folder::Source;
use super::listing::{Entry, Listing, SPLITS, SplitNames, Tally, outside_class};
use super::{Dataset, Memory, Size, Split, digest_of_files, hold_out, idx};
use crate::{Error, Result};
use std::{collections::BTreeSet, path::Path};

/// A set of labelled images whose files have been listed and checked. [`Found::read`] decodes them.
pub struct Found {
    classes: Vec<String>,
    counts: Counts,
    /// Training images of each class.
    per_class: Vec<usize>,
    pub(super) form: Form,
    place: String,
    /// The most memory that decoded images may take.
    memory: Memory,
    /// Images of a `test/` that was left out because they are in no class folder.
    pub(super) unlabelled: Option<Tally>,
    /// Number of images of a `test/` without labels that are read separately.
    pub(super) separate: usize,
}

/// A split of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// `train/`.
    Train,
    /// `val/`.
    Val,
    /// `test/`.
    Test,
}

/// Number of images of each split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// `train/`.
    pub train: usize,
    /// `val/`; 0 if absent.
    pub val: usize,
    /// `test/`; 0 if absent.
    pub test: usize,
    /// The first training image that is the only one of its class.
    pub(super) lone: Option<String>,
}

impl Counts {
    /// Number of images of `part`.
    pub fn of(&self, part: Part) -> usize {
        match part {
            Part::Train => self.train,
            Part::Val => self.val,
            Part::Test => self.test,
        }
    }

    /// Approximate number of images left to train on if, without a `val`, the fraction `validation` is held
    /// out.
    pub fn left_to_train(&self, validation: f64) -> usize {
        let held = if self.val > 0 { 0.0 } else { validation };
        (self.train as f64 * (1.0 - held)) as usize
    }

    /// Rejects a class with a single image, which cannot be divided if, without a `val`, the fraction
    /// `validation` is held out.
    ///
    /// # Errors
    /// [`Error::Data`] naming that image.
    pub fn check_division(&self, validation: f64) -> Result<()> {
        match &self.lone {
            Some(only) if self.val == 0 && validation > 0.0 => Err(hold_out::lone(only)),
            _ => Ok(()),
        }
    }

    /// Rejects a batch larger than what is left to train on if, without a `val`, the fraction `validation` is
    /// held out. The number [`hold_out`](super::hold_out()) takes may differ by half an image per class, or more
    /// if there are copies.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check_batch(&self, batch: usize, validation: f64) -> Result<()> {
        let left = self.left_to_train(validation);
        if batch > left {
            let want = format!("at most {left}, the number of training images");
            return Err(Error::config(format!("--batch {batch}"), want));
        }
        Ok(())
    }
}

/// Where the images come from.
pub(super) enum Form {
    Folder(Source, Listing),
    Idx(idx::Set),
}

/// Finds what [`load`](super::load) would read.
///
/// # Errors
/// As [`load`](super::load), except for errors inside images.
pub fn find(path: &Path) -> Result<Found> {
    let found = find_skipping_unlabelled(path)?;
    match (&found.form, &found.unlabelled) {
        (Form::Folder(source, _), Some(Tally { first, .. })) => Err(outside_class(source.place(first))),
        _ => Ok(found),
    }
}

/// Like [`find`], but ignores `test/`, whose images may be unlabelled: [`Found::beside`] has the summary count them.
///
/// # Errors
/// As [`find`].
pub fn find_labelled(path: &Path) -> Result<Found> {
    let (labelled, _) = SPLITS.split_at(2);
    find_splits(path, labelled)
}

/// Like [`find`], but leaves out a `test/` whose images are in no class folder, as challenges distribute them.
/// [`Found::oddities`] says so.
///
/// # Errors
/// As [`find`].
pub fn find_skipping_unlabelled(path: &Path) -> Result<Found> {
    find_splits(path, &SPLITS)
}

fn find_splits(path: &Path, splits: &[SplitNames]) -> Result<Found> {
    if let Some(set) = idx::find(path)? {
        let per_class = tally(set.classes.len(), set.train.labels.iter().map(|&label| label as usize));
        let lone = set.train.labels.iter().position(|&label| per_class[label as usize] == 1);
        let counts = Counts {
            train: set.train.labels.len(),
            val: 0,
            test: set.test.as_ref().map_or(0, |test| test.labels.len()),
            lone: lone.map(|i| set.train.place(i)),
        };
        let place = path.display().to_string();
        return Ok(Found {
            classes: set.classes.clone(),
            counts,
            per_class,
            form: Form::Idx(set),
            place,
            memory: Memory::default(),
            unlabelled: None,
            separate: 0,
        });
    }
    let (source, mut listing) = Source::open(path, splits)?;
    let classes = listing.classes.clone();
    check_classes(&source, &classes, &listing.train)?;
    check_same_classes(&source, &classes, "val", &listing.val)?;
    check_same_classes(&source, &classes, "test", &listing.test)?;
    let class = |entry: &Entry| classes.binary_search(&entry.class).unwrap_or(usize::MAX);
    let per_class = tally(classes.len(), listing.train.iter().map(class));
    let lone = listing.train.iter().find(|entry| per_class.get(class(entry)) == Some(&1));
    let counts = Counts {
        train: listing.train.len(),
        val: listing.val.len(),
        test: listing.test.len(),
        lone: lone.map(|entry| source.place(&entry.file)),
    };
    let (place, unlabelled) = (path.display().to_string(), listing.unlabelled.take());
    let (form, memory) = (Form::Folder(source, listing), Memory::default());
    Ok(Found { classes, counts, per_class, form, place, memory, unlabelled, separate: 0 })
}

/// Counts `labels` by class.
fn tally(classes: usize, labels: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.filter(|&label| label < classes).for_each(|label| counts[label] += 1);
    counts
}

impl Found {
    /// How messages refer to the set: the path it was found at.
    pub fn place(&self) -> &str {
        self.place.trim_end_matches('/')
    }

    /// Class names in label order.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Number of images of each split.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Number of training images of each class, in label order.
    pub fn per_class(&self) -> &[usize] {
        &self.per_class
    }

    /// The same set, whose decoded images may take this much memory.
    #[must_use]
    pub fn within(self, memory: Memory) -> Found {
        Found { memory, ..self }
    }

    /// The same set, beside which the caller reads this many images of `test/` that have no labels.
    /// [`Found::summary`] says so.
    #[must_use]
    pub fn beside(self, unlabelled: usize) -> Found {
        Found { separate: unlabelled, ..self }
    }

    /// Rejects `parts` that would take more memory at `size` than they may, as reading them does.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub fn check_memory(&self, parts: &[Part], size: Size) -> Result<()> {
        let images = parts.iter().map(|&part| self.counts.of(part)).sum();
        self.memory.check(self.place(), images, size)
    }

    /// A digest of the paths and lengths of the files of `parts`; `None` if they are not files in a folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn digest_of(&self, parts: &[Part]) -> Result<Option<String>> {
        let Form::Folder(Source::Directory(root), listing) = &self.form else { return Ok(None) };
        let entries = parts.iter().flat_map(|&part| listing.of(part));
        digest_of_files(root, entries.map(|entry| entry.file.as_str())).map(Some)
    }

    /// Decodes every image and resizes it to `size`. `progress` is called with (images done, images in total).
    ///
    /// # Errors
    /// [`Error::Data`] naming broken or oversized images, or more than [may be held](Found::within) in memory.
    pub fn read(self, size: Size, progress: &dyn Fn(usize, usize)) -> Result<Dataset> {
        let (classes, place) = (self.classes.clone(), self.place().to_owned());
        let [train, val, test] = self.read_parts([Part::Train, Part::Val, Part::Test], size, progress)?;
        // `find` has seen an image of every class.
        let train = train.ok_or_else(|| Error::data(&place, "no training image", "add some"))?;
        Ok(Dataset { place, classes, train, val, test })
    }

    /// Decodes only these `parts`, resized to `size`; `None` for absent ones.
    ///
    /// # Errors
    /// As [`read`](Found::read).
    pub fn read_parts<const N: usize>(
        mut self,
        parts: [Part; N],
        size: Size,
        progress: &dyn Fn(usize, usize),
    ) -> Result<[Option<Split>; N]> {
        self.check_memory(&parts, size)?;
        let total: usize = parts.iter().map(|&part| self.counts.of(part)).sum();
        let mut done = 0;
        let mut count = |n| {
            done += n;
            progress(done, total);
        };
        let (mut splits, mut broken) = (Vec::new(), Broken::default());
        for part in parts {
            splits.push(match &mut self.form {
                Form::Idx(set) => match part {
                    Part::Train => Some(set.train.read(size, &mut count)?),
                    Part::Val => None,
                    Part::Test => set.test.as_ref().map(|test| test.read(size, &mut count)).transpose()?,
                },
                Form::Folder(source, listing) => {
                    let entries = listing.of(part);
                    read_split(source, &self.classes, entries, size, &mut broken, &mut count)?
                }
            });
        }
        broken.check(self.place())?;
        let mut splits = splits.into_iter();
        Ok(std::array::from_fn(|_| splits.next().flatten()))
    }
}

/// Decodes one split; `None` if it has no images.
fn read_split(
    source: &mut Source,
    classes: &[String],
    entries: &[Entry],
    size: Size,
    broken: &mut Broken,
    count: &mut dyn FnMut(usize),
) -> Result<Option<Split>> {
    if entries.is_empty() {
        return Ok(None);
    }
    let label = |entry: &Entry| classes.binary_search(&entry.class).map_or(u32::MAX, |i| i as u32);
    let labels = entries.iter().map(label).collect();
    let files: Vec<String> = entries.iter().map(|entry| entry.file.clone()).collect();
    let images = decode::decode(source, &files, size, broken, count)?;
    Ok(Some(Split { images, labels, files }))
}

/// Requires at least two classes, none of them empty.
fn check_classes(source: &Source, classes: &[String], train: &[Entry]) -> Result<()> {
    if let [] | [_] = classes {
        let found = match classes {
            [one] => format!("only one class, `{one}`"),
            _ => "no class folder".into(),
        };
        let want = "at least two class folders are needed";
        return Err(Error::data(source.place("train"), found, want));
    }
    let filled: BTreeSet<&str> = train.iter().map(|entry| entry.class.as_str()).collect();
    match classes.iter().find(|class| !filled.contains(class.as_str())) {
        None => Ok(()),
        Some(empty) => {
            let want = "add PNG or JPEG images of this class, or remove the folder";
            Err(Error::data(source.place(&format!("train/{empty}")), "a class folder without images", want))
        }
    }
}

/// Requires the same classes as `train`, if the split exists at all.
fn check_same_classes(source: &Source, classes: &[String], split: &str, entries: &[Entry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    if let Some(entry) = entries.iter().find(|entry| classes.binary_search(&entry.class).is_err()) {
        let found = format!("class `{}`, which `train` does not have", entry.class);
        let want = format!("`train` and `{split}` must have the same class folders");
        return Err(Error::data(source.place(&entry.file), found, want));
    }
    let filled: BTreeSet<&str> = entries.iter().map(|entry| entry.class.as_str()).collect();
    match classes.iter().find(|class| !filled.contains(class.as_str())) {
        None => Ok(()),
        Some(missing) => {
            let found = format!("no image of class `{missing}`, which `train` has");
            let want = format!("`train` and `{split}` must have the same class folders");
            Err(Error::data(source.place(split), found, want))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageFormat};
    use std::{
        fs::File,
        io::{Cursor, Write},
    };

    #[test]
    fn a_test_without_labels_is_left_out_of_an_archive_too() {
        let mut picture = Cursor::new(Vec::new());
        DynamicImage::new_luma8(2, 2).write_to(&mut picture, ImageFormat::Png).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let archive = |name: &str, tests: &[&str]| {
            let path = folder.path().join(name);
            let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
            for file in ["train/a/1.png", "train/b/1.png"].iter().chain(tests) {
                let file = format!("set/{file}");
                zip.start_file(file.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(picture.get_ref()).unwrap();
            }
            zip.finish().unwrap();
            path
        };
        let flat = archive("flat.zip", &["test/2.png", "test/10.png", "test/.hidden.png", "test/list.txt"]);
        let found = find_skipping_unlabelled(&flat).unwrap();
        assert_eq!((found.counts().train, found.counts().test), (2, 0));
        assert_eq!(found.unlabelled, Some(Tally { count: 2, first: "test/10.png".into() }));
        let refused = find(&flat).err().unwrap().to_string();
        let words = ["flat.zip: set/test/10.png: an image outside any class folder", "folder of its class"];
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        // A single image in a class folder makes it a test that somebody has to sort.
        let mixed = archive("mixed.zip", &["test/2.png", "test/a/1.png"]);
        let refused = find_skipping_unlabelled(&mixed).err().unwrap().to_string();
        assert!(refused.contains("test/2.png: an image outside any class folder"), "{refused}");
    }
}
