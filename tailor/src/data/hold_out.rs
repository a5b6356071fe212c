//! A validation split held out of the training images.

use super::Split;
use crate::{Error, Result, random::Random};
use std::collections::BTreeMap;

/// Splits `train` into (remaining, held out). Holds out `fraction` of every class, rounded, but at least one
/// image of every class stays on each side. The choice is a function of `seed` and the files' order.
///
/// Images are drawn at random within a class. If several images show the same object (frames of one track),
/// put whole tracks into `val/` instead, or validation will be optimistic.
///
/// # Errors
/// [`Error::Config`] for a fraction outside 0..1, [`Error::Data`] for a class with a single image.
pub fn hold_out(train: Split, fraction: f64, seed: u64) -> Result<(Split, Split)> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::config(format!("--validation {fraction}"), "must be between 0 and 1, exclusive"));
    }
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, &label) in train.labels.iter().enumerate() {
        members.entry(label).or_default().push(i);
    }
    let (mut kept, mut held) = (Vec::new(), Vec::new());
    for (label, mut indices) in members {
        if let [only] = indices[..] {
            return Err(lone(&train.files[only]));
        }
        Random::new(&[seed, HOLD_OUT, u64::from(label)]).shuffle(&mut indices);
        let count = ((indices.len() as f64 * fraction).round() as usize).clamp(1, indices.len() - 1);
        held.extend_from_slice(&indices[..count]);
        kept.extend_from_slice(&indices[count..]);
    }
    kept.sort_unstable();
    held.sort_unstable();
    Ok((train.gather(&kept), train.gather(&held)))
}

/// The error for a class whose only image is at `place`.
pub(super) fn lone(place: &str) -> Error {
    let want = "at least two are needed, one for training and one for validation; or add a val/ folder";
    Error::data(place, "the only image of its class", want)
}

/// Keeps this random stream independent of the loader's.
const HOLD_OUT: u64 = 0x686f_6c64;
