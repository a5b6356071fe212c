//! MNIST-like sets: IDX files of grey images and their labels, plain or gzipped, as used by MNIST,
//! Fashion-MNIST and KMNIST.

use super::decode::{HELD, TOGETHER, grey};
use super::listing::check_class;
use super::{Images, Size, Split};
use crate::{Error, Result};
use bundles::preprocess::{MAX_AREA, MAX_SIDE};
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// File of class names, one per line in label order; without it, classes are named by their numbers.
const NAMES: &str = "classes.txt";

/// Most images in one file, and most bytes of a label file.
const MAX_IMAGES: usize = 1 << 26;

/// The IDX files of one directory.
pub(super) struct Set {
    pub train: Part,
    pub test: Option<Part>,
    /// Class names in label order.
    pub classes: Vec<String>,
}

/// A pair of image and label files, with header and labels already read.
pub(super) struct Part {
    images: PathBuf,
    size: Size,
    pub labels: Vec<u32>,
}

/// The set in `directory`, or `None` if it has no `train-images-idx3-ubyte` (or `.gz`).
pub(super) fn find(directory: &Path) -> Result<Option<Set>> {
    let Some(mut train) = part(directory, &["train"])? else { return Ok(None) };
    let mut test = part(directory, &["t10k", "test"])?;
    // Labels need not start at 0: EMNIST's letters start at 1.
    let numbers: Vec<u32> = train.labels.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    if numbers.len() < 2 {
        let want = "at least two classes are needed";
        return Err(Error::data(train.images.display(), "only one class", want));
    }
    for part in [Some(&mut train), test.as_mut()].into_iter().flatten() {
        for label in &mut part.labels {
            let Ok(index) = numbers.binary_search(label) else {
                let found = format!("an image of class {label}, which the training images do not have");
                return Err(Error::data(part.images.display(), found, "all files must belong to one set"));
            };
            *label = index as u32;
        }
    }
    let classes = names(&directory.join(NAMES), &numbers)?;
    Ok(Some(Set { train, test, classes }))
}

fn part(directory: &Path, prefixes: &[&str]) -> Result<Option<Part>> {
    let there = |what: &str, axes: usize| {
        let names = prefixes.iter().flat_map(|prefix| {
            ["-", "."].into_iter().flat_map(move |dot| {
                ["", ".gz"].map(|end| format!("{prefix}-{what}{dot}idx{axes}-ubyte{end}"))
            })
        });
        names.map(|name| directory.join(name)).find(|path| path.is_file())
    };
    let Some(images) = there("images", 3) else { return Ok(None) };
    let Some(labels) = there("labels", 1) else {
        let want = format!("{}-labels-idx1-ubyte (or .gz) must be beside it", prefixes[0]);
        return Err(Error::data(images.display(), "images without a label file", want));
    };
    let (axes, _) = open(&images, 3)?;
    let (count, mut reader) = open(&labels, 1)?;
    let mut bytes = vec![0; count[0]];
    reader.read_exact(&mut bytes).map_err(|error| broken(&labels, &error))?;
    ends(&labels, &mut reader)?;
    if axes[0] != count[0] {
        let found = format!("{} labels for the {} images of {}", count[0], axes[0], images.display());
        return Err(Error::data(
            labels.display(),
            found,
            "both files must belong to one set; download them again",
        ));
    }
    let size = Size { height: axes[1], width: axes[2] };
    Ok(Some(Part { images, size, labels: bytes.into_iter().map(u32::from).collect() }))
}

