//! Plots as inline SVG, for a page whose style sheet defines the colours `c0` to `c7`, `ink`, `soft` and
//! `line`.

use super::axis::Axis;
use super::svg::escape;
use std::fmt::Write;

/// Width and height of a plot; the page scales it to the available space.
pub(super) const SIZE: (f64, f64) = (440.0, 280.0);
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 44.0;
/// Approximate width of a character in a label.
const CHARACTER: f64 = 7.2;

/// Marker shape, so that points do not differ by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A filled circle.
    Dot,
    /// A circle around another mark.
    Ring,
    /// A filled square.
    Square,
    /// A filled triangle.
    Triangle,
    /// A square standing on a corner.
    Diamond,
    /// Two strokes.
    Cross,
}

/// An element of a plot. `colour` is the index of one of the page's colours.
#[derive(Debug, Clone)]
pub enum Mark {
    /// Points joined by a line.
    Line {
        /// Index of the colour.
        colour: usize,
        /// Whether it is dashed.
        dashed: bool,
        /// Name in the legend.
        name: String,
        /// Vertices.
        points: Vec<(f64, f64)>,
    },
    /// Single points, each with its tooltip.
    Points {
        /// Index of the colour.
        colour: usize,
        /// Marker shape.
        shape: Shape,
        /// Name in the legend.
        name: String,
        /// Positions and tooltips.
        points: Vec<(f64, f64, String)>,
    },
    /// A dashed line across the plot.
    Level {
        /// Index of the colour.
        colour: usize,
        /// Name in the legend.
        name: String,
        /// Position on the y axis.
        y: f64,
    },
    /// A tinted horizontal band.
    Band {
        /// Index of the colour.
        colour: usize,
        /// Name in the legend.
        name: String,
        /// Lower and upper edge.
        y: (f64, f64),
    },
    /// A thin vertical line with a label at its top, if it fits before the next one.
    Divider {
        /// Position on the x axis.
        x: f64,
        /// The label.
        word: String,
    },
}

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Description, also for screen readers.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Elements, from back to front.
    pub marks: Vec<Mark>,
}

impl Plot {
    /// The plot as an `<svg>` element.
    pub fn svg(&self) -> String {
        let (mut x, mut y) = (self.x.clone(), self.y.clone());
        for mark in &self.marks {
            match mark {
                Mark::Line { points, .. } => points.iter().for_each(|p| include(&mut x, &mut y, p.0, p.1)),
                Mark::Points { points, .. } => points.iter().for_each(|p| include(&mut x, &mut y, p.0, p.1)),
                Mark::Level { y: level, .. } => y.include(*level),
                Mark::Band { y: (low, high), .. } => {
                    y.include(*low);
                    y.include(*high);
                }
                Mark::Divider { x: at, .. } => x.include(*at),
            }
        }
        x.pad();
        y.pad();
        let mut drawing = Drawing { x, y, out: String::new() };
        let title = escape(&self.title);
        let (width, height) = SIZE;
        drawing.push(format_args!(
            "<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{title}\"><title>{title}</title>"
        ));
        drawing.axes();
        drawing.dividers(&self.marks);
        self.marks.iter().for_each(|mark| drawing.mark(mark));
        drawing.out + "</svg>\n"
    }

    /// Swatches (`<svg>` elements) and names of all named marks, each name once.
    pub fn legend(&self) -> Vec<(String, &str)> {
        let mut entries: Vec<(String, &str)> = Vec::new();
        for mark in &self.marks {
            let (inner, name) = match mark {
                Mark::Line { colour, dashed, name, .. } => (level(*colour, *dashed, (0.0, 22.0), 7.0), name),
                Mark::Level { colour, name, .. } => (level(*colour, true, (0.0, 22.0), 7.0), name),
                Mark::Points { colour, shape, name, .. } => (point(*colour, *shape, 11.0, 7.0, ""), name),
                Mark::Band { colour, name, .. } => (band(*colour, 0.0, 1.0, 22.0, 12.0), name),
                Mark::Divider { .. } => continue,
            };
            if !name.is_empty() && entries.iter().all(|(_, known)| known != name) {
                let swatch =
                    format!("<svg class=\"swatch\" viewBox=\"0 0 22 14\" aria-hidden=\"true\">{inner}</svg>");
                entries.push((swatch, name));
            }
        }
        entries
    }
}

fn include(x: &mut Axis, y: &mut Axis, at: f64, value: f64) {
    if x.takes(at) && y.takes(value) {
        x.include(at);
        y.include(value);
    }
}

struct Drawing {
    x: Axis,
    y: Axis,
    out: String,
}

impl Drawing {
    fn push(&mut self, shape: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{shape}");
    }

    fn right(&self, x: f64) -> f64 {
        LEFT + (SIZE.0 - LEFT - RIGHT) * self.x.place(x)
    }

