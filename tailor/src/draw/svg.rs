//! The few SVG elements that drawings need.

use std::fmt::Write;

/// Escapes `text` for element content and quoted attributes, in SVG and HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// An SVG document under construction. Lengths are pixels.
#[derive(Debug)]
pub(super) struct Svg(String);

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Svg {
        Svg(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        ))
    }

    pub(super) fn text(&mut self, x: f64, y: f64, size: f64, fill: &str, anchor: &str, words: &str) {
        let words = escape(words);
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{fill}\" text-anchor=\"{anchor}\">{words}</text>"
        ));
    }

    pub(super) fn line(&mut self, from: f64, to: f64, y: f64, color: &str, width: f64, dashed: bool) {
        let dash = dash(dashed);
        self.push(format_args!(
            "<path d=\"M{from:.1} {y:.1} H{to:.1}\" stroke=\"{color}\" stroke-width=\"{width:.2}\"{dash}/>"
        ));
    }

    /// A curve from `from` to `to`, `height` above the line `y`.
    #[expect(clippy::too_many_arguments, reason = "a shape is its numbers")]
    pub(super) fn arc(
        &mut self,
        from: f64,
        to: f64,
        y: f64,
        height: f64,
        color: &str,
        width: f64,
        dashed: bool,
    ) {
        let class = if dashed { "gone" } else { "proxy" };
        let (lift, dash) = (y - height, dash(dashed));
        self.push(format_args!(
            "<path class=\"{class}\" d=\"M{from:.1} {y:.1} C{from:.1} {lift:.1} {to:.1} {lift:.1} {to:.1} {y:.1}\" \
             fill=\"none\" stroke=\"{color}\" stroke-width=\"{width:.2}\" stroke-opacity=\"0.85\"{dash}/>"
        ));
    }

    #[expect(clippy::too_many_arguments, reason = "a shape is its numbers")]
    pub(super) fn boxed(&mut self, x: f64, y: f64, w: f64, h: f64, fill: &str, edge: &str, dashed: bool) {
        let (left, top, dash) = (x - w / 2.0, y - h / 2.0, dash(dashed));
        self.push(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{w}\" height=\"{h}\" rx=\"5\" fill=\"{fill}\" \
             stroke=\"{edge}\"{dash}/>"
        ));
    }

    pub(super) fn node(&mut self, x: f64, y: f64, filled: bool, color: &str) {
        let fill = if filled { color } else { "white" };
        self.push(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"{fill}\" stroke=\"{color}\"/>"
        ));
    }

    /// Appends an existing element.
    pub(super) fn raw(&mut self, element: &str) {
        self.0.push_str(element);
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    fn push(&mut self, shape: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{shape}");
    }
}

fn dash(dashed: bool) -> &'static str {
    if dashed { " stroke-dasharray=\"3 4\"" } else { "" }
}
