//! Frames from files and streams: raw bytes, PGM and PPM (P5, P6), PNG with the `png` feature.

use super::usage;
use bundles::preprocess::{LIMITS, Size};
use edge_runtime::{Error, Frame, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};

/// Maximum length of a PNM header field.
const DIGITS: usize = 9;

/// Maximum size of a PNG file, and of what its decoder allocates, in bytes.
#[cfg(feature = "png")]
const MAX_BYTES: usize = 1 << 28;

/// Shape of raw frames, `--raw WxHxC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
}

impl Raw {
    /// # Errors
    /// [`Error::Usage`] for anything but three valid frame dimensions.
    pub fn parse(text: &str) -> Result<Raw> {
        let numbers: Option<Vec<usize>> = text.split('x').map(|number| number.parse().ok()).collect();
        let want = match numbers.as_deref() {
            // Frames no task accepts would be refused one by one, endlessly.
            Some(&[width, height, 1 | 3]) if !(Size { height, width }).is_within_limits() => LIMITS,
            Some(&[width, height, channels @ (1 | 3)]) => return Ok(Raw { width, height, channels }),
            _ => "WxHxC, such as 640x480x3, with C 1 (grey) or 3 (RGB)",
        };
        Err(usage(format!("--raw {text}"), want))
    }
}

/// An image buffer, reused from frame to frame.
#[derive(Debug, Default)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Image {
    pub fn frame(&self) -> Frame<'_> {
        Frame { width: self.width, height: self.height, channels: self.channels, pixels: &self.pixels }
    }
}

/// A file, or standard input for `-`, containing one or more frames.
pub struct Frames {
    name: String,
    raw: Option<Raw>,
    from: Box<dyn BufRead>,
    count: usize,
}