    fn down(&self, y: f64) -> f64 {
        SIZE.1 - BOTTOM - (SIZE.1 - TOP - BOTTOM) * self.y.place(y)
    }

    fn axes(&mut self) {
        let (width, height) = SIZE;
        let (left, bottom) = (LEFT, height - BOTTOM);
        for (value, label) in self.y.ticks(((bottom - TOP) / 30.0) as usize) {
            let y = self.down(value);
            let (end, text) = (width - RIGHT, y + 4.0);
            self.push(format_args!("<path class=\"grid\" d=\"M{left:.1} {y:.1}H{end:.1}\"/>"));
            let x = left - 6.0;
            self.push(format_args!("<text x=\"{x:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{label}</text>"));
        }
        for (value, label) in self.x_ticks() {
            let x = self.right(value);
            let (tick, text) = (bottom + 4.0, bottom + 17.0);
            self.push(format_args!("<path class=\"axis\" d=\"M{x:.1} {bottom:.1}V{tick:.1}\"/>"));
            self.push(format_args!(
                "<text x=\"{x:.1}\" y=\"{text:.1}\" text-anchor=\"middle\">{label}</text>"
            ));
        }
        let (end, middle, below) = (width - RIGHT, (LEFT + width - RIGHT) / 2.0, height - 8.0);
        self.push(format_args!("<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{end:.1}\"/>"));
        let (x, y) = (escape(self.x.label), escape(self.y.label));
        self.push(format_args!(
            "<text class=\"label\" x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{x}</text>"
        ));
        self.push(format_args!("<text class=\"label\" x=\"4\" y=\"12\">{y}</text>"));
    }

    /// As many ticks as fit side by side.
    fn x_ticks(&self) -> Vec<(f64, String)> {
        let room = SIZE.0 - LEFT - RIGHT;
        let mut most = 8;
        loop {
            let ticks = self.x.ticks(most);
            let widest = ticks.iter().map(|(_, label)| label.len()).max().unwrap_or(0) as f64;
            let places: Vec<f64> = ticks.iter().map(|(v, _)| room * self.x.place(*v)).collect();
            let apart = places.windows(2).map(|p| p[1] - p[0]).fold(f64::INFINITY, f64::min);
            if apart >= CHARACTER * (widest + 1.0) || most <= 2 {
                return ticks;
            }
            most -= 1;
        }
    }

    fn dividers(&mut self, marks: &[Mark]) {
        let all: Vec<(f64, &str)> = marks
            .iter()
            .filter_map(|mark| {
                if let Mark::Divider { x, word } = mark {
                    Some((self.right(*x), word.as_str()))
                } else {
                    None
                }
            })
            .collect();
        for (i, (x, word)) in all.iter().enumerate() {
            let (top, bottom) = (TOP, SIZE.1 - BOTTOM);
            self.push(format_args!("<path class=\"grid\" d=\"M{x:.1} {bottom:.1}V{top:.1}\"/>"));
            let next = all.get(i + 1).map_or(SIZE.0, |next| next.0);
            if next - x > CHARACTER * (word.chars().count() as f64 + 1.0) {
                let (x, y, word) = (x + 2.0, top - 4.0, escape(word));
                self.push(format_args!("<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\">{word}</text>"));
            }
        }
    }

    fn mark(&mut self, mark: &Mark) {
        match mark {
            Mark::Line { colour, dashed, points, .. } => {
                let visible = points.iter().filter(|p| self.x.takes(p.0) && self.y.takes(p.1));
                let corners: Vec<String> =
                    visible.map(|p| format!("{:.1} {:.1}", self.right(p.0), self.down(p.1))).collect();
                if let [only] = &corners[..] {
                    // A line of a single point would be invisible.
                    let (x, y) = only.split_once(' ').unwrap_or(("0", "0"));
                    self.push(format_args!("<circle class=\"f{colour}\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>"));
                } else if !corners.is_empty() {
                    let (path, dash) = (corners.join("L"), dash(*dashed));
                    self.push(format_args!("<path class=\"s{colour}{dash}\" d=\"M{path}\"/>"));
                }
            }
            Mark::Points { colour, shape, points, .. } => {
                let visible = points.iter().filter(|p| self.x.takes(p.0) && self.y.takes(p.1));
                let drawn: Vec<String> = visible
                    .map(|(x, y, words)| point(*colour, *shape, self.right(*x), self.down(*y), words))
                    .collect();
                drawn.iter().for_each(|drawn| self.push(format_args!("{drawn}")));
            }
            Mark::Level { colour, y, .. } if self.y.takes(*y) => {
                let drawn = level(*colour, true, (LEFT, SIZE.0 - RIGHT), self.down(*y));
                self.push(format_args!("{drawn}"));
            }
            Mark::Band { colour, y: (low, high), .. } if self.y.takes(*low) && self.y.takes(*high) => {
                let (top, bottom) = (self.down(*high), self.down(*low));
                let drawn = band(*colour, LEFT, top, SIZE.0 - LEFT - RIGHT, (bottom - top).max(1.0));
                self.push(format_args!("{drawn}"));
            }
            Mark::Level { .. } | Mark::Band { .. } | Mark::Divider { .. } => {}
        }
    }
}

