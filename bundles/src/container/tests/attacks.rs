//! Attacks: correctly sealed and signed files that lie.

use crate::container::testing::{Rng, forge, forge_bytes, tiny_backbone, tiny_task};
use crate::container::*;
use crate::plan::Owner;
use crate::{Error, Result};

/// A valid task manifest and its section group, to be tampered with.
pub(super) fn lawful() -> (Manifest, Vec<u8>) {
    let bytes = tiny_task().finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    let start = bundle.block_range(&bundle.manifest().blocks[0]).start;
    (bundle.manifest().clone(), bytes[start..].to_vec())
}

fn parsed(bytes: Vec<u8>) -> Manifest {
    Bundle::parse(&bytes).unwrap().into_manifest()
}

fn attack(change: impl FnOnce(&mut Manifest, &mut Vec<u8>)) -> Result<()> {
    let (mut manifest, mut group) = lawful();
    change(&mut manifest, &mut group);
    let bytes = forge(&manifest, &group);
    Bundle::parse(&bytes).map(|_| ())
}

pub(super) fn message(outcome: Result<()>) -> String {
    match outcome {
        Err(error @ (Error::Corrupt { .. } | Error::TooLarge { .. } | Error::Truncated { .. })) => {
            error.to_string()
        }
        other => panic!("not refused for breaking a rule: {other:?}"),
    }
}

#[test]
fn an_honest_forgery_is_accepted() {
    attack(|_, _| {}).unwrap();
}

/// Block offsets follow from their lengths, so blocks cannot overlap or leave gaps.
#[test]
fn blocks_that_do_not_match_the_sections() {
    let with = |sections| message(attack(|m, _| m.blocks[0].sections = sections));
    assert!(with(0..0).contains("at least one"));
    assert!(with(0..8).contains("the 7 that are left"));
    assert!(with(0..usize::MAX).contains("the 7 that are left"));
    // What follows is parsed as another block.
    assert!(with(0..6).contains("manifest"));
    assert!(message(attack(|m, _| m.blocks.clear())).contains("manifest"));
    assert!(message(attack(|m, _| m.blocks.push(m.blocks[0].clone()))).contains("after its last field"));
}

#[test]
fn blocks_that_state_another_length() {
    for (change, word) in [(1, "end of its last section"), (-1, "end of its last section")] {
        let other =
            attack(|m, _| m.blocks[0].stored_len = m.blocks[0].stored_len.wrapping_add_signed(change));
        assert!(message(other).contains(word));
    }
    let wrapped = attack(|m, _| m.blocks[0].stored_len = u64::MAX);
    assert!(message(wrapped).contains("end of its last section"));
    let wrapped = attack(|m, _| {
        m.blocks[0].sections = 0..6;
        m.blocks[0].stored_len = u64::MAX;
        m.blocks.push(Block::new(Codec::Raw, 6..7, 8, [0; 32]));
    });
    assert!(matches!(wrapped, Err(Error::TooLarge { size: u64::MAX, .. })), "{wrapped:?}");
}

#[test]
fn section_beyond_the_end() {
    assert!(
        message(attack(|_, group| {
            group.pop();
        }))
        .contains("end of its last section")
    );
}

#[test]
fn trailing_bytes_inside_the_total_length() {
    assert!(message(attack(|_, group| group.push(0))).contains("end of its last section"));
}

#[test]
fn trailing_bytes_behind_the_total_length() {
    let mut bytes = tiny_task().finish(&[]).unwrap();
    bytes.push(0);
    assert!(matches!(Bundle::parse(&bytes), Err(Error::Corrupt { .. })));
}

#[test]
fn trailing_bytes_in_the_manifest() {
    let (manifest, group) = lawful();
    let mut bytes = manifest.to_bytes().unwrap();
    bytes.push(0);
    let file = forge_bytes(Kind::Task, &bytes, &group);
    assert!(message(Bundle::parse(&file).map(|_| ())).contains("manifest"));
}

#[test]
fn manifest_cut_short() {
    let (manifest, _) = lawful();
    let bytes = manifest.to_bytes().unwrap();
    for n in 0..bytes.len() {
        let file = forge_bytes(Kind::Task, &bytes[..n], &[]);
        assert!(matches!(Bundle::parse(&file), Err(Error::Truncated { .. } | Error::Corrupt { .. })), "{n}");
    }
}

#[test]
fn tensors_that_are_not_in_the_plan() {
    assert!(message(attack(|m, _| m.sections[0].name = "bn1.scales".into())).contains("bn1.scales"));
    assert!(message(attack(|m, _| m.sections[0].shape = vec![2, 2])).contains("[2, 2]"));
    assert!(message(attack(|m, _| m.sections[2].name = "fc#x".into())).contains("fc#x"));
    assert!(message(attack(|m, _| m.sections[0].name = "bn1.shift#scale".into())).contains("bn1.scale,"));
}