impl Frames {
    /// # Errors
    /// [`Error::File`]; [`Error::Usage`] for a folder.
    pub fn open(name: &str, raw: Option<Raw>) -> Result<Frames> {
        let from: Box<dyn BufRead> = if name == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            let file = File::open(name).map_err(Error::file(name, "open"))?;
            if file.metadata().is_ok_and(|is| is.is_dir()) {
                let want = format!("image files, such as {}/*.png", name.trim_end_matches('/'));
                return Err(usage(format!("{name} is a directory"), &want));
            }
            Box::new(BufReader::new(file))
        };
        Ok(Frames { name: name.into(), raw, from, count: 0 })
    }

    /// Reads the next frame into `image`; false at the end of the input.
    ///
    /// # Errors
    /// [`Error::Input`] for bytes that are not an image, naming file and frame; [`Error::File`].
    pub fn next(&mut self, image: &mut Image) -> Result<bool> {
        let first = self.from.fill_buf().map(|start| start.first().copied());
        let Some(first) = first.map_err(|error| self.failed(error))? else {
            return if self.count == 0 { Err(self.wrong("empty", "an image")) } else { Ok(false) };
        };
        if let Some(raw) = self.raw {
            (image.width, image.height, image.channels) = (raw.width, raw.height, raw.channels);
            self.pixels(image)?;
        } else if first == 0x89 {
            self.png(image)?;
        } else if first == b'P' {
            self.pnm(image)?;
        } else {
            let found = format!("an image that begins with byte {first:#04x}");
            return Err(self.wrong(&found, "PNG, PPM (P6) or PGM (P5); or --raw WxHxC"));
        }
        self.count += 1;
        Ok(true)
    }

    fn pnm(&mut self, image: &mut Image) -> Result<()> {
        let mut magic = [0; 2];
        self.exact(&mut magic)?;
        image.channels = match &magic {
            b"P5" => 1,
            b"P6" => 3,
            _ => return Err(self.wrong("an unsupported PNM image", "P5 (PGM) or P6 (PPM)")),
        };
        image.width = self.field()?;
        image.height = self.field()?;
        let max = self.field()?;
        if max != 255 {
            return Err(self.wrong(&format!("a PNM image with values up to {max}"), "255"));
        }
        self.check(Size { height: image.height, width: image.width })?;
        self.pixels(image)
    }

    /// Refuses sizes that no task accepts.
    fn check(&self, size: Size) -> Result<()> {
        if size.is_within_limits() {
            return Ok(());
        }
        Err(self.wrong(&format!("an image of {}x{} pixels", size.width, size.height), LIMITS))
    }

    /// A number of a PNM header with any preceding white space and comments, and the one character after it.
    fn field(&mut self) -> Result<usize> {
        let mut digits = String::new();
        let mut comment = false;
        loop {
            let mut byte = [0];
            self.exact(&mut byte)?;
            match byte[0] {
                b'\n' if comment => comment = false,
                _ if comment => {}
                b'#' if digits.is_empty() => comment = true,
                digit @ b'0'..=b'9' if digits.len() < DIGITS => digits.push(char::from(digit)),
                space if space.is_ascii_whitespace() && digits.is_empty() => {}
                space if space.is_ascii_whitespace() => {
                    return digits.parse().map_err(|_| self.wrong(&digits, "a number"));
                }
                other => return Err(self.wrong(&format!("byte {other:#04x} in a PNM header"), "a number")),
            }
        }
    }

    fn pixels(&mut self, image: &mut Image) -> Result<()> {
        let size = image.width * image.height * image.channels;
        // Grown as bytes arrive, so that a header alone allocates nothing.
        image.pixels.clear();
        let read = self.from.by_ref().take(size as u64).read_to_end(&mut image.pixels);
        let read = read.map_err(|error| self.failed(error))?;
        if read < size {
            return Err(self.wrong(&format!("{read} bytes of pixels"), &format!("{size}")));
        }
        Ok(())
    }

    #[cfg(feature = "png")]
    fn png(&mut self, image: &mut Image) -> Result<()> {
        use png::{BitDepth, ColorType, Limits, Transformations};
        // The decoder needs to seek, which a stream cannot: one PNG image per stream, read whole.
        let mut bytes = Vec::new();
        let read = self.from.by_ref().take(MAX_BYTES as u64).read_to_end(&mut bytes);
        read.map_err(|error| self.failed(error))?;
        if self.name == "-" && png_len(&bytes) < bytes.len() {
            return Err(self.wrong("data after a PNG image", "one image, or a stream of PPM and PGM"));
        }
        let mut decoder =
            png::Decoder::new_with_limits(std::io::Cursor::new(bytes), Limits { bytes: MAX_BYTES });
        decoder.set_transformations(Transformations::EXPAND);
        let wrong = |error: png::DecodingError| self.wrong(&error.to_string(), "a PNG image");
        let mut reader = decoder.read_info().map_err(wrong)?;
        let is_wide = reader.output_color_type().1 == BitDepth::Sixteen;
        let header = reader.info();
        self.check(Size { height: header.height as usize, width: header.width as usize })?;
        // `read_info` has checked that there is a size.
        let size = reader.output_buffer_size().unwrap_or(0);
        // A new buffer takes memory only where pixels are written to it, however large the header says it is.
        image.pixels = Vec::new();
        if image.pixels.try_reserve_exact(size).is_err() {
            return Err(self.wrong("a PNG image too large for this machine's memory", "a smaller one"));
        }
        image.pixels = Vec::new();
        image.pixels = vec![0; size];
        let info = reader.next_frame(&mut image.pixels).map_err(wrong)?;
        (image.width, image.height) = (info.width as usize, info.height as usize);
        let (from, keep) = match info.color_type {
            ColorType::Grayscale => (1, 1),
            ColorType::GrayscaleAlpha => (2, 1),
            ColorType::Rgb | ColorType::Indexed => (3, 3),
            ColorType::Rgba => (4, 3),
        };
        image.channels = keep;
        let area = image.width * image.height;
        if is_wide {
            // Rounded, as for training; the decoder itself would drop the lower byte.
            for sample in 0..area * from {
                let wide = u16::from_be_bytes([image.pixels[2 * sample], image.pixels[2 * sample + 1]]);
                image.pixels[sample] = ((u32::from(wide) + 128) / 257) as u8;
            }
        }
        for pixel in 0..area {
            image.pixels.copy_within(pixel * from..pixel * from + keep, pixel * keep);
        }
        image.pixels.truncate(area * keep);
        Ok(())
    }

    #[cfg(not(feature = "png"))]
    fn png(&mut self, _image: &mut Image) -> Result<()> {
        Err(self.wrong("a PNG image", "PPM (P6) or PGM (P5): this program was built without feature `png`"))
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.wrong("an image that ends in its header", "the rest of it"),
            _ => self.failed(error),
        })
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::file(&self.name, "read")(error)
    }

    fn wrong(&self, got: &str, want: &str) -> Error {
        Error::Input { got: format!("{} (frame {}): {got}", self.name, self.count + 1), want: want.into() }
    }
}

