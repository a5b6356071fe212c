//! Damage: every truncation and every flipped bit is found, by the right kind of error.

use crate::Error;
use crate::container::testing::{tiny_backbone, tiny_task};
use crate::container::*;
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
        let group = bundle.file_range(&bundle.manifest().sections[0]).unwrap().start;
        let again = Bundle::parse_known(&good, Some(bundle.header())).unwrap();
        assert!(Arc::ptr_eq(again.header(), bundle.header()));
        assert_eq!(Header::stated_digest(&good), Some(bundle.digest()));
        assert!(!again.header().is_of(&good[1..]) && !again.header().is_of(&[&good[..], &[0]].concat()));
        let mut bytes = good.clone();
        for bit in 0..good.len() * 8 {
            let at = bit / 8;
            bytes[at] ^= 1 << (bit % 8);
            let error = examine(&bytes).err().unwrap_or_else(|| panic!("{name}: bit {bit} went unnoticed"));
            let right = match at {
                0..8 => matches!(error, Error::BadMagic { .. }),
                8..10 | 24..32 => matches!(error, Error::Unsupported { .. }),
                16..24 => matches!(error, Error::Truncated { .. } | Error::Corrupt { .. }),
                12..16 => matches!(
                    error,
                    Error::TooLarge { .. } | Error::Truncated { .. } | Error::HashMismatch { .. }
                ),
                _ if slots.contains(&at) => {
                    matches!(error, Error::BadSignature { .. } | Error::Corrupt { .. })
                }
                _ if at < slots.start => matches!(error, Error::HashMismatch { .. }),
                _ if at < group => matches!(error, Error::Corrupt { .. }),
                _ => matches!(error, Error::HashMismatch { .. } | Error::Corrupt { .. }),
            };
            assert!(right, "{name}, bit {bit}: {error:?}");
            assert_eq!(bundle.header().is_of(&bytes), at >= group, "{name}, bit {bit}");
            assert_eq!(error.exit_code(), if matches!(error, Error::Unsupported { .. }) { 4 } else { 3 });
            bytes[at] ^= 1 << (bit % 8);
        }
    }
}

/// A section is checked on its way out even if nobody asked for a check of the whole file.
#[test]
fn decoding_finds_damage_without_verify_sections() {
    let mut bytes = tiny_task().finish(&[]).unwrap();
    let range = {
        let bundle = Bundle::parse(&bytes).unwrap();
        bundle.file_range(bundle.section("fc.weight#shuffled").unwrap()).unwrap()
    };
    for at in range {
        bytes[at] ^= 0x10;
        let bundle = Bundle::parse(&bytes).unwrap();
        let mut out = vec![1; 1024];
        let error = bundle.decode_into(bundle.section("fc.weight#shuffled").unwrap(), &mut out).unwrap_err();
        assert!(
            matches!(error, Error::HashMismatch { .. }) && error.to_string().contains("shuffled"),
            "{error}"
        );
        assert!(bundle.decode_f32("fc.weight#repeated").is_ok(), "an undamaged neighbour");
        bytes[at] ^= 0x10;
    }
}
