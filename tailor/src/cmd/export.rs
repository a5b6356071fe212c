//! `tailor export`: writes a task on its backbone, or a backbone alone, as an ONNX model.

use crate::destination;
use crate::export::{Network, OPSET, Options, Port, onnx};
use crate::output::out;
use crate::precision::Loaded;
use bundles::container::write_atomically;
use std::path::{Path, PathBuf};

/// Writes a network as ONNX, for ONNX Runtime, TensorRT and others.
///
/// Exports the tailored network with --task, otherwise the backbone with its source classifier, or up to its
/// features if it has none. The scores are those of `edge-runtime`, before any softmax.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor export --backbone net.backbone --task run/digits.task --onnx digits.onnx"
)]
pub struct Export {
    /// Backbone file made by `tailor import`.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Task bundle made for this backbone.
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// Where to write the model.
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,
    /// Leave the batch size to the caller; 1 if omitted.
    #[arg(long)]
    dynamic_batch: bool,
    /// Include normalisation: the model then takes resized images as numbers in 0..255, `(1, c, h, w)`.
    #[arg(long)]
    with_preprocessing: bool,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let inputs = [Some(&self.backbone), self.task.as_ref()];
        let inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
        destination::check("--onnx", &self.onnx, &inputs)?;
        let backbone = Loaded::read(&self.backbone)?;
        let network = match &self.task {
            None => Network::backbone(backbone.file())?,
            Some(path) => Network::task(Loaded::read(path)?.file(), backbone.file())?,
        };
        let options =
            Options { dynamic_batch: self.dynamic_batch, with_preprocessing: self.with_preprocessing };
        let exported = onnx(&network, options)?;
        write_atomically(&self.onnx, &exported.bytes)?;

        let id = bundles::container::hex(&network.backbone);
        if self.json {
            let port = |port: &Port| {
                let batch = if self.dynamic_batch { "batch".into() } else { serde_json::Value::from(1) };
                let dims = std::iter::once(batch).chain(port.dims.iter().map(|&d| d.into()));
                serde_json::json!({ "name": port.name, "shape": dims.collect::<Vec<_>>() })
            };
            let document = serde_json::json!({
                "file": self.onnx.display().to_string(), "bytes": exported.bytes.len(), "opset": OPSET,
                "kind": network.kind.word(), "name": network.name, "arch": network.plan.arch, "backbone": id,
                "nodes": exported.nodes, "parameters": exported.parameters,
                "input": port(&exported.input), "output": port(&exported.output),
            });
            out!("{document}");
        } else {
            let port = |port: &Port| {
                let dims = port.dims.iter().map(|d| format!("x{d}")).collect::<String>();
                format!("{} ({}{dims})", port.name, if self.dynamic_batch { "batch" } else { "1" })
            };
            out!(
                "{}: {} `{}` as ONNX (operator set {OPSET}): {} to {}, {} nodes, {} bytes",
                self.onnx.display(),
                network.kind.word(),
                network.name,
                port(&exported.input),
                port(&exported.output),
                exported.nodes,
                exported.bytes.len()
            );
        }
        Ok(())
    }
}
