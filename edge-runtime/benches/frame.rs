//! Measures the frame time of whole networks: `cargo bench -p edge-runtime --bench frame`
//!
//! Prints median and best of single-thread frames for the project's benchmark networks, with seeded random
//! weights (which do not affect speed); `+k3` is the student with all its proxies (k = 3), folded as on a
//! device. Any other word restricts the list to names that contain it; `--threads N` and `--isa NAME` select
//! threads and instruction set.
//!
//! `--precision int8` runs the network in int8, with quantisation ranges wide enough for these weights;
//! `--precision f16` rounds the weights as an f16 file does. `--isa neon-fp16` computes in half precision,
//! anything else in f32.
//!
//! `--serve DIR --net NAME` lets a peer's script measure both sides in turn: it writes the network's plan
//! (`net.json`) and its tensors, an image and its scores (`net.safetensors`) to DIR, then answers every line
//! `N` on stdin by running N frames and printing their median and best in milliseconds.

#[path = "peer/mod.rs"]
mod peer;

use bundles::container::{f16_to_f32, f32_to_f16};
use bundles::plan::{Arch, Owner, Place, Plan};
use edge_runtime::kernels::{Isa, int8::Grid};
use edge_runtime::{Backbone, Session, Task};
use peer::{Entry, write_network};
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

/// Name, image size, classes.
const NETWORKS: &[(&str, usize, usize)] = &[
    ("cifar-resnet20-b", 32, 10),
    ("cifar-resnet56-b", 32, 10),
    ("resnet18", 224, 1000),
    ("resnet34", 224, 1000),
    ("cifar-resnet20-b+k3", 32, 10),
    ("resnet18+k3", 224, 1000),
];

type Tensors = HashMap<String, Vec<f32>>;

/// Uniform numbers in -1..1.
fn random(seed: &mut u32) -> f32 {
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*seed >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Weights that keep activations near one through any number of layers.
fn weights(plan: &Plan) -> Tensors {
    let mut seed = 1;
    let mut tensors = Tensors::new();
    for spec in plan.tensors() {
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let (centre, spread) = match spec.name.rsplit('.').next() {
            // Added to a node, once per block.
            Some("scale") if spec.name.ends_with("bn2.scale") => (0.2, 0.03),
            Some("scale") => (0.7, 0.1),
            Some("alpha") => (0.5, 0.1),
            Some("shift" | "bias") => (0.0, 0.1),
            _ => (0.0, (6.0 / fan_in as f32).sqrt()),
        };
        let numbers = (0..spec.shape.iter().product()).map(|_| centre + spread * random(&mut seed)).collect();
        tensors.insert(spec.name, numbers);
    }
    tensors
}

/// The quantisation parameters for the activations of [`weights`], for int8.
fn grids(plan: &Plan) -> Vec<Grid> {
    let wide = |place| match place {
        Place::Input => Grid { scale: 2.0 / 255.0, zero: 128 },
        _ => Grid { scale: 6.0 / 255.0, zero: 0 },
    };
    plan.maps().into_iter().map(|map| wide(map.place)).collect()
}

/// A network that is ready to run.
struct Network {
    plan: Plan,
    tensors: Tensors,
    task: Task,
    session: Session,
    image: Vec<f32>,
}

impl Network {
    fn new(
        &(name, size, classes): &(&str, usize, usize),
        isa: Isa,
        threads: usize,
        precision: &str,
    ) -> Network {
        let (arch, skips) = name.split_once("+k").unwrap_or((name, ""));
        let arch: Arch = arch.parse().expect("an architecture");
        let mut plan = arch.plan(size, size, classes).expect("a plan");
        if !skips.is_empty() {
            plan = plan.with_proxies(skips.parse().expect("skips"), arch.proxy_form()).expect("a student");
        }
        let plan = plan.folded();
        let mut tensors = weights(&plan);
        if precision == "f16" {
            tensors.values_mut().flatten().for_each(|x| *x = f16_to_f32(f32_to_f16(*x)));
        }
        let owned = |owner| {
            let names = plan.tensors().into_iter().filter(move |spec| spec.owner == owner);
            names.map(|spec| (spec.name.clone(), tensors[&spec.name].clone())).collect::<Tensors>()
        };
        let backbone: Arc<Backbone> = Backbone::from_tensors(isa, owned(Owner::Backbone));
        let own = owned(Owner::Task);
        let task = match precision {
            "int8" => Task::from_tensors_int8(&backbone, name, &plan, &own, &grids(&plan)),
            _ => Task::from_tensors(&backbone, name, &plan, &own),
        };
        let task = task.expect("a task");
        let mut seed = 2;
        let image = (0..plan.input.len()).map(|_| random(&mut seed)).collect();
        Network { plan, tensors, task, session: Session::new(threads), image }
    }

    /// Median and best of `n` frames in milliseconds.
    fn frames(&mut self, n: usize) -> (f64, f64) {
        let mut times: Vec<f64> = Vec::with_capacity(n);
        for _ in 0..n.max(1) {
            let start = Instant::now();
            self.session.run(&self.task, &self.image).expect("a frame");
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_unstable_by(f64::total_cmp);
        (times[times.len() / 2], times[0])
    }

    /// Writes everything a peer needs to run the same network on the same image.
    fn write(&mut self, directory: &str) -> std::io::Result<()> {
        let input = self.plan.input;
        let scores = self.session.run(&self.task, &self.image).expect("a frame").to_vec();
        let mut entries: Vec<Entry<'_>> = Vec::new();
        for spec in self.plan.tensors() {
            let numbers = &self.tensors[&spec.name];
            entries.push((spec.name, spec.shape, numbers));
        }
        entries.push(("test.image".into(), vec![1, input.c, input.h, input.w], &self.image));
        entries.push(("test.scores".into(), vec![1, scores.len()], &scores));
        write_network(directory.as_ref(), "net", &self.plan, &entries)
    }
}

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut isa, mut threads, mut serve, mut only) = (Isa::detect(), 1, None, String::new());
    let mut precision = String::from("f32");
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--isa" => isa = value().parse().expect("an instruction set's name"),
            "--threads" => threads = value().parse().expect("a number of threads"),
            "--serve" => serve = Some(value()),
            "--net" => only = value(),
            "--precision" => precision = value(),
            _ => only = arg,
        }
    }
    let mut chosen = NETWORKS.iter().filter(|(name, ..)| name.contains(&only));
    if let Some(directory) = serve {
        let entry = chosen.next().expect("a network of that name");
        let mut network = Network::new(entry, isa, threads, &precision);
        network.write(&directory)?;
        println!("ready");
        for line in std::io::stdin().lock().lines() {
            let (median, best) = network.frames(line?.trim().parse().expect("a number of frames"));
            println!("{median} {best}");
        }
        return Ok(());
    }
    for entry in chosen {
        let mut network = Network::new(entry, isa, threads, &precision);
        network.frames(5);
        let once = network.frames(3).1;
        let (median, best) = network.frames(((2_000.0 / once) as usize).clamp(20, 3000));
        println!(
            "{:<18} {precision}, {isa}, {threads} thread(s): median {median:.3} ms, best {best:.3} ms",
            entry.0
        );
    }
    Ok(())
}
