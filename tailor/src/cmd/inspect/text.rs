//! The text output of `tailor inspect`.

use super::Look;
use crate::cmd::verify::signer;
use crate::draw::strip;
use crate::fit::count;
use crate::output::out;
use bundles::container::{Manifest, Preprocess, Resize, hex};
use bundles::plan::{Owner, Plan, Role};
use std::fmt::Display;

fn row(what: &str, value: impl Display) {
    out!("{what:<16} {value}");
}

pub(super) fn show(look: &Look<'_>, tensors: bool) {
    let bundle = look.bundle;
    let manifest = bundle.manifest();
    let plan = &manifest.plan;
    row("file", format_args!("{} ({:.1} KiB)", look.file, look.bytes as f64 / 1024.0));
    row("kind", format_args!("{} `{}`", manifest.kind.word(), manifest.name));
    let (major, minor) = bundle.version();
    row("format", format_args!("{major}.{minor}, runtime ABI {}", manifest.abi));
    row("digest", hex(&bundle.digest()));
    row("signature", &look.trust);
    for (i, key) in bundle.signers().iter().enumerate() {
        row(if i == 0 { "signers" } else { "" }, signer(key, &look.trusted));
    }
    row("counter", format_args!("{} (stored by devices, not compared yet)", manifest.security_counter));
    row("backbone", hex(&manifest.backbone.id));
    let variant = match manifest.backbone.variant.as_str() {
        "" => "f32 or f16".into(),
        variant => format!("`{variant}`"),
    };
    row("variant", variant);
    row("numbers", look.form);
    row("packed for", look.packed_for());
    row("network", format_args!("{}, input {}, {} classes", plan.arch, plan.input, plan.classes()));
    row("images", images(&manifest.preprocess));
    row("blocks", format_args!("{} of {}, {} proxies", plan.blocks(), plan.cells.len(), plan.proxies()));
    row("survivors", strip(plan));
    row("task-owned", format_args!("{} parameters", count(plan.task_params())));
    row("shared", format_args!("{} parameters", count(plan.backbone_params())));
    let (real, paper) = (count(look.macs.0), count(look.macs.1));
    row("multiply-adds", format_args!("{real} true, {paper} by the paper's conventions"));
    for (isa, n) in &look.memory {
        let kib = |bytes: usize| bytes.div_ceil(1024);
        let (own, shared, kernels) = (kib(n.task), kib(n.workspace()), kib(n.kernels));
        row(
            &format!("{} on {isa}", look.form.arithmetic(Some(*isa))),
            format_args!(
                "{own} KiB of its own, {shared} KiB of shared workspace, {kernels} KiB of shared kernels"
            ),
        );
    }
    row("golden vectors", manifest.golden.len());
    if !manifest.labels.is_empty() {
        row("labels", manifest.labels.join(", "));
    }
    for (key, value) in &manifest.facts {
        row(key, value);
    }
    nodes(plan);
    if tensors {
        list(manifest);
    }
}

fn images(p: &Preprocess) -> String {
    let Preprocess { channels, width, height, .. } = *p;
    let resize = match p.resize {
        Resize::Bilinear => "bilinear",
        _ => "unknown filter",
    };
    let triple = |values: [f32; 3]| {
        let numbers: Vec<String> = values.iter().take(channels).map(f32::to_string).collect();
        numbers.join(", ")
    };
    let grey = if p.grey { ", converted to grey" } else { "" };
    format!("resized to {width}x{height} ({resize}){grey}, mean {}, std {}", triple(p.mean), triple(p.std))
}

fn nodes(plan: &Plan) {
    for (i, cell) in plan.cells.iter().enumerate() {
        let of = |role| cell.gates.iter().filter(move |g| g.role == role);
        let proxies: Vec<String> = of(Role::Proxy).map(|g| g.source.to_string()).collect();
        let words = match (of(Role::Block).count() > 0, proxies.is_empty()) {
            (true, true) => "block".to_string(),
            (true, false) => format!("block + proxies from {}", proxies.join(", ")),
            (false, false) => format!("proxies from {}", proxies.join(", ")),
            (false, true) => "dead".to_string(),
        };
        row(&format!("node {}", i + 1), words);
    }
}

fn list(manifest: &Manifest) {
    for block in &manifest.blocks {
        for s in manifest.sections.get(block.sections.clone()).unwrap_or_default() {
            let owner = if s.owner == Owner::Task { "task" } else { "backbone" };
            let (dtype, layout) = (s.dtype.word(), s.layout);
            row(
                "",
                format_args!("{:<32} {:?} {dtype} {layout}, {owner}, {} bytes", s.name, s.shape, s.raw_len),
            );
        }
        row("stored in", format_args!("{} of {} bytes", block.stored_len, block.raw_len));
    }
}
