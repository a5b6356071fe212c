//! Half precision: f16 backbones, where the machine computes in it and where it does not.

use super::{naive, store};
use bundles::container::{Bundle, Dtype, Kind, Layout, Writer, f16_to_f32, f32_to_f16};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Error, Options, Packing, Session, Task, isa_in_files, pack_backbone};
use std::sync::Arc;

const HALF: Isa = Isa::NeonFp16;

/// Largest difference, relative to the largest of `want`.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    let size = want.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
    got.iter().zip(want).fold(0.0, |far: f32, (a, b)| far.max((a - b).abs() / size))
}

fn open(bytes: &[u8], isa: Option<Isa>) -> Result<Arc<Backbone>, Error> {
    Backbone::from_bytes("net.backbone", bytes.to_vec(), &Options { isa, ..Options::default() })
}

#[test]
fn a_backbone_packed_for_half_precision_holds_halves_in_its_layout() {
    let packed = store::packed("cifar-resnet20-b", 28, 61);
    let half = pack_backbone("b", &packed.backbone, Packing::For(HALF), &[]).unwrap();
    let neon = pack_backbone("b", &packed.backbone, Packing::For(Isa::Neon), &[]).unwrap();
    let (half, neon) = (Bundle::parse(&half).unwrap(), Bundle::parse(&neon).unwrap());
    assert_eq!(half.manifest().backbone.variant, "f16-neon-fp16");
    let mut kernels = [0, 0];
    for section in &half.manifest().sections {
        let Layout::Blocked { isa, .. } = section.layout else {
            assert_eq!(section.dtype, Dtype::F16, "{}", section.name);
            continue;
        };
        assert_eq!(isa, isa_in_files(HALF));
        let floats = neon.section(&section.name).unwrap().raw_len;
        match section.dtype {
            // Blocks of eight channels instead of four need no more padding here.
            Dtype::F16 => assert!(section.raw_len <= floats / 2, "{}", section.name),
            other => assert_eq!((other, section.raw_len), (Dtype::F32, floats), "{}", section.name),
        }
        kernels[usize::from(section.dtype == Dtype::F16)] += 1;
    }
    // Stem, strided and pointwise convolutions; the rest by Winograd's method.
    assert!(kernels[0] > 0 && kernels[1] >= 3, "{kernels:?}");
}

#[test]
fn only_f16_backbones_run_in_half_precision_and_only_where_the_machine_has_it() {
    let packed = store::packed("cifar-resnet20-b", 12, 62);
    let plain = pack_backbone("b", &packed.backbone, Packing::F16, &[]).unwrap();
    let own = pack_backbone("b", &packed.backbone, Packing::For(HALF), &[]).unwrap();
    assert_eq!(open(&packed.backbone, None).unwrap().isa(), Isa::detect());
    assert_eq!(open(&plain, Some(Isa::Portable)).unwrap().isa(), Isa::Portable);
    if !HALF.runs_here() {
        assert_eq!(open(&plain, None).unwrap().isa(), Isa::detect());
        assert!(matches!(open(&plain, Some(HALF)), Err(Error::Usage { .. })));
        let error = open(&own, None).unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains("neon-fp16"), "{error}");
        return;
    }
    let error = open(&packed.backbone, Some(HALF)).unwrap_err();
    assert!(matches!(error, Error::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("not packed with --precision f16"), "{error}");
    let input: Vec<f32> = (0..3 * 12 * 12).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    for bytes in [&plain, &own] {
        let backbone = open(bytes, None).unwrap();
        assert_eq!(backbone.isa(), HALF);
        assert_eq!(backbone.repacked().kernels == 0, std::ptr::eq(bytes, &own));
        for (name, bytes, plan, all) in &packed.tasks {
            let task = Task::from_bytes(&backbone, name, bytes).unwrap();
            let want: Vec<f32> = naive::scores(plan, all, &input).into_iter().map(|x| x as f32).collect();
            let got = Session::new(2).run(&task, &input).unwrap().to_vec();
            let far = distance(&got, &want);
            println!("{name}: {far}");
            assert!(far > 1e-6 && far < 1e-2, "{name}: {far}");
        }
    }
}

/// The backbone `bytes` with other numbers.
fn with(bytes: &[u8], number: impl Fn(f32) -> f32) -> Vec<u8> {
    let bundle = Bundle::parse(bytes).unwrap();
    let manifest = bundle.manifest();
    let mut writer = Writer::new(Kind::Backbone, &manifest.name, manifest.plan.clone(), manifest.preprocess);
    for section in &manifest.sections {
        let numbers: Vec<f32> = bundle.decode_f32(&section.name).unwrap().into_iter().map(&number).collect();
        writer.tensor_f32(&section.name, section.owner, &section.shape, &numbers).unwrap();
    }
    writer.finish(&[]).unwrap()
}

#[test]
fn winograd_kernels_are_made_of_rounded_weights_and_what_halves_cannot_hold_is_refused() {
    let backbone = store::packed("cifar-resnet20-b", 28, 63).backbone;
    let rounded = with(&backbone, |x| f16_to_f32(f32_to_f16(x)));
    let [one, other] =
        [&backbone, &rounded].map(|bytes| pack_backbone("b", bytes, Packing::For(HALF), &[]).unwrap());
    let (one, other) = (Bundle::parse(&one).unwrap(), Bundle::parse(&other).unwrap());
    for section in &one.manifest().sections {
        let name = &section.name;
        assert_eq!(one.raw(name).unwrap(), other.raw(name).unwrap(), "{name}");
    }
    for packing in [Packing::F16, Packing::For(HALF)] {
        let error = pack_backbone("b", &with(&backbone, |x| 1e6 * x), packing, &[]).unwrap_err();
        assert!(error.to_string().contains("finite"), "{packing}: {error}");
    }
}
