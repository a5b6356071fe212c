//! Plots of one run: accuracy against cost, and the course of training.

use super::run::Run;
use crate::draw::{Axis, Mark, Plot, Shape};
use crate::plural::counted;
use serde_json::Value;

/// Shapes and colours of the other methods, in turn.
const OTHERS: [(Shape, usize); 10] = [
    (Shape::Square, 1),
    (Shape::Triangle, 3),
    (Shape::Diamond, 4),
    (Shape::Cross, 5),
    (Shape::Square, 6),
    (Shape::Triangle, 7),
    (Shape::Diamond, 1),
    (Shape::Cross, 3),
    (Shape::Square, 4),
    (Shape::Triangle, 5),
];

/// Other methods this many points below the least accurate candidate are listed but not drawn: they would
/// squeeze everything else.
const FAR: f64 = 3.0;

/// Validation accuracy of every candidate over its multiply-adds; `None` if the run recorded none.
pub(super) fn complexity(run: &Run, baselines: &[&Value]) -> Option<Plot> {
    let report = &run.report;
    let candidates = report["candidates"].as_array()?;
    let whole = report["backbone"]["macs"].as_f64()?;
    let point = |value: &Value, words: String| {
        Some((100.0 * value["macs"].as_f64()? / whole, 100.0 * value["val"].as_f64()?, words))
    };
    let vals = candidates.iter().filter_map(|c| c["val"].as_f64());
    let lowest = 100.0 * vals.fold(f64::INFINITY, f64::min);
    let mut marks = Vec::new();
    if let Some(teacher) = report["task"]["teacher_val"].as_f64() {
        // With the other metric, accuracy is not what was compared.
        let recipe = &report["recipe"];
        // Version 1 of the document has both at the top, and tolerance as a fraction.
        let old = report["tolerance"].as_f64().map(|tolerance| (100.0 * tolerance, &report["judge"]));
        let new = recipe["tolerance"].as_f64().map(|tolerance| (tolerance, &recipe["judge"]));
        let compared = new.or(old).filter(|(_, judge)| *judge != "probability");
        let tolerance = compared.map(|(tolerance, _)| tolerance);
        if let Some(tolerance) = tolerance {
            let name = format!("within {tolerance} points of the teacher");
            let y = (100.0 * teacher - tolerance, 100.0 * teacher);
            marks.push(Mark::Band { colour: 2, name, y });
        }
        marks.push(Mark::Level {
            colour: 2,
            name: format!("teacher, {:.1} %", 100.0 * teacher),
            y: 100.0 * teacher,
        });
    }
    for (i, result) in baselines.iter().enumerate() {
        let (shape, colour) = OTHERS[i % OTHERS.len()];
        let name = result["method"].as_str().unwrap_or("unnamed method").to_string();
        let points: Vec<_> = point(result, name.clone()).into_iter().collect();
        let far = points.iter().map(|(_, val, _)| *val).find(|val| *val < lowest - FAR);
        let (name, points) = match far {
            Some(val) => (format!("{name}, far below: {val:.1} %"), Vec::new()),
            None => (name, points),
        };
        marks.push(Mark::Points { colour, shape, name, points });
    }
    let is_finished = |value: &Value| value["finished"] == true;
    let words = |value: &Value| match value["val"].as_f64() {
        Some(val) => {
            let proxies = &value["proxies"];
            let proxies =
                if proxies.is_u64() { format!(", {}", super::proxies(proxies)) } else { String::new() };
            let finished = if is_finished(value) { ", finished" } else { "" };
            let behind = value["behind"]
                .as_f64()
                .map_or(String::new(), |gap| format!(", {:.2} points behind", 100.0 * gap));
            let dropped = counted(value["dropped"].as_u64().unwrap_or(0), "block", "blocks");
            format!("{dropped} dropped by choice{proxies}{finished}: {:.1} %{behind}", 100.0 * val)
        }
        None => String::new(),
    };
    let those = |finished: bool| {
        let those = candidates.iter().filter(move |c| is_finished(c) == finished);
        those.filter_map(|c| point(c, words(c))).collect::<Vec<_>>()
    };
    let (all, finished) = (those(false), those(true));
    let chosen = candidates.iter().filter(|c| run.is_chosen(c)).filter_map(|c| point(c, words(c)));
    let ring = chosen.collect();
    marks.push(Mark::Points { colour: 0, shape: Shape::Dot, name: "candidate".into(), points: all });
    if !finished.is_empty() {
        let name = "candidate, finished".into();
        marks.push(Mark::Points { colour: 0, shape: Shape::Diamond, name, points: finished });
    }
    marks.push(Mark::Points { colour: 0, shape: Shape::Ring, name: "chosen".into(), points: ring });
    Some(Plot {
        title: format!("{}: validation accuracy over multiply-adds", run.name),
        x: Axis::linear("multiply-adds, % of the backbone's"),
        y: Axis::linear("validation accuracy, %"),
        marks,
    })
}

/// Name of a candidate's first training.
const RETRAIN: &str = "retrain";

/// Name of its long fine-tuning.
const FINISH: &str = "finish";

