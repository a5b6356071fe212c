//! Names, costs, and results on disk.

use crate::baselines::adapters::{self, Place};
use crate::baselines::size::{Owned, Parts};
use crate::baselines::{Gap, Method, Outcome, Size, dan};
use crate::fit::Judge;
use crate::fit::testing::backbone;
use crate::train::Score;
use bundles::plan::{Conv, Counter, Op, Owner};

#[test]
fn methods_are_known_by_name() {
    for method in Method::ALL {
        assert_eq!(method.name().parse::<Method>().unwrap(), method);
    }
    let error = "packnet".parse::<Method>().unwrap_err().to_string();
    assert!(error.contains("packnet-50, packnet-75") && error.contains("`packnet`"), "{error}");
}

#[test]
fn adapters_cost_as_much_as_separate_layers() {
    let (plan, _) = backbone(4);
    let mut layered = plan.clone();
    let insert = |ops: &mut Vec<Op>| {
        let with_adapter = |op: Op| match op {
            Op::Conv(conv) if conv.kernel > 1 => {
                let name = format!("{}.adapter", conv.name);
                let (c_in, c_out) = (conv.c_out, conv.c_out);
                let own =
                    Conv { name, owner: Owner::Task, c_in, c_out, kernel: 1, stride: 1, pad: 0, bias: false };
                vec![Op::Conv(conv), Op::Conv(own)]
            }
            op => vec![op],
        };
        *ops = std::mem::take(ops).into_iter().flat_map(with_adapter).collect();
    };
    insert(&mut layered.stem);
    layered
        .cells
        .iter_mut()
        .flat_map(|c| &mut c.gates)
        .flat_map(|g| &mut g.paths)
        .for_each(|p| insert(&mut p.ops));
    let size = adapters::size(&plan, Place::Series).unwrap();
    assert_eq!(size.macs, layered.costs(Counter::True).unwrap().total().macs);
    assert_eq!(size.task_params, layered.task_params());
    assert_eq!(size.params, layered.task_params() + layered.backbone_params());
    // A parallel adapter reads fewer channels where the kernel increases them.
    let parallel = adapters::size(&plan, Place::Parallel).unwrap();
    assert!(parallel.macs < size.macs && parallel.task_params < size.task_params);
    // Filters are combined before inference; 1x1 kernels have a matrix too (32^2 + 64^2).
    let dan = dan::size(&plan).unwrap();
    assert_eq!(dan.macs, Parts::of(&plan).unwrap().macs);
    assert_eq!(dan.task_params, size.task_params + 32 * 32 + 64 * 64);
}

#[test]
fn masks_are_counted_in_bits() {
    let size = Size::new(100, Owned { numbers: 3, bits: 65 }, 7);
    assert_eq!(size, Size { params: 106, task_params: 6, macs: 7, swap_bytes: 12 + 9 });
}

#[test]
fn results_come_back_from_disk_and_print_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    assert_eq!(Outcome::read(&path).unwrap(), None);
    for test in [None, Some(Score { right: 1, n: 3 })] {
        let outcome = Outcome {
            method: Method::Dan,
            data: "signs".into(),
            arch: "cifar-resnet20-b".into(),
            backbone: "00ff".into(),
            pixels: [24, 32],
            seed: 3,
            val: Score { right: 229, n: 231 },
            gap: test.map(|_| Gap { judge: Judge::Probability, error: 0.0125 }),
            test,
            test_images: test.map(|_| "ab".into()),
            size: Size { params: 5, task_params: 4, macs: 3, swap_bytes: 2 },
            seconds: 0.867_513_667,
            run: "with {braces} and \"quotes\"".into(),
        };
        outcome.write(&path).unwrap();
        let read = Outcome::read(&path).unwrap().unwrap();
        assert_eq!(read.json().to_string(), outcome.json().to_string());
        assert_eq!((read.val, read.test, read.size), (outcome.val, outcome.test, outcome.size));
        assert_eq!(read.gap, outcome.gap);
    }
    std::fs::write(&path, "{}").unwrap();
    let error = Outcome::read(&path).unwrap_err().to_string();
    assert!(error.contains("result.json") && error.contains("remove the file"), "{error}");
}
