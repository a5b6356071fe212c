//! Attacks through compression: bombs, invalid frames, and manifests that lie about their length.

use super::attacks::{lawful, message};
use crate::Error;
use crate::container::frame::Contents;
use crate::container::testing::{Rng, forge, forge_stored, tiny_task};
use crate::container::*;
use crate::plan::{Cell, Gate, Op, Owner, Path, TensorSpec};

/// A file whose only block is `frame`, which allegedly holds just `fc.weight#shuffled`, of `elements` f32.
fn of_frame(frame: &[u8], elements: usize) -> Vec<u8> {
    let (mut m, mut group) = lawful();
    m.sections[2].shape = vec![elements];
    let stored = m.blocks[0].stored_len;
    m.blocks = (0..7)
        .map(|i| match i {
            2 => Block::new(Codec::Zstd, 2..3, frame.len() as u64, blake3::hash(frame).into()),
            _ => Block::new(Codec::Raw, i..i + 1, 0, [0; 32]),
        })
        .collect();
    assert_eq!(group.len() as u64, stored);
    group.clear();
    for (i, section) in m.sections.iter().enumerate() {
        match i {
            2 => group.extend_from_slice(frame),
            _ => group.resize(group.len() + section.raw_len as usize, 0),
        }
    }
    forge(&m, &group)
}

/// 1 GiB of zeros packs to 34 KB. The manifest is signed and consistent; only the compression ratio is
/// suspicious.
#[test]
fn zip_bomb_of_zeros() {
    let packed = frame::pack("bomb", Contents::Numbers, &[&vec![0; 1 << 24]]).unwrap();
    assert!(packed.len() < 1 << 12);
    let bomb = of_frame(&packed, 1 << 28);
    let outcome = Bundle::parse(&bomb);
    assert!(matches!(outcome, Err(Error::TooLarge { size: 0x4000_0000, .. })), "{outcome:?}");
}

/// Reading one tensor of a block of several decompresses at most 1 MiB.
#[test]
fn a_block_that_gathers_too_much() {
    let (mut m, _) = lawful();
    m.sections[2].shape = vec![1 << 18];
    let stored = vec![0; 1 << 15];
    m.blocks[0].stored_len = stored.len() as u64;
    let file = forge(&m, &stored);
    let outcome = Bundle::parse(&file);
    assert!(matches!(outcome, Err(Error::TooLarge { limit: 0x10_0000, .. })), "{outcome:?}");
}

/// The frame holds more (or less) than the manifest states: decoding stops at the stated length.
#[test]
fn zip_bomb_behind_a_modest_promise() {
    for contents in [vec![0; 1 << 24], vec![0; 7], Vec::new()] {
        let file = of_frame(&frame::pack("bomb", Contents::Numbers, &[&contents]).unwrap(), 2);
        let bundle = Bundle::parse(&file).unwrap();
        let mut out = [7; 8];
        let section = bundle.section("fc.weight#shuffled").unwrap();
        let error = bundle.decode_into(section, &mut out).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert_eq!(out, [0; 8], "nothing of it is left behind");
        let mut out = [7.0; 2];
        Decoder::new().unwrap().decode_f32_into(&bundle, section, &mut out).unwrap_err();
        assert_eq!(out, [0.0; 2], "nothing of it is left behind");
    }
}

