//! Damage: every truncation and every flipped bit is detected, with the right kind of error.

use crate::Error;
use crate::container::testing::{Rng, tiny_backbone, tiny_task};
use crate::container::*;
use crate::plan::Owner;
use std::sync::Arc;

fn examine(bytes: &[u8]) -> Result<(), Error> {
    Bundle::parse(bytes)?.verify_sections()
}

fn samples() -> [(&'static str, Vec<u8>); 4] {
    let key = [SigningKey::from_seed([1; 32])];
    [
        ("signed task", tiny_task().finish(&key).unwrap()),
        ("unsigned task", tiny_task().finish_unsigned().unwrap()),
        ("development backbone", tiny_backbone().finish(&[]).unwrap()),
        ("task signed twice", tiny_task().finish(&[SigningKey::from_seed([2; 32]), key[0].clone()]).unwrap()),
    ]
}

#[test]
fn a_file_cut_at_any_byte_is_truncated() {
    for (name, bytes) in samples() {
        examine(&bytes).unwrap();
        for n in 0..bytes.len() {
            let error = examine(&bytes[..n]).unwrap_err();
            assert!(matches!(error, Error::Truncated { .. }), "{name} cut at {n}: {error}");
            assert_eq!(error.exit_code(), 3);
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    for (name, good) in samples() {
        let bundle = Bundle::parse(&good).unwrap();
        let slots = bundle.slots_range();
        let group = bundle.block_range(&bundle.manifest().blocks[0]).start;
        let mut decoder = Decoder::new().unwrap();
        let again = Bundle::parse_known(good[..].into(), Some(bundle.header()), &mut decoder).unwrap();
        assert!(Arc::ptr_eq(again.header(), bundle.header()));
        assert_eq!(Header::stated_digest(&good[..].into()), Some(bundle.digest()));
        let is = |bytes: &[u8]| again.header().is_of(&bytes.into());
        assert!(!is(&good[1..]) && !is(&[&good[..], &[0]].concat()));
        let mut bytes = good.clone();
        for bit in 0..good.len() * 8 {
            let at = bit / 8;
            bytes[at] ^= 1 << (bit % 8);
            let error = examine(&bytes).err().unwrap_or_else(|| panic!("{name}: bit {bit} went unnoticed"));
            let right = match at {
                0..8 => matches!(error, Error::BadMagic { .. }),
                8..10 | 24..32 => matches!(error, Error::Unsupported { .. }),
                16..24 => matches!(error, Error::Truncated { .. } | Error::Corrupt { .. }),
                12..16 | 32..36 => matches!(
                    error,
                    Error::TooLarge { .. }
                        | Error::Truncated { .. }
                        | Error::HashMismatch { .. }
                        | Error::Corrupt { .. }
                ),
                _ if slots.contains(&at) => {
                    matches!(error, Error::BadSignature { .. } | Error::Corrupt { .. })
                }
                _ if at < slots.start => matches!(error, Error::HashMismatch { .. }),
                _ if at < group => matches!(error, Error::Corrupt { .. }),
                _ => matches!(error, Error::HashMismatch { .. } | Error::Corrupt { .. }),
            };
            assert!(right, "{name}, bit {bit}: {error:?}");
            assert_eq!(is(&bytes), at >= group, "{name}, bit {bit}");
            assert_eq!(error.exit_code(), if matches!(error, Error::Unsupported { .. }) { 4 } else { 3 });
            bytes[at] ^= 1 << (bit % 8);
        }
    }
}

/// A section is verified when decoded, even if the whole file was not.
#[test]
fn decoding_finds_damage_without_verify_sections() {
    let mut writer = tiny_task();
    writer.tensor_f32("fc.weight#large", Owner::Task, &[1 << 15], &Rng(4).weights(1 << 15)).unwrap();
    let mut bytes = writer.finish(&[]).unwrap();
    let blocks = {
        let bundle = Bundle::parse(&bytes).unwrap();
        bundle.manifest().blocks.iter().map(|block| bundle.block_range(block)).collect::<Vec<_>>()
    };
    assert_eq!(blocks.len(), 2);
    let of = [("bn1.scale to fc.bias", "fc.weight#shuffled"), ("tensor fc.weight#large", "fc.weight#large")];
    for (i, range) in blocks.into_iter().enumerate() {
        let (what, damaged) = of[i];
        for at in range.clone().step_by(range.len().div_ceil(400)).chain([range.end - 1]) {
            bytes[at] ^= 0x10;
            let bundle = Bundle::parse(&bytes).unwrap();
            let section = bundle.section(damaged).unwrap();
            let mut out = vec![1; section.raw_len as usize];
            let error = bundle.decode_into(section, &mut out).unwrap_err();
            assert!(
                matches!(error, Error::HashMismatch { .. }) && error.to_string().contains(what),
                "{error}"
            );
            assert!(out.iter().all(|byte| *byte == 0), "nothing of it is left behind");
            assert!(bundle.decode_f32(of[1 - i].1).is_ok(), "an undamaged neighbour");
            bytes[at] ^= 0x10;
        }
    }
}
