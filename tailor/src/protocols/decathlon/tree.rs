//! The layout of the challenge's files: images by task, split and class, and annotations with their ids.
//!
//! Unpacked, the images are `decathlon-1.0/data/TASK/{train,val}/CLASS/*` and, for test images without
//! classes, `decathlon-1.0/data/TASK/test/*`. The development kit adds
//! `decathlon-1.0/annotations/TASK_{train,val,test_stripped}.json` in COCO's format.

use super::{Event, document};
use crate::data::images_below;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The challenge's folder.
#[derive(Debug, Clone)]
pub struct Tree {
    data: PathBuf,
    annotations: Option<PathBuf>,
}

/// The test images of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tests {
    /// There are none.
    None,
    /// Sorted into folders by the classes of `train/`: accuracy can be measured.
    Labelled,
    /// Unlabelled, as distributed by the challenge: these files.
    Hidden(Vec<String>),
}

/// The challenge's ids of a task's images and classes.
#[derive(Debug, Clone, Default)]
pub struct Annotations {
    /// Id of each test image, by its path below the task's folder.
    pub images: HashMap<String, u64>,
    /// Id of each class, by its folder.
    pub categories: HashMap<String, u64>,
}

/// What to do about annotations that do not fit the images.
pub(super) const BELONGING: &str = "use the annotations that belong to the images";

impl Tree {
    /// Opens `root`, which holds the tasks' folders directly or in `data/`, with annotations from the given
    /// folder or, by default, from `annotations/` next to them, if it exists.
    ///
    /// # Errors
    /// [`Error::Config`] if a given folder does not exist.
    pub fn open(root: &Path, annotations: Option<&Path>) -> Result<Tree> {
        if !root.is_dir() {
            let want = "no such folder: give the one with aircraft/, cifar100/ and so on";
            return Err(Error::config(format!("--root {}", root.display()), want));
        }
        let inner = root.join("data");
        let data = if inner.is_dir() { inner } else { root.to_path_buf() };
        let annotations = match annotations {
            Some(folder) if folder.is_dir() => Some(folder.to_path_buf()),
            Some(folder) => {
                let want = "no such folder: give the one with TASK_val.json and TASK_test_stripped.json";
                return Err(Error::config(format!("--annotations {}", folder.display()), want));
            }
            None => [root.join("annotations"), root.join("../annotations")].into_iter().find(|f| f.is_dir()),
        };
        Ok(Tree { data, annotations })
    }

    /// The folder of a task.
    ///
    /// # Errors
    /// [`Error::Data`] if it does not exist.
    pub fn folder(&self, event: &Event) -> Result<PathBuf> {
        let folder = self.data.join(event.name);
        if folder.is_dir() {
            return Ok(folder);
        }
        let want = "unpack the task there, or name the tasks to run with --tasks";
        Err(Error::data(folder.display(), "no such folder", want))
    }

    /// The test images of a task with the given classes.
    ///
    /// # Errors
    /// [`Error::Data`] if only some of them are in a class's folder; if the folder cannot be listed.
    pub fn tests(&self, event: &Event, classes: &[String]) -> Result<Tests> {
        let folder = self.folder(event)?;
        let files = images_below(&folder, "test")?;
        let classes: HashSet<&str> = classes.iter().map(String::as_str).collect();
        let is_labelled = |file: &String| {
            let parts: Vec<&str> = file.split('/').collect();
            matches!(parts[..], [_, class, _, ..] if classes.contains(class))
        };
        let (labelled, stray): (Vec<String>, Vec<String>) = files.into_iter().partition(is_labelled);
        if let (false, Some(first)) = (labelled.is_empty(), stray.first()) {
            let found = format!(
                "the first of {} test images that are in no class's folder, while {} are in one",
                stray.len(),
                labelled.len()
            );
            let want = "sort all of them by class, or none if the test is unlabelled";
            return Err(Error::data(folder.join(first).display(), found, want));
        }
        Ok(match (labelled.is_empty(), stray.is_empty()) {
            (true, true) => Tests::None,
            (false, _) => Tests::Labelled,
            (true, false) => Tests::Hidden(stray),
        })
    }

