//! Backbone and task bundles with random weights, as `tailor` would pack them.

use super::naive::{self, Tensors};
use super::random::{self, Rng};
use bundles::container::{Bundle, Golden, Kind, Manifest, Preprocess, Resize, Writer, golden_input};
use bundles::plan::{Arch, Owner, Plan, Role, Skips};

/// One backbone and three differently pruned tasks.
pub struct Packed {
    pub backbone: Vec<u8>,
    /// Name, bundle, plan and all tensors of each task.
    pub tasks: Vec<(String, Vec<u8>, Plan, Tensors)>,
}

/// Names of the tasks.
pub const NAMES: [&str; 3] = ["digits", "fashion", "signs"];

/// Packs `arch` for images of `size` pixels.
pub fn packed(arch: &str, size: usize, seed: u64) -> Packed {
    let rng = &mut Rng::new(seed);
    let parsed: Arch = arch.parse().unwrap();
    let source = parsed.plan(size, size, 5).unwrap();
    let shared = random::tensors(&source, rng);
    let backbone = bundle(Kind::Backbone, arch, &source, &shared, None, false);
    let id = Bundle::parse(&backbone).unwrap().manifest().backbone.id;
    let student = source.with_proxies(Skips::Nearest(3), parsed.proxy_form()).unwrap();
    let tasks = NAMES.iter().enumerate().map(|(i, name)| {
        // Different blocks survive in each task.
        let alphas: Vec<Vec<f32>> = student
            .cells
            .iter()
            .enumerate()
            .map(|(l, cell)| {
                let alpha = |role| if role == Role::Block { 0.1 + ((l + i) % 3) as f32 * 0.3 } else { 0.3 };
                cell.gates.iter().map(|gate| alpha(gate.role)).collect()
            })
            .collect();
        let mut plan = student.pruned(&alphas, i, 0.05).unwrap().folded();
        if let Some(bundles::plan::Op::Linear(linear)) = plan.head.last_mut() {
            linear.c_out = 4 + i;
        }
        let mut all = random::tensors(&plan, rng);
        for (tensor, numbers) in &shared {
            if all.contains_key(tensor)
                && plan.tensors().iter().any(|t| t.name == *tensor && t.owner == Owner::Backbone)
            {
                all.insert(tensor.clone(), numbers.clone());
            }
        }
        let bytes = bundle(Kind::Task, name, &plan, &all, Some(id), i == 1);
        (name.to_string(), bytes, plan, all)
    });
    Packed { backbone, tasks: tasks.collect() }
}

fn bundle(
    kind: Kind,
    name: &str,
    plan: &Plan,
    tensors: &Tensors,
    id: Option<[u8; 32]>,
    grey: bool,
) -> Vec<u8> {
    let input = plan.input;
    let mut preprocess =
        Preprocess::new(input.c, input.w, input.h, Resize::Bilinear, [0.5, 0.45, 0.4], [0.2, 0.25, 0.3]);
    preprocess.grey = grey;
    let mut writer = Writer::new(kind, name, plan.clone(), preprocess);
    let owner = if kind == Kind::Task { Owner::Task } else { Owner::Backbone };
    if let Some(id) = id {
        writer.backbone(id, "").labels((0..plan.classes()).map(|class| format!("{name} {class}")));
        let mut image = vec![0.0; input.len()];
        golden_input(11, &mut image);
        let scores = naive::scores(plan, tensors, &image).into_iter().map(|x| x as f32).collect();
        writer.golden(Golden { seed: 11, scores, tolerance: 1e-4 });
    }
    for spec in plan.tensors().into_iter().filter(|spec| spec.owner == owner) {
        writer.tensor_f32(&spec.name, owner, &spec.shape, &tensors[&spec.name]).unwrap();
    }
    writer.finish(&[]).unwrap()
}

/// The same tasks and weights for images of another size.
pub fn resized(packed: &Packed, size: usize) -> Packed {
    let id = Bundle::parse(&packed.backbone).unwrap().manifest().backbone.id;
    let tasks = packed.tasks.iter().map(|(name, _, plan, all)| {
        let mut plan = plan.clone();
        (plan.input.h, plan.input.w) = (size, size);
        let bytes = bundle(Kind::Task, name, &plan, all, Some(id), false);
        (name.clone(), bytes, plan, all.clone())
    });
    Packed { backbone: packed.backbone.clone(), tasks: tasks.collect() }
}

/// A bundle for the tasks' backbone that holds `plan` with constant weights.
pub fn constant(packed: &Packed, name: &str, plan: &Plan) -> Vec<u8> {
    let id = Bundle::parse(&packed.backbone).unwrap().manifest().backbone.id;
    let input = plan.input;
    let preprocess = Preprocess::new(input.c, input.w, input.h, Resize::Bilinear, [0.5; 3], [0.5; 3]);
    let mut writer = Writer::new(Kind::Task, name, plan.clone(), preprocess);
    writer.backbone(id, "").labels((0..plan.classes()).map(|class| class.to_string()));
    for spec in plan.tensors().into_iter().filter(|spec| spec.owner == Owner::Task) {
        writer.tensor_f32(&spec.name, spec.owner, &spec.shape, &vec![0.01; spec.len()]).unwrap();
    }
    writer.finish(&[]).unwrap()
}

/// The task bundle with another name, runtime ABI or golden vectors.
pub fn changed(bundle: &[u8], change: impl Fn(&mut Manifest)) -> Vec<u8> {
    let parsed = Bundle::parse(bundle).unwrap();
    let mut manifest = parsed.manifest().clone();
    change(&mut manifest);
    let mut writer = Writer::new(Kind::Task, &manifest.name, manifest.plan, manifest.preprocess);
    writer.backbone(manifest.backbone.id, "").labels(manifest.labels).abi(manifest.abi);
    for golden in manifest.golden {
        writer.golden(golden);
    }
    for section in &manifest.sections {
        let numbers = parsed.decode_f32(&section.name).unwrap();
        writer.tensor_f32(&section.name, section.owner, &section.shape, &numbers).unwrap();
    }
    writer.finish(&[]).unwrap()
}

/// The bundle with one bit of its last section, `fc.bias`, flipped: everything in front of it is unchanged.
pub fn damaged(bundle: &[u8]) -> Vec<u8> {
    let mut bytes = bundle.to_vec();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    bytes
}

/// A directory with `packed` as a store.
pub fn directory(packed: &Packed) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("net.backbone"), &packed.backbone).unwrap();
    for (name, bytes, ..) in &packed.tasks {
        std::fs::write(directory.path().join(name).with_extension("task"), bytes).unwrap();
    }
    directory
}
