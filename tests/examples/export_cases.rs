//! Networks for `tests/peers/run export`: writes ONNX models, each with an input and the device engine's
//! scores.
//!
//! `export_cases FOLDER [--bundles BACKBONE TASK]...` writes NAME.onnx, NAME.input and NAME.scores (f32,
//! little-endian) and prints one JSON line per case. The cases are random plans, architectures as backbones
//! and as pruned students packed into bundles, the sample backbone, and any bundles given.

#[path = "../../edge-runtime/tests/runtime/naive.rs"]
mod naive;
#[path = "../../edge-runtime/tests/runtime/random.rs"]
mod random;
// The module's on-disk stores are for the command's own tests.
#[allow(dead_code)]
#[path = "../../edge-runtime/tests/runtime/store.rs"]
mod store;

use bundles::container::{Kind, Preprocess, Resize};
use bundles::plan::{Arch, Owner, Plan};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Frame, Runtime, Session, Task};
use random::Rng;
use std::error::Error;
use std::path::{Path, PathBuf};
use tailor::export::{Network, Options, onnx};
use tailor::import::{Request, import, write_backbone};
use tailor::precision::{File, Loaded};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Architecture and image size: small ones in full, the large ones for their shapes.
const ARCHITECTURES: [(&str, usize); 8] = [
    ("cifar-resnet20-a", 32),
    ("cifar-resnet56-b", 32),
    ("resnet18", 224),
    ("resnet34-s3", 64),
    ("resnet50", 64),
    ("wrn16-1", 32),
    ("wrn28-2", 32),
    ("wrn26-decathlon", 64),
];

/// Number of random plans.
const PLANS: u64 = 24;

struct Cases {
    folder: PathBuf,
}

impl Cases {
    /// Writes one case; `input` `(n, ...)` goes into the model, `scores` is the engine's result.
    fn add(&self, name: &str, network: &Network, options: Options, input: &[f32], scores: &[f32]) -> Outcome {
        let exported = onnx(network, options)?;
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let file = |extension: &str| self.folder.join(format!("{name}.{extension}"));
        std::fs::write(file("onnx"), &exported.bytes)?;
        std::fs::write(file("input"), floats(input))?;
        std::fs::write(file("scores"), floats(scores))?;
        let batch = input.len() / exported.input.dims.iter().product::<usize>();
        println!(
            "{{\"name\":\"{name}\",\"input\":{:?},\"batch\":{batch},\"dims\":{:?},\"output\":{:?}}}",
            exported.input.name, exported.input.dims, exported.output.name
        );
        Ok(())
    }

    /// A network in memory: one image, and two at once with a dynamic batch axis.
    fn memory(&self, name: &str, network: &Network, rng: &mut Rng) -> Outcome {
        let images: Vec<f32> = (0..2 * network.plan.input.len()).map(|_| rng.float()).collect();
        let of = |owner| {
            let specs = network.plan.tensors().into_iter().filter(move |spec| spec.owner == owner);
            specs.map(|s| (s.name.clone(), network.tensors[&s.name].clone())).collect::<naive::Tensors>()
        };
        let backbone = Backbone::from_tensors(Isa::detect(), of(Owner::Backbone));
        let task = Task::from_tensors(&backbone, name, &network.plan, &of(Owner::Task))?;
        let mut session = Session::new(1);
        let mut scores = Vec::new();
        for image in images.chunks(images.len() / 2) {
            scores.extend_from_slice(session.run(&task, image)?);
        }
        let (one, half) = (&images[..images.len() / 2], scores.len() / 2);
        self.add(name, network, Options::default(), one, &scores[..half])?;
        let any = Options { dynamic_batch: true, ..Options::default() };
        self.add(&format!("{name}-batch"), network, any, &images, &scores)
    }

    /// A task in its bundle: frames of pixels through the runtime, and through the model with preprocessing.
    fn bundle(&self, name: &str, backbone: &[u8], task: &[u8]) -> Outcome {
        let network = Network::task(File { name, bytes: task }, File { name, bytes: backbone })?;
        let (shape, grey) = (network.plan.input, network.preprocess.grey);
        let channels = if grey { 1 } else { shape.c };
        let pixels: Vec<u8> =
            (0..channels * shape.h * shape.w).map(|i| (i * 37 + i / 91 * 11) as u8).collect();
        let open = Backbone::from_bytes(name, backbone.to_vec(), &edge_runtime::Options::default())?;
        let mut runtime = Runtime::new(open, 1);
        let id = runtime.load_bytes(name, task)?;
        runtime.switch(id)?;
        let frame = Frame { width: shape.w, height: shape.h, channels, pixels: &pixels };
        let scores = runtime.frame(frame)?.logits.to_vec();
        let planes = (0..channels).flat_map(|c| pixels.iter().skip(c).step_by(channels));
        let input: Vec<f32> = planes.map(|&v| f32::from(v)).collect();
        let options = Options { with_preprocessing: true, ..Options::default() };
        self.add(name, &network, options, &input, &scores)
    }
}

fn network(name: &str, plan: Plan, rng: &mut Rng) -> Network {
    let tensors = random::tensors(&plan, rng);
    let preprocess = Preprocess::new(3, plan.input.w, plan.input.h, Resize::Bilinear, [0.5; 3], [0.5; 3]);
    Network {
        kind: Kind::Task,
        name: name.into(),
        plan,
        tensors,
        classifier: true,
        labels: Vec::new(),
        preprocess,
        backbone: [7; 32],
        facts: Vec::new(),
    }
}

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let folder: PathBuf = args.next().ok_or("export_cases FOLDER [--bundles BACKBONE TASK]...")?.into();
    let cases = Cases { folder };
    for seed in 1..=PLANS {
        let rng = &mut Rng::new(seed);
        let name = format!("random{seed}");
        let network = network(&name, random::plan(rng), rng);
        cases.memory(&name, &network, rng)?;
    }
    for (name, size) in ARCHITECTURES {
        let rng = &mut Rng::new(3);
        let arch: Arch = name.parse()?;
        let network = network(name, arch.plan(size, size, 10)?, rng);
        cases.memory(name, &network, rng)?;
        // The store's golden vectors are computed by plain loops: keep images small.
        let packed = store::packed(name, size.min(32), 3);
        for (task, bytes, ..) in &packed.tasks {
            cases.bundle(&format!("{name}-{task}"), &packed.backbone, bytes)?;
        }
    }
    let weights =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundles/samples/cifar100-resnet20.safetensors");
    let sample = cases.folder.join("sample.backbone");
    write_backbone(&import(&weights, &Request::default())?, &sample)?;
    let network = Network::backbone(Loaded::read(&sample)?.file())?;
    cases.memory("sample", &network, &mut Rng::new(1))?;
    while let Some(word) = args.next() {
        let (Some(backbone), Some(task), "--bundles") = (args.next(), args.next(), word.as_str()) else {
            return Err(format!("`{word}`: --bundles BACKBONE TASK is known").into());
        };
        let name = Path::new(&task).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        cases.bundle(&name, &std::fs::read(&backbone)?, &std::fs::read(&task)?)?;
    }
    Ok(())
}