    /// The ids of a task's test images and classes; `None` if there are no annotations for it.
    ///
    /// # Errors
    /// [`Error::Data`] if a file is malformed, those of labelled images are missing, or a class has no image in them.
    pub fn annotations(&self, event: &Event, classes: &[String]) -> Result<Option<Annotations>> {
        let Some(folder) = &self.annotations else { return Ok(None) };
        let file = |split: &str| folder.join(format!("{event}_{split}.json"));
        let Some(tests) = read(&file("test_stripped"))? else { return Ok(None) };
        let mut annotations = Annotations::default();
        for (id, name) in images(&tests, &file("test_stripped"))? {
            annotations.images.insert(below(&name, event), id);
        }
        let mut searched = Vec::new();
        // Validation has far fewer images than training, and usually all classes.
        for split in ["val", "train"] {
            let path = file(split);
            let Some(json) = read(&path)? else { continue };
            searched.push(format!("{event}_{split}.json"));
            let names: HashMap<u64, String> = images(&json, &path)?.into_iter().collect();
            for annotation in json["annotations"].as_array().into_iter().flatten() {
                let (image, category) = (annotation["image_id"].as_u64(), annotation["category_id"].as_u64());
                let (Some(image), Some(category)) = (image, category) else { continue };
                let Some(name) = names.get(&image) else { continue };
                // `val/CLASS/NAME`.
                if let Some(class) = below(name, event).split('/').nth(1) {
                    annotations.categories.insert(class.to_string(), category);
                }
            }
            if classes.iter().all(|class| annotations.categories.contains_key(class)) {
                return Ok(Some(annotations));
            }
        }
        if searched.is_empty() {
            let found = format!("neither {event}_val.json nor {event}_train.json");
            let want = "add them from the development kit: they have the ids of the classes";
            return Err(Error::data(folder.display(), found, want));
        }
        let missing = classes.iter().find(|class| !annotations.categories.contains_key(*class));
        let missing = missing.map_or("", String::as_str);
        let found = format!("no image of class `{missing}` in {}", searched.join(" or "));
        Err(Error::data(folder.display(), found, BELONGING))
    }
}

impl Annotations {
    /// Refuses test images without an id.
    ///
    /// # Errors
    /// [`Error::Data`] naming the first of them.
    pub fn check(&self, event: &Event, files: &[String]) -> Result<()> {
        let unlisted: Vec<&String> = files.iter().filter(|file| !self.images.contains_key(*file)).collect();
        let Some(first) = unlisted.first() else { return Ok(()) };
        let (count, all) = (unlisted.len(), files.len());
        let found = format!("{count} of {all} test images are not in its annotations, first `{first}`");
        Err(Error::data(event, found, BELONGING))
    }
}

/// Strips `data/TASK/` from `data/TASK/val/CLASS/NAME`.
fn below(name: &str, event: &Event) -> String {
    let below = name.split_once(&format!("{event}/")).map_or(name, |(_, below)| below);
    below.to_string()
}

/// Id and file name of every image.
fn images(json: &Value, path: &Path) -> Result<Vec<(u64, String)>> {
    let read = |image: &Value| Some((image["id"].as_u64()?, image["file_name"].as_str()?.to_string()));
    let all = json["images"].as_array().and_then(|images| images.iter().map(read).collect());
    all.ok_or_else(|| {
        let want = "an `images` list with `id` and `file_name`, as in the development kit";
        Error::data(path.display(), "no list of images", want)
    })
}

