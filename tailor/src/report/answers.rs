//! The tailored network's predictions: the confusion matrix, and the images of its most confident mistakes.

use super::html::{cell, head, picture};
use super::run::Run;
use crate::draw::escape;
use serde_json::Value;

/// Name of the class with the given label.
fn class(run: &Run, label: u64) -> String {
    run.report["classes"][label as usize].as_str().map_or_else(|| format!("class {label}"), str::to_string)
}

/// The split of the predictions, as text.
pub(super) fn split(run: &Run) -> &'static str {
    if run.predictions["split"] == "val" { "validation" } else { "test" }
}

/// The confusion matrix: a row per true class, a column per prediction.
pub(super) fn confusion(run: &Run) -> Option<String> {
    let column = |key: &str| -> Option<Vec<u64>> {
        run.predictions[key].as_array()?.iter().map(Value::as_u64).collect()
    };
    let (labels, answers) = (column("labels")?, column("answers")?);
    let classes = run.report["classes"].as_array()?.len();
    let mut counts = vec![vec![0usize; classes]; classes];
    for (&label, &answer) in labels.iter().zip(&answers) {
        *counts.get_mut(label as usize)?.get_mut(answer as usize)? += 1;
    }
    let names: Vec<String> = (0..classes).map(|label| escape(&class(run, label as u64))).collect();
    let heads: String =
        names.iter().map(|name| format!("<th scope=\"col\"><span>{name}</span></th>")).collect();
    let mut rows = String::new();
    for (label, counts) in counts.iter().enumerate() {
        let all = counts.iter().sum::<usize>().max(1);
        let cells: String = counts
            .iter()
            .enumerate()
            .map(|(answer, &n)| {
                if n == 0 {
                    return cell("");
                }
                let kind = if answer == label { "right" } else { "wrong" };
                // Never so pale that it looks empty.
                let share = (n as f64 / all as f64).max(0.12);
                let dark = if share > 0.55 { " dark" } else { "" };
                format!("<td class=\"{kind}{dark}\" style=\"--share:{share:.2}\">{n}</td>")
            })
            .collect();
        rows += &format!("<tr>{}{cells}</tr>\n", head(&names[label]));
    }
    let caption = format!(
        "Confusion on {} images of the {} split: rows are the true classes, columns the predictions",
        labels.len(),
        split(run)
    );
    Some(format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion matrix\"><table class=\"confusion\">\
         <caption>{caption}</caption>\n<thead><tr><td></td>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    ))
}

/// The images of the most confident mistakes.
pub(super) fn mistakes(run: &Run) -> Option<String> {
    let mistakes = run.predictions["mistakes"].as_array()?;
    let figures: String = mistakes
        .iter()
        .zip(&run.mistakes)
        .map(|(mistake, image)| {
            let name = |key: &str| class(run, mistake[key].as_u64().unwrap_or(u64::MAX));
            let (is, said) = (name("label"), name("answer"));
            let sure = 100.0 * mistake["confidence"].as_f64().unwrap_or(0.0);
            let file = mistake["file"].as_str().unwrap_or_default();
            let alt = format!("{file}: {is}, classified as {said}");
            let image =
                image.as_ref().map_or_else(String::new, |image| picture("image/png", image, &alt, "mistake"));
            format!(
                "<figure>{image}<figcaption>is <b>{}</b>, said <b>{}</b> ({sure:.0} % sure)<br/><small>{}</small></figcaption></figure>\n",
                escape(&is),
                escape(&said),
                escape(file)
            )
        })
        .collect();
    let all = run.predictions["labels"].as_array()?.iter().zip(run.predictions["answers"].as_array()?);
    let wrong = all.filter(|(label, answer)| label != answer).count();
    Some(match wrong {
        0 => format!("<p>No image of the {} split was misclassified.</p>\n", split(run)),
        _ => format!(
            "<p>{wrong} images of the {} split were misclassified; the {} most confident mistakes:</p>\n\
             <div class=\"mistakes\">{figures}</div>\n",
            split(run),
            run.mistakes.len()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_confusion_matrix_are_true_classes() {
        let report = serde_json::json!({ "classes": ["cat", "<dog>"] });
        let predictions = serde_json::json!({
            "split": "val", "labels": [0, 0, 0, 0, 1, 1], "answers": [0, 1, 1, 1, 1, 1],
        });
        let run = Run { report, predictions, ..Run::default() };
        let matrix = confusion(&run).unwrap();
        let row = |name: &str| {
            let row = matrix.split("<tr>").find(|row| row.contains(&format!("row\">{name}<"))).unwrap();
            let cells = row.split("<td").skip(1).map(|cell| {
                let (head, text) = cell.split_once('>').unwrap();
                let kind = ["right", "wrong"].into_iter().find(|kind| head.contains(kind)).unwrap_or("");
                format!("{kind} {}", text.split('<').next().unwrap())
            });
            cells.collect::<Vec<_>>()
        };
        assert_eq!(row("cat"), ["right 1", "wrong 3"]);
        assert_eq!(row("&lt;dog&gt;"), [" ", "right 2"]);
        assert!(matrix.contains("6 images of the validation split"), "{matrix}");
        assert!(mistakes(&Run { predictions: Value::Null, ..run }).is_none());
    }
}
