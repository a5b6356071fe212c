//! All candidates of one run as a table, which also contains what the plot of accuracy and cost shows.

use super::html::{cell, head, table, words};
use super::plain;
use super::run::Run;
use crate::draw::escape;
use crate::fit::count;
use serde_json::Value;

/// The column that lists what was removed for a candidate. It is left out where it would be empty.
const TAKEN: &str = "Without, in turn";

/// The columns. What exclusion removes beyond the choice is not in the first.
const HEADS: [&str; 9] = [
    "Blocks dropped by choice",
    TAKEN,
    "Proxies",
    "Validation",
    "Points behind",
    "Only teacher correct",
    "Only it correct",
    "Multiply-adds",
    "Parameters",
];

/// The table.
pub(super) fn listed(run: &Run) -> String {
    let whole = run.report["backbone"]["macs"].as_f64().unwrap_or(f64::NAN);
    // Bisection tries them in a different order.
    let mut tried: Vec<&Value> = run.report["candidates"].as_array().into_iter().flatten().collect();
    tried.sort_by_key(|candidate| candidate["dropped"].as_u64());
    let told: Vec<String> = tried.iter().map(|candidate| told(run, candidate)).collect();
    let has_words = told.iter().any(|told| !told.is_empty());
    let heads: Vec<&str> = HEADS.into_iter().filter(|head| has_words || *head != TAKEN).collect();
    let rows = tried.iter().zip(&told).map(|(candidate, told)| {
        let chosen = if run.is_chosen(candidate) { " (chosen)" } else { "" };
        let name = head(&format!("{}{chosen}", plain(&candidate["dropped"])));
        let Some((val, macs, params)) = trained(candidate) else {
            return name + &words(&escape(&why_not(candidate)), heads.len() - 1);
        };
        let share = format!("{} ({:.0} %)", count(macs), 100.0 * macs as f64 / whole);
        let number = |key: &str| candidate[key].as_u64().map_or(String::new(), |n| n.to_string());
        let val = format!("{:.1} %", 100.0 * val);
        let behind = candidate["behind"].as_f64().map_or(String::new(), |gap| format!("{:.2}", 100.0 * gap));
        let (lost, won) = (number("lost"), number("won"));
        let cells = [number("proxies"), val, behind, lost, won, share, count(params)];
        let taken = if has_words { words(&escape(told), 1) } else { String::new() };
        name + &taken + &cells.map(|text| cell(&text)).concat()
    });
    table("Candidates", &heads, &[TAKEN], rows)
}

/// Validation accuracy, multiply-adds and parameters of a candidate; `None` if it was not retrained.
fn trained(candidate: &Value) -> Option<(f64, u64, u64)> {
    Some((candidate["val"].as_f64()?, candidate["macs"].as_u64()?, candidate["params"].as_u64()?))
}

/// What was removed for a candidate that was retrained, and its marks.
fn told(run: &Run, candidate: &Value) -> String {
    if trained(candidate).is_none() {
        return String::new();
    }
    let mut told = candidate["stage"].as_str().map_or(String::new(), crate::fit::taken);
    let over = candidate["cost"].as_f64().zip(run.report["task"]["budget"].as_f64());
    let marks = [
        ("finished", candidate["finished"] == true),
        ("over budget", over.is_some_and(|(cost, budget)| cost > budget)),
    ];
    for (mark, _) in marks.into_iter().filter(|(_, holds)| *holds) {
        told += &format!("{}{mark}", if told.is_empty() { "" } else { "; " });
    }
    told
}

/// Why a candidate has no figures.
fn why_not(candidate: &Value) -> String {
    let told = [("refused", ""), ("over_budget", "over budget: "), ("diverged", "diverged: ")];
    let said = |(key, what): (&str, &str)| Some(format!("{what}{}", candidate[key].as_str()?));
    told.into_iter().find_map(said).unwrap_or_else(|| "no result recorded".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_column_of_words_is_there_only_if_any_candidate_has_some() {
        let of = |stage: &str, finished: bool| {
            let candidates = json!([
                { "dropped": 1, "stage": stage, "finished": finished, "val": 0.5, "macs": 6, "params": 7 },
                { "dropped": 2, "over_budget": "0.300 ms of 0.200 ms", "cost": 300.0 },
            ]);
            let report = json!({ "candidates": candidates, "task": { "budget": 200.0 } });
            listed(&Run { report, ..Run::default() })
        };
        for (table, columns) in
            [(of("prune-1", false), 8), (of("prune-1", true), 9), (of("prune-without-3", false), 9)]
        {
            assert_eq!(table.contains(TAKEN), columns == 9, "{table}");
            assert_eq!(table.matches("<th scope=\"col\"").count(), columns, "{table}");
            let rows: Vec<&str> = table.split("<tr>").skip(2).collect();
            assert_eq!(rows[0].matches("<td").count(), columns - 1, "{table}");
            assert!(rows[1].contains(&format!("colspan=\"{}\"", columns - 1)), "{table}");
        }
    }
}
