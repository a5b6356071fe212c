//! Work folders as one self-contained HTML page: tables, plots, drawings, curves and mistakes.
//!
//! The page is self-contained: styles and plots are inline, images are `data:` URLs, and there is no script.
//! All text from a folder is escaped.

mod answers;
mod candidates;
mod figures;
mod folder;
mod html;
mod pretrain;
mod protocol;
mod run;
mod summary;

pub use run::Run;

use crate::draw::escape;
use crate::plural::counted;
use crate::shell::quoted;
use html::{figure, picture};
use serde_json::Value;

/// What every page begins with.
pub const START: &str = "<!DOCTYPE html>";

const STYLE: &str = include_str!("style.css");

/// What readers need to know about the tables at the top.
const NOTE: &str = "In brackets: after an accuracy, its 95 % interval (Wilson); after a cost, its share of that of the \
                    backbone's stem and blocks, of which the teacher is a trained copy with a classifier. Test was \
                    evaluated once, after selection. Bytes to switch are what changes between two tasks, before \
                    compression: four for each number that a task owns, and an eighth for each bit of a mask. \
                    PackNet's weights are in the one network that all its tasks share, so a switch brings only its \
                    mask and classifier.";

/// The report page on `runs`.
pub fn page(runs: &[Run]) -> String {
    let mut names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let title = escape(&format!("Tailor: {}", names.join(", ")));
    let mut body = format!("<h1>{title}</h1>\n");
    let fitted: Vec<(usize, &Run)> = runs.iter().enumerate().filter(|(_, run)| run.is_fitted()).collect();
    if fitted.len() > 1 {
        let links: String = fitted
            .iter()
            .map(|(i, run)| {
                format!(
                    "<li><a href=\"#run-{i}\">{}</a> <small>{}</small></li>",
                    escape(&run.name),
                    escape(&run.folder)
                )
            })
            .collect();
        body += &format!("<nav aria-label=\"Work folders\"><ul>{links}</ul></nav>\n");
    }
    runs.iter().for_each(|run| body += &protocol::section(run));
    body += &protocol::unfinished(runs);
    // There are none if only the files of a protocol itself were kept.
    if runs.iter().any(Run::has_networks) {
        body += &format!(
            "<section aria-label=\"Summary\">\n{}<p class=\"note\">{NOTE}</p>\n</section>\n",
            summary::tables(runs)
        );
    }
    for (i, run) in fitted {
        let baselines = run.others(runs.iter().flat_map(|run| &run.baselines));
        body += &section(i, run, &baselines);
    }
    format!(
        "{START}\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn section(i: usize, run: &Run, baselines: &[&Value]) -> String {
    let mut out = format!(
        "<section id=\"run-{i}\" aria-labelledby=\"name-{i}\">\n<h2 id=\"name-{i}\">{} <small>{}</small></h2>\n",
        escape(&run.name),
        escape(&run.folder)
    );
    if !run.missing.is_empty() {
        out += &format!(
            "<p class=\"missing\">Missing in {}: {}.</p>\n",
            escape(&run.folder),
            escape(&run.missing.join("; "))
        );
    }
    out += &facts(run);
    let mut part = |title: &str, html: Option<String>| {
        if let Some(html) = html {
            out += &format!("<h3>{title}</h3>\n{html}");
        }
    };
    let plot = figures::complexity(run, baselines).map(|plot| figure(&plot));
    part(
        "Accuracy and cost",
        plot.map(|plot| format!("<div class=\"figures\">{plot}</div>{}", candidates::listed(run))),
    );
    part("Architecture", run.drawing.as_ref().map(|drawing| architecture(run, drawing)));
    let curves: String = figures::curves(run).iter().map(figure).collect();
    part("Training", (!curves.is_empty()).then(|| format!("<div class=\"figures\">{curves}</div>\n")));
    part("Confusion", answers::confusion(run));
    part("Worst mistakes", answers::mistakes(run));
    out + "</section>\n"
}

/// A number from a report as text, escaped in case something else was written in its place.
fn plain(value: &Value) -> String {
    escape(&value.to_string())
}

/// A number of proxies, from a report: `1 proxy`, `2 proxies`.
fn proxies(n: &Value) -> String {
    n.as_u64().map_or_else(|| plain(n), |n| counted(n, "proxy", "proxies"))
}

fn facts(run: &Run) -> String {
    let report = &run.report;
    let text = |value: &Value| value.as_str().map(escape);
    let number = |value: &Value| value.as_u64().map(|n| n.to_string());
    let images = &report["images"];
    let counted = images["train"].as_u64().map(|train| {
        let size = &report["size"];
        format!(
            "{train} training, {} validation, {} test, {}×{} pixels",
            plain(&images["val"]),
            plain(&images["test"]),
            plain(&size[1]),
            plain(&size[0])
        )
    });
    let command = report["command"].as_array().map(|words| {
        let words = words.iter().filter_map(Value::as_str);
        let words: Vec<String> = words.map(|word| quoted(word.as_ref())).collect();
        format!("<code>{}</code>", escape(&words.join(" ")))
    });
    let blocks = report["task"]["blocks"].as_u64().map(|blocks| {
        format!(
            "{blocks} of {} blocks, {}",
            plain(&report["task"]["blocks_total"]),
            escape(&proxies(&report["task"]["proxies"]))
        )
    });
    let task = &report["task"];
    let within = task["within_tolerance"].as_bool().map(|within| {
        let behind = || {
            let (gap, error) = (task["behind"].as_f64()?, task["behind_error"].as_f64()?);
            let (images, judge) = (task["val_n"].as_u64()? as usize, task["judge"].as_str()?);
            Some(crate::fit::points(gap, error, images, judge))
        };
        let points =
            behind().map_or(String::new(), |points| format!(" (points behind: {})", escape(&points)));
        let verdict = if within { "yes" } else { "no: the most accurate candidate was packed" };
        format!("{verdict}{points}")
    });
    let cost = task["cost"].as_f64().and_then(|cost| {
        let unit = task["cost_unit"].as_str().unwrap_or_default();
        crate::fit::paid(cost, unit, task["budget"].as_f64())
    });
    let bundle =
        report["task"]["bundle_bytes"].as_f64().map(|bytes| format!("{}, compressed", summary::kib(bytes)));
    let percent = |value: &Value| value.as_f64().map(|share| format!("{:.1} %", 100.0 * share));
    let pretrained = &report["pretrained"];
    let rows = [
        ("Folder", Some(escape(&run.folder))),
        ("Data", text(&report["data"])),
        ("Images", counted),
        ("Classes", report["classes"].as_array().map(|classes| classes.len().to_string())),
        ("Backbone", text(&report["backbone"]["arch"])),
        ("Epochs", number(&pretrained["epochs"])),
        ("Validation", percent(&pretrained["val"])),
        ("Test", percent(&pretrained["test"])),
        ("Kept", blocks),
        ("Within tolerance", within),
        ("Cost", cost),
        ("Bundle", bundle),
        ("Seed", number(&report["seed"])),
        ("Time in training steps", run.seconds().map(crate::progress::duration)),
        ("Command", command),
    ];
    let rows: String = rows
        .into_iter()
        .filter_map(|(what, value)| Some(format!("<dt>{what}</dt><dd>{}</dd>\n", value?)))
        .collect();
    format!("<dl>{rows}</dl>\n{}", recipe(&report["recipe"]))
}

/// The options that a run was made with, by name; empty if they are not recorded.
fn recipe(options: &Value) -> String {
    let shown = match options {
        Value::Object(options) => {
            let row = |(name, value): (&String, &Value)| {
                format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(&crate::fit::said(value)))
            };
            format!("<dl>\n{}</dl>", options.iter().map(row).collect::<String>())
        }
        // Version 1 of the document has a text.
        Value::String(text) => format!("<pre>{}</pre>", escape(text)),
        _ => return String::new(),
    };
    format!("<details><summary>Recipe</summary>{shown}</details>\n")
}