/// A plan that a runtime could not allocate or execute never gets past the parser.
#[test]
fn inconsistent_plan() {
    let huge = attack(|m, _| {
        m.plan.input = crate::plan::Shape::new(3, 1 << 16, 1 << 16);
        (m.preprocess.width, m.preprocess.height) = (1 << 16, 1 << 16);
    });
    assert!(message(huge).contains("plan of the bundle"));
    assert!(
        message(attack(|m, _| {
            m.plan.stem.pop();
            m.plan.stem.insert(0, crate::plan::Op::GlobalAvgPool);
            m.plan.stem.insert(0, crate::plan::Op::MaxPool { kernel: 9, stride: 1, pad: 0 });
        }))
        .contains("max-pool")
    );
}

#[test]
fn duplicate_names() {
    assert!(message(attack(|m, _| m.sections[1].name = m.sections[0].name.clone())).contains("bn1.scale"));
    assert!(message(attack(|m, _| m.facts[1].0 = m.facts[0].0.clone())).contains("fact"));
}

#[test]
fn shape_whose_product_overflows() {
    for shape in [vec![1 << 30; 3], vec![1 << 16, 1 << 16, 1 << 16, 1 << 14], vec![1 << 30, 1 << 30, 4]] {
        assert!(matches!(
            attack(|m, _| m.sections[2].shape = shape),
            Err(Error::TooLarge { .. } | Error::Corrupt { .. })
        ));
    }
    // 2^62 elements of four bytes are 2^64 bytes, which wraps to zero, as do twice 2^63 bytes of a block.
    let zero = attack(|m, _| m.sections[2].shape = vec![1 << 30, 1 << 30, 4]);
    assert!(matches!(zero, Err(Error::TooLarge { size: u64::MAX, .. })), "{zero:?}");
    assert_eq!(message(zero), "tensor fc.weight#shuffled: too large to count");
    let twice = attack(|m, _| {
        m.sections[2].shape = vec![1 << 30, 1 << 30, 2];
        m.sections[3].shape = vec![1 << 30, 1 << 30, 2];
    });
    assert!(matches!(twice, Err(Error::TooLarge { size: u64::MAX, .. })), "{twice:?}");
}

#[test]
fn shape_of_zero_elements() {
    assert!(message(attack(|m, _| m.sections[2].shape = vec![0, 16])).contains("at least one"));
}

#[test]
fn raw_length_below_the_shapes() {
    for (raw_len, word) in [(1020, "at least 1024"), (1026, "whole elements"), (1 << 20, "TooLarge")] {
        let outcome = attack(|m, _| {
            m.sections[2].layout = Layout::Blocked { isa: Isa::Neon, revision: 1 };
            m.sections[2].raw_len = raw_len;
        });
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(word) || format!("{error:?}").contains(word), "{error:?}");
    }
}

#[test]
fn huge_manifest_length() {
    let mut bytes = tiny_task().finish(&[]).unwrap();
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Bundle::parse(&bytes), Err(Error::TooLarge { limit: 1_048_576, .. })));
    for field in [12..16, 32..36] {
        bytes[field].copy_from_slice(&(1u32 << 20).to_le_bytes());
    }
    assert!(matches!(Bundle::parse(&bytes), Err(Error::Truncated { .. })));
}

