//! A store of random numbers in `tailor`'s formats: a backbone, plain and packed, and many tailored tasks.

use crate::peer::{Entry, write_network};
use bundles::container::{Bundle, Kind, Preprocess, Resize, Writer};
use bundles::plan::{Arch, Owner, Plan, Role, Skips};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Options, Packing, Session, Task};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

type Tensors = HashMap<String, Vec<f32>>;

/// Tasks in the store.
pub const TASKS: usize = 50;

/// The backbone as written by `tailor import`, and as packed by `tailor pack` for this machine.
pub fn backbones(directory: &Path) -> [PathBuf; 2] {
    ["net.backbone", "packed.backbone"].map(|name| directory.join(name))
}

/// The `i`-th task's bundle.
pub fn task(directory: &Path, i: usize) -> PathBuf {
    directory.join(format!("task{i}.task"))
}

/// Drops every third block, and all proxies except those over the gaps: about what a task of medium
/// difficulty keeps.
fn tailored(source: &Plan, arch: Arch) -> Plan {
    let student = source.with_proxies(Skips::Nearest(3), arch.proxy_form()).expect("a student");
    let alpha = |node: usize, role, source: usize| match role {
        Role::Block if node % 3 == 2 => 0.1,
        Role::Block => 0.9,
        Role::Proxy if source + 1 == node && !node.is_multiple_of(3) => 0.5,
        Role::Proxy => 0.0,
    };
    let alphas: Vec<Vec<f32>> = (1..)
        .zip(&student.cells)
        .map(|(node, cell)| cell.gates.iter().map(|gate| alpha(node, gate.role, gate.source)).collect())
        .collect();
    student.pruned(&alphas, student.cells.len() / 3, 0.05).expect("a pruned plan").folded()
}

/// Writes everything for `arch` into `directory`.
pub fn write(arch: &str, directory: &Path) {
    let arch: Arch = arch.parse().expect("an architecture");
    let size = arch.native_size();
    let source = arch.plan(size, size, 100).expect("a plan");
    let mut seed = 7;
    let shared = numbers(&source, Owner::Backbone, &mut seed);
    let backbone = bundle(Kind::Backbone, "net", &source, None, &shared);
    let packed =
        edge_runtime::pack_backbone("net", &backbone, Packing::For(Isa::detect()), &[]).expect("packs");
    let id = Bundle::parse(&backbone).expect("a bundle").manifest().backbone.id;
    for (path, bytes) in backbones(directory).iter().zip([&backbone, &packed]) {
        std::fs::write(path, bytes).expect("room for a file");
    }
    let plan = tailored(&source, arch);
    for i in 0..TASKS {
        let own = numbers(&plan, Owner::Task, &mut seed);
        let bytes = bundle(Kind::Task, &format!("task{i}"), &plan, Some(id), &own);
        std::fs::write(task(directory, i), bytes).expect("room for a file");
        if i == 0 {
            for_peer(directory, &plan, &shared, &own);
        }
    }
}

fn for_peer(directory: &Path, plan: &Plan, shared: &Tensors, own: &Tensors) {
    let backbone = Backbone::open(&backbones(directory)[0], &Options::default()).expect("a backbone");
    let task = Task::load(&backbone, task(directory, 0)).expect("a task");
    let mut seed = 3;
    let image: Vec<f32> = (0..plan.input.len()).map(|_| uniform(&mut seed)).collect();
    let scores = Session::new(1).run(&task, &image).expect("a frame").to_vec();
    let of = |spec: &bundles::plan::TensorSpec| match spec.owner {
        Owner::Backbone => &shared[&spec.name],
        Owner::Task => &own[&spec.name],
    };
    let specs = plan.tensors();
    let mut entries: Vec<Entry<'_>> =
        specs.iter().map(|spec| (spec.name.clone(), spec.shape.clone(), &of(spec)[..])).collect();
    entries.push(("test.image".into(), vec![1, plan.input.c, plan.input.h, plan.input.w], &image));
    entries.push(("test.scores".into(), vec![1, scores.len()], &scores));
    write_network(directory, "task0", plan, &entries).expect("room for a file");
}

/// Uniform in -1..1.
fn uniform(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// Numbers that keep activations near one through any number of layers.
fn numbers(plan: &Plan, owner: Owner, seed: &mut u64) -> Tensors {
    let specs = plan.tensors().into_iter().filter(|spec| spec.owner == owner);
    specs
        .map(|spec| {
            let fan_in: usize = spec.shape.iter().skip(1).product();
            let (centre, spread) = match spec.name.rsplit('.').next() {
                Some("scale" | "alpha") => (0.7, 0.1),
                Some("shift" | "bias") => (0.0, 0.1),
                _ => (0.0, (6.0 / fan_in as f32).sqrt()),
            };
            let values = (0..spec.len()).map(|_| centre + spread * uniform(seed)).collect();
            (spec.name, values)
        })
        .collect()
}

fn bundle(kind: Kind, name: &str, plan: &Plan, id: Option<[u8; 32]>, tensors: &Tensors) -> Vec<u8> {
    let input = plan.input;
    let preprocess = Preprocess::new(input.c, input.w, input.h, Resize::Bilinear, [0.5; 3], [0.25; 3]);
    let mut writer = Writer::new(kind, name, plan.clone(), preprocess);
    let owner = if kind == Kind::Task { Owner::Task } else { Owner::Backbone };
    if let Some(id) = id {
        writer.backbone(id, "").labels((0..plan.classes()).map(|class| class.to_string()));
    }
    for spec in plan.tensors().into_iter().filter(|spec| spec.owner == owner) {
        writer.tensor_f32(&spec.name, owner, &spec.shape, &tensors[&spec.name]).expect("a tensor");
    }
    writer.finish(&[]).expect("a bundle")
}
