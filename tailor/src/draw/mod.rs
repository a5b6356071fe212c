//! Drawings: a task's architecture (surviving blocks and proxies, stroke width = alpha), and plots.

mod axis;
mod figure;
mod plot;
mod svg;

pub use axis::Axis;
pub use figure::sheet;
pub use plot::{Mark, Plot, Shape};
pub use svg::escape;

use bundles::plan::{Cell, Plan, Role};
use std::fmt::Write;
use svg::Svg;

/// A network before and after pruning, with the gate values of the surviving paths.
#[derive(Debug, Clone, Copy)]
pub struct Architecture<'a> {
    /// Name in the title.
    pub title: &'a str,
    /// One line under the title.
    pub subtitle: &'a str,
    /// The student with all its proxies.
    pub full: &'a Plan,
    /// The pruned network.
    pub kept: &'a Plan,
    /// `alphas[l - 1][g]` of the surviving gates, in `kept`'s order.
    pub alphas: &'a [Vec<f32>],
}

const STEP: f64 = 76.0;
const LEFT: f64 = 84.0;
const BLOCK: f64 = 40.0;
const THICK: f64 = 9.0;
const KEPT: &str = "#1f6feb";
const PROXY: &str = "#d9822b";
const GONE: &str = "#c8ced6";
const INK: &str = "#24292f";

/// The drawing as a self-contained SVG document.
///
/// Nodes are in a row from the stem (left) to the classifier (right). Boxes are universal blocks, arcs are
/// proxies; stroke width is the gate's alpha. Pruned paths are pale and dashed.
pub fn architecture(net: Architecture<'_>) -> String {
    let cells = net.full.cells.len();
    let reach = net
        .full
        .cells
        .iter()
        .enumerate()
        .flat_map(|(i, c)| c.proxies().map(move |g| i + 1 - g.source))
        .max()
        .unwrap_or(1);
    let top = 74.0 + arc_height(reach);
    let width = LEFT * 2.0 + STEP * cells as f64;
    let mut svg = Svg::new(width, top + 92.0);
    svg.text(16.0, 26.0, 17.0, INK, "start", net.title);
    svg.text(16.0, 46.0, 12.0, "#57606a", "start", net.subtitle);
    let x = |node: usize| LEFT + STEP * node as f64;

    for l in 1..=cells {
        let (before, after) = (&net.full.cells[l - 1], &net.kept.cells[l - 1]);
        for proxy in before.proxies() {
            let alpha = alpha_of(after, net.alphas.get(l - 1), Role::Proxy, proxy.source);
            let height = arc_height(l - proxy.source);
            match alpha {
                Some(alpha) => svg.arc(x(proxy.source), x(l), top - 9.0, height, PROXY, stroke(alpha), false),
                None => svg.arc(x(proxy.source), x(l), top - 9.0, height, GONE, 1.0, true),
            }
        }
    }
    for l in 1..=cells {
        let alpha = alpha_of(&net.kept.cells[l - 1], net.alphas.get(l - 1), Role::Block, l - 1);
        let middle = (x(l - 1) + x(l)) / 2.0;
        match alpha {
            Some(alpha) => {
                svg.line(x(l - 1), x(l), top, KEPT, stroke(alpha), false);
                svg.boxed(middle, top, BLOCK, 26.0, KEPT, "white", false);
            }
            None => {
                svg.line(x(l - 1), x(l), top, GONE, 1.0, true);
                svg.boxed(middle, top, BLOCK, 26.0, "white", GONE, true);
            }
        }
        svg.text(
            middle,
            top + 4.0,
            11.0,
            if alpha.is_some() { "white" } else { GONE },
            "middle",
            &format!("G{l}"),
        );
        if let Some(alpha) = alpha {
            svg.text(middle, top + 30.0, 10.0, "#57606a", "middle", &format!("{alpha:.2}"));
        }
    }
    for l in 0..=cells {
        let alive = l == 0 || !net.kept.cells[l - 1].is_dead();
        svg.node(x(l), top, alive, if alive { INK } else { GONE });
    }
    svg.text(x(0) - 14.0, top + 4.0, 12.0, INK, "end", "stem");
    svg.text(x(cells) + 14.0, top + 4.0, 12.0, INK, "start", "classifier");
    legend(&mut svg, top + 66.0);
    svg.finish()
}

fn stroke(alpha: f32) -> f64 {
    1.0 + THICK * f64::from(alpha.clamp(0.0, 1.0))
}

fn arc_height(reach: usize) -> f64 {
    (34.0 + 26.0 * reach as f64).min(200.0)
}

fn alpha_of(cell: &Cell, alphas: Option<&Vec<f32>>, role: Role, source: usize) -> Option<f32> {
    let at = cell.gates.iter().position(|g| g.role == role && g.source == source)?;
    Some(alphas.and_then(|a| a.get(at)).copied().unwrap_or(1.0))
}

fn legend(svg: &mut Svg, y: f64) {
    let mut x = 24.0;
    for (color, dashed, words) in
        [(KEPT, false, "universal block (alpha below)"), (PROXY, false, "proxy"), (GONE, true, "pruned away")]
    {
        svg.line(x, x + 26.0, y, color, if dashed { 1.0 } else { 5.0 }, dashed);
        svg.text(x + 32.0, y + 4.0, 11.0, "#57606a", "start", words);
        x += 48.0 + 6.3 * words.len() as f64;
    }
}

/// The architecture in one line of text for terminals: for each node, `■` if its block was kept, `□` if only
/// proxies were, `·` if it is dead; `+n` gives the number of proxies.
pub fn strip(kept: &Plan) -> String {
    let mut line = String::new();
    for cell in &kept.cells {
        let proxies = cell.proxies().count();
        let block = match (cell.block().is_some(), cell.is_dead()) {
            (true, _) => '■',
            (false, false) => '□',
            (false, true) => '·',
        };
        let _ = match proxies {
            0 => write!(line, "{block} "),
            n => write!(line, "{block}+{n} "),
        };
    }
    line.trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::plan::{Arch, Skips};

    #[test]
    fn survivors_are_solid_and_the_rest_is_dashed() {
        let arch: Arch = "cifar-resnet20-a".parse().unwrap();
        let full = arch.plan(32, 32, 10).unwrap().with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
        let values: Vec<Vec<f32>> =
            full.cells.iter().enumerate().map(|(i, c)| vec![0.1 + 0.01 * i as f32; c.gates.len()]).collect();
        let kept = full.pruned(&values, 4, 0.12).unwrap();
        let alphas: Vec<Vec<f32>> = kept.cells.iter().map(|c| vec![0.5; c.gates.len()]).collect();
        let drawn = architecture(Architecture {
            title: "a < b & c",
            subtitle: "",
            full: &full,
            kept: &kept,
            alphas: &alphas,
        });
        let solid = drawn.matches("class=\"proxy\"").count();
        assert_eq!(solid, kept.proxies());
        assert_eq!(drawn.matches("class=\"gone\"").count(), full.proxies() - kept.proxies());
        assert!(drawn.contains("a &lt; b &amp; c"));
        assert_eq!(strip(&kept).split(' ').count(), 9);
    }
}
