//! Preprocessing: from a camera frame to a network's input, as the task's bundle specifies.

use crate::{Error, Result, bundle};
use bundles::container::{Preprocess, Resize};
use bundles::preprocess::{LIMITS, Normaliser, Resizer, Size, luma};

/// An image in memory: `u8` in `(height, width, channels)` order, 1 channel (grey) or 3 (red, green, blue).
///
/// Rows are contiguous. BGR cannot be told from RGB: it gives wrong answers without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
    /// `height * width * channels` values.
    pub pixels: &'a [u8],
}

impl Frame<'_> {
    fn check(&self) -> Result<()> {
        let Frame { width, height, channels, pixels } = *self;
        let size = Size { height, width };
        let want = if !size.is_within_limits() {
            LIMITS
        } else if !matches!(channels, 1 | 3) || pixels.len() != size.area() * channels {
            "width x height x channels bytes, 1 or 3 channels"
        } else {
            return Ok(());
        };
        let got = format!("a frame of {width}x{height}x{channels} in {} bytes", pixels.len());
        Err(Error::Input { got, want: want.into() })
    }
}

/// A task's preprocessing: how a frame is converted to the network's input.
#[derive(Debug)]
pub(crate) struct Preparation {
    to: Size,
    channels: usize,
    grey: bool,
    normaliser: Normaliser,
}

impl Preparation {
    /// # Errors
    /// [`Error::Container`] for a filter or a size that this runtime does not support, or an invalid
    /// normalisation.
    pub fn new(file: &str, preprocess: &Preprocess) -> Result<Preparation> {
        if preprocess.resize != Resize::Bilinear {
            let got = format!("{:?}", preprocess.resize);
            return Err(bundle::unsupported(file, "filter of resizing", "Bilinear".into(), got));
        }
        let to = Size { height: preprocess.height, width: preprocess.width };
        if !to.is_within_limits() {
            let got = format!("{}x{}", to.width, to.height);
            return Err(bundle::unsupported(file, "size of images", LIMITS.into(), got));
        }
        let normaliser = Normaliser::new(preprocess.mean, preprocess.std).map_err(Error::container(file))?;
        Ok(Preparation { to, channels: preprocess.channels, grey: preprocess.grey, normaliser })
    }
}

/// Number of frame and task size combinations whose resizers are cached.
const RESIZERS: usize = 4;

/// Buffers that frames pass through on their way to the network. Allocates only when frames or tasks of a new
/// size arrive.
#[derive(Debug, Default)]
pub(crate) struct Preparer {
    /// With their channel counts, most recently used first.
    resizers: [Option<(Resizer, usize)>; RESIZERS],
    /// The frame in grey, for tasks that need it.
    luma: Vec<u8>,
    /// The resized frame.
    small: Vec<u8>,
    /// The network's input, `(c, h, w)`.
    input: Vec<f32>,
}

impl Preparer {
    /// The network's input for `frame`.
    ///
    /// # Errors
    /// [`Error::Input`] for a frame that is not a valid image.
    pub fn prepare(&mut self, task: &Preparation, frame: Frame<'_>) -> Result<&[f32]> {
        frame.check()?;
        let internal = |source: bundles::Error| Error::Internal { what: source.to_string() };
        let mut channels = frame.channels;
        let mut pixels = frame.pixels;
        if channels == 3 && (task.grey || task.channels == 1) {
            channels = 1;
            grey(frame.pixels, &mut self.luma);
            pixels = &self.luma;
        }
        let from = Size { height: frame.height, width: frame.width };
        let fits = |(resizer, of): &(Resizer, usize)| {
            (resizer.from(), resizer.to(), *of) == (from, task.to, channels)
        };
        let known = self.resizers.iter().position(|known| known.as_ref().is_some_and(fits));
        let latest = &mut self.resizers[..=known.unwrap_or(RESIZERS - 1)];
        latest.rotate_right(1);
        if known.is_none() {
            latest[0] = None;
        }
        let (resizer, _) = match &mut latest[0] {
            Some(known) => known,
            none => none.insert((Resizer::new(from, task.to, channels).map_err(internal)?, channels)),
        };
        let area = task.to.area();
        self.small.resize(area * channels, 0);
        self.input.resize(area * task.channels, 0.0);
        resizer.resize(pixels, &mut self.small).map_err(internal)?;
        if task.channels == 1 {
            for (out, &pixel) in self.input.iter_mut().zip(&self.small) {
                *out = task.normaliser.value(0, pixel);
            }
        } else {
            task.normaliser.normalise(&self.small, channels, &mut self.input).map_err(internal)?;
        }
        Ok(&self.input)
    }
}

