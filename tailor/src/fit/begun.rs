//! Checks a work folder for runs that were started with other options. Fingerprints of the checkpoints are
//! enough for that: no image is read.

use super::stages::{STUDENT, TEACHER};
use super::{Recipe, Work};
use crate::data::{Size, digest_of};
use crate::source::Source;
use crate::train::{Checkpoint, differences};
use crate::{Error, Result};
use bundles::container::hex;
use std::path::Path;

/// What identifies a run besides its recipe and the images themselves.
pub(crate) fn about(source: &Source, size: Size, classes: &[String]) -> String {
    let (id, count, names) = (hex(&source.id[..8]), classes.len(), digest_of(classes));
    let Source { mean, std, .. } = source;
    let Size { width, height } = size;
    format!("backbone {id} mean {mean:?} std {std:?} {width}x{height} {count} classes {names}")
}

/// The error for a finished result at `path` of a run with other options, given the identities of that run
/// and of this one.
pub(crate) fn made_otherwise(path: &Path, there: &str, here: &str) -> Error {
    let differences = differences(there, here);
    Error::training(
        path.display(),
        format!("made with other options or images, or by another version{differences}"),
        "repeat its options, remove its folder, or choose another work folder",
    )
}

/// Refuses checkpoints in `work` that belong to a different backbone, different classes or a different
/// recipe. Whether the images match is checked later, by training itself.
///
/// # Errors
/// [`crate::Error::Training`] naming the checkpoint.
pub fn refuse_others(
    work: &Work,
    source: &Source,
    size: Size,
    classes: &[String],
    recipe: &Recipe,
) -> Result<()> {
    let about = about(source, size, classes);
    let mut stages = vec![
        (TEACHER.to_string(), recipe.teacher_fingerprint()),
        (STUDENT.to_string(), recipe.student_fingerprint()),
    ];
    let mut dropped = 0;
    // Most searches start with no block dropped. Where there is a gap, training itself checks the candidates
    // behind it.
    loop {
        let stage = recipe.candidate_stage(dropped);
        if !work.checkpoint(&stage).exists() {
            break;
        }
        let fingerprint = recipe.candidate_fingerprint(&stage, &recipe.retrain);
        stages.push((stage, fingerprint));
        dropped += 1;
    }
    for (stage, fingerprint) in stages {
        let path = work.checkpoint(&stage);
        if let Some(found) = Checkpoint::peek(&path)? {
            found.check(&path, &about, &fingerprint)?;
        }
    }
    Ok(())
}
