//! Image files to resized RGB pixels, on every core.

use super::{Images, Size, folder::Source};
use crate::{Error, Result};
use bundles::preprocess::{MAX_SIDE, Resizer};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use rayon::prelude::*;
use std::io::Cursor;

/// Files read before they are decoded together: bounds what is held encoded.
const TOGETHER: usize = 256;

/// Decodes `files` in order and resizes them to `size`; `progress` is told how many more are done.
pub(super) fn decode(
    source: &mut Source,
    files: &[String],
    size: Size,
    progress: &mut dyn FnMut(usize),
) -> Result<Images> {
    let each = size.area() * 3;
    let mut pixels = vec![0; files.len() * each];
    for (files, out) in files.chunks(TOGETHER).zip(pixels.chunks_mut(TOGETHER * each)) {
        let encoded: Vec<Vec<u8>> = files.iter().map(|file| source.read(file)).collect::<Result<_>>()?;
        let source = &*source;
        encoded.par_iter().zip(files).zip(out.par_chunks_exact_mut(each)).try_for_each(
            |((bytes, file), out)| {
                decode_one(bytes, size, out).map_err(|found| {
                    Error::data(
                        source.place(file),
                        found,
                        "replace or remove this file (PNG and JPEG are read)",
                    )
                })
            },
        )?;
        progress(files.len());
    }
    Images::new(pixels, size)
}

/// One image file as RGB pixels `(size.height, size.width, 3)`; grey is replicated, transparency ignored,
/// a camera's orientation mark obeyed.
///
/// # Errors
/// A sentence saying what is wrong with the file.
pub(super) fn decode_one(bytes: &[u8], size: Size, out: &mut [u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("an empty file".into());
    }
    let image = open(bytes).map_err(|error| format!("cannot be decoded ({error})"))?;
    let from = Size { height: image.height() as usize, width: image.width() as usize };
    if image.color().has_color() {
        let mut resizer = Resizer::new(from, size, 3).map_err(|e| e.to_string())?;
        return resizer.resize(image.into_rgb8().as_raw(), out).map_err(|e| e.to_string());
    }
    grey(image.into_luma8().as_raw(), from, size, out)
}

/// A grey image of `from` pixels as RGB pixels `(size.height, size.width, 3)`, every channel the same.
///
/// # Errors
/// A sentence saying why it cannot be resized.
pub(super) fn grey(pixels: &[u8], from: Size, size: Size, out: &mut [u8]) -> Result<(), String> {
    let mut resized = vec![0; size.area()];
    let mut resizer = Resizer::new(from, size, 1).map_err(|e| e.to_string())?;
    resizer.resize(pixels, &mut resized).map_err(|e| e.to_string())?;
    for (pixel, value) in out.chunks_exact_mut(3).zip(resized) {
        pixel.fill(value);
    }
    Ok(())
}

/// Whether these are the beginning of a JPEG: its decoder fills what is missing with grey. Behind the start of the last
/// scan (a thumbnail has one of its own, in front) an end-of-image marker follows; compressed data holds neither.
fn is_cut_short(bytes: &[u8]) -> bool {
    let [start, scan, end] = [[0xff, 0xd8], [0xff, 0xda], [0xff, 0xd9]];
    let last = || bytes.windows(2).rposition(|marker| marker == scan);
    bytes.starts_with(&start) && last().is_some_and(|at| !bytes[at..].windows(2).any(|marker| marker == end))
}

fn open(bytes: &[u8]) -> image::ImageResult<DynamicImage> {
    // The content decides, not the ending: a JPEG named .png is common and harmless.
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if reader.format().is_none() {
        let why = std::io::Error::new(std::io::ErrorKind::InvalidData, "neither PNG nor JPEG");
        return Err(image::ImageError::IoError(why));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    if is_cut_short(bytes) {
        let why = std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "cut short: it has no end-of-image marker",
        );
        return Err(image::ImageError::IoError(why));
    }
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}
