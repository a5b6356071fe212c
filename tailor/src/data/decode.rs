//! Decodes image files to pixels, resized for training or as they are, on every core.

use super::folder::{Source, read_file};
use super::{Images, Size};
use crate::{Error, Result};
use bundles::preprocess::{MAX_AREA, MAX_SIDE, Resizer};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use rayon::prelude::*;
use std::io::{Cursor, ErrorKind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Limits on files read before they are decoded together: their number, and their bytes without the last one.
/// They bound the encoded data in memory.
pub(super) const TOGETHER: usize = 256;
pub(super) const HELD: usize = 64 << 20;

/// Most pixels of an image, and most bytes they take: 16-bit colour with transparency. Images above
/// [`MAX_AREA`] are shrunk first.
const MOST_PIXELS: usize = 400_000_000;
const MOST_BYTES: u64 = 8 * MOST_PIXELS as u64;

/// Held while an image above [`MAX_AREA`] is in memory, so there is only one at a time.
static LARGE: Mutex<()> = Mutex::new(());

/// Most broken files named in one message.
const NAMED: usize = 10;

/// Files that cannot be read or decoded.
#[derive(Debug, Default)]
pub(super) struct Broken(Vec<BrokenFile>);

#[derive(Debug)]
struct BrokenFile {
    /// The path with the data set's root; `file` is without it.
    place: String,
    file: String,
    why: String,
}

impl Broken {
    /// Reports all of them in one error, for the set at `root`.
    pub fn check(self, root: &str) -> Result<()> {
        match &self.0[..] {
            [] => Ok(()),
            [BrokenFile { place, why, .. }] => Err(refusal(place, why)),
            all => {
                let named: Vec<String> =
                    all.iter().take(NAMED).map(|one| format!("{}: {}", one.file, one.why)).collect();
                let more = match all.len() - named.len() {
                    0 => String::new(),
                    more => format!("; and {more} more"),
                };
                let found = format!("{} images cannot be read: {}{more}", all.len(), named.join("; "));
                Err(Error::data(root, found, "replace or remove them (PNG and JPEG are read)"))
            }
        }
    }
}

fn refusal(place: impl std::fmt::Display, why: &str) -> Error {
    Error::data(place, why, "replace or remove this file (PNG and JPEG are read)")
}

/// Decodes `files` in order and resizes them to `size`; `progress` gets the number of files newly done. Files
/// that cannot be read are added to `broken`, and their pixels left black.
pub(super) fn decode(
    source: &mut Source,
    files: &[String],
    size: Size,
    broken: &mut Broken,
    progress: &mut dyn FnMut(usize),
) -> Result<Images> {
    let each = size.area() * 3;
    let mut pixels = vec![0; files.len() * each];
    let (mut files, mut room) = (files, &mut pixels[..]);
    while !files.is_empty() {
        let (mut encoded, mut held) = (Vec::new(), 0);
        while let Some(file) = files.get(encoded.len()).filter(|_| encoded.len() < TOGETHER && held < HELD) {
            let bytes = source.read(file);
            held += bytes.as_ref().map_or(0, Vec::len);
            encoded.push(bytes);
        }
        let (now, later) = files.split_at(encoded.len());
        let (out, rest) = room.split_at_mut(now.len() * each);
        let outcomes: Vec<Result<(), String>> = encoded
            .into_par_iter()
            .zip(out.par_chunks_exact_mut(each))
            .map(|(bytes, out)| decode_one(&bytes?, size, out))
            .collect();
        let whys = outcomes.into_iter().zip(now).filter_map(|(outcome, file)| Some((outcome.err()?, file)));
        broken.0.extend(whys.map(|(why, file)| BrokenFile {
            place: source.place(file),
            file: file.clone(),
            why,
        }));
        progress(now.len());
        (files, room) = (later, rest);
    }
    Images::new(pixels, size)
}

/// An image at its original size, or shrunk to a half, a third and so on if it has more than [`MAX_AREA`]
/// pixels or a side above [`MAX_SIDE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// Height and width.
    pub size: Size,
    /// 1 if the file is grey, otherwise 3: red, green, blue.
    pub channels: usize,
    /// `(height, width, channels)`.
    pub pixels: Vec<u8>,
}

/// Reads the image file at `path`. Transparency is ignored; the camera's orientation tag is applied.
///
/// # Errors
/// [`Error::Data`] naming the file.
pub fn read_photo(path: &Path) -> Result<Photo> {
    let read = read_file(path).and_then(|bytes| photo(&bytes));
    read.map_err(|why| match path.try_exists() {
        Ok(false) => Error::data(path.display(), why, "check the path"),
        _ => refusal(path.display(), &why),
    })
}

