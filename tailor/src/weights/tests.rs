//! Small files written by PyTorch, truncated at every byte and with many bits flipped, and malicious pickles.

use super::*;

const ZIP: &[u8] = include_bytes!("fixtures/zip.pt");
const LEGACY: &[u8] = include_bytes!("fixtures/legacy.pt");
const NO_TENSORS: &[u8] = include_bytes!("fixtures/no-tensors.pt");
const MODULE: &[u8] = include_bytes!("fixtures/module.pt");

fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor { shape: shape.to_vec(), data: data.to_vec() }
}

fn message(bytes: &[u8]) -> String {
    let fault = parse(bytes).expect_err("refused");
    format!("{}; {}", fault.found, fault.want)
}

#[test]
fn both_layouts_of_pytorch_give_the_same_tensors() {
    let ramp: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let halves: Vec<f32> = ramp.iter().map(|v| v / 2.0).collect();
    let want = [
        ("brain.weight", tensor(&[2], &[0.5, -2.0])),
        ("conv.bias", tensor(&[2], &[1.0, -1.0])),
        ("conv.weight", tensor(&[2, 3, 2, 2], &halves)),
        ("double.weight", tensor(&[1], &[0.25])),
        ("half.weight", tensor(&[2], &[0.5, -2.0])),
        ("part.weight", tensor(&[4], &ramp[4..8])),
        ("steps", tensor(&[], &[7.0])),
        ("turned.weight", tensor(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])),
    ];
    let want = BTreeMap::from(want.map(|(name, tensor)| (name.to_owned(), tensor)));
    for bytes in [ZIP, LEGACY] {
        assert_eq!(parse(bytes).unwrap().tensors, want);
    }
}

#[test]
fn safetensors_come_with_their_metadata() {
    let header =
        br#"{"__metadata__":{"mean":"0.5"},"fc.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend([1.0f32, -2.0].map(f32::to_le_bytes).concat());
    let dict = parse(&bytes).unwrap();
    assert_eq!(dict.tensors["fc.bias"], tensor(&[2], &[1.0, -2.0]));
    assert_eq!(dict.metadata["mean"], "0.5");
    for cut in 0..bytes.len() {
        assert!(parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn files_without_a_state_dict_are_described() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: [(&[u8], &str); 7] = [
        (b"", "empty file"),
        (b"GIF89a, no weights at all", "neither safetensors nor a PyTorch file"),
        (&tar, "tar checkpoint"),
        (NO_TENSORS, "its keys are: epoch, best"),
        (MODULE, "whole pickled object (torch.nn.modules.linear Linear)"),
        (b"\x80\x02K\x01.", "torch.save did not write"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "without data.pkl"),
    ];
    for (bytes, want) in cases {
        let message = message(bytes);
        assert!(message.contains(want), "{want}: {message}");
    }
}

#[test]
fn every_cut_is_refused_and_no_flip_panics() {
    for bytes in [ZIP, LEGACY] {
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut flipped = bytes.to_vec();
        for at in 0..bytes.len() {
            for bit in [0x01, 0x10, 0x80] {
                flipped[at] ^= bit;
                let _ = parse(&flipped);
                flipped[at] ^= bit;
            }
        }
    }
}

/// A legacy file whose object is the given pickle, without storages.
fn legacy(object: &[u8]) -> Vec<u8> {
    [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.", object, b"\x80\x02]."]
        .concat()
}

#[test]
fn calls_are_recorded_and_never_made() {
    let harm = legacy(b"\x80\x02cposix\nsystem\n(S'touch /tmp/harm'\ntR.");
    assert!(message(&harm).contains("whole pickled object (posix system)"));
}

#[test]
fn small_pickles_stay_small() {
    // A claimed length of 2^63, a missing mark, an endless self-reference, 2^40 shared lists.
    let mut bomb = b"\x80\x02]q\x00".to_vec();
    for level in 1..=40u8 {
        bomb.extend_from_slice(&[b']', b'q', level, b'(', b'h', level - 1, b'h', level - 1, b'e']);
    }
    bomb.push(b'.');
    let mut nest = b"\x80\x02".to_vec();
    for _ in 0..100_000 {
        nest.extend_from_slice(b"}X\x05\0\0\0model");
    }
    nest.extend_from_slice(b"N");
    nest.extend([b's'; 100_000]);
    nest.push(b'.');
    // One list, used for the items of ten thousand dicts.
    let mut dicts = b"\x80\x02ccollections\nOrderedDict\nq\x01](".to_vec();
    (0..10_000).for_each(|_| dicts.extend_from_slice(b"K\x01K\x02\x86"));
    dicts.extend_from_slice(b"e\x85q\x02");
    (0..10_000).for_each(|_| dicts.extend_from_slice(b"h\x01h\x02R"));
    dicts.push(b'.');
    let message_of = message(&legacy(&dicts));
    assert!(message_of.contains("more dict items"), "{message_of}");
    let cases: [&[u8]; 6] = [
        b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
        b"\x80\x02te.",
        b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s.",
        b"\x80\x02K\x01a.",
        &bomb,
        &nest,
    ];
    for object in cases {
        assert!(parse(&legacy(object)).is_err());
    }
}

#[test]
fn tensors_stay_within_their_storage() {
    // A storage of 2 floats; offset, size and stride as given.
    let file = |offset: &str, size: &str, stride: &str| {
        let object = format!(
            "\u{0}}}X\u{1}\0\0\0wctorch._utils\n_rebuild_tensor\n((X\u{7}\0\0\0storagectorch\nFloatStorage\n\
             X\u{1}\0\0\0aX\u{3}\0\0\0cpuI2\nNtQ{offset}{size}{stride}tRs."
        );
        let mut bytes = legacy(&[b"\x80\x02", &object.as_bytes()[1..]].concat());
        bytes.truncate(bytes.len() - 4);
        bytes.extend_from_slice(b"\x80\x02](X\x01\0\0\0ae.");
        bytes.extend_from_slice(&2i64.to_le_bytes());
        bytes.extend([3.0f32, 4.0].map(f32::to_le_bytes).concat());
        bytes
    };
    let good = parse(&file("I0\n", "(I2\nt", "(I1\nt")).unwrap();
    assert_eq!(good.tensors["w"], tensor(&[2], &[3.0, 4.0]));
    let good = parse(&file("I1\n", "(t", "(t")).unwrap();
    assert_eq!(good.tensors["w"], tensor(&[], &[4.0]));
    let cases = [
        ("I1\n", "(I2\nt", "(I1\nt", "beyond its storage"),
        ("I0\n", "(I2\nt", "(I2\nt", "beyond its storage"),
        ("I0\n", "(I3\nt", "(I0\nt", "larger than its storage"),
        ("I0\n", "(I2\nI2\nt", "(I0\nI0\nt", "larger than its storage"),
        ("I0\n", "(I9223372036854775807\nI4\nt", "(I1\nI1\nt", "larger than its storage"),
        ("I0\n", "(I2\nt", "(I9223372036854775807\nt", "beyond its storage"),
        ("I-1\n", "(I1\nt", "(I1\nt", "no offset"),
        ("I0\n", "(I2\nt", "(t", "disagree"),
    ];
    for (offset, size, stride, want) in cases {
        let message = message(&file(offset, size, stride));
        assert!(message.contains(want) && message.contains("`w`"), "{want}: {message}");
    }
}
