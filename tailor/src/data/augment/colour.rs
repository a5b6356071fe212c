//! Operations that change pixel values without moving pixels, as defined by Pillow; results are rounded.

use crate::data::Size;

/// `factor * value + (1 - factor) * other`, rounded and clipped.
fn blend(value: u8, other: f32, factor: f32) -> u8 {
    (other + factor * (f32::from(value) - other)).round().clamp(0.0, 255.0) as u8
}

/// Luma of one pixel (ITU-R 601).
fn grey(pixel: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|c| u32::from(pixel[c]));
    ((19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16) as u8
}

/// Black at 0, unchanged at 1.
pub(super) fn brightness(image: &mut [u8], factor: f32) {
    image.iter_mut().for_each(|value| *value = blend(*value, 0.0, factor));
}

/// The image's mean luma at 0, unchanged at 1.
pub(super) fn contrast(image: &mut [u8], factor: f32) {
    let sum: u64 = image.chunks_exact(3).map(|pixel| u64::from(grey(pixel))).sum();
    let mean = (sum as f32 / (image.len() / 3).max(1) as f32).round();
    image.iter_mut().for_each(|value| *value = blend(*value, mean, factor));
}

/// Grey at 0, unchanged at 1.
pub(super) fn saturation(image: &mut [u8], factor: f32) {
    for pixel in image.chunks_exact_mut(3) {
        let grey = f32::from(grey(pixel));
        pixel.iter_mut().for_each(|value| *value = blend(*value, grey, factor));
    }
}

/// Smoothed at 0, unchanged at 1, sharper above. Edge pixels are unchanged.
pub(super) fn sharpness(image: &mut [u8], size: Size, factor: f32) {
    let Size { height, width } = size;
    let before = image.to_vec();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            for c in 0..3 {
                let at = |y: usize, x: usize| u32::from(before[3 * (y * width + x) + c]);
                let around: u32 = (y - 1..=y + 1).flat_map(|y| (x - 1..=x + 1).map(move |x| at(y, x))).sum();
                let smooth = ((around + 4 * at(y, x)) as f32 / 13.0).round();
                image[3 * (y * width + x) + c] = blend(before[3 * (y * width + x) + c], smooth, factor);
            }
        }
    }
}

/// Keeps the `bits` highest bits of every value.
pub(super) fn posterize(image: &mut [u8], bits: u32) {
    let mask = u8::MAX << (8 - bits.clamp(1, 8));
    image.iter_mut().for_each(|value| *value &= mask);
}

/// Inverts values of at least `threshold`.
pub(super) fn solarize(image: &mut [u8], threshold: f64) {
    let invert = |value: &mut u8| {
        if f64::from(*value) >= threshold {
            *value = 255 - *value;
        }
    };
    image.iter_mut().for_each(invert);
}

/// Stretches each channel to the full range.
pub(super) fn autocontrast(image: &mut [u8]) {
    each_channel(image, |counts| {
        let low = counts.iter().position(|&n| n > 0)?;
        let high = counts.iter().rposition(|&n| n > 0).filter(|&high| high > low)?;
        let scale = 255.0 / (high - low) as f32;
        Some(std::array::from_fn(|v| ((v as f32 - low as f32) * scale).round().clamp(0.0, 255.0) as u8))
    });
}

/// Spreads each channel's values evenly over the range.
pub(super) fn equalize(image: &mut [u8]) {
    each_channel(image, |counts| {
        let last = counts.iter().rposition(|&n| n > 0)?;
        let step = counts[..last].iter().sum::<usize>() / 255;
        if step == 0 {
            return None;
        }
        let mut sum = step / 2;
        Some(std::array::from_fn(|v| {
            let value = (sum / step).min(255) as u8;
            sum += counts[v];
            value
        }))
    });
}

/// Looks every value up in a table made from its channel's histogram; `None` leaves the channel as it is.
fn each_channel(image: &mut [u8], table: impl Fn(&[usize; 256]) -> Option<[u8; 256]>) {
    for c in 0..3 {
        let mut counts = [0; 256];
        image.iter().skip(c).step_by(3).for_each(|&value| counts[usize::from(value)] += 1);
        if let Some(table) = table(&counts) {
            image.iter_mut().skip(c).step_by(3).for_each(|value| *value = table[usize::from(*value)]);
        }
    }
}
