//! Several data sets and methods (the paper's Table 2): accuracies, their average, and the total size of all
//! tasks.

use super::{Findings, Table, giga, known, millions};
use crate::Result;
use crate::baselines::{Method, Outcome};
use crate::fit::BackboneSize;
use crate::train::Score;
use bundles::plan::Plan;
use serde_json::json;

/// The table of `outcomes`, by method and data set, on the backbone of `plan`.
///
/// # Errors
/// Any error of the plan's check.
pub fn findings(
    (plan, backbone): (&Plan, &BackboneSize),
    data: &[String],
    methods: &[Method],
    outcomes: &[Outcome],
) -> Result<Findings> {
    let tested = outcomes.iter().all(|outcome| outcome.test.is_some());
    let score = |outcome: &Outcome| -> Score {
        match outcome.test {
            Some(test) if tested => test,
            _ => outcome.val,
        }
    };
    let split = if tested { "test" } else { "validation" };
    let mut columns = vec![String::new()];
    columns.extend(data.iter().map(|name| format!("{name} %")));
    columns.extend(
        ["average %", "params M, all tasks", "params M, a network", "GFLOPs", "task-owned M, a task"]
            .map(String::from),
    );
    let mut table = Table::new(format!("Accuracy on {split}, and what it takes"), columns);
    let mut results = Vec::new();
    for &method in methods {
        let of: Vec<&Outcome> = data
            .iter()
            .filter_map(|name| outcomes.iter().find(|o| o.method == method && o.data == *name))
            .collect();
        let sizes: Vec<_> = of.iter().map(|outcome| outcome.size).collect();
        let together = method.params_together(plan, &sizes)?;
        let n = of.len().max(1) as u64;
        let mean = |figure: fn(&Outcome) -> u64| of.iter().map(|o| figure(o)).sum::<u64>() / n;
        let (params, macs, own) =
            (mean(|o| o.size.params), mean(|o| o.size.macs), mean(|o| o.size.task_params));
        let average = of.iter().map(|outcome| score(outcome).accuracy()).sum::<f64>() / n as f64;
        let mut row = vec![method.name().to_string()];
        row.extend(of.iter().map(|outcome| format!("{:.1}", 100.0 * score(outcome).accuracy())));
        row.push(format!("{:.2}", 100.0 * average));
        row.extend([millions(together), millions(params), giga(macs), millions(own)]);
        table.row(row);
        results.push(json!({
            "method": method.name(),
            "average": average,
            "split": split,
            "params_together": together,
            "params": params,
            "task_params": own,
            "macs": macs,
            "tasks": of.iter().map(|outcome| outcome.json()).collect::<Vec<_>>(),
        }));
    }
    let figures = "\"All tasks\" counts the shared backbone once and in full; the other figures are means over the data \
                   sets. GFLOPs are multiply-adds per image.";
    let mut notes = vec![figures.to_string()];
    for name in data {
        if let Some(first) = outcomes.iter().find(|outcome| outcome.data == *name) {
            let what = format!("the accuracy of {}", first.method.name());
            notes.push(known(name, &what, first.val, first.test));
        }
    }
    notes.extend(Method::described(methods));
    Ok(Findings {
        protocol: "datasets",
        title: format!("{} tasks on one {}", data.len(), plan.arch),
        tables: vec![table],
        figures: Vec::new(),
        notes,
        results: json!({ "backbone": backbone.json(), "methods": results }),
    })
}
