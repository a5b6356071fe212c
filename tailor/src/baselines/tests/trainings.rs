//! Whole trainings on a few images: what each method may change, and what must stay bit-identical.

use super::bits;
use crate::baselines::kernels::{convs, weight};
use crate::baselines::size::Parts;
use crate::baselines::{Bench, Method, Packed, Size, Trained};
use crate::fit::testing::{CLASSES, ground};
use crate::fit::{Ground, Recipe, Work};
use crate::net::{Net, Params, Pass};
use crate::progress::Progress;
use crate::train::Schedule;
use bundles::plan::{Op, Plan};
use candle_core::{Device, Tensor};
use std::path::Path;

fn recipe() -> Recipe {
    let mut recipe = Recipe::small();
    (recipe.teach.epochs, recipe.teach.batch) = (3, 8);
    recipe
}

fn train(method: Method, ground: &Ground, packed: Option<&Packed>) -> crate::Result<Trained> {
    train_on(method, ground, packed, true)
}

fn train_on(
    method: Method,
    ground: &Ground,
    packed: Option<&Packed>,
    is_last: bool,
) -> crate::Result<Trained> {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, work) = (recipe(), Work::open(folder.path()).unwrap());
    method.train(&Bench {
        ground,
        recipe: &recipe,
        schedule: Schedule::OneCycle { peak: 0.05 },
        work: &work,
        packed,
        is_last,
        device: &Device::Cpu,
        progress: &Progress::hidden(),
    })
}

/// Node `x_L` of some images, before any classifier.
fn features(plan: &Plan, params: &Params) -> Vec<u32> {
    let images = Tensor::from_vec(
        (0..2 * 432).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect(),
        (2, 3, 12, 12),
        &Device::Cpu,
    );
    let mut body = plan.clone();
    body.head.retain(|op| !matches!(op, Op::Linear(_)));
    bits(&Net { plan: &body, params }.forward(&images.unwrap(), Pass::Infer).unwrap().logits)
}

#[test]
fn feature_extraction_trains_a_classifier_and_nothing_else() {
    let ground = ground(1, true);
    let trained = train(Method::Features, &ground, None).unwrap();
    for (name, tensor) in trained.params.iter().filter(|(name, _)| !name.starts_with("fc.")) {
        assert_eq!(bits(tensor), bits(ground.source.params.get(name).unwrap()), "{name}");
    }
    assert_eq!(trained.size.task_params, (64 * CLASSES + CLASSES) as u64);
    // Classes differ only in brightness, so they are linearly separable.
    assert!(trained.validation.accuracy() > 0.6, "{:?}", trained.validation);
}

#[test]
fn piggyback_masks_and_never_changes_a_weight() {
    let ground = ground(1, true);
    let trained = train(Method::Piggyback, &ground, None).unwrap();
    let mut masked = 0;
    for conv in convs(&trained.plan) {
        let (got, frozen) = (&trained.params, &ground.source.params);
        let (got, frozen) = (got.values(&weight(conv)).unwrap(), frozen.values(&weight(conv)).unwrap());
        for (got, frozen) in got.iter().zip(&frozen) {
            assert!(*got == 0.0 || got.to_bits() == frozen.to_bits(), "{}: {got} of {frozen}", conv.name);
            masked += usize::from(*got == 0.0);
        }
    }
    assert!(masked > 0, "no mask has moved");
}

#[test]
fn dan_and_adapters_leave_the_shared_kernels_and_change_what_is_computed() {
    let ground = ground(1, true);
    for method in [Method::Dan, Method::Series, Method::Parallel] {
        let before: Vec<Vec<u32>> = ground.source.params.iter().map(|(_, t)| bits(t)).collect();
        let trained = train(method, &ground, None).unwrap();
        let after: Vec<Vec<u32>> = ground.source.params.iter().map(|(_, t)| bits(t)).collect();
        assert!(before == after, "{method}");
        let changed = convs(&trained.plan).filter(|conv| {
            bits(trained.params.get(&weight(conv)).unwrap())
                != bits(ground.source.params.get(&weight(conv)).unwrap())
        });
        let all = convs(&trained.plan).filter(|conv| conv.kernel > 1 || method == Method::Dan).count();
        assert_eq!(changed.count(), all, "{method}");
    }
}

