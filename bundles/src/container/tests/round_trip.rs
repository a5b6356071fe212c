//! Round trips: contents survive, bytes are deterministic, and older versions stay readable.

use crate::Error;
use crate::container::testing::{Rng, random_network, tiny_backbone, tiny_task};
use crate::container::*;
use crate::plan::Owner;

/// Bundles of version 2.0, as deployed on devices.
const OLD_TASK: &[u8] = include_bytes!("fixtures/tiny-task-2.0.bin");
const OLD_BACKBONE: &[u8] = include_bytes!("fixtures/tiny-backbone-2.0.bin");
/// One of version 1.0, which is no longer supported.
const OLDER_TASK: &[u8] = include_bytes!("fixtures/tiny-task-1.0.bin");

#[test]
fn random_bundles_round_trip() {
    for seed in 0..16 {
        let mut rng = Rng(seed);
        let plan = random_network(&mut rng);
        let (input, classes) = (plan.input, plan.classes());
        let kind = [Kind::Task, Kind::Backbone][seed as usize % 2];
        let p = Preprocess::new(input.c, input.w, input.h, Resize::Bilinear, [0.5; 3], [0.2; 3]);
        let mut w = Writer::new(kind, format!("bundle {seed}"), plan.clone(), p);
        w.labels((0..classes).map(|i| format!("class {i}")));
        w.backbone([seed as u8 + 1; 32], "f32").abi(rng.below(9) as u32).security_counter(rng.next());
        let scores = rng.weights(classes);
        w.golden(Golden { seed: rng.next(), scores: scores.clone(), tolerance: 0.5 });
        w.fact("seed", seed.to_string());
        let mut tensors = plan.tensors();
        tensors.retain(|t| kind == Kind::Backbone || t.owner == Owner::Task);
        let tensors: Vec<_> = tensors.into_iter().map(|t| (rng.weights(t.len()), t)).collect();
        for (values, t) in &tensors {
            w.tensor_f32(&t.name, t.owner, &t.shape, values).unwrap();
        }
        let bytes = w.finish(&[SigningKey::from_seed([1; 32])]).unwrap();
        assert_eq!(
            bytes,
            w.finish(&[SigningKey::from_seed([1; 32])]).unwrap(),
            "packing is not deterministic"
        );

        let bundle = Bundle::parse(&bytes).unwrap();
        bundle.verify_sections().unwrap();
        let m = bundle.manifest();
        assert_eq!((m.kind, &m.plan, &m.preprocess, m.labels.len()), (kind, &plan, &p, classes));
        assert_eq!((&m.golden[0].scores, m.fact("seed")), (&scores, Some(seed.to_string().as_str())));
        assert_eq!(m.sections.len(), tensors.len());
        let mut decoder = Decoder::new().unwrap();
        for ((values, t), section) in tensors.iter().zip(&m.sections) {
            assert_eq!((&section.name, section.owner, &section.shape), (&t.name, t.owner, &t.shape));
            assert_eq!(&bundle.decode_f32(&t.name).unwrap(), values);
            let mut again = vec![0.0; values.len()];
            decoder.decode_f32_into(&bundle, section, &mut again).unwrap();
            assert_eq!(&again, values);
            let (start, end) = (values.len() / 3, values.len() - values.len() / 4);
            let mut run = vec![0.0; end - start];
            decoder.decode_f32_run(&bundle, section, start, &mut run).unwrap();
            assert_eq!(run, values[start..end]);
            let beyond = decoder.decode_f32_run(&bundle, section, values.len() - run.len() + 1, &mut run);
            assert!(matches!(beyond, Err(Error::BadRequest { .. })), "{beyond:?}");
        }
    }
}