#[test]
fn huge_counts_in_a_small_manifest() {
    let (manifest, _) = lawful();
    let bytes = manifest.to_bytes().unwrap();
    let mut rng = Rng(11);
    for _ in 0..3000 {
        let mut damaged = bytes.clone();
        let at = rng.below(damaged.len() - 4);
        damaged[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
        let file = forge_bytes(Kind::Task, &damaged, &[]);
        assert!(Bundle::parse(&file).is_err());
    }
}

/// Signed garbage never panics, and what still parses has exactly one encoding.
#[test]
fn damaged_manifests_sealed_again() {
    let mut rng = Rng(5);
    let mut parsed = 0;
    for (kind, file) in [(Kind::Task, tiny_task()), (Kind::Backbone, tiny_backbone())] {
        let file = file.finish(&[]).unwrap();
        let bundle = Bundle::parse(&file).unwrap();
        let start = bundle.block_range(&bundle.manifest().blocks[0]).start;
        let bytes = bundle.manifest().to_bytes().unwrap();
        for _ in 0..3000 {
            let mut damaged = bytes.clone();
            for _ in 0..=rng.below(2) {
                let at = rng.below(damaged.len());
                damaged[at] = rng.below(256) as u8;
            }
            let forged = forge_bytes(kind, &damaged, &file[start..]);
            let Ok(bundle) = Bundle::parse(&forged) else { continue };
            parsed += 1;
            assert_eq!(bundle.manifest().to_bytes().unwrap(), damaged);
            for section in &bundle.manifest().sections {
                let mut out = vec![0; section.raw_len as usize];
                let _ = bundle.decode_into(section, &mut out);
            }
        }
    }
    assert!(parsed > 100, "the damage was too heavy to test anything: {parsed}");
}

#[test]
fn nonzero_padding() {
    let bytes = tiny_backbone().finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    let ranges: Vec<_> = bundle.manifest().sections.iter().map(|s| bundle.file_range(s).unwrap()).collect();
    assert!(ranges[0].end < ranges[1].start, "no padding to attack");
    for at in [ranges[0].start - 1, ranges[0].end, ranges[1].start - 1] {
        let mut smuggled = bytes.clone();
        smuggled[at] = 1;
        let outcome = Bundle::parse(&smuggled).and_then(|b| b.verify_sections());
        assert!(message(outcome).contains("padding"), "{at}");
    }
}

#[test]
fn compressed_kernels_and_foreign_owners() {
    let compressed = attack(|m, _| m.kind = Kind::Backbone);
    assert!(compressed.is_err());
    assert!(message(attack(|m, _| m.sections[0].owner = Owner::Backbone)).contains("owner"));
    let (mut m, group) = (tiny_backbone().finish(&[]).map(parsed).unwrap(), vec![0; 64]);
    m.blocks = vec![Block::new(Codec::Zstd, 0..3, 64, [0; 32])];
    let file = forge(&m, &group);
    assert!(message(Bundle::parse(&file).map(drop)).contains("raw bytes, in a backbone"));
}

#[test]
fn signature_moved_from_another_bundle() {
    let (a, mut b) = (tiny_backbone().finish(&[]).unwrap(), tiny_task().finish(&[]).unwrap());
    let from = Bundle::parse(&a).unwrap().slots().to_vec();
    let to = Bundle::parse(&b).unwrap().slots_range();
    b[to].copy_from_slice(&from);
    assert!(matches!(Bundle::parse(&b), Err(Error::BadSignature { .. })));
}

#[test]
fn signatures_out_of_order_twice_or_behind_a_hole() {
    let keys = [SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32])];
    let good = tiny_task().finish(&keys).unwrap();
    let slots = Bundle::parse(&good).unwrap().slots_range().start;
    let slot = |i: usize| slots + 96 * i..slots + 96 * (i + 1);
    let (first, second) = (good[slot(0)].to_vec(), good[slot(1)].to_vec());
    for arrangement in
        [[&second, &first, &vec![0; 96]], [&first, &first, &vec![0; 96]], [&first, &vec![0; 96], &second]]
    {
        let mut bytes = good.clone();
        for (i, entry) in arrangement.into_iter().enumerate() {
            bytes[slot(i)].copy_from_slice(entry);
        }
        assert!(matches!(Bundle::parse(&bytes), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn an_entry_of_another_bundle() {
    let bytes = tiny_task().finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    let mut foreign = bundle.section("fc.bias").unwrap().clone();
    foreign.first = u64::MAX - 4;
    assert!(matches!(bundle.decode_into(&foreign, &mut [0; 8]), Err(Error::BadRequest { .. })));
    assert!(matches!(bundle.file_range(&foreign), Err(Error::BadRequest { .. })));
}

#[test]
fn labels_that_outnumber_classes_and_preprocessing_of_another_size() {
    assert!(message(attack(|m, _| m.labels.push("third".into()))).contains("labels"));
    assert!(message(attack(|m, _| m.preprocess.width += 1)).contains("preprocessing"));
    assert!(message(attack(|m, _| m.preprocess.std[1] = 0.0)).contains("deviation"));
    assert!(message(attack(|m, _| m.name = "..".into())).contains("name"));
    assert!(message(attack(|m, _| m.backbone.id = [0; 32])).contains("backbone id"));
}

/// The tiny task with an int8 classifier; `change` tampers with its companions.
fn int8(change: impl FnOnce(&mut Manifest)) -> Result<()> {
    let mut writer = tiny_task();
    writer.tensor_f32("fc.weight#scale", Owner::Task, &[2], &[0.5, 0.25])?;
    writer.tensor_f32("fc.weight#maps", Owner::Task, &[2, 2], &[0.1, 3.0, 0.2, 0.0])?;
    let bytes = writer.finish(&[])?;
    let mut manifest = Bundle::parse(&bytes)?.into_manifest();
    for section in manifest.sections.iter_mut().filter(|section| section.name == "fc.weight") {
        section.dtype = Dtype::I8;
    }
    change(&mut manifest);
    block::place(manifest.kind, &mut manifest.sections, &mut manifest.blocks)?;
    rules::check(&manifest).map(drop)
}

#[test]
fn int8_tensors_without_matching_scales() {
    int8(|_| ()).unwrap();
    let find = |manifest: &mut Manifest, name: &str| {
        manifest.sections.iter().position(|section| section.name == name).unwrap()
    };
    let missing = int8(|m| {
        let at = find(m, "fc.weight#scale");
        m.sections.remove(at);
        m.blocks[0].sections.end -= 1;
    });
    assert!(message(missing).contains("fc.weight#scale beside int8 tensor"));
    let fewer = int8(|m| {
        let at = find(m, "fc.weight#scale");
        m.sections[at].shape = vec![1];
    });
    assert!(message(fewer).contains("one per row"));
    let halves = int8(|m| {
        let at = find(m, "fc.weight#scale");
        m.sections[at].dtype = Dtype::F16;
    });
    assert!(message(halves).contains("one per row"));
    let more = int8(|m| {
        let at = find(m, "fc.weight#maps");
        m.sections[at].shape[0] += 1;
    });
    assert!(message(more).contains("one row per map"));
}