/// Decodes one image file.
///
/// # Errors
/// A description of what is wrong with it.
fn photo(bytes: &[u8]) -> Result<Photo, String> {
    if bytes.is_empty() {
        return Err("an empty file".into());
    }
    let image = open(bytes).map_err(|error| format!("cannot be decoded ({error})"))?;
    let size = Size { height: image.height() as usize, width: image.width() as usize };
    Ok(match image.color().has_color() {
        true => Photo { size, channels: 3, pixels: image.into_rgb8().into_raw() },
        false => Photo { size, channels: 1, pixels: image.into_luma8().into_raw() },
    })
}

/// Decodes one image file to RGB pixels `(size.height, size.width, 3)`; grey is replicated.
///
/// # Errors
/// A description of what is wrong with the file.
fn decode_one(bytes: &[u8], size: Size, out: &mut [u8]) -> Result<(), String> {
    let photo = photo(bytes)?;
    if photo.channels == 1 {
        return grey(&photo.pixels, photo.size, size, out);
    }
    let mut resizer = Resizer::new(photo.size, size, 3).map_err(|e| e.to_string())?;
    resizer.resize(&photo.pixels, out).map_err(|e| e.to_string())
}

/// Resizes a grey image of size `from` to RGB pixels `(size.height, size.width, 3)` with equal channels.
///
/// # Errors
/// A description of why it cannot be resized.
pub(super) fn grey(pixels: &[u8], from: Size, size: Size, out: &mut [u8]) -> Result<(), String> {
    let mut resized = vec![0; size.area()];
    let mut resizer = Resizer::new(from, size, 1).map_err(|e| e.to_string())?;
    resizer.resize(pixels, &mut resized).map_err(|e| e.to_string())?;
    for (pixel, value) in out.chunks_exact_mut(3).zip(resized) {
        pixel.fill(value);
    }
    Ok(())
}

/// Whether a JPEG is truncated, which the decoder would hide by filling the missing part with grey. Data
/// after the image (e.g. a video of the same moment) and thumbnails inside segments do not count.
fn is_cut_short(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(&[0xff, 0xd8]) else { return false };
    loop {
        // The only markers within compressed data are these restart markers; a 0 marks an escaped 0xff value.
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff);
        let Some(at) = rest.windows(2).position(is_marker) else { return true };
        let (marker, after) = (rest[at + 1], &rest[at + 2..]);
        if marker == 0xd9 {
            return false;
        }
        let Some(length) = after.first_chunk().map(|&length| usize::from(u16::from_be_bytes(length))) else {
            return true;
        };
        match after.get(length..) {
            Some(after) => rest = after,
            None => return true,
        }
    }
}

fn open(bytes: &[u8]) -> image::ImageResult<DynamicImage> {
    let refuse = |kind, why: String| Err(image::ImageError::IoError(std::io::Error::new(kind, why)));
    // The content decides, not the extension: a JPEG named .png is common and harmless.
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if reader.format().is_none() {
        return refuse(ErrorKind::InvalidData, "neither PNG nor JPEG".into());
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    // Check before allocating memory for the pixels.
    let (width, height) = decoder.dimensions();
    let area = (width as usize).saturating_mul(height as usize);
    if area > MOST_PIXELS {
        let most = MOST_PIXELS / 1_000_000;
        let why = format!("{width}x{height} pixels, but at most {most} million are allowed: scale it down");
        return refuse(ErrorKind::InvalidData, why);
    }
    let orientation = decoder.orientation()?;
    if is_cut_short(bytes) {
        let why = "cut short: it has no end-of-image marker";
        return refuse(ErrorKind::UnexpectedEof, why.into());
    }
    let shrink = (1..).find(|n| fits(width / n, height / n)).unwrap_or(1);
    let _alone = (shrink > 1).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let mut image = DynamicImage::from_decoder(decoder)?;
    if shrink > 1 {
        image = image.thumbnail_exact((width / shrink).max(1), (height / shrink).max(1));
    }
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether the resampler accepts an image of this size.
fn fits(width: u32, height: u32) -> bool {
    let (width, height) = (width as usize, height as usize);
    width <= MAX_SIDE && height <= MAX_SIDE && width.saturating_mul(height) <= MAX_AREA
}