#[test]
fn rewriting_a_bundle_changes_only_what_was_asked() {
    let mut backbone = tiny_backbone();
    let layout = Layout::Blocked { isa: Isa::Neon, revision: 7 };
    backbone.tensor("conv1.weight#x", Owner::Backbone, Dtype::I32, layout, &[3, 1], vec![9; 64]).unwrap();
    backbone.backbone([5; 32], "f32-neon");
    for writer in [tiny_task(), backbone] {
        let key = SigningKey::from_seed([1; 32]);
        let bytes = writer.finish(&[key]).unwrap();
        let mut again = Writer::of(&Bundle::parse(&bytes).unwrap()).unwrap();
        assert_eq!(again.finish(&[]).unwrap(), writer.finish(&[]).unwrap());

        again.set_fact("arch", "other").set_fact("batch", "A7").security_counter(9);
        let bytes = again.finish(&[]).unwrap();
        let bundle = Bundle::parse(&bytes).unwrap();
        let m = bundle.manifest();
        assert_eq!((m.fact("arch"), m.fact("batch"), m.security_counter), (Some("other"), Some("A7"), 9));
        assert_eq!(m.facts.iter().filter(|(key, _)| key == "arch").count(), 1);
    }
    let mut damaged = tiny_task().finish(&[]).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let outcome = Writer::of(&Bundle::parse(&damaged).unwrap()).map(drop);
    assert!(matches!(outcome, Err(Error::HashMismatch { .. })), "{outcome:?}");
}

/// Small tensors of a task share a block regardless of element type; a large one has its own.
#[test]
fn tensors_are_gathered_into_blocks() {
    let mut w = tiny_task();
    let mut rng = Rng(9);
    let large = rng.weights(1 << 15);
    w.tensor_f32("fc.weight#large", Owner::Task, &[1 << 15], &large).unwrap();
    w.tensor_i8("fc.bias#bytes", Owner::Task, Layout::Canonical, &[2, 2], &[-1, 2, -3, 4], &[0.5, 2.0])
        .unwrap();
    let bytes = w.finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    let m = bundle.manifest();
    let ranges: Vec<_> = m.blocks.iter().map(|block| block.sections.clone()).collect();
    assert_eq!(ranges, [0..7, 7..8, 8..10]);
    for (i, section) in m.sections.iter().enumerate() {
        assert!(ranges[section.block].contains(&i));
    }
    assert!(m.blocks[1].stored_len < m.blocks[1].raw_len);
    // In any order, by one decoder and by separate ones.
    let mut decoder = Decoder::new().unwrap();
    for name in
        ["fc.weight#half", "fc.weight#large", "fc.bias#bytes", "fc.weight#half", "fc.bias#bytes#scale"]
    {
        let section = bundle.section(name).unwrap();
        let mut out = [vec![0; section.raw_len as usize], vec![1; section.raw_len as usize]];
        decoder.decode_into(&bundle, section, &mut out[0]).unwrap();
        bundle.decode_into(section, &mut out[1]).unwrap();
        assert_eq!(out[0], out[1], "{name}");
    }
    assert_eq!(bundle.decode_f32("fc.weight#large").unwrap(), large);
    assert_eq!(bundle.decode_f32("fc.weight#half").unwrap(), [1.0, -0.5, 0.25]);
    assert_eq!(bundle.decode_f32("fc.weight#repeated").unwrap(), [0.1; 64]);
    let mut out = [0; 4];
    bundle.decode_into(bundle.section("fc.bias#bytes").unwrap(), &mut out).unwrap();
    assert_eq!(out, [255, 2, 253, 4]);
    assert!(matches!(bundle.raw("fc.weight#shuffled"), Err(Error::BadRequest { .. })));
    assert!(matches!(bundle.raw("absent"), Err(Error::MissingTensor { .. })));
}

/// A decoder keeps the last block, but never confuses bundles, or an earlier reading with a later one.
#[test]
fn a_kept_block_serves_its_own_reading_only() {
    let good = tiny_task().finish(&[]).unwrap();
    let mut decoder = Decoder::new().unwrap();
    let mut bias = |bytes: &[u8]| {
        let bundle = Bundle::parse_known(bytes.into(), None, &mut decoder).unwrap();
        let mut out = [0.0; 2];
        let section = bundle.section("fc.bias").unwrap();
        decoder.decode_f32_into(&bundle, section, &mut out).map(|()| out)
    };
    assert_eq!(bias(&good).unwrap(), [0.1, -0.1]);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(bias(&damaged), Err(Error::HashMismatch { .. })));
    assert_eq!(bias(&good).unwrap(), [0.1, -0.1]);
}