#[test]
fn packnet_keeps_earlier_tasks_to_the_bit() {
    let grounds: Vec<Ground> = (1..=3).map(|task| ground(task, true)).collect();
    let source = &grounds[0].source;
    let (mut packed, mut seen): (Option<Packed>, Vec<Vec<u32>>) = (None, Vec::new());
    for (done, ground) in grounds.iter().enumerate() {
        let is_last = done + 1 == grounds.len();
        let trained = train_on(Method::PackNet50, ground, packed.as_ref(), is_last).unwrap();
        let now = trained.packed.unwrap();
        let (plan, task) = (&trained.plan, done + 1);
        // A switch transfers the mask and the classifier; the weights of all tasks are in the one network.
        let parts = Parts::of(plan).unwrap();
        assert_eq!(trained.size.swap_bytes, parts.kernels / 8 + 4 * parts.head);
        // A quarter of what is free (9,590, then 7,192) or, as the last one, all of it (21,578), the classifier,
        // the mask and, with the first task, the norms.
        assert_eq!(trained.size.task_params, [12_855, 9_785, 24_171][done]);
        for (earlier, want) in seen.iter().enumerate() {
            let again = features(plan, &now.of_task(earlier + 1).unwrap());
            assert!(&again == want, "task {} after task {task}", earlier + 1);
        }
        // The shared network gives the same features as the one the task was validated with.
        let own = features(plan, &now.of_task(task).unwrap());
        assert!(own == features(plan, &trained.params), "task {task}");
        assert!(seen.iter().all(|other| other != &own), "task {task} changes nothing");
        seen.push(own);

        // Half of each layer belongs to the backbone; each task keeps a quarter of the weights it found free,
        // the last one all of them.
        let total: u64 = convs(plan).map(|c| (c.c_out * c.c_in * c.kernel * c.kernel) as u64).sum();
        let mut free = total;
        free -= now.count(1.0);
        assert!(free.abs_diff(total / 2) <= 10, "{free} of {total}");
        for earlier in 1..=task {
            let kept = now.count(1.0 + earlier as f32);
            let want = if earlier == grounds.len() { free } else { free / 4 };
            assert!(kept.abs_diff(want) <= 10, "task {earlier} keeps {kept} of {free}");
            free -= kept;
        }
        packed = Some(now);
    }
    let packed = packed.unwrap();
    assert!(packed.of_task(4).is_err() && packed.of_task(0).is_err());
    // The weights that the backbone keeps are its own larger ones.
    let conv = "layer1.0.conv1.weight";
    let (kept, all) = (packed.of_task(3).unwrap().values(conv).unwrap(), source.params.values(conv).unwrap());
    let mut sizes: Vec<f32> = all.iter().map(|w| w.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let median = sizes[sizes.len() / 2];
    for (kept, own) in kept.iter().zip(&all).filter(|(_, own)| own.abs() > median) {
        assert_eq!(kept.to_bits(), own.to_bits());
    }
}

#[test]
fn lwf_needs_and_keeps_a_source_classifier() {
    let error = train(Method::Lwf, &ground(1, false), None).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("source classifier"), "{error}");
    let trained = train(Method::Lwf, &ground(1, true), None).unwrap();
    assert!(trained.params.is_free("source.fc.weight") && trained.params.is_free("conv1.weight"));
    assert_eq!(trained.params.get("fc.weight").unwrap().dims(), [CLASSES, 64]);
}

