//! The results of a protocol: tables, notes and figures.

use super::html::{cell, head, picture, table};
use super::run::Run;
use crate::draw::escape;
use serde_json::Value;

/// Everything in `protocol.json`; empty if there is none.
pub(super) fn section(run: &Run) -> String {
    let protocol = &run.protocol;
    let Some(title) = protocol["title"].as_str() else { return String::new() };
    let title = escape(title);
    let mut out = format!(
        "<section aria-label=\"{title}\">\n<h2>{title} <small>{}</small></h2>\n",
        escape(&run.folder)
    );
    let list = |key: &str| protocol[key].as_array().into_iter().flatten();
    list("tables").for_each(|found| out += &rows(found));
    for note in list("notes").filter_map(Value::as_str) {
        out += &format!("<p class=\"note\">{}</p>\n", escape(note));
    }
    for (figure, svg) in list("figures").zip(&run.figures) {
        let caption = figure["caption"].as_str().unwrap_or_default();
        let Some(svg) = svg else {
            let file = figure["file"].as_str().unwrap_or_default();
            out +=
                &format!("<p class=\"missing\">Missing in {}: {}.</p>\n", escape(&run.folder), escape(file));
            continue;
        };
        // As an `<img>`, so that the file cannot inject anything into the page.
        let image = picture("image/svg+xml", svg.as_bytes(), caption, "drawing");
        out += &format!(
            "<h3>{}</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">{image}</div>\n",
            escape(caption),
            escape(caption)
        );
    }
    out + "</section>\n"
}

/// A note on trials of protocols that have not written their results; empty if there are none.
pub(super) fn unfinished(runs: &[Run]) -> String {
    let trials = runs.iter().filter(|run| run.lacks_protocol).map(|run| escape(&run.folder));
    let trials = trials.collect::<Vec<_>>().join(", ");
    if trials.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"missing\">Missing: protocol.json (tables and figures), which a protocol writes when it has \
         finished. Its trials so far: {trials}.</p>\n"
    )
}

fn rows(found: &Value) -> String {
    let words = |value: &'_ Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_string)).collect()
    };
    let columns = words(&found["columns"]);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let body = found["rows"].as_array().into_iter().flatten().map(|row| {
        let cells = words(row);
        let (name, figures) = cells.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
        head(&escape(name)) + &figures.iter().map(|figure| cell(&escape(figure))).collect::<String>()
    });
    table(found["caption"].as_str().unwrap_or_default(), &columns, &[], body)
}
