//! Divides the training images of a set into those to train on and those to validate on.

use super::{HeldOut, Split, hold_out};
use crate::Result;
use crate::output::note_once;

/// The images of `train` to train on, and those [held out](hold_out()) of them. Says on stderr if some of the latter
/// also occur among the former, in the set found at `place`.
///
/// # Errors
/// As [`hold_out`](hold_out()).
pub(crate) fn divide(place: &str, train: Split, fraction: f64, seed: u64) -> Result<(Split, Split)> {
    let HeldOut { train, val, overlap } = hold_out(train, fraction, seed)?;
    if let Some(overlap) = overlap {
        note_once(format!("tailor: {place}: {overlap}"));
    }
    Ok((train, val))
}