/// Costs counted by hand, on the small network's convolutions (input and output channels, kernel, output
/// pixels): 3, 16, 3x3, 144; twice 16, 16, 3x3, 144; 16, 32, 3x3, 36; 32, 32, 3x3, 36; 16, 32, 1x1, 36;
/// 32, 64, 3x3, 9; 64, 64, 3x3, 9; 32, 64, 1x1, 9. They have 76,720 weights, and 336 channels with a norm of
/// two numbers each. The classifier has 3 x 65. Multiply-adds are 1,757,952, 12,096 and 192.
#[test]
fn what_a_method_reads_owns_computes_and_swaps_is_counted() {
    let ground = ground(1, true);
    let cases = [
        // All 76,720 + 672 + 195.
        (Method::FineTune, [77_587, 77_587, 1_770_240, 4 * 77_587]),
        (Method::Lwf, [77_587, 77_587, 1_770_240, 4 * 77_587]),
        (Method::Features, [77_587, 195, 1_770_240, 4 * 195]),
        // Norms, classifier, and a bit for each weight: 2,397.5 numbers.
        (Method::Piggyback, [76_720 + 3_265, 867 + 2_398, 1_770_240, 4 * 867 + 9_590]),
        // Norms, classifier, and 3 x (16^2 + 32^2 + 64^2) numbers of matrices.
        (Method::Dan, [76_720 + 16_995, 867 + 16_128, 1_770_240, 4 * 16_995]),
        // Beside 3x3 kernels, 3 x 16^2 + 2 x 32^2 + 2 x 64^2 numbers.
        (Method::Series, [76_720 + 11_875, 867 + 11_008, 1_770_240 + 258_048, 4 * 11_875]),
        // 3 x 16 + 2 x 16^2 + 16 x 32 + 32^2 + 32 x 64 + 64^2 of them.
        (Method::Parallel, [76_720 + 9_107, 867 + 8_240, 1_770_240 + 191_232, 4 * 9_107]),
        // Norms, classifier, mask, and the half or three quarters that are free.
        (Method::PackNet50, [77_587 + 2_398, 867 + 2_398 + 38_360, 1_770_240, 4 * 195 + 9_590]),
        (Method::PackNet75, [77_587 + 2_398, 867 + 2_398 + 57_540, 1_770_240, 4 * 195 + 9_590]),
    ];
    assert_eq!(cases.len() + 1, Method::ALL.len(), "all but tailor");
    for (method, want) in cases {
        let Size { params, task_params, macs, swap_bytes } = train(method, &ground, None).unwrap().size;
        assert_eq!([params, task_params, macs, swap_bytes], want, "{method}");
    }
}

#[test]
fn an_interrupted_method_ends_as_if_nothing_had_happened() {
    let ground = ground(1, true);
    let mut recipe = recipe();
    // Features then differ from epoch to epoch, so that none are computed ahead of the first step.
    recipe.augment.flip = true;
    let run = |method: Method, folder: &Path, progress: &Progress| {
        method.train(&Bench {
            ground: &ground,
            recipe: &recipe,
            schedule: Schedule::OneCycle { peak: 0.05 },
            work: &Work::open(folder).unwrap(),
            packed: None,
            is_last: false,
            device: &Device::Cpu,
            progress,
        })
    };
    // With the names of its trainings.
    let methods: [(Method, &[&str]); 3] = [
        (Method::Piggyback, &["piggyback"]),
        (Method::PackNet50, &["packnet", "packnet-kept"]),
        (Method::Lwf, &["lwf-head", "lwf"]),
    ];
    for (method, trainings) in methods {
        let whole = tempfile::tempdir().unwrap();
        let want = run(method, whole.path(), &Progress::hidden()).unwrap();
        for (i, training) in trainings.iter().enumerate() {
            let broken = tempfile::tempdir().unwrap();
            let checkpoint = |training: &str| format!("{training}.safetensors");
            for ended in trainings[..i].iter().map(|training| checkpoint(training)) {
                std::fs::copy(whole.path().join(&ended), broken.path().join(&ended)).unwrap();
            }
            // With a stop requested beforehand, a run makes one step: two runs end in the middle of the first
            // epoch.
            for _ in 0..2 {
                let interrupt = crate::interrupt::Interrupt::default();
                interrupt.request();
                let progress = Progress::hidden().stopped_by(interrupt);
                let stopped = run(method, broken.path(), &progress).unwrap_err();
                let place = format!("{training}, epoch 1, step ");
                assert!(stopped.to_string().starts_with(&place), "{method}: {stopped}");
                assert!(broken.path().join(checkpoint(training)).exists(), "{method}: {training}");
            }
            let got = run(method, broken.path(), &Progress::hidden()).unwrap();
            assert_eq!((got.validation, got.size), (want.validation, want.size), "{method}: {training}");
            for (name, tensor) in want.params.iter() {
                assert_eq!(bits(tensor), bits(got.params.get(name).unwrap()), "{method}: {training}: {name}");
            }
        }
    }
}