/// Opens an IDX file of unsigned bytes and reads the extents of its `axes` axes.
fn open(path: &Path, axes: usize) -> Result<(Vec<usize>, Box<dyn Read>)> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let zipped = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> =
        if zipped { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
    let mut word = || -> Result<u32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(|error| broken(path, &error))?;
        Ok(u32::from_be_bytes(bytes))
    };
    // Two zeros, element type (8: unsigned bytes), number of axes.
    let magic = word()?;
    if magic != 0x0800 + axes as u32 {
        let found = format!("magic number {magic:#010x}, not that of {axes}-axis IDX bytes");
        return Err(Error::data(
            path.display(),
            found,
            "it is not such a file or is damaged; download it again",
        ));
    }
    let extents: Vec<usize> = (0..axes).map(|_| word().map(|n| n as usize)).collect::<Result<_>>()?;
    let sane = extents.iter().all(|&n| (1..=MAX_IMAGES).contains(&n))
        && extents[1..].iter().all(|&n| n <= MAX_SIDE)
        && extents[1..].iter().product::<usize>() <= MAX_AREA;
    if !sane {
        let found = format!("extents {extents:?}");
        return Err(Error::data(path.display(), found, "it is empty or damaged; download it again"));
    }
    Ok((extents, reader))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::data(path.display(), format!("cut off or damaged ({error})"), "download it again")
}

/// Rejects data beyond what the header announces.
fn ends(path: &Path, reader: &mut impl Read) -> Result<()> {
    match reader.read(&mut [0]).map_err(|error| broken(path, &error))? {
        0 => Ok(()),
        _ => Err(Error::data(path.display(), "more bytes than its header announces", "download it again")),
    }
}

/// Names of the classes with these `numbers`.
fn names(path: &Path, numbers: &[u32]) -> Result<Vec<String>> {
    if !path.is_file() {
        return Ok(numbers.iter().map(u32::to_string).collect());
    }
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.len() != numbers.len() || names.iter().collect::<BTreeSet<_>>().len() != names.len() {
        let found = format!("{} names for {} classes", names.len(), numbers.len());
        return Err(Error::data(
            path.display(),
            found,
            "one distinct name per line is needed, in label order",
        ));
    }
    names.iter().try_for_each(|name| check_class(path, name))?;
    Ok(names)
}

impl Part {
    /// How messages refer to image `i`.
    pub fn place(&self, i: usize) -> String {
        format!("{}#{i}", self.images.display())
    }

    /// Reads the images and resizes them to `size`; `progress` gets the number of images newly done.
    pub fn read(&self, size: Size, progress: &mut dyn FnMut(usize)) -> Result<Split> {
        let (axes, mut reader) = open(&self.images, 3)?;
        let (from, each) = (self.size.area(), size.area() * 3);
        if axes != [self.labels.len(), self.size.height, self.size.width] {
            return Err(broken(&self.images, &"it changed while being read"));
        }
        let mut pixels = vec![0; self.labels.len() * each];
        let together = (HELD / from).clamp(1, TOGETHER.min(self.labels.len()));
        let mut raw = vec![0; together * from];
        for out in pixels.chunks_mut(together * each) {
            let raw = &mut raw[..out.len() / each * from];
            reader.read_exact(raw).map_err(|error| broken(&self.images, &error))?;
            raw.par_chunks_exact(from)
                .zip(out.par_chunks_exact_mut(each))
                .try_for_each(|(image, out)| grey(image, self.size, size, out))
                .map_err(|found| Error::data(self.images.display(), found, "choose another --size"))?;
            progress(out.len() / each);
        }
        ends(&self.images, &mut reader)?;
        let name = self.images.file_name().unwrap_or_default().to_string_lossy();
        let files = (0..self.labels.len()).map(|i| format!("{name}#{i}")).collect();
        Ok(Split { images: Images::new(pixels, size)?, labels: self.labels.clone(), files })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Size, find as find_set, load, statistics};
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    /// An IDX file of bytes.
    fn idx(axes: &[usize], bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, axes.len() as u8];
        axes.iter().for_each(|&n| file.extend((n as u32).to_be_bytes()));
        file.extend(bytes);
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// `labels.len()` images of 2 x 3 pixels, each filled with ten times its index.
    fn images(labels: &[u8]) -> Vec<u8> {
        let pixels: Vec<u8> = (0..labels.len()).flat_map(|i| [10 * i as u8; 6]).collect();
        idx(&[labels.len(), 2, 3], &pixels)
    }