fn architecture(run: &Run, drawing: &str) -> String {
    let strip = run.report["survivors"].as_str().unwrap_or_default();
    let task = &run.report["task"];
    let alt = match task["blocks"].as_u64() {
        Some(blocks) => format!(
            "{blocks} of {} universal blocks and {} survive: {strip}",
            task["blocks_total"],
            proxies(&task["proxies"])
        ),
        None => format!("Which blocks and proxies survive: {strip}"),
    };
    // As an `<img>`, so that the file cannot inject anything into the page.
    let image = picture("image/svg+xml", drawing.as_bytes(), &alt, "drawing");
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Architecture\">{image}</div>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_costs_bytes_and_budget_overruns() {
        let report = serde_json::json!({
            "name": "signs",
            "command": ["tailor", "fit", "--data", "my photos & more/", "--crop", "2"],
            "classes": ["a", "b"],
            "images": { "train": 5, "val": "<b>", "test": null },
            "size": ["<b>"],
            "backbone": { "macs": 1000, "params": 2048 },
            "task": {
                "cost": 183.4, "cost_unit": "us", "budget": 200.0, "macs": 500, "params": 1536, "task_params": 1024,
                "bundle_bytes": 3072, "within_tolerance": true, "behind": 0.0014, "behind_error": 0.0041, "val_n": 1000,
                "judge": "probability",
            },
            "recipe": { "skips": "<b>", "epochs": [1, 2, 3], "clip": null },
            "candidates": [
                { "dropped": "<b>1", "over_budget": "0.300 ms of 0.200 ms" },
                { "dropped": 2, "refused": "node 3 is <cut> off" },
                { "dropped": 4, "diverged": "prune-4, epoch 2: <loss>" },
                { "dropped": 3, "stage": "prune-without-3-<b>", "val": 0.875, "macs": 600, "params": 1600, "cost": 210.0 },
            ],
        });
        let page = page(&[Run { report, ..Run::default() }]);
        for part in [
            "<dt>Cost</dt><dd>0.183 ms (budget 0.200 ms)</dd>",
            "<dt>Within tolerance</dt><dd>yes (points behind: 0.14 ± 0.85 by probability)</dd>",
            "<dt>Bundle</dt><dd>3.0 KiB, compressed</dd>",
            "<td>4.0 KiB</td>",
            ">over budget: 0.300 ms of 0.200 ms</td>",
            ">node 3 is &lt;cut&gt; off</td>",
            ">diverged: prune-4, epoch 2: &lt;loss&gt;</td>",
            "; over budget</td>",
            "<td>87.5 %</td>",
            "<dt>epochs</dt><dd>1,2,3</dd>",
            "<dt>clip</dt><dd>off</dd>",
            "<code>tailor fit --data &#39;my photos &amp; more/&#39; --crop 2</code>",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<b>"), "markup in the place of numbers");
        assert!(!page.contains("(chosen)"), "nothing was");
        assert_eq!(
            recipe(&serde_json::json!("a < b")),
            "<details><summary>Recipe</summary><pre>a &lt; b</pre></details>\n"
        );
        assert!(!page.contains("<td>3.0 KiB"), "compressed next to uncompressed sizes");
    }
    #[test]
    fn one_proxy_is_not_in_the_plural() {
        for (kept, said) in [(0, "0 proxies"), (1, "1 proxy"), (2, "2 proxies")] {
            let task = serde_json::json!({ "blocks": 3, "blocks_total": 9, "proxies": kept });
            let report = serde_json::json!({ "task": task, "survivors": "x" });
            let page = page(&[Run { report, drawing: Some("<svg/>".into()), ..Run::default() }]);
            assert!(page.contains(&format!("<dd>3 of 9 blocks, {said}</dd>")), "{page}");
            assert!(page.contains(&format!("3 of 9 universal blocks and {said} survive")), "{page}");
        }
    }
}
