//! TensorBoard's event files: length-prefixed records with masked CRC-32C, each an `Event` message.
//!
//! The two crates that write them have had no release for years and require a protobuf compiler; scalars need
//! only what is in this file. Field numbers are those of TensorBoard's `event.proto` and `summary.proto`.

use crc32c::crc32c;

/// The record that opens a file.
pub(super) fn opening(time: f64) -> Vec<u8> {
    let mut event = wall_time(time);
    bytes(&mut event, 3, b"brain.Event:2");
    record(&event)
}

/// One record with the value of every tag at `step`.
pub(super) fn scalars(time: f64, step: usize, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for &(tag, value) in values {
        let mut entry = Vec::new();
        bytes(&mut entry, 1, tag.as_bytes());
        key(&mut entry, 2, FIXED32);
        entry.extend((value as f32).to_le_bytes());
        bytes(&mut summary, 1, &entry);
    }
    let mut event = wall_time(time);
    key(&mut event, STEP, VARINT);
    varint(&mut event, step as u64);
    bytes(&mut event, 5, &summary);
    record(&event)
}

/// The leading complete records of `file` up to step `step`.
pub(super) fn rewound(file: &[u8], step: usize) -> &[u8] {
    let mut end = 0;
    while let Some((event, length)) = next(&file[end..]) {
        if step_of(event).is_some_and(|at| at > step as u64) {
            break;
        }
        end += length;
    }
    &file[..end]
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// Field of an event that holds its step.
const STEP: u64 = 2;

/// Bytes of a record before the event (length and its checksum) and after it (the event's checksum).
const HEAD: usize = 12;
const TAIL: usize = 4;

fn wall_time(time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, FIXED64);
    event.extend(time.to_le_bytes());
    event
}

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), event, &masked(event)].concat()
}

/// The masked checksum, which stays meaningful for data that contains checksums itself.
fn masked(data: &[u8]) -> [u8; 4] {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn key(out: &mut Vec<u8>, field: u64, kind: u64) {
    varint(out, field << 3 | kind);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, data: &[u8]) {
    key(out, field, DELIMITED);
    varint(out, data.len() as u64);
    out.extend(data);
}

/// The first event of `file` and the length of its record; `None` at the end or if the record is damaged.
fn next(file: &[u8]) -> Option<(&[u8], usize)> {
    let length = file.get(..8)?;
    let size = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let total = size.checked_add(HEAD + TAIL)?;
    let event = file.get(HEAD..HEAD.checked_add(size)?)?;
    let whole = file.get(8..HEAD)? == masked(length) && file.get(HEAD + size..total)? == masked(event);
    whole.then_some((event, total))
}

/// The step of an event written by [`scalars`]: the field after the wall time.
fn step_of(event: &[u8]) -> Option<u64> {
    let mut rest = event.get(9..)?.iter();
    if u64::from(*rest.next()?) != (STEP << 3 | VARINT) {
        return None;
    }
    let mut step = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.next()?;
        step |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(step);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut file = opening(1.5e9);
        for (step, loss) in [(1, 2.5), (2, 1.25), (300, 0.125)] {
            file.extend(scalars(1.5e9 + step as f64, step, &[("loss", loss), ("accuracy/val", 1.0 - loss)]));
        }
        file
    }

    /// `fixtures/scalars.py` writes the same file with TensorBoard's own writer.
    #[test]
    fn events_are_those_tensorboard_writes() {
        assert_eq!(file(), include_bytes!("../../fixtures/scalars.tfevents"));
    }

    #[test]
    fn a_file_is_cut_behind_the_step_asked_for_and_before_damage() {
        let whole = file();
        let ends: Vec<usize> = {
            let mut ends = vec![0];
            while let Some((_, length)) = next(&whole[ends[ends.len() - 1]..]) {
                ends.push(ends[ends.len() - 1] + length);
            }
            ends
        };
        assert_eq!(ends.len(), 5);
        for (step, records) in [(0, 1), (1, 2), (2, 3), (299, 3), (300, 4), (1000, 4)] {
            assert_eq!(rewound(&whole, step).len(), ends[records], "step {step}");
        }
        for cut in 0..whole.len() {
            let kept = rewound(&whole[..cut], 1000).len();
            assert_eq!(kept, *ends.iter().rfind(|&&end| end <= cut).unwrap(), "cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[ends[2] + HEAD + 20] ^= 1;
        assert_eq!(rewound(&damaged, 1000).len(), ends[2]);
    }
}