/// Hashed and signed, but not valid frames.
#[test]
fn invalid_frames() {
    let numbers: Vec<u8> = (0..=255).collect();
    let good = frame::pack("numbers", Contents::Numbers, &[&numbers]).unwrap();
    let decode = |frame: &[u8]| {
        let file = of_frame(frame, 64);
        Bundle::parse(&file).unwrap().decode_f32("fc.weight#shuffled").map(drop)
    };
    decode(&good).unwrap();
    let mut other = good.clone();
    other[0] ^= 1;
    for frame in [&other[..], &good[..good.len() - 1], &good[..4], &numbers, &[]] {
        let error = decode(frame).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn zeros_that_compress_too_well_are_stored_raw() {
    let mut w = tiny_task();
    w.tensor_f32("fc.weight#zeros", Owner::Task, &[1 << 18], &vec![0.0; 1 << 18]).unwrap();
    let bytes = w.finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    assert_eq!(bundle.manifest().blocks.len(), 2);
    assert_eq!(bundle.manifest().blocks[1].codec, Codec::Raw);
    assert_eq!(bundle.decode_f32("fc.weight#zeros").unwrap(), vec![0.0; 1 << 18]);
}

/// An invalid frame, a frame of another length, and one that exceeds the compression limit.
#[test]
fn compressed_manifests_that_lie() {
    let (manifest, _) = lawful();
    let bytes = manifest.to_bytes().unwrap();
    let good = frame::pack("manifest", Contents::Text, &[&bytes]).unwrap();
    assert!(good.len() < bytes.len());
    let parse = |stored: &[u8], claimed| {
        let file = forge_stored(Kind::Task, stored, claimed);
        Bundle::parse(&file).map(drop)
    };
    // The manifest parses; the blocks are missing.
    assert!(message(parse(&good, bytes.len())).contains("end of its last section"));
    assert!(message(parse(&bytes, bytes.len())).contains("end of its last section"));
    assert!(message(parse(&good, bytes.len() - 1)).contains("compressed manifest"));
    assert!(message(parse(&good, bytes.len() + 1)).contains("compressed manifest"));
    assert!(message(parse(&good, good.len() - 1)).contains("at least"));
    assert!(message(parse(&good[1..], bytes.len())).contains("compressed manifest"));
    assert!(message(parse(&[], bytes.len())).contains("compressed manifest"));
    // 1 MiB of zeros in a few dozen bytes.
    let bomb = frame::pack("manifest", Contents::Text, &[&vec![0; 1 << 20]]).unwrap();
    assert!(matches!(parse(&bomb, 1 << 20), Err(Error::TooLarge { .. })));
    assert!(message(parse(&bomb, 4096)).contains("compressed manifest"));
    let mut rng = Rng(3);
    for _ in 0..2000 {
        let mut damaged = good.clone();
        let at = rng.below(damaged.len());
        damaged[at] ^= 1 << rng.below(8);
        let (len, other) = (bytes.len(), rng.below(4096));
        for claimed in [len, damaged.len() + other] {
            assert!(parse(&damaged, claimed).is_err());
        }
    }
}

/// The smallest encoding of each manifest element, and the most memory it takes while it is read and checked,
/// as guaranteed by `Bundle::parse`.
#[test]
fn memory_per_manifest_byte_is_bounded() {
    // A list grows by doubling; a short text costs the allocator as much as this.
    let grown = |size: usize| 3 * size;
    let text = 32;
    let spec = size_of::<TensorSpec>() + 2 * text;
    let cases = [
        ("ReLU", 1, size_of::<Op>() + 2 * size_of::<TensorSpec>()),
        ("affine", 4, size_of::<Op>() + text + 2 * spec),
        ("path", 1, size_of::<Path>()),
        ("gate", 4, grown(size_of::<Gate>())),
        ("cell", 2, grown(size_of::<Cell>()) + spec),
        ("label", 2, grown(size_of::<String>()) + text),
        ("golden vector", 13, grown(size_of::<Golden>()) + text),
        ("fact", 3, grown(size_of::<(String, String)>()) + 2 * text),
        ("section", 6, grown(size_of::<Section>()) + 3 * text),
        ("block", 33, grown(size_of::<Block>())),
    ];
    for (what, encoded, held) in cases {
        assert!(held <= 256 * encoded, "{what}: {held} bytes for {encoded}");
    }
}

/// Contents that exceed the compression limit are written uncompressed.
#[test]
fn a_monotonous_manifest_can_be_read() {
    let mut w = tiny_task();
    for i in 0..40 {
        w.fact(format!("note{i}"), "x".repeat(4000));
    }
    let bytes = w.finish(&[]).unwrap();
    assert!(bytes.len() > 160_000);
    assert_eq!(Bundle::parse(&bytes).unwrap().manifest().fact("note39").unwrap().len(), 4000);
}
