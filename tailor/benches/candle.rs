//! Frames of candle's own operations, for `tests/peers/run infer`.
//!
//! `--serve DIR` reads the network that edge-runtime's bench `frame` wrote there (`net.safetensors`,
//! `net.json`), prints `ready` and how far its scores are from those in the file, relative to the largest,
//! then answers every line `N` on stdin by running N frames and printing their median and best in
//! milliseconds. Norms are folded into the convolutions before them; threads are as `RAYON_NUM_THREADS` says.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Module, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear};
use serde_json::Value;
use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

enum Op {
    Conv(Conv2d),
    Relu,
    /// Kernel, stride, pad.
    MaxPool(usize, usize, usize),
    GlobalAvgPool,
    Linear(Linear),
}

/// Paths that are summed, each from an earlier node.
struct Cell {
    paths: Vec<(usize, Vec<Op>)>,
    relu: bool,
}

struct Network {
    stem: Vec<Op>,
    cells: Vec<Cell>,
    head: Vec<Op>,
}

/// The operations of a straight line of the plan.
fn line(plan: &Value, tensors: &HashMap<String, Tensor>) -> Result<Vec<Op>> {
    let tensor = |op: &Value, part: &str| {
        let name = format!("{}.{part}", op["name"].as_str().unwrap_or_default());
        tensors.get(&name).cloned().with_context(|| format!("no tensor {name}"))
    };
    let number = |op: &Value, key: &str| op[key].as_u64().unwrap_or_default() as usize;
    let mut made = Vec::new();
    for op in plan.as_array().context("a list of operations")? {
        let next = match op["op"].as_str().unwrap_or_default() {
            "conv" => {
                let config = Conv2dConfig {
                    padding: number(op, "pad"),
                    stride: number(op, "stride"),
                    ..Default::default()
                };
                let bias = if op["bias"] == true { Some(tensor(op, "bias")?) } else { None };
                Op::Conv(Conv2d::new(tensor(op, "weight")?, bias, config))
            }
            "affine" => {
                let (scale, shift) = (tensor(op, "scale")?, tensor(op, "shift")?);
                let Some(Op::Conv(conv)) = made.pop() else { bail!("a norm that follows no convolution") };
                let weight = conv.weight().broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
                let bias = match conv.bias() {
                    Some(bias) => ((bias * &scale)? + &shift)?,
                    None => shift,
                };
                Op::Conv(Conv2d::new(weight, Some(bias), *conv.config()))
            }
            "relu" => Op::Relu,
            "max-pool" => Op::MaxPool(number(op, "kernel"), number(op, "stride"), number(op, "pad")),
            "global-avg-pool" => Op::GlobalAvgPool,
            "linear" => Op::Linear(Linear::new(tensor(op, "weight")?, Some(tensor(op, "bias")?))),
            other => bail!("no operation called {other:?} here"),
        };
        made.push(next);
    }
    Ok(made)
}

impl Network {
    fn new(plan: &Value, tensors: &HashMap<String, Tensor>) -> Result<Network> {
        let mut cells = Vec::new();
        for cell in plan["cells"].as_array().context("cells")? {
            let mut paths = Vec::new();
            for gate in cell["gates"].as_array().context("gates")? {
                if !gate["alpha"].is_null() {
                    bail!("gates with a value of their own are not measured");
                }
                let source = gate["source"].as_u64().context("a source")? as usize;
                for path in gate["paths"].as_array().context("paths")? {
                    paths.push((source, line(path, tensors)?));
                }
            }
            cells.push(Cell { paths, relu: cell["relu"] == true });
        }
        Ok(Network { stem: line(&plan["stem"], tensors)?, cells, head: line(&plan["head"], tensors)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut nodes = vec![along(&self.stem, x)?];
        for cell in &self.cells {
            let mut sum: Option<Tensor> = None;
            for (source, path) in &cell.paths {
                let term = along(path, &nodes[*source])?;
                sum = Some(match sum {
                    Some(sum) => (sum + term)?,
                    None => term,
                });
            }
            let sum = sum.context("a cell without paths")?;
            nodes.push(if cell.relu { sum.relu()? } else { sum });
        }
        along(&self.head, &nodes[nodes.len() - 1])
    }
}

fn along(ops: &[Op], x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for op in ops {
        x = match op {
            Op::Conv(conv) => conv.forward(&x)?,
            Op::Relu => x.relu()?,
            &Op::MaxPool(kernel, stride, pad) => {
                // Zeros do for what a ReLU left.
                let padded = x.pad_with_zeros(2, pad, pad)?.pad_with_zeros(3, pad, pad)?;
                padded.max_pool2d_with_stride(kernel, stride)?
            }
            Op::GlobalAvgPool => x.mean((2, 3))?,
            Op::Linear(linear) => linear.forward(&x)?,
        };
    }
    Ok(x)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [serve, folder] = &args[..] else { bail!("usage: candle --serve DIR") };
    anyhow::ensure!(serve == "--serve", "no option called {serve}");
    let folder = Path::new(folder);
    let plan: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("net.json"))?)?;
    let tensors = candle_core::safetensors::load(folder.join("net.safetensors"), &Device::Cpu)?;
    let of = |name: &str| tensors.get(name).with_context(|| format!("no tensor {name}"));
    let (image, want) = (of("test.image")?, of("test.scores")?);
    let network = Network::new(&plan, &tensors)?;
    let apart = (network.forward(image)? - want)?.abs()?.max_all()?.to_scalar::<f32>()?;
    println!("ready {}", apart / want.abs()?.max_all()?.to_scalar::<f32>()?);
    for line in std::io::stdin().lock().lines() {
        let n: usize = line?.trim().parse()?;
        let mut times = Vec::with_capacity(n);
        for _ in 0..n.max(1) {
            let start = Instant::now();
            network.forward(image)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_unstable_by(f64::total_cmp);
        println!("{} {}", times[times.len() / 2], times[0]);
    }
    Ok(())
}
