//! Image files to resized RGB pixels, on every core.

use super::{Images, Size, folder::Source};
use crate::{Error, Result};
use bundles::preprocess::{MAX_AREA, MAX_SIDE, Resizer};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use rayon::prelude::*;
use std::io::Cursor;

/// Files read before they are decoded together, and bytes of them, the last one not counted: bounds what is held encoded.
pub(super) const TOGETHER: usize = 256;
pub(super) const HELD: usize = 64 << 20;

/// Decodes `files` in order and resizes them to `size`; `progress` is told how many more are done.
pub(super) fn decode(
    source: &mut Source,
    files: &[String],
    size: Size,
    progress: &mut dyn FnMut(usize),
) -> Result<Images> {
    let each = size.area() * 3;
    let mut pixels = vec![0; files.len() * each];
    let (mut files, mut room) = (files, &mut pixels[..]);
    while !files.is_empty() {
        let (mut encoded, mut held) = (Vec::new(), 0);
        while let Some(file) = files.get(encoded.len()).filter(|_| encoded.len() < TOGETHER && held < HELD) {
            let bytes = source.read(file)?;
            held += bytes.len();
            encoded.push(bytes);
        }
        let (now, later) = files.split_at(encoded.len());
        let (out, rest) = room.split_at_mut(now.len() * each);
        let source = &*source;
        encoded.par_iter().zip(now).zip(out.par_chunks_exact_mut(each)).try_for_each(
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
        progress(now.len());
        (files, room) = (later, rest);
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

/// Whether a JPEG ends before its image does: the decoder fills what is missing with grey. What follows the image (a film of the same
/// moment, say) is none of it, and neither is a thumbnail inside a segment.
fn is_cut_short(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(&[0xff, 0xd8]) else { return false };
    loop {
        // Compressed data holds no other markers than these, which restart it; 0 stands for a value that is none.
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
    // Before there is memory for them.
    let (width, height) = decoder.dimensions();
    if width as usize * height as usize > MAX_AREA {
        let why = format!("{width}x{height} pixels, and at most {MAX_AREA} are read");
        return Err(image::ImageError::IoError(std::io::Error::new(std::io::ErrorKind::InvalidData, why)));
    }
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
