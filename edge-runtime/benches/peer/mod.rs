//! Networks in a form that a peer's script can read: tensors as safetensors, the plan as JSON.

use bundles::plan::{Op, Plan};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

/// Name, shape, values.
pub type Entry<'a> = (String, Vec<usize>, &'a [f32]);

/// Writes `entries` to `NAME.safetensors` in a directory and the plan to `NAME.json`: `{"stem": line,
/// "cells": [{"relu", "gates": [{"source", "alpha", "paths": [line]}]}], "head": line}`, where a line is a
/// list of operations and `alpha` an index into the cell's alpha tensor or null.
pub fn write_network(
    directory: &Path,
    name: &str,
    plan: &Plan,
    entries: &[Entry<'_>],
) -> std::io::Result<()> {
    write_tensors(&directory.join(format!("{name}.safetensors")), entries)?;
    std::fs::write(directory.join(format!("{name}.json")), plan_json(plan))
}

fn write_tensors(path: &Path, entries: &[Entry<'_>]) -> std::io::Result<()> {
    let (mut header, mut offset) = (String::from("{"), 0);
    for (name, shape, numbers) in entries {
        let end = offset + 4 * numbers.len();
        let comma = if offset == 0 { "" } else { "," };
        header += &format!(
            "{comma}\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{offset},{end}]}}"
        );
        offset = end;
    }
    header.push('}');
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for number in entries.iter().flat_map(|(_, _, numbers)| numbers.iter()) {
        file.write_all(&number.to_le_bytes())?;
    }
    file.flush()
}

fn plan_json(plan: &Plan) -> String {
    let cells = plan.cells.iter().map(|cell| {
        let mut alphas = 0;
        let gates: Vec<String> = cell
            .gates
            .iter()
            .map(|gate| {
                let alpha = if gate.scaled { alphas.to_string() } else { "null".into() };
                alphas += usize::from(gate.scaled);
                let paths: Vec<String> = gate.paths.iter().map(|path| line(&path.ops)).collect();
                let (source, paths) = (gate.source, paths.join(","));
                format!("{{\"source\":{source},\"alpha\":{alpha},\"paths\":[{paths}]}}")
            })
            .collect();
        format!("{{\"relu\":{},\"gates\":[{}]}}", cell.relu, gates.join(","))
    });
    let cells: Vec<String> = cells.collect();
    format!("{{\"stem\":{},\"cells\":[{}],\"head\":{}}}", line(&plan.stem), cells.join(","), line(&plan.head))
}

fn line(ops: &[Op]) -> String {
    let mut text = String::from("[");
    for (i, op) in ops.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{{\"op\":\"{}\"", op.kind());
        let _ = match op {
            Op::Conv(c) => write!(
                text,
                ",\"name\":\"{}\",\"kernel\":{},\"stride\":{},\"pad\":{},\"bias\":{}",
                c.name, c.kernel, c.stride, c.pad, c.bias
            ),
            Op::Affine(affine) => write!(text, ",\"name\":\"{}\"", affine.name),
            Op::Linear(linear) => write!(text, ",\"name\":\"{}\"", linear.name),
            Op::MaxPool { kernel, stride, pad } => {
                write!(text, ",\"kernel\":{kernel},\"stride\":{stride},\"pad\":{pad}")
            }
            Op::AvgPool { kernel, stride } => write!(text, ",\"kernel\":{kernel},\"stride\":{stride}"),
            Op::Subsample { stride } => write!(text, ",\"stride\":{stride}"),
            Op::PadChannels { front, back } => write!(text, ",\"front\":{front},\"back\":{back}"),
            Op::Relu | Op::GlobalAvgPool => Ok(()),
        };
        text.push('}');
    }
    text + "]"
}