fn read(path: &Path) -> Result<Option<Value>> {
    document::read(path, "unpack the development kit again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn touch(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    #[test]
    fn tests_are_labelled_where_their_folders_are_classes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let event = Event::named("dtd").unwrap();
        let classes = ["banded".to_string(), "dotted".to_string()];
        let tests = || Tree::open(root, None).unwrap().tests(event, &classes);
        let missing = tests().unwrap_err().to_string();
        assert!(missing.contains("dtd") && missing.contains("--tasks"), "{missing}");
        touch(root.join("dtd/train/banded/1.jpg"));
        assert_eq!(tests().unwrap(), Tests::None);
        touch(root.join("dtd/test/banded/1.jpg"));
        assert_eq!(tests().unwrap(), Tests::Labelled);
        // A misplaced image does not make it an unlabelled test.
        touch(root.join("dtd/test/dotted/1.jpg"));
        touch(root.join("dtd/test/2.jpg"));
        touch(root.join("dtd/test/doted/3.jpg"));
        let refused = tests().unwrap_err().to_string();
        let words = ["dtd/test/2.jpg: ", "first of 2 test images", "while 2 are in one"];
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        std::fs::remove_dir_all(root.join("dtd/test")).unwrap();
        touch(root.join("dtd/test/2.jpg"));
        touch(root.join("dtd/test/10.jpg"));
        assert_eq!(tests().unwrap(), Tests::Hidden(vec!["test/10.jpg".into(), "test/2.jpg".into()]));
        // The layout that some dataset readers expect.
        std::fs::remove_dir_all(root.join("dtd/test")).unwrap();
        touch(root.join("dtd/test/all/3.jpg"));
        assert_eq!(tests().unwrap(), Tests::Hidden(vec!["test/all/3.jpg".into()]));
    }

    #[test]
    fn classes_have_the_numbers_of_their_images_and_training_fills_in_for_validation() {
        let folder = tempfile::tempdir().unwrap();
        let (root, event) = (folder.path(), Event::named("svhn").unwrap());
        let tree = || Tree::open(root, None).unwrap();
        let classes = ["1".to_string(), "2".to_string()];
        assert!(tree().annotations(event, &classes).unwrap().is_none());
        std::fs::create_dir(root.join("annotations")).unwrap();
        let write = |split: &str, json: Value| {
            std::fs::write(root.join(format!("annotations/svhn_{split}.json")), json.to_string()).unwrap();
        };
        let image = |id: u64, file: &str| json!({ "id": id, "file_name": format!("data/svhn/{file}") });
        write("test_stripped", json!({ "images": [image(7, "test/000001.png")] }));
        let of = |id: u64, class: &str, category: u64| {
            let annotation = json!({ "image_id": id, "category_id": category });
            json!({ "images": [image(id, &format!("val/{class}/5.png"))], "annotations": [annotation] })
        };
        let refused = || tree().annotations(event, &classes).unwrap_err().to_string();
        let error = refused();
        assert!(error.contains("annotations: neither svhn_val.json nor svhn_train.json; "), "{error}");
        write("val", of(3, "2", 80_000_001));
        let error = refused();
        assert!(error.contains(&format!("no image of class `1` in svhn_val.json; {BELONGING}")), "{error}");
        write("train", of(4, "2", 80_000_001));
        let error = refused();
        assert!(error.contains("no image of class `1` in svhn_val.json or svhn_train.json; "), "{error}");
        write("train", of(4, "1", 80_000_009));
        let annotations = tree().annotations(event, &classes).unwrap().unwrap();
        assert_eq!(annotations.images, HashMap::from([("test/000001.png".to_string(), 7)]));
        let numbers = [("1", 80_000_009), ("2", 80_000_001)].map(|(class, n)| (class.to_string(), n));
        assert_eq!(annotations.categories, HashMap::from(numbers));
        let files = ["test/000001.png", "test/2.png", "test/3.png"].map(String::from);
        annotations.check(event, &files[..1]).unwrap();
        let error = annotations.check(event, &files).unwrap_err().to_string();
        assert!(error.starts_with("svhn: 2 of 3 ") && error.contains("`test/2.png`"), "{error}");
        write("test_stripped", json!({ "pictures": [] }));
        let error = tree().annotations(event, &classes).unwrap_err().to_string();
        assert!(error.contains("svhn_test_stripped.json") && error.contains("`images`"), "{error}");
    }
}
