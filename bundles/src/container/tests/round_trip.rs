//! What goes in comes out, in the same bytes every time, now and with the next version.

use crate::Error;
use crate::container::testing::{Rng, random_network, tiny_backbone, tiny_task};
use crate::container::*;
use crate::plan::Owner;

/// Bundles of version 1.0 as they lie on devices out there.
const OLD_TASK: &[u8] = include_bytes!("fixtures/tiny-task-1.0.bin");
const OLD_BACKBONE: &[u8] = include_bytes!("fixtures/tiny-backbone-1.0.bin");

#[test]
fn random_bundles_survive() {
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
        }
    }
}

#[test]
fn compressed_sections_take_the_smallest_form() {
    let bytes = tiny_task().finish(&[]).unwrap();
    let bundle = Bundle::parse(&bytes).unwrap();
    for (name, codec, filter) in [
        ("bn1.scale", Codec::Raw, Filter::None),
        ("fc.weight#shuffled", Codec::Zstd, Filter::ByteShuffle),
        ("fc.weight#repeated", Codec::Zstd, Filter::None),
        ("fc.weight#half", Codec::Raw, Filter::None),
    ] {
        let section = bundle.section(name).unwrap();
        assert_eq!((section.codec, section.filter), (codec, filter), "{name}");
        assert!(section.stored_len <= section.raw_len);
    }
    assert_eq!(bundle.decode_f32("fc.weight#half").unwrap(), [1.0, -0.5, 0.25]);
    assert_eq!(bundle.decode_f32("fc.weight#repeated").unwrap(), [0.1; 64]);
    assert!(matches!(bundle.raw("fc.weight#shuffled"), Err(Error::BadRequest { .. })));
    assert!(matches!(bundle.raw("absent"), Err(Error::MissingTensor { .. })));
    assert_eq!(bundle.raw("bn1.shift").unwrap().len(), 16);
}

#[test]
fn backbone_kernels_lie_raw_and_aligned_and_carry_their_id() {
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
fn signatures_are_judged() {
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

    // Signing later gives the same bytes, in any order, and a development signature makes way.
    let later = sign(&sign(&development, &release).unwrap(), &other).unwrap();
    assert_eq!(later, both);
    assert_eq!(sign(&both, &release).unwrap(), both);
    let digests = [&unsigned, &development, &both].map(|b| Bundle::parse(b).unwrap().digest());
    assert!(digests[0] == digests[1] && digests[1] == digests[2]);

    let mut full = unsigned;
    for i in 0..4 {
        full = sign(&full, &SigningKey::from_seed([10 + i; 32])).unwrap();
    }
    assert!(matches!(sign(&full, &release), Err(Error::TooLarge { .. })));
    let naive = [TrustedKey { name: "dev".into(), key: SigningKey::development().public() }];
    assert!(matches!(Bundle::parse(&development).unwrap().verify(&naive), Err(Error::BadKey { .. })));
}

/// If this fails, devices in the field could not read new bundles or be read: raise the version, keep reading
/// the old one. (A new zstd may legitimately pack other bytes; then only the comparison may be renewed.)
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
        ("a golden score that is no number", |w| {
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
    let mut w = tiny_task();
    assert!(matches!(w.tensor_f32("x", Owner::Task, &[3], &[0.0; 2]), Err(Error::Corrupt { .. })));
    assert!(matches!(w.tensor_f32("x", Owner::Task, &[1], &[f32::INFINITY]), Err(Error::Corrupt { .. })));
    assert!(matches!(w.tensor_f16("x", Owner::Task, &[1], &[1e6]), Err(Error::Corrupt { .. })));
}