/// Length of the PNG image at the start of `bytes`: up to its last chunk, `IEND`.
#[cfg(feature = "png")]
fn png_len(bytes: &[u8]) -> usize {
    // A signature, then chunks: length, name, data, checksum.
    let mut at = 8;
    while let Some(&[a, b, c, d, ref name @ ..]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        at = at.saturating_add(12).saturating_add(u32::from_be_bytes([a, b, c, d]) as usize);
        if name == b"IEND" {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], raw: Option<Raw>) -> Frames {
        Frames { name: "t".into(), raw, from: Box::new(std::io::Cursor::new(bytes.to_vec())), count: 0 }
    }

    #[test]
    fn streams_of_images_are_read_one_by_one() {
        let raw = Raw::parse("2x1x1").unwrap();
        // bytes, raw, frames as (width, height, channels, pixels)
        type Want<'a> = &'a [(usize, usize, usize, &'a [u8])];
        let cases: [(&[u8], Option<Raw>, Want); 3] = [
            (b"P5 2 1 255\nab", None, &[(2, 1, 1, b"ab")]),
            (
                b"P6\n# made by hand\n1 2\n255\nabcdefP5\n1\t1 255 z",
                None,
                &[(1, 2, 3, b"abcdef"), (1, 1, 1, b"z")],
            ),
            (b"abcd", Some(raw), &[(2, 1, 1, b"ab"), (2, 1, 1, b"cd")]),
        ];
        for (bytes, raw, want) in cases {
            let mut frames = frames(bytes, raw);
            let mut image = Image::default();
            for want in want {
                assert!(frames.next(&mut image).unwrap());
                let got = image.frame();
                assert_eq!((got.width, got.height, got.channels, got.pixels), *want);
            }
            assert!(!frames.next(&mut image).unwrap());
        }
    }

    #[test]
    #[cfg(feature = "png")]
    fn samples_of_sixteen_bits_are_rounded() {
        use png::ColorType::{Grayscale, GrayscaleAlpha, Rgb, Rgba};
        // type, samples of a pixel, those of them that are kept
        for (color, samples, kept) in [(Grayscale, 1, 1), (GrayscaleAlpha, 2, 1), (Rgb, 3, 3), (Rgba, 4, 3)] {
            let numbers: Vec<u16> = (0..64 * 32 * samples).map(|i| (i * 8191 % 65536) as u16).collect();
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 64, 32);
            encoder.set_color(color);
            encoder.set_depth(png::BitDepth::Sixteen);
            encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
            let mut image = Image::default();
            assert!(frames(&file, None).next(&mut image).unwrap());
            let pixels = numbers.chunks(samples).flat_map(|pixel| &pixel[..kept]);
            let want: Vec<u8> = pixels.map(|number| (f64::from(*number) / 257.0).round() as u8).collect();
            let got = image.frame();
            assert_eq!((got.width, got.height, got.channels), (64, 32, kept), "{color:?}");
            assert!(got.pixels == want, "{color:?}");
        }
    }

    #[test]
    #[cfg(feature = "png")]
    fn a_header_alone_takes_no_memory() {
        use crate::cli::memory::resident;
        let file = |width, height| {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, width, height);
            encoder.set_color(png::ColorType::Rgba);
            encoder.set_depth(png::BitDepth::Sixteen);
            encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, b"").unwrap();
            file
        };
        let mut image = Image::default();
        let before = resident();
        // 512 MiB of samples.
        let error = frames(&file(8192, 8192), None).next(&mut image).unwrap_err();
        let taken = resident().unwrap_or(0).saturating_sub(before.unwrap_or(0));
        assert!(matches!(error, Error::Input { .. }) && taken < 128 << 20, "{error}, {taken} bytes");
        assert_eq!(image.pixels.len(), 512 << 20);
        let error = frames(&file(8193, 8192), None).next(&mut image).unwrap_err();
        assert!(error.to_string().contains("8193x8192"), "{error}");
    }

    #[test]
    fn bytes_that_are_not_an_image_are_errors() {
        let cases: [&[u8]; 9] = [
            b"",
            b"P",
            b"P4 1 1 255 a",
            b"P5 1 1 65535 aa",
            b"P5 2 2 255 abc",
            b"P6 999999999 999999999 255 ",
            b"P5 99999999999 1 255 a",
            b"P5 x",
            b"GIF89a",
        ];
        for bytes in cases {
            let error = frames(bytes, None).next(&mut Image::default()).unwrap_err();
            assert!(matches!(error, Error::Input { .. }), "{error}");
            assert!(error.to_string().contains("t (frame 1)"), "{error}");
        }
        let shapes = ["", "1x1", "0x1x1", "axbxc", "1x1x1x1", "99999999999x99999999999x3", "32769x1x3"];
        for text in shapes.into_iter().chain(["8193x8192x1", "4x4x0", "4x4x2", "4x4x4"]) {
            assert!(Raw::parse(text).is_err(), "{text}");
        }
        assert!(["8192x8192x3", "32768x2048x1"].iter().all(|text| Raw::parse(text).is_ok()));
    }
}
