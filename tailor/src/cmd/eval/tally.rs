//! Correct answers per class, compared with always answering the most frequent class.

use crate::train::Score;
use serde_json::{Value, json};

/// Correct answers for each class of a split.
pub struct Tally<'a> {
    classes: &'a [String],
    scores: Vec<Score>,
}

impl<'a> Tally<'a> {
    /// Compares `answers` with the true classes `labels`.
    pub fn new(answers: &[u32], labels: &[u32], classes: &'a [String]) -> Tally<'a> {
        let mut scores = vec![Score::default(); classes.len()];
        for (answer, label) in answers.iter().zip(labels) {
            if let Some(score) = scores.get_mut(*label as usize) {
                score.right += usize::from(answer == label);
                score.n += 1;
            }
        }
        Tally { classes, scores }
    }

    /// The score over all classes.
    pub fn score(&self) -> Score {
        let sum = |of: fn(&Score) -> usize| self.scores.iter().map(of).sum();
        Score { right: sum(|score| score.right), n: sum(|score| score.n) }
    }

    /// The most frequent class (the first of several) and its share of the images.
    fn majority(&self) -> Option<(&'a str, f64)> {
        let most = self.scores.iter().map(|score| score.n).max()?;
        let class = self.scores.iter().position(|score| score.n == most)?;
        Some((self.classes.get(class)?, most as f64 / self.score().n.max(1) as f64))
    }

    pub fn json(&self) -> Value {
        let score = self.score();
        let per_class: Vec<Value> = self
            .each()
            .map(|(class, score)| json!({ "class": class, "right": score.right, "n": score.n }))
            .collect();
        let (class, share) = self.majority().unzip();
        json!({
            "accuracy": score.accuracy(), "n": score.n, "interval": score.interval(),
            "majority": share, "majority_class": class, "per_class": per_class,
        })
    }

    /// Reasons the accuracy may be misleading.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let score = self.score();
        if let Some((class, share)) = self.majority()
            && score.interval()[0] <= share
        {
            warnings.push(format!(
                "no clear gain over always answering `{class}`, which is right for {:.2} % of these images",
                100.0 * share
            ));
        }
        let never: Vec<String> = self
            .each()
            .filter(|(_, score)| score.right == 0 && score.n > 0)
            .map(|(class, score)| format!("`{class}` ({} images)", score.n))
            .collect();
        if !never.is_empty() {
            warnings.push(format!("no right answer at all for {}", never.join(", ")));
        }
        warnings
    }

    fn each(&self) -> impl Iterator<Item = (&str, &Score)> {
        self.classes.iter().map(String::as_str).zip(&self.scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_and_compared_with_the_most_frequent_one() {
        let classes = ["ant", "bee", "cat"].map(String::from);
        // 100 images: 70 ants, 30 bees, no cat.
        let labels: Vec<u32> = (0..100).map(|i| u32::from(i >= 70)).collect();
        let tally = |answers: &dyn Fn(usize) -> u32| {
            let answers: Vec<u32> = (0..100).map(answers).collect();
            Tally::new(&answers, &labels, &classes)
        };
        let always = tally(&|_| 0);
        assert_eq!(always.score(), Score { right: 70, n: 100 });
        let json = always.json();
        assert_eq!((json["majority"].as_f64(), json["majority_class"].as_str()), (Some(0.7), Some("ant")));
        assert_eq!(json["per_class"][1], json!({ "class": "bee", "right": 0, "n": 30 }));
        assert_eq!(json["per_class"][2], json!({ "class": "cat", "right": 0, "n": 0 }));
        let warnings = always.warnings();
        assert!(warnings[0].contains("`ant`") && warnings[0].contains("70.00 %"), "{warnings:?}");
        assert!(warnings[1].ends_with("for `bee` (30 images)"), "{warnings:?}");

        // 75 of 100 are within the noise of 70; 90 are not.
        let some = |right: usize| tally(&|i| u32::from(i >= 70 && i < right));
        assert_eq!((some(75).warnings().len(), some(90).warnings().len()), (1, 0));
        assert!(some(75).warnings()[0].contains("no clear gain"));
    }
}