fn dash(dashed: bool) -> &'static str {
    if dashed { " dash" } else { "" }
}

fn level(colour: usize, dashed: bool, (from, to): (f64, f64), y: f64) -> String {
    format!("<path class=\"s{colour}{}\" d=\"M{from:.1} {y:.1}H{to:.1}\"/>", dash(dashed))
}

fn band(colour: usize, x: f64, y: f64, width: f64, height: f64) -> String {
    format!(
        "<rect class=\"f{colour} band\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
    )
}

/// A point with its tooltip.
fn point(colour: usize, shape: Shape, x: f64, y: f64, words: &str) -> String {
    let title = if words.is_empty() { String::new() } else { format!("<title>{}</title>", escape(words)) };
    let path = |d: String, class: char| format!("<path class=\"{class}{colour}\" d=\"{d}\">{title}</path>");
    match shape {
        Shape::Dot => {
            format!("<circle class=\"f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\">{title}</circle>")
        }
        Shape::Ring => {
            format!("<circle class=\"s{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6.5\">{title}</circle>")
        }
        Shape::Square => path(format!("M{:.1} {:.1}h8v8h-8z", x - 4.0, y - 4.0), 'f'),
        Shape::Triangle => path(format!("M{x:.1} {:.1}l5 9h-10z", y - 5.5), 'f'),
        Shape::Diamond => path(format!("M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z", y - 5.5), 'f'),
        Shape::Cross => {
            let (left, top) = (x - 4.0, y - 4.0);
            path(format!("M{left:.1} {top:.1}l8 8m0 -8l-8 8"), 's')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str, before: &str) -> Vec<f64> {
        text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn marks_are_where_their_numbers_are_and_labels_apart() {
        let points = [(10.0, 90.0), (20.0, 95.0), (100.0, 99.0)];
        let plot = Plot {
            title: "a <b> & \"c\"".into(),
            x: Axis::linear("share"),
            y: Axis::linear("accuracy"),
            marks: vec![
                Mark::Band { colour: 2, name: "tolerance".into(), y: (98.0, 99.0) },
                Mark::Level { colour: 2, name: "teacher".into(), y: 99.0 },
                Mark::Points {
                    colour: 0,
                    shape: Shape::Dot,
                    name: "<candidate>".into(),
                    points: points.map(|(x, y)| (x, y, format!("{x} & {y}"))).to_vec(),
                },
                Mark::Points {
                    colour: 1,
                    shape: Shape::Dot,
                    name: "gone".into(),
                    points: vec![(1.0, f64::NAN, String::new())],
                },
            ],
        };
        let svg = plot.svg();
        assert!(
            svg.contains("a &lt;b&gt; &amp; &quot;c&quot;") && svg.contains("<title>10 &amp; 90</title>")
        );
        let (x, y) = (numbers(&svg, "cx=\""), numbers(&svg, "cy=\""));
        assert_eq!((x.len(), y.len()), (3, 3), "NaN is not drawn");
        // Distances are proportional to differences; larger values are higher up.
        let ratio = |a: f64, b: f64, c: f64| (b - a) / (c - a);
        assert!((ratio(x[0], x[1], x[2]) - 10.0 / 90.0).abs() < 0.01, "{x:?}");
        assert!((ratio(y[0], y[1], y[2]) - 5.0 / 9.0).abs() < 0.01 && y[2] < y[0], "{y:?}");
        assert_eq!(
            plot.legend().iter().map(|(_, name)| *name).collect::<Vec<_>>(),
            ["tolerance", "teacher", "<candidate>", "gone"]
        );
    }

    #[test]
    fn labels_of_the_lower_axis_do_not_touch() {
        for (low, high) in [(0.0, 1.0), (1e5, 1.00001e5), (-3e6, 8e7), (0.001, 0.0011)] {
            let mut x = Axis::linear("");
            x.include(low);
            x.include(high);
            let y = Axis::linear("");
            let mut drawing = Drawing { x, y, out: String::new() };
            drawing.x.pad();
            let ticks = drawing.x_ticks();
            assert!(ticks.len() >= 2, "{low} to {high}: {ticks:?}");
            for pair in ticks.windows(2) {
                let apart = drawing.right(pair[1].0) - drawing.right(pair[0].0);
                let width = CHARACTER * (pair[0].1.len() + pair[1].1.len()) as f64 / 2.0;
                assert!(apart > width, "{low} to {high}: {pair:?} are {apart:.0} apart and {width:.0} wide");
            }
        }
    }
}
