//! Images that occur in two splits: accuracy on them says nothing about new images.

use super::{Dataset, Split};
use rayon::prelude::*;
use std::collections::HashMap;

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
        let (train, val, test) = (
            hashed("train", Some(&self.train)),
            hashed("val", self.val.as_ref()),
            hashed("test", self.test.as_ref()),
        );
        [(&val, &train), (&test, &train), (&test, &val)].into_iter().filter_map(overlap).collect()
    }
}

/// A split's name, its images and their hashes, if it exists.
type Hashed<'a> = Option<(&'static str, &'a Split, Vec<[u8; 32]>)>;

fn hashed<'a>(name: &'static str, split: Option<&'a Split>) -> Hashed<'a> {
    let split = split?;
    let images = (0..split.len()).into_par_iter();
    Some((name, split, images.map(|i| *blake3::hash(split.images.get(i)).as_bytes()).collect()))
}

fn overlap((one, two): (&Hashed<'_>, &Hashed<'_>)) -> Option<Overlap> {
    let ((split, one, hashes), (other, two, others)) = (one.as_ref()?, two.as_ref()?);
    let known: HashMap<&[u8; 32], usize> =
        others.iter().enumerate().rev().map(|(i, hash)| (hash, i)).collect();
    let twins: Vec<(usize, usize)> =
        hashes.iter().enumerate().filter_map(|(i, hash)| Some((i, *known.get(hash)?))).collect();
    let &(first, twin) = twins.first()?;
    let (first, twin) = (one.files[first].clone(), two.files[twin].clone());
    Some(Overlap { split, other, count: twins.len(), of: one.len(), first, twin })
}
