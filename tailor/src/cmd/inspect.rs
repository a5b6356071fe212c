//! `tailor inspect`: what is in a backbone or task bundle.

use crate::draw::strip;
use crate::fit::count;
use crate::output::out;
use anyhow::Context;
use bundles::container::{Bundle, hex};
use bundles::plan::{Counter, Owner, Role};
use edge_runtime::kernels::Isa;
use edge_runtime::{Needs, needs};
use std::path::PathBuf;

/// Shows network, costs, tensors, labels and signature of a bundle.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor inspect run/digits.task")]
pub struct Inspect {
    /// Backbone or task bundle.
    file: PathBuf,
    /// Also list every tensor.
    #[arg(long)]
    tensors: bool,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let place = || self.file.display().to_string();
        let bytes = std::fs::read(&self.file).with_context(place)?;
        let bundle = Bundle::parse(&bytes).with_context(place)?;
        let trust = bundle.verify(&[]).with_context(place)?;
        let manifest = bundle.manifest();
        let plan = &manifest.plan;
        let cost = |counter| plan.costs(counter).map(|c| c.total().macs);
        let (real, paper) = (cost(Counter::True)?, cost(Counter::Paper)?);
        let memory: Vec<(Isa, Needs)> =
            Isa::ALL.into_iter().map(|isa| Ok((isa, needs(plan, isa, 1)?))).collect::<anyhow::Result<_>>()?;
        if self.json {
            let tensors: Vec<_> = manifest
                .sections
                .iter()
                .map(|s| serde_json::json!({ "name": s.name, "shape": s.shape, "raw": s.raw_len }))
                .collect();
            let stored: Vec<_> = manifest
                .blocks
                .iter()
                .map(|b| serde_json::json!({ "tensors": b.sections.len(), "stored": b.stored_len, "raw": b.raw_len }))
                .collect();
            let memory: serde_json::Map<_, _> = memory
                .iter()
                .map(|(isa, n)| {
                    let own = serde_json::json!({
                        "arena": n.arena, "scratch": n.scratch, "task": n.task, "kernels": n.kernels,
                    });
                    (isa.name().to_owned(), own)
                })
                .collect();
            let document = serde_json::json!({
                "memory_bytes": memory,
                "kind": manifest.kind.word(), "name": manifest.name, "arch": plan.arch,
                "input": [plan.input.c, plan.input.h, plan.input.w],
                "blocks": plan.blocks(), "blocks_total": plan.cells.len(), "proxies": plan.proxies(),
                "task_params": plan.task_params(), "backbone_params": plan.backbone_params(),
                "macs": real, "macs_paper": paper, "labels": manifest.labels,
                "backbone": hex(&manifest.backbone.id), "digest": hex(&bundle.digest()), "signature": trust.to_string(),
                "bytes": bytes.len(), "tensors": tensors, "stored": stored,
                "facts": manifest.facts.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect::<serde_json::Map<_, _>>(),
            });
            out!("{document}");
            return Ok(());
        }
        let row = |what: &str, value: String| out!("{what:<16} {value}");
        row("file", format!("{} ({:.1} KiB)", self.file.display(), bytes.len() as f64 / 1024.0));
        row("kind", format!("{} `{}`", manifest.kind.word(), manifest.name));
        row("digest", hex(&bundle.digest()));
        row("signature", trust.to_string());
        row("backbone", hex(&manifest.backbone.id));
        row("network", format!("{}, input {}, {} classes", plan.arch, plan.input, plan.classes()));
        row("blocks", format!("{} of {}, {} proxies", plan.blocks(), plan.cells.len(), plan.proxies()));
        row("survivors", strip(plan));
        row("task-owned", format!("{} parameters", count(plan.task_params())));
        row("shared", format!("{} parameters", count(plan.backbone_params())));
        row("multiply-adds", format!("{} true, {} by the paper's conventions", count(real), count(paper)));
        for (isa, n) in &memory {
            let kib = |bytes: usize| bytes.div_ceil(1024);
            let (own, shared, kernels) = (kib(n.task), kib(n.workspace()), kib(n.kernels));
            let what = format!(
                "{own} KiB of its own, {shared} KiB of shared workspace, {kernels} KiB of shared kernels"
            );
            row(&format!("f32 on {isa}"), what);
        }
        if !manifest.labels.is_empty() {
            row("labels", manifest.labels.join(", "));
        }
        for (key, value) in &manifest.facts {
            row(key, value.clone());
        }
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
        if self.tensors {
            for block in &manifest.blocks {
                for s in &manifest.sections[block.sections.clone()] {
                    let owner = if s.owner == Owner::Task { "task" } else { "backbone" };
                    row("", format!("{:<32} {:?} {owner}, {} bytes", s.name, s.shape, s.raw_len));
                }
                row("stored in", format!("{} of {} bytes", block.stored_len, block.raw_len));
            }
        }
        Ok(())
    }
}
