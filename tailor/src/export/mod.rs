//! ONNX export of a backbone, or of a task on its backbone.
//!
//! The model uses operator set 13 and only operators, attributes and shapes supported by TensorRT 8 (JetPack
//! 4.6 and newer). Universal kernels are unchanged: norms follow them as batch-norms, which a runtime folds
//! itself. A block's alpha is folded into the norm at the end of its path, or is a factor if there is none.

mod graph;
mod lower;
mod network;
pub mod schema;

pub use network::Network;

use crate::Result;
use bundles::container::hex;
use bundles::plan::Shape;
use lower::{Lowering, Value};
use prost::Message;
use schema::{Entry, Extent, Model, OperatorSet};

/// Operator set: the newest that TensorRT 8.0 supports.
pub const OPSET: i64 = 13;

/// ONNX file format (IR) version for that operator set.
const IR_VERSION: i64 = 7;

/// Maximum model size: protobuf lengths have 31 bits.
const MAX_BYTES: usize = i32::MAX as usize;

/// Properties of the exported model's interface.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether the batch axis is dynamic, named `batch`; otherwise it is 1.
    pub dynamic_batch: bool,
    /// Whether the model takes pixels in 0..255 (already resized) and normalises them itself.
    pub with_preprocessing: bool,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the model.
    pub name: &'static str,
    /// Extents of all axes after the batch axis.
    pub dims: Vec<usize>,
}

/// An exported network.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The encoded file.
    pub bytes: Vec<u8>,
    /// Number of operations.
    pub nodes: usize,
    /// Number of parameters.
    pub parameters: usize,
    /// `image` (normalised) or `pixels` (0..255), `(c, h, w)`.
    pub input: Port,
    /// `scores` `(classes,)`, before any softmax, or `features` `(c,)`.
    pub output: Port,
}

/// Exports `network` as an ONNX model, deterministically.
///
/// # Errors
/// [`MissingTensor`](crate::Error::MissingTensor) and [`TensorShape`](crate::Error::TensorShape) if the
/// network does not match its plan, [`Bundle`](crate::Error::Bundle) for an invalid plan or a model beyond
/// protobuf's 2 GiB.
pub fn onnx(network: &Network, options: Options) -> Result<Exported> {
    let mut lowering = Lowering::new(network);
    let plan = &network.plan;
    let (input, image) = input(network, options, &mut lowering);
    let end = lowering.network(image)?;
    let output = Port {
        name: if network.classifier { "scores" } else { "features" },
        dims: vec![if network.classifier { plan.classes() } else { end.shape.len() }],
    };

    let batch = || if options.dynamic_batch { Extent::Named("batch".into()) } else { Extent::Fixed(1) };
    let ports = [&input, &output].map(|port| graph::value(port.name, batch(), &port.dims));
    let [from, to] = ports;
    let graph = lowering.graph.finish(&network.name, from, to);
    let nodes = graph.node.len();
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "tailor".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: format!("{} `{}`, {}", network.kind.word(), network.name, plan.arch),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props: metadata(network, options),
    };
    let size = model.encoded_len();
    if size > MAX_BYTES {
        let what = format!("ONNX model of `{}` in bytes", network.name);
        return Err(bundles::Error::TooLarge { what, size: size as u64, limit: MAX_BYTES as u64 }.into());
    }
    let parameters = network.tensors.values().map(Vec::len).sum();
    Ok(Exported { bytes: model.encode_to_vec(), nodes, parameters, input, output })
}

/// The model's input, and the network's own input computed from it.
fn input(network: &Network, options: Options, lowering: &mut Lowering<'_>) -> (Port, Value) {
    let Shape { c, h, w } = network.plan.input;
    let value = |name: &str| Value { name: name.into(), shape: network.plan.input, flat: false };
    if !options.with_preprocessing {
        return (Port { name: "image", dims: vec![c, h, w] }, value("image"));
    }
    let p = &network.preprocess;
    let per_channel = |f: fn(f32, f32) -> f32| {
        let pairs = p.mean.iter().zip(&p.std).cycle().take(c);
        pairs.map(|(&mean, &std)| f(mean, std)).collect::<Vec<_>>()
    };
    let graph = &mut lowering.graph;
    let dims = [1, c, 1, 1];
    let scale = graph.floats("preprocess.scale", &dims, &per_channel(|_, std| 1.0 / (255.0 * std)));
    let shift = graph.floats("preprocess.shift", &dims, &per_channel(|mean, std| -mean / std));
    let scaled = graph.node("Mul", "preprocess.scaled", &["pixels", &scale], vec![]);
    let image = graph.node("Add", "preprocess.image", &[&scaled, &shift], vec![]);
    // A grey task takes one channel, which multiplying by per-channel factors broadcasts to all of them.
    let channels = if p.grey { 1 } else { c };
    (Port { name: "pixels", dims: vec![channels, h, w] }, value(&image))
}

/// Metadata a program needs to use the model and to trace its origin.
fn metadata(network: &Network, options: Options) -> Vec<Entry> {
    let p = &network.preprocess;
    let numbers = |values: &[f32; 3]| {
        let channels = values.iter().take(p.channels).map(f32::to_string);
        channels.collect::<Vec<_>>().join(",")
    };
    let input = match (options.with_preprocessing, p.grey) {
        (true, true) => "pixels 0..255, grey",
        (true, false) => "pixels 0..255",
        (false, true) => "(pixel / 255 - mean) / std, grey in every channel",
        (false, false) => "(pixel / 255 - mean) / std",
    };
    let entry = |key: &str, value: String| Entry { key: key.into(), value };
    let mut all = vec![
        entry("kind", network.kind.word().into()),
        entry("name", network.name.clone()),
        entry("arch", network.plan.arch.clone()),
        entry("backbone", hex(&network.backbone)),
        entry("input", input.into()),
        entry("channels", if p.channels == 1 { "grey".into() } else { "red,green,blue".into() }),
        entry("size", format!("{}x{}", p.width, p.height)),
        entry("resize", "triangle filter, squashed to size".into()),
        entry("mean", numbers(&p.mean)),
        entry("std", numbers(&p.std)),
        entry("labels", serde_json::json!(network.labels).to_string()),
    ];
    all.extend(network.facts.iter().map(|(key, value)| entry(&format!("fact.{key}"), value.clone())));
    all
}
