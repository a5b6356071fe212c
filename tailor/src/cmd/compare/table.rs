//! The tables of a comparison, aligned for a terminal, and the notes below them.

use crate::baselines::{Method, Outcome};
use crate::fit::{BackboneSize, count};
use crate::protocols::Table;
use crate::train::Score;

const HEADINGS: [&str; 8] =
    ["", "validation", "test", "parameters", "task-owned", "multiply-adds", "training", "bytes per switch"];

/// One line per method, on one task.
pub fn of_task(data: &str, outcomes: &[Outcome], backbone: &BackboneSize) -> String {
    let percent = |score: Score| score.percent(1);
    let rows = outcomes.iter().map(|outcome| {
        let size = outcome.size;
        row(
            outcome.method,
            [percent(outcome.val), outcome.test.map_or_else(|| "-".into(), percent)],
            [size.params, size.task_params, size.macs, size.swap_bytes],
            outcome.seconds,
            backbone,
        )
    });
    aligned(data, rows)
}

/// One line per method, averaged over all tasks.
pub fn average(methods: &[Method], outcomes: &[Outcome], backbone: &BackboneSize) -> String {
    let mut tasks = 0;
    let rows: Vec<_> = methods
        .iter()
        .map(|&method| {
            let of: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.method == method).collect();
            tasks = of.len();
            let percent = |scores: Vec<Score>| match scores.len() {
                // A mean over some of the tasks is not comparable with one over all.
                n if n == of.len() && n > 0 => {
                    let sum: f64 = scores.iter().map(Score::accuracy).sum();
                    format!("{:.1} %", 100.0 * sum / n as f64)
                }
                _ => "-".into(),
            };
            let mean = |figure: fn(&Outcome) -> u64| {
                of.iter().map(|outcome| figure(outcome)).sum::<u64>() / of.len().max(1) as u64
            };
            let scores = [
                percent(of.iter().map(|outcome| outcome.val).collect()),
                percent(of.iter().filter_map(|outcome| outcome.test).collect()),
            ];
            let costs = [
                mean(|o| o.size.params),
                mean(|o| o.size.task_params),
                mean(|o| o.size.macs),
                mean(|o| o.size.swap_bytes),
            ];
            let seconds = of.iter().map(|o| o.seconds).sum::<f64>() / of.len().max(1) as f64;
            row(method, scores, costs, seconds, backbone)
        })
        .collect();
    aligned(&format!("average of {tasks} tasks"), rows.into_iter())
}

/// What the figures are, and what each of `methods` is published as; a line each.
pub fn notes(methods: &[Method]) -> String {
    let figures = "Percentages of parameters and multiply-adds are of the backbone's stem and blocks. Bytes per \
                   switch are what a device must read to change to the task. Training is the time that training \
                   steps took where they ran, for tailor its teacher's and all candidates'.";
    let mut lines = vec![figures.to_string()];
    lines.extend(Method::described(methods));
    lines.join("\n") + "\n"
}

fn row(
    method: Method,
    [val, test]: [String; 2],
    costs: [u64; 4],
    seconds: f64,
    backbone: &BackboneSize,
) -> [String; 8] {
    let [params, own, macs, bytes] = costs;
    let of = |n: u64, whole: u64| format!("{} ({:.0} %)", count(n), 100.0 * n as f64 / whole.max(1) as f64);
    let bytes = format!("{:.1} KiB", bytes as f64 / 1024.0);
    let (params, own) = (of(params, backbone.params), of(own, backbone.params));
    let time = if seconds < 100.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) };
    [method.name().into(), val, test, params, own, of(macs, backbone.macs), time, bytes]
}

/// An aligned table with `title` as its first heading.
fn aligned(title: &str, rows: impl Iterator<Item = [String; 8]>) -> String {
    let mut table = Table::new(title, HEADINGS);
    table.columns[0] = title.into();
    rows.for_each(|row| table.row(row));
    table.text() + "\n"
}
