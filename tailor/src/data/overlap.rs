//! Images that occur in two splits: accuracy on them says nothing about new images.

use super::{Dataset, Split};
use rayon::prelude::*;
use std::collections::HashMap;
use std::fmt;

/// Images of one split that also occur in another, pixel for pixel at the size they were read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The split.
    pub split: &'static str,
    /// The other split.
    pub other: &'static str,
    /// Number of images of `split` that also occur in `other`.
    pub count: usize,
    /// Number of images in `split`.
    pub of: usize,
    /// Path of the first of them, below the data set's root.
    pub first: String,
    /// Its twin in the other split.
    pub twin: String,
}

impl Dataset {
    /// Images of `val` and `test` that also occur in `train`, and those of `test` that also occur in `val`.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let train = Some(hashed("train", &self.train));
        let val = self.val.as_ref().map(|val| hashed("val", val));
        let test = self.test.as_ref().map(|test| hashed("test", test));
        let pairs = [(&val, &train), (&test, &train), (&test, &val)];
        pairs.into_iter().filter_map(|(one, two)| overlap(one.as_ref()?, two.as_ref()?)).collect()
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overlap { split, other, count, of, first, twin } = self;
        write!(
            f,
            "{count} of {of} images of {split} also occur in {other}, the first {first} (as {twin}): accuracy on \
             them says little about new images"
        )
    }
}

/// Identifies an image by its pixels.
pub(super) type Hash = [u8; 32];

/// The hash of every image of `split`.
pub(super) fn hashes(split: &Split) -> Vec<Hash> {
    let images = (0..split.len()).into_par_iter();
    images.map(|i| *blake3::hash(split.images.get(i)).as_bytes()).collect()
}

/// A split's name, its images and their hashes.
pub(super) type Hashed<'a> = (&'static str, &'a Split, Vec<Hash>);

fn hashed<'a>(name: &'static str, split: &'a Split) -> Hashed<'a> {
    (name, split, hashes(split))
}

/// The images of `one` that also occur in `two`, if there are any.
pub(super) fn overlap(one: &Hashed<'_>, two: &Hashed<'_>) -> Option<Overlap> {
    let ((split, one, hashes), (other, two, others)) = (one, two);
    let known: HashMap<&Hash, usize> = others.iter().enumerate().rev().map(|(i, hash)| (hash, i)).collect();
    let twins: Vec<(usize, usize)> =
        hashes.iter().enumerate().filter_map(|(i, hash)| Some((i, *known.get(hash)?))).collect();
    let &(first, twin) = twins.first()?;
    let (first, twin) = (one.files[first].clone(), two.files[twin].clone());
    Some(Overlap { split, other, count: twins.len(), of: one.len(), first, twin })
}
