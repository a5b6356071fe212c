//! Figures as standalone files: a plot with its colours, title and legend, and drawings side by side.

use super::plot::{Plot, SIZE};
use super::svg::{Svg, escape};

/// Colours `c0` to `c7` of the report page, as on a white background.
const COLOURS: [&str; 8] =
    ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e", "#7d6400", "#0f7b83", "#bf3989"];
/// The other rules for plots in its style sheet.
const STYLE: &str = ".plot{font-size:12px}.plot text{fill:#57606a}.plot text.label{fill:#1f2328}\
                     .grid{stroke:#e4e8ec;fill:none}.axis{stroke:#57606a;fill:none}\
                     .dash{stroke-dasharray:5 4}.band{opacity:.18}";
/// Height of a line of the legend, and of the title.
const LINE: f64 = 18.0;
const TITLE: f64 = 30.0;
/// Approximate width of a character in the legend.
const CHARACTER: f64 = 6.8;
const MARGIN: f64 = 12.0;
/// Room for a caption above a drawing.
const CAPTION: f64 = 24.0;

impl Plot {
    /// The plot as an SVG document with its title above and its legend below.
    pub fn document(&self) -> String {
        let (width, height) = SIZE;
        let mut entries = Vec::new();
        let (mut x, mut y) = (MARGIN, TITLE + height + 10.0);
        for (swatch, name) in self.legend() {
            let room = 30.0 + CHARACTER * name.chars().count() as f64;
            if x > MARGIN && x + room > width {
                (x, y) = (MARGIN, y + LINE);
            }
            entries.push((placed(&swatch, x, y, (22.0, 14.0)), x + 27.0, y + 11.0, name));
            x += room + 10.0;
        }
        let mut svg = Svg::new(width, y + LINE + 6.0);
        svg.raw(&style());
        svg.text(MARGIN, 20.0, 14.0, "#1f2328", "start", &self.title);
        svg.raw(&placed(&self.svg(), 0.0, TITLE, SIZE));
        for (swatch, x, y, name) in entries {
            svg.raw(&swatch);
            svg.text(x, y, 12.0, "#1f2328", "start", name);
        }
        svg.finish()
    }
}

fn style() -> String {
    let mut rules = STYLE.to_string();
    for (i, colour) in COLOURS.iter().enumerate() {
        rules += &format!(
            ".s{i}{{fill:none;stroke-width:2;stroke-linejoin:round;stroke:{colour}}}.f{i}{{fill:{colour}}}"
        );
    }
    format!("<style>{}</style>\n", escape(&rules))
}

/// Nests the `<svg>` element `svg` at a position and size inside another one.
fn placed(svg: &str, x: f64, y: f64, (width, height): (f64, f64)) -> String {
    let place = format!("<svg x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" ");
    // The drawing's own width and height would be duplicate attributes.
    let svg = match extent(svg) {
        Some((w, h)) => svg.replacen(&format!(" width=\"{w:.0}\" height=\"{h:.0}\""), "", 1),
        None => svg.to_string(),
    };
    svg.replacen("<svg ", &place, 1)
}

/// Width and height declared in an SVG document.
fn extent(svg: &str) -> Option<(f64, f64)> {
    let tag = svg.split('>').next()?;
    let of = |name: &str| tag.split_once(&format!(" {name}=\""))?.1.split('"').next()?.parse().ok();
    Some((of("width")?, of("height")?))
}

/// Arranges drawings (SVG documents of this module) in rows, each with its caption above; columns are as wide
/// as their widest drawing.
pub fn sheet(title: &str, rows: &[Vec<(String, String)>]) -> String {
    let of = |drawing: &str| extent(drawing).unwrap_or((400.0, 200.0));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let column = |c: usize| {
        rows.iter().filter_map(|row| row.get(c)).map(|(_, drawing)| of(drawing).0).fold(0.0, f64::max)
    };
    let widths: Vec<f64> = (0..columns).map(column).collect();
    let heights: Vec<f64> =
        rows.iter().map(|row| row.iter().map(|(_, drawing)| of(drawing).1).fold(0.0, f64::max)).collect();
    let width = widths.iter().map(|width| width + MARGIN).sum::<f64>() + MARGIN;
    let height = TITLE + heights.iter().map(|height| height + CAPTION + MARGIN).sum::<f64>() + MARGIN;
    let mut svg = Svg::new(width, height);
    svg.text(MARGIN, 22.0, 17.0, "#24292f", "start", title);
    let mut y = TITLE;
    for (row, height) in rows.iter().zip(&heights) {
        let mut x = MARGIN;
        for ((caption, drawing), width) in row.iter().zip(&widths) {
            svg.text(x, y + 16.0, 13.0, "#24292f", "start", caption);
            svg.raw(&placed(drawing, x, y + CAPTION, of(drawing)));
            x += width + MARGIN;
        }
        y += height + CAPTION + MARGIN;
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Axis, Mark, Shape};

    fn numbers(text: &str, before: &str) -> Vec<f64> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
    }

    #[test]
    fn a_plot_alone_has_colours_a_title_and_a_legend_below_it() {
        let names = ["one & all", "two", "a third with a long name", "a fourth with a longer name still"];
        let marks = names.iter().enumerate().map(|(colour, name)| Mark::Points {
            colour,
            shape: Shape::Dot,
            name: (*name).into(),
            points: vec![(1.0, 2.0, String::new())],
        });
        let (x, y) = (Axis::linear("x"), Axis::linear("y"));
        let svg = Plot { title: "a < b".into(), x, y, marks: marks.collect() }.document();
        assert!(
            svg.contains("a &lt; b") && svg.contains("one &amp; all") && svg.contains(".f0{fill:#0969da}")
        );
        assert_eq!(svg.matches("<svg").count(), 2 + names.len());
        let height: f64 = numbers(&svg, " height=\"")[0];
        let lowest = numbers(&svg, " y=\"").into_iter().fold(0.0, f64::max);
        assert!(lowest > TITLE + SIZE.1 && lowest < height, "{lowest} of {height}");
    }

    #[test]
    fn drawings_stand_in_rows_and_columns_without_touching() {
        let drawing = |width: f64, height: f64| Svg::new(width, height).finish();
        let rows = vec![
            vec![("a".to_string(), drawing(100.0, 50.0)), ("b".into(), drawing(70.0, 80.0))],
            vec![("c".into(), drawing(300.0, 40.0)), ("d".into(), drawing(10.0, 10.0))],
        ];
        let svg = sheet("all", &rows);
        let places: Vec<Vec<f64>> = svg
            .split("<svg x=\"")
            .skip(1)
            .map(|rest| {
                let tag = format!(" x=\"{}", rest.split('>').next().unwrap());
                ["x", "y", "width", "height"].map(|name| numbers(&tag, &format!(" {name}=\""))[0]).to_vec()
            })
            .collect();
        assert_eq!(places.len(), 4);
        let right = |p: &[f64]| p[0] + p[2];
        let below = |p: &[f64]| p[1] + p[3];
        assert!(right(&places[0]) < places[1][0] && right(&places[2]) < places[3][0], "{places:?}");
        assert!(below(&places[1]) < places[2][1] && places[1][0] == places[3][0], "{places:?}");
        assert_eq!(places[2][2..], [300.0, 40.0]);
        assert!(right(&places[2]) < numbers(&svg, " width=\"")[0]);
    }
}
