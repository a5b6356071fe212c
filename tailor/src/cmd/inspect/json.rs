//! The JSON output of `tailor inspect`.

use super::Look;
use crate::cmd::verify::trust_fields;
use bundles::container::{Block, Layout, Manifest, Preprocess, Resize, Section};
use bundles::plan::Owner;
use serde_json::{Map, Value, json};

pub(super) fn document(look: &Look<'_>) -> Value {
    let manifest = look.bundle.manifest();
    let plan = &manifest.plan;
    let (major, minor) = look.bundle.version();
    let memory = look.memory.iter().map(|(isa, n)| {
        let own = json!({ "arena": n.arena, "scratch": n.scratch, "task": n.task, "kernels": n.kernels });
        (isa.name().to_owned(), own)
    });
    let facts = manifest.facts.iter().map(|(key, value)| (key.clone(), value.clone().into()));
    let Value::Object(mut all) = json!({
        "file": look.file, "bytes": look.bytes,
        "kind": manifest.kind.word(), "name": manifest.name, "arch": plan.arch,
        "format": format!("{major}.{minor}"), "abi": manifest.abi,
        "security_counter": manifest.security_counter,
        "variant": manifest.backbone.variant, "precision": look.form.precision(),
        "input": [plan.input.c, plan.input.h, plan.input.w], "preprocess": preprocess(&manifest.preprocess),
        "blocks": plan.blocks(), "blocks_total": plan.cells.len(), "proxies": plan.proxies(),
        "task_params": plan.task_params(), "backbone_params": plan.backbone_params(),
        "macs": look.macs.0, "macs_paper": look.macs.1,
        "memory_bytes": memory.collect::<Map<_, _>>(), "arithmetic": look.form.arithmetic(None),
        "labels": manifest.labels, "golden": manifest.golden.len(), "facts": facts.collect::<Map<_, _>>(),
        "tensors": manifest.sections.iter().map(tensor).collect::<Vec<_>>(), "stored": stored(manifest),
    }) else {
        return Value::Null;
    };
    all.extend(trust_fields(look.bundle, &look.trust));
    all.into()
}

fn preprocess(p: &Preprocess) -> Value {
    let Resize::Bilinear = p.resize else { return Value::Null };
    // The shortest digits that round-trip as f32, not as the nearest f64.
    let triple = |values: [f32; 3]| values.map(|x| x.to_string().parse::<f64>().unwrap_or_default());
    json!({
        "channels": p.channels, "height": p.height, "width": p.width, "resize": "bilinear",
        "mean": triple(p.mean), "std": triple(p.std), "grey": p.grey,
    })
}

fn tensor(section: &Section) -> Value {
    let (layout, isa, revision) = match section.layout {
        Layout::Canonical => ("canonical", None, None),
        Layout::Blocked { isa, revision } => ("blocked", Some(isa.word()), Some(revision)),
    };
    let owner = if section.owner == Owner::Task { "task" } else { "backbone" };
    json!({
        "name": section.name, "owner": owner, "shape": section.shape, "dtype": section.dtype.word(),
        "layout": layout, "isa": isa, "revision": revision, "raw": section.raw_len,
    })
}

fn stored(manifest: &Manifest) -> Vec<Value> {
    let of = |b: &Block| json!({ "tensors": b.sections.len(), "stored": b.stored_len, "raw": b.raw_len });
    manifest.blocks.iter().map(of).collect()
}
