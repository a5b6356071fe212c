//! HTML building blocks of a report. Arguments named `html` are inserted as they are: text from outside goes
//! through [`escape`](crate::draw::escape) first.

use crate::draw::{Plot, escape};
use base64::{Engine, prelude::BASE64_STANDARD};

/// The heading of a row.
pub(super) fn head(html: &str) -> String {
    format!("<th scope=\"row\">{html}</th>")
}

/// A cell of a table.
pub(super) fn cell(html: &str) -> String {
    format!("<td>{html}</td>")
}

/// A table cell of left-aligned, wrapping text that spans `columns` columns.
pub(super) fn words(html: &str, columns: usize) -> String {
    format!("<td class=\"words\" colspan=\"{columns}\">{html}</td>")
}

/// A table in a box that scrolls if it is too wide. `rows` are cells; the columns listed in `wordy` hold
/// text.
pub(super) fn table(
    caption: &str,
    columns: &[&str],
    wordy: &[&str],
    rows: impl Iterator<Item = String>,
) -> String {
    let heads = columns.iter().map(|column| {
        let class = if wordy.contains(column) { " class=\"words\"" } else { "" };
        format!("<th scope=\"col\"{class}>{}</th>", escape(column))
    });
    let heads: String = heads.collect();
    let rows: String = rows.map(|row| format!("<tr>{row}</tr>\n")).collect();
    let caption = escape(caption);
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table><caption>{caption}</caption>\n\
         <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// A plot with its title and legend.
pub(super) fn figure(plot: &Plot) -> String {
    let legend: String =
        plot.legend().iter().map(|(swatch, name)| format!("<li>{swatch}{}</li>", escape(name))).collect();
    let legend =
        if legend.is_empty() { String::new() } else { format!("<ul class=\"legend\">{legend}</ul>") };
    format!("<figure><figcaption>{}</figcaption>\n{}{legend}</figure>\n", escape(&plot.title), plot.svg())
}

/// An image embedded in the page.
pub(super) fn picture(kind: &str, bytes: &[u8], alt: &str, class: &str) -> String {
    let data = BASE64_STANDARD.encode(bytes);
    format!("<img class=\"{class}\" src=\"data:{kind};base64,{data}\" alt=\"{}\"/>", escape(alt))
}