/// The frame's luma.
fn grey(rgb: &[u8], out: &mut Vec<u8>) {
    out.resize(rgb.len() / 3, 0);
    for (out, &pixel) in out.iter_mut().zip(rgb.as_chunks().0) {
        *out = luma(pixel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preparation(channels: usize, grey: bool) -> Preparation {
        let mut preprocess = Preprocess::new(channels, 4, 2, Resize::Bilinear, [0.5; 3], [0.5; 3]);
        preprocess.grey = grey;
        Preparation::new("t", &preprocess).unwrap()
    }

    #[test]
    fn channels_are_converted_to_what_the_task_expects() {
        // channels of the network, grey, channels of the frame, first pixel, expected first values per plane
        type Case = (usize, bool, usize, [u8; 3], &'static [f32]);
        let cases: [Case; 5] = [
            (3, false, 3, [255, 0, 51], &[1.0, -1.0, -0.6]),
            (3, false, 1, [51, 51, 51], &[-0.6, -0.6, -0.6]),
            (3, true, 3, [255, 255, 255], &[1.0, 1.0, 1.0]),
            (1, false, 3, [0, 255, 0], &[150.0 / 127.5 - 1.0]),
            (1, false, 1, [255, 255, 255], &[1.0]),
        ];
        for (planes, grey, channels, pixel, want) in cases {
            let pixels: Vec<u8> = pixel[..channels].iter().copied().cycle().take(9 * 5 * channels).collect();
            let frame = Frame { width: 9, height: 5, channels, pixels: &pixels };
            let mut preparer = Preparer::default();
            let input = preparer.prepare(&preparation(planes, grey), frame).unwrap();
            assert_eq!(input.len(), planes * 8);
            for (plane, want) in input.chunks(8).zip(want) {
                assert!(plane.iter().all(|x| (x - want).abs() < 1e-6), "{plane:?} {want}");
            }
        }
    }

    #[test]
    fn sizes_that_frames_cannot_be_resized_to_are_refused() {
        for (width, height, is_fine) in [(32_768, 2048, true), (32_769, 1, false), (32_768, 2049, false)] {
            let preprocess = Preprocess::new(3, width, height, Resize::Bilinear, [0.5; 3], [0.5; 3]);
            let made = Preparation::new("x.task", &preprocess);
            assert_eq!(made.is_ok(), is_fine, "{width}x{height}");
            let Err(error) = made else { continue };
            assert!(matches!(error, Error::Container { .. }) && error.exit_code() == 4, "{error}");
            let words = error.to_string();
            assert!(words.starts_with("x.task: ") && words.contains(&format!("{width}x{height}")), "{words}");
        }
    }

    #[test]
    fn invalid_frames_are_errors() {
        let mut preparer = Preparer::default();
        let pixels = [0u8; 12];
        let cases = [
            (0, 0, 3),
            (2, 2, 2),
            (2, 2, 1),
            (usize::MAX, 2, 3),
            (usize::MAX, usize::MAX, 1),
            (12, 1, 0),
            (1 << 16, 1, 1),
        ];
        for (width, height, channels) in cases {
            let frame = Frame { width, height, channels, pixels: &pixels };
            let error = preparer.prepare(&preparation(3, false), frame).unwrap_err();
            assert!(matches!(error, Error::Input { .. }), "{error}");
        }
        let frame = Frame { width: 2, height: 2, channels: 3, pixels: &pixels };
        assert_eq!(preparer.prepare(&preparation(3, false), frame).unwrap().len(), 24);
    }
}
