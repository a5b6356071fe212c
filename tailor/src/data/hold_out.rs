//! A validation split held out of the training images.

use super::overlap::{Hash, hashes, overlap};
use super::{Overlap, Split};
use crate::{Error, Result, random::Random};
use std::collections::{BTreeMap, HashMap};

/// Training images divided into two.
#[derive(Debug)]
pub struct HeldOut {
    /// The images that remain.
    pub train: Split,
    /// The images held out.
    pub val: Split,
    /// Held-out images that also occur among those that remain, which is possible only under another class or
    /// where all images of a class are the same.
    pub overlap: Option<Overlap>,
}

/// Holds out `fraction` of every class of `train`, rounded, but at least one image of every class stays on each
/// side. Identical images of a class stay together, so that fewer may be held out, or more if there are that many
/// of each. The choice is a function of `seed` and the files' order.
///
/// Images are drawn at random within a class. If several images show the same object (frames of one track),
/// put whole tracks into `val/` instead, or validation will be optimistic.
///
/// # Errors
/// [`Error::Config`] for a fraction outside 0..1, [`Error::Data`] for a class with a single image.
pub fn hold_out(train: Split, fraction: f64, seed: u64) -> Result<HeldOut> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::config(format!("--validation {fraction}"), "must be between 0 and 1, exclusive"));
    }
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, &label) in train.labels.iter().enumerate() {
        members.entry(label).or_default().push(i);
    }
    let hashes = hashes(&train);
    let (mut kept, mut held) = (Vec::new(), Vec::new());
    for (label, mut indices) in members {
        if let [only] = indices[..] {
            return Err(lone(&train.files[only]));
        }
        Random::new(&[seed, HOLD_OUT, u64::from(label)]).shuffle(&mut indices);
        let count = ((indices.len() as f64 * fraction).round() as usize).clamp(1, indices.len() - 1);
        let (some, others) = sides(indices, count, &hashes);
        held.extend(some);
        kept.extend(others);
    }
    kept.sort_unstable();
    held.sort_unstable();
    let of = |indices: &[usize]| indices.iter().map(|&i| hashes[i]).collect::<Vec<Hash>>();
    let (val, rest) = (train.gather(&held), train.gather(&kept));
    let overlap =
        overlap(&("the held-out part of train", &val, of(&held)), &("the rest of it", &rest, of(&kept)));
    Ok(HeldOut { train: rest, val, overlap })
}

/// Divides `indices` into `count`, the first ones, and the others. Identical images stay on one side: they are
/// held out only if all of them fit into `count`, or if nothing else does. If all are identical, they are
/// divided as if they were not.
fn sides(indices: Vec<usize>, count: usize, hashes: &[Hash]) -> (Vec<usize>, Vec<usize>) {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<Hash, usize> = HashMap::new();
    for &i in &indices {
        let group = *known.entry(hashes[i]).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    if groups.len() == 1 {
        let (some, others) = indices.split_at(count);
        return (some.to_vec(), others.to_vec());
    }
    let (mut some, mut others) = (Vec::new(), Vec::new());
    for group in groups {
        match some.len() + group.len() <= count {
            true => some.extend(group),
            false => others.push(group),
        }
    }
    if some.is_empty()
        && let Some(smallest) = (0..others.len()).min_by_key(|&i| others[i].len())
    {
        some = others.swap_remove(smallest);
    }
    (some, others.concat())
}

/// The error for a class whose only image is at `place`.
pub(super) fn lone(place: &str) -> Error {
    let want = "at least two are needed, one for training and one for validation; or add a val/ folder";
    Error::data(place, "the only image of its class", want)
}

/// Keeps this random stream independent of the loader's.
const HOLD_OUT: u64 = 0x686f_6c64;
