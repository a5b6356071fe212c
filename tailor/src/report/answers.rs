//! The tailored network's predictions: which classes are confused, and the images of its most confident
//! mistakes.

use super::html::{cell, head, picture, table, words};
use super::run::Run;
use crate::draw::escape;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A confusion matrix with more classes is too large to read, and grows with their square.
const MOST_IN_MATRIX: u64 = 100;

/// Pairs of classes in the list that takes its place.
const MOST_LISTED: usize = 50;

/// Name of the class with the given label.
fn class(run: &Run, label: u64) -> String {
    run.report["classes"][label as usize].as_str().map_or_else(|| format!("class {label}"), str::to_string)
}

/// The split of the predictions, as text.
pub(super) fn split(run: &Run) -> &'static str {
    if run.predictions["split"] == "val" { "validation" } else { "test" }
}

/// Number of images by true and predicted class.
type Counts = BTreeMap<(u64, u64), usize>;

/// Which classes are taken for which: a matrix or, with too many classes for one, a list.
pub(super) fn confusion(run: &Run) -> Option<String> {
    let column = |key: &str| -> Option<Vec<u64>> {
        run.predictions[key].as_array()?.iter().map(Value::as_u64).collect()
    };
    let (labels, answers) = (column("labels")?, column("answers")?);
    let classes = run.report["classes"].as_array()?.len() as u64;
    let mut counts = Counts::new();
    for (label, answer) in labels.into_iter().zip(answers) {
        if label.max(answer) >= classes {
            return None;
        }
        *counts.entry((label, answer)).or_default() += 1;
    }
    if classes > MOST_IN_MATRIX { most_frequent(run, &counts) } else { Some(matrix(run, classes, &counts)) }
}

/// What the confusions are of: `Confusion on 6 images of the test split`.
fn subject(run: &Run, counts: &Counts) -> String {
    format!("Confusion on {} images of the {} split", counts.values().sum::<usize>(), split(run))
}

/// The confusion matrix: a row per true class, a column per prediction.
fn matrix(run: &Run, classes: u64, counts: &Counts) -> String {
    let names: Vec<String> = (0..classes).map(|label| escape(&class(run, label))).collect();
    let heads: String =
        names.iter().map(|name| format!("<th scope=\"col\"><span>{name}</span></th>")).collect();
    let mut rows = String::new();
    for (label, name) in (0..classes).zip(&names) {
        let count = |answer: u64| counts.get(&(label, answer)).copied().unwrap_or(0);
        let all = (0..classes).map(count).sum::<usize>().max(1);
        let cells: String = (0..classes)
            .map(|answer| {
                let n = count(answer);
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
        rows += &format!("<tr>{}{cells}</tr>\n", head(name));
    }
    let caption = format!("{}: rows are the true classes, columns the predictions", subject(run, counts));
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion matrix\">\
         <table class=\"confusion\"><caption>{caption}</caption>\n\
         <thead><tr><td></td>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// The column of the classes predicted in place of the true ones.
const PREDICTED: &str = "Predicted class";

/// The most frequent pairs of a true class and another that was predicted; `None` without mistakes.
fn most_frequent(run: &Run, counts: &Counts) -> Option<String> {
    let mut of_class: BTreeMap<u64, usize> = BTreeMap::new();
    for (&(label, _), n) in counts {
        *of_class.entry(label).or_default() += n;
    }
    let mut confused: Vec<((u64, u64), usize)> =
        counts.iter().map(|(&pair, &n)| (pair, n)).filter(|((label, answer), _)| label != answer).collect();
    // Equally frequent ones stay in the order of the classes.
    confused.sort_by_key(|&(_, n)| Reverse(n));
    let listed = &confused[..confused.len().min(MOST_LISTED)];
    let images = |pairs: &[((u64, u64), usize)]| pairs.iter().map(|(_, n)| n).sum::<usize>();
    let caption = format!(
        "{}: the {} most frequent of {} pairs of classes, with {} of {} misclassified images",
        subject(run, counts),
        listed.len(),
        confused.len(),
        images(listed),
        images(&confused)
    );
    let rows = listed.iter().map(|&((label, answer), n)| {
        let name = |label: u64| escape(&class(run, label));
        let (n, of) = (n.to_string(), of_class[&label].to_string());
        head(&name(label)) + &words(&name(answer), 1) + &cell(&n) + &cell(&of)
    });
    let columns = ["True class", PREDICTED, "Images", "of the true class's"];
    (!confused.is_empty()).then(|| table(&caption, &columns, &[PREDICTED], rows))
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
                "<figure>{image}<figcaption>is <b>{}</b>, said <b>{}</b> ({sure:.0} % sure)<br/>\
                 <small>{}</small></figcaption></figure>\n",
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
        1 => format!(
            "<p>1 image of the {} split was misclassified:</p>\n<div class=\"mistakes\">{figures}</div>\n",
            split(run)
        ),
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

    #[test]
    fn many_classes_get_a_list_of_the_most_frequent_confusions_instead_of_a_matrix() {
        let of = |classes: usize, given: &[(u64, u64)]| {
            let names: Vec<String> = (0..classes).map(|label| format!("<{label}>")).collect();
            let (labels, answers): (Vec<u64>, Vec<u64>) = given.iter().copied().unzip();
            let report = serde_json::json!({ "classes": names });
            let predictions = serde_json::json!({ "split": "test", "labels": labels, "answers": answers });
            confusion(&Run { report, predictions, ..Run::default() })
        };
        let given = [(3, 3), (0, 9), (3, 8), (3, 7), (0, 0), (3, 7), (2, 2)];
        let list = of(101, &given).unwrap();
        let rows = list.split("<tr>").skip(2).map(|row| {
            let texts = row.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text.trim());
            texts.filter(|text| !text.is_empty()).collect::<Vec<_>>()
        });
        let want = [
            ["&lt;3&gt;", "&lt;7&gt;", "2", "4"],
            ["&lt;0&gt;", "&lt;9&gt;", "1", "2"],
            ["&lt;3&gt;", "&lt;8&gt;", "1", "4"],
        ];
        assert_eq!(rows.collect::<Vec<_>>(), want, "{list}");
        let caption = "7 images of the test split: the 3 most frequent of 3 pairs of classes, with 4 of 4";
        assert!(list.contains(caption) && !list.contains("class=\"confusion\""), "{list}");

        let ring: Vec<(u64, u64)> = (0..60).map(|label| (label, label + 1)).collect();
        let list = of(101, &ring).unwrap();
        assert!(list.contains("the 50 most frequent of 60 pairs of classes, with 50 of 60"), "{list}");
        assert_eq!(list.matches("<th scope=\"row\">").count(), 50);

        assert!(of(100, &given).unwrap().contains("class=\"confusion\""));
        assert_eq!(of(101, &[(3, 3)]), None, "nothing was confused");
        assert_eq!(of(101, &[(3, 101)]), None, "no such class");
    }
}