#[test]
fn backbone_kernels_are_raw_and_aligned_and_carry_their_id() {
    let bytes = tiny_backbone().finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    for (i, section) in bundle.manifest().sections.iter().enumerate() {
        let start = bundle.file_range(section).unwrap().start;
        assert_eq!(start % if i == 0 { 4096 } else { 64 }, 0, "{}", section.name);
    }
    let kernel = bundle.decode_f32("conv1.weight").unwrap();
    let expected = backbone_id([("conv1.weight", &[4, 3, 3, 3][..], &kernel[..])].into_iter());
    assert_eq!(bundle.manifest().backbone.id, expected);
    assert!(bundle.verify_identity().unwrap());

    let mut lying = tiny_backbone();
    lying.backbone([5; 32], "f32");
    let bytes = lying.finish(&[]).unwrap();
    let error = Bundle::parse(&bytes).unwrap().verify_identity().unwrap_err();
    assert!(matches!(error, Error::HashMismatch { .. }), "{error}");
}

#[test]
fn a_packed_backbone_needs_the_canonical_id() {
    let mut w = tiny_backbone();
    let layout = Layout::Blocked { isa: Isa::Avx512, revision: 1 };
    w.tensor("conv1.weight#packed", Owner::Backbone, Dtype::F32, layout, &[3, 1], vec![0; 64]).unwrap();
    assert!(matches!(w.finish(&[]), Err(Error::BadRequest { .. })));
    let bytes = w.backbone([5; 32], "f32-avx512").finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    assert_eq!(bundle.section("conv1.weight#packed").unwrap().layout, layout);
    assert!(!bundle.verify_identity().unwrap());
}

#[test]
fn signatures_are_evaluated() {
    let (release, other) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
    let known = [TrustedKey { name: "release".into(), key: release.public() }];
    let trust = |bytes: &[u8]| Bundle::parse(bytes).unwrap().verify(&known).unwrap();
    let w = tiny_task();
    let unsigned = w.finish_unsigned().unwrap();
    let development = w.finish(&[]).unwrap();
    let trusted = Trust::Trusted { key: release.public().id(), name: "release".into() };
    assert_eq!(trust(&unsigned), Trust::Unsigned);
    assert_eq!(trust(&development), Trust::Development);
    assert_eq!(
        trust(&w.finish(std::slice::from_ref(&other)).unwrap()),
        Trust::Unknown { key: other.public().id() }
    );
    let both = w.finish(&[other.clone(), release.clone()]).unwrap();
    assert_eq!(trust(&both), trusted);

    // Signing later, in any order, gives the same bytes, and replaces a development signature.
    let later = sign(&sign(&development, &release).unwrap(), &other).unwrap();
    assert_eq!(later, both);
    assert_eq!(sign(&both, &release).unwrap(), both);
    let digests = [&unsigned, &development, &both].map(|b| Bundle::parse(b).unwrap().digest());
    assert!(digests[0] == digests[1] && digests[1] == digests[2]);

    let mut full = unsigned;
    for i in 0..4 {
        full = sign(&full, &SigningKey::from_seed([10 + i; 32])).unwrap();
    }
    let fifth = sign(&full, &release).unwrap_err();
    assert!(matches!(fifth, Error::BadRequest { .. }) && fifth.to_string().contains("--remove"), "{fifth}");
    assert_eq!(sign(&full, &SigningKey::from_seed([10; 32])).unwrap(), full);
    // Removing a signature makes room and keeps the others, until none is left.
    let oldest = SigningKey::from_seed([10; 32]).public().id();
    assert_eq!(trust(&sign(&unsign(&full, oldest).unwrap(), &release).unwrap()), trusted);
    let absent = unsign(&both, oldest).unwrap_err().to_string();
    assert!(absent.contains(&oldest.to_string()) && absent.contains(&other.public().id().to_string()));
    let one = unsign(&both, release.public().id()).unwrap();
    assert_eq!(trust(&one), Trust::Unknown { key: other.public().id() });
    let none = unsign(&development, SigningKey::development().public().id()).unwrap();
    assert_eq!(none, w.finish_unsigned().unwrap());
    let naive = [TrustedKey { name: "dev".into(), key: SigningKey::development().public() }];
    assert!(matches!(Bundle::parse(&development).unwrap().verify(&naive), Err(Error::BadKey { .. })));
}

/// Writes the fixtures: `cargo test -p bundles -- --ignored write_the_fixtures`.
#[test]
#[ignore = "only for a new version of the format"]
fn write_the_fixtures() {
    let at = concat!(env!("CARGO_MANIFEST_DIR"), "/src/container/tests/fixtures");
    for (name, writer) in [("task", tiny_task()), ("backbone", tiny_backbone())] {
        std::fs::write(format!("{at}/tiny-{name}-2.0.bin"), writer.finish(&[]).unwrap()).unwrap();
    }
}