    type Files = Vec<(&'static str, Vec<u8>)>;

    fn good() -> Files {
        let (train, test) = ([7, 3, 3, 9], [9, 7]);
        vec![
            ("train-images-idx3-ubyte.gz", gzip(&images(&train))),
            ("train-labels-idx1-ubyte.gz", gzip(&idx(&[4], &train))),
            ("t10k-images.idx3-ubyte", images(&test)),
            ("t10k-labels.idx1-ubyte", idx(&[2], &test)),
        ]
    }

    fn directory(files: &Files) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        directory
    }

    #[test]
    fn plain_and_gzipped_files_are_read_with_labels_in_order() {
        let directory = directory(&good());
        let counts = find_set(directory.path()).unwrap().counts();
        assert_eq!((counts.train, counts.val, counts.test), (4, 0, 2));
        let set = load(directory.path(), Size { height: 4, width: 5 }, &|_, _| {}).unwrap();
        assert_eq!(set.classes, ["3", "7", "9"]);
        assert_eq!(set.train.labels, [1, 0, 0, 2]);
        assert_eq!(set.train.files[3], "train-images-idx3-ubyte.gz#3");
        let test = set.test.unwrap();
        assert_eq!(test.labels, [2, 1]);
        for split in [&set.train, &test] {
            assert_eq!(split.images.size(), Size { height: 4, width: 5 });
            for i in 0..split.len() {
                assert!(split.images.get(i).iter().all(|&v| v == 10 * i as u8), "image {i}");
            }
        }
        let (mean, std) = statistics(&set.train.images);
        // 0, 10, 20, 30: mean 15, variance 125.
        for c in 0..3 {
            assert!((mean[c] - 15.0 / 255.0).abs() < 1e-6 && (std[c] - 125f32.sqrt() / 255.0).abs() < 1e-6);
        }
    }

    #[test]
    fn classes_may_be_named() {
        let mut files = good();
        files.push(("classes.txt", b"boot\nhat\n\nsock\n".to_vec()));
        assert_eq!(find_set(directory(&files).path()).unwrap().classes(), ["boot", "hat", "sock"]);
        for wrong in ["boot\nhat\n", "boot\nhat\nhat\n", "boot\nhat\nso\tck\n"] {
            files[4].1 = wrong.into();
            let message = find_set(directory(&files).path()).err().unwrap().to_string();
            assert!(message.contains("classes.txt"), "{message}");
        }
    }

    #[test]
    fn damaged_files_are_reported_by_name() {
        let labels = [7, 3, 3, 9];
        let mut longer = images(&labels);
        longer.push(0);
        let cases: [(usize, Vec<u8>, &str); 9] = [
            (0, images(&labels)[..30].to_vec(), "cut off"),
            (0, gzip(&images(&labels))[..30].to_vec(), "cut off"),
            (0, longer, "more bytes"),
            (0, idx(&[4, 6], &[0; 24]), "magic number"),
            (0, b"no".to_vec(), "cut off"),
            (0, idx(&[usize::MAX, 2, 3], &[]), "extents"),
            (1, idx(&[3], &[7, 3, 9]), "3 labels for the 4 images"),
            (1, idx(&[4], &[7, 7, 7, 7]), "only one class"),
            (3, idx(&[2], &[9, 8]), "class 8"),
        ];
        for (at, bytes, what) in cases {
            let mut files = good();
            files[at].1 = bytes;
            let directory = directory(&files);
            let message =
                load(directory.path(), Size { height: 2, width: 3 }, &|_, _| {}).unwrap_err().to_string();
            assert!(message.contains(what) && message.contains("-ubyte"), "{what}: {message}");
        }
        let mut files = good();
        files.remove(1);
        let message = find_set(directory(&files).path()).err().unwrap().to_string();
        assert!(message.contains("train-labels-idx1-ubyte"), "{message}");
    }
}