/// A word for a stage that fits above its part of a curve; what a candidate lacks is part of its name and
/// shown elsewhere.
fn word(stage: &str) -> &str {
    match stage.split_once('-') {
        Some(("prune", _)) => RETRAIN,
        Some(("finish", _)) => FINISH,
        _ => stage,
    }
}

/// Loss terms, accuracies and learning rate over all epochs of teacher, student and the selected candidate.
pub(super) fn curves(run: &Run) -> Vec<Plot> {
    let chosen = run.report["chosen"].as_str().map(str::to_owned);
    let is_candidate = |stage: &str| matches!(word(stage), RETRAIN | FINISH);
    let shown: Vec<(usize, &Value)> = run
        .epochs
        .iter()
        .filter(|epoch| {
            let stage = epoch["stage"].as_str().unwrap_or_default();
            chosen.as_deref().is_none_or(|chosen| !is_candidate(stage) || stage == chosen)
        })
        .enumerate()
        .collect();
    if shown.is_empty() {
        return Vec::new();
    }
    let stages: Vec<Vec<&(usize, &Value)>> =
        shown.chunk_by(|a, b| a.1["stage"] == b.1["stage"]).map(|stage| stage.iter().collect()).collect();
    let dividers = || {
        stages.iter().filter_map(|stage| stage.first()).map(|(at, epoch)| Mark::Divider {
            x: *at as f64 + 0.5,
            word: word(epoch["stage"].as_str().unwrap_or_default()).to_string(),
        })
    };
    // One line per stage, since stages train different networks.
    let lines = |key: &'static str, name: &'static str, colour: usize, dashed: bool, scale: f64| {
        stages.iter().filter_map(move |stage| {
            let points: Vec<(f64, f64)> = stage
                .iter()
                .filter_map(|(at, epoch)| Some((*at as f64 + 1.0, scale * epoch[key].as_f64()?)))
                .collect();
            (!points.is_empty()).then(|| Mark::Line { colour, dashed, name: name.into(), points })
        })
    };
    let plot = |what: &str, y: Axis, marks: Vec<Mark>| Plot {
        title: format!("{}: {what}", run.name),
        x: Axis::linear("epochs"),
        y,
        marks: dividers().chain(marks).collect(),
    };
    let losses = lines("classification", "cross-entropy", 0, false, 1.0)
        .chain(lines("matching", "distance to the teacher", 1, false, 1.0))
        .chain(lines("distillation", "divergence from the teacher", 2, false, 1.0))
        .chain(lines("complexity", "expected complexity", 3, false, 1.0));
    let accuracies = lines("train_accuracy", "training", 1, true, 100.0).chain(lines(
        "val_accuracy",
        "validation",
        0,
        false,
        100.0,
    ));
    vec![
        plot("terms of the loss", Axis::log("mean of the epoch, unweighted"), losses.collect()),
        plot("accuracy after each epoch", Axis::linear("accuracy, %"), accuracies.collect()),
        plot(
            "learning rate",
            Axis::log("rate at the epoch's end"),
            lines("rate", "", 4, false, 1.0).collect(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_of_the_chosen_network_and_their_parts_have_short_names() {
        let chosen = "finish-without-3-5+6-p-q";
        let stages = ["teach", "train", "prune-0", "prune-without-3-5+6", chosen, "finish-without-3"];
        let epochs = stages.iter().flat_map(|stage| {
            (1..=9).map(move |_| serde_json::json!({ "stage": stage, "classification": 0.7, "rate": 0.1, "val_accuracy": 0.5 }))
        });
        let report = serde_json::json!({ "chosen": chosen });
        let run = Run { report, epochs: epochs.collect(), ..Run::default() };
        let plots = curves(&run);
        assert_eq!(plots.len(), 3);
        for plot in plots {
            let words: Vec<&str> = plot
                .marks
                .iter()
                .filter_map(
                    |mark| if let Mark::Divider { word, .. } = mark { Some(word.as_str()) } else { None },
                )
                .collect();
            assert_eq!(words, ["teach", "train", "finish"]);
            assert!(words.iter().all(|word| plot.svg().contains(&format!(">{word}</text>"))), "{words:?}");
        }
    }

    #[test]
    fn accuracies_within_tolerance_are_marked_where_accuracy_was_compared() {
        let options = |judge: &str| serde_json::json!({ "recipe": { "judge": judge, "tolerance": 0.5 } });
        let version_1 = serde_json::json!({ "recipe": "Recipe {}", "judge": "answers", "tolerance": 0.005 });
        for (version, marked) in
            [(options("answers"), true), (options("probability"), false), (version_1, true)]
        {
            let mut report = serde_json::json!({
                "backbone": { "macs": 1000 }, "task": { "teacher_val": 0.9 },
                "candidates": [{ "dropped": 1, "stage": "prune-1", "val": 0.88, "behind": 0.004, "macs": 500 }],
                "chosen": "prune-1",
            });
            report.as_object_mut().unwrap().extend(version.as_object().unwrap().clone());
            let plot = complexity(&Run { report, ..Run::default() }, &[]).unwrap();
            assert!(plot.svg().contains("88.0 %, 0.40 points behind"));
            let is_marked =
                |mark: &Mark| matches!(mark, Mark::Band { name, .. } if name.contains("within 0.5 points"));
            assert_eq!(plot.marks.iter().any(is_marked), marked, "{version}");
        }
    }
}