/// If this fails, devices in the field could not exchange bundles with new programs: raise the version and
/// keep reading the old one. (A new zstd release, or other settings, may legitimately produce other bytes;
/// only then may the comparison be updated.)
/// comparison may be renewed.)
#[test]
fn the_format_has_not_drifted() {
    assert_eq!(tiny_task().finish(&[]).unwrap(), OLD_TASK);
    assert_eq!(tiny_backbone().finish(&[]).unwrap(), OLD_BACKBONE);
    let bundle = Bundle::parse(OLD_TASK).unwrap();
    bundle.verify_sections().unwrap();
    let m = bundle.manifest();
    assert_eq!((m.labels[1].as_str(), m.security_counter, m.golden[0].seed), ("cöld", 300, 1));
    assert_eq!(bundle.decode_f32("fc.bias").unwrap(), [0.1, -0.1]);
    assert_eq!(bundle.decode_f32("fc.weight#shuffled").unwrap()[7], 1.0);
    let error = Bundle::parse(OLDER_TASK).unwrap_err();
    assert!(error.to_string().contains("major version"), "{error}");
    assert_eq!(error.exit_code(), 4);
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    type Spoil = fn(&mut Writer);
    let cases: [(&str, Spoil); 11] = [
        ("name with a slash", |w| {
            *w = Writer::new(Kind::Task, "../etc", testing::tiny_plan(), testing::tiny_preprocess())
        }),
        ("one label for two classes", |w| {
            w.labels(["a"]);
        }),
        ("label with an escape", |w| {
            w.labels(["a", "\u{1b}[2J"]);
        }),
        ("no backbone", |w| {
            w.backbone([0; 32], "");
        }),
        ("three golden scores", |w| {
            w.golden(Golden { seed: 0, scores: vec![0.0; 3], tolerance: 1.0 });
        }),
        ("a golden score that is not a number", |w| {
            w.golden(Golden { seed: 0, scores: vec![f32::NAN, 0.0], tolerance: 1.0 });
        }),
        ("a fact twice", |w| {
            w.fact("arch", "again");
        }),
        ("no tensors", |w| {
            let mut bare = Writer::new(Kind::Task, "bare", testing::tiny_plan(), testing::tiny_preprocess());
            bare.labels(["a", "b"]).backbone([1; 32], "");
            *w = bare;
        }),
        ("a tensor the plan does not know", |w| {
            w.tensor_f32("fc2.bias", Owner::Task, &[1], &[0.0]).unwrap();
        }),
        ("a tensor twice", |w| {
            w.tensor_f32("fc.bias", Owner::Task, &[1], &[0.0]).unwrap();
        }),
        ("a backbone's tensor in a task", |w| {
            w.tensor_f32("conv1.weight", Owner::Backbone, &[1], &[0.0]).unwrap();
        }),
    ];
    for (case, spoil) in cases {
        let mut w = tiny_task();
        spoil(&mut w);
        assert!(matches!(w.finish(&[]), Err(Error::Corrupt { .. })), "{case}");
    }
    for name in ["", "a/b", "a\\b", ".hidden", " a", "a\u{a0}", "a\nb", &"x".repeat(65)] {
        let outcome = check_name(name);
        assert!(
            matches!(outcome, Err(Error::Corrupt { .. } | Error::TooLarge { .. })),
            "{name:?}: {outcome:?}"
        );
        let (mut manifest, _) = super::attacks::lawful();
        manifest.name = name.into();
        let written = rules::check(&manifest).and_then(|_| manifest.to_bytes());
        assert_eq!(written.unwrap_err(), outcome.unwrap_err(), "{name:?}");
    }
    check_name(&format!("größe 3.{}", "x".repeat(54))).unwrap();
    let mut w = tiny_task();
    assert!(matches!(w.tensor_f32("x", Owner::Task, &[3], &[0.0; 2]), Err(Error::Corrupt { .. })));
    assert!(matches!(w.tensor_f32("x", Owner::Task, &[1], &[f32::INFINITY]), Err(Error::Corrupt { .. })));
    assert!(matches!(w.tensor_f16("x", Owner::Task, &[1], &[1e6]), Err(Error::Corrupt { .. })));
}
