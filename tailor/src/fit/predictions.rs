//! The tailored network's predictions for every image of a split, and the images of its most confident
//! mistakes.

use super::Work;
use crate::data::{Batch, Split};
use crate::net::{Net, Pass};
use crate::{Error, Result};
use candle_core::D;
use image::{ExtendedColorType, save_buffer_with_format};

/// Number of mistakes whose images are kept.
const MISTAKES: usize = 24;

/// One prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The true class.
    pub label: u32,
    /// The predicted class: the one with the highest score.
    pub answer: u32,
    /// Softmax probability of the predicted class.
    pub confidence: f32,
}

/// Predictions for `batches`, in order.
///
/// # Errors
/// If a batch cannot be read or does not fit the plan.
pub fn answers(net: &Net<'_>, batches: impl Iterator<Item = Result<Batch>>) -> Result<Vec<Answer>> {
    let mut out = Vec::new();
    for batch in batches {
        let batch = batch?;
        let logits = net.forward(&batch.images, Pass::Infer)?.logits;
        let answers: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
        let labels: Vec<u32> = batch.labels.to_vec1()?;
        for ((label, answer), scores) in labels.into_iter().zip(answers).zip(logits.to_vec2::<f32>()?) {
            let best = scores[answer as usize];
            let sum: f32 = scores.iter().map(|score| (score - best).exp()).sum();
            out.push(Answer { label, answer, confidence: 1.0 / sum });
        }
    }
    Ok(out)
}

/// Writes `answers` for `split` (called `name`: test or val) to the work folder, and the images of the most
/// confident mistakes at the network's input size.
///
/// # Errors
/// [`Error::Io`].
pub fn leave(work: &Work, name: &str, split: &Split, answers: &[Answer]) -> Result<()> {
    let folder = work.mistakes();
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
    }
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let mut wrong: Vec<usize> =
        (0..answers.len()).filter(|&i| answers[i].answer != answers[i].label).collect();
    wrong.sort_by(|&a, &b| answers[b].confidence.total_cmp(&answers[a].confidence).then(a.cmp(&b)));
    wrong.truncate(MISTAKES);
    let mut mistakes = Vec::new();
    for (rank, &i) in wrong.iter().enumerate() {
        let picture = format!("{rank:02}.png");
        let path = folder.join(&picture);
        let size = split.images.size();
        let (width, height) = (size.width as u32, size.height as u32);
        save_buffer_with_format(
            &path,
            split.images.get(i),
            width,
            height,
            ExtendedColorType::Rgb8,
            image::ImageFormat::Png,
        )
        .map_err(|error| Error::Io { path: path.clone(), source: std::io::Error::other(error) })?;
        mistakes.push(serde_json::json!({
            "picture": picture,
            "file": split.files[i],
            "label": answers[i].label,
            "answer": answers[i].answer,
            "confidence": answers[i].confidence,
        }));
    }
    let column = |of: &dyn Fn(&Answer) -> serde_json::Value| answers.iter().map(of).collect::<Vec<_>>();
    let document = serde_json::json!({
        "split": name,
        "labels": column(&|a| a.label.into()),
        "answers": column(&|a| a.answer.into()),
        "confidences": column(&|a| a.confidence.into()),
        "mistakes": mistakes,
    });
    bundles::container::write_atomically(&work.predictions(), document.to_string().as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing;

    #[test]
    fn the_most_confident_mistakes_come_first() {
        let split = testing::ground(1, true).val;
        let folder = tempfile::tempdir().unwrap();
        let work = Work::open(folder.path()).unwrap();
        // Wrong are images 1, 4, 5 and 7; the middle two are equally sure.
        let wrong = [(1, 0.5), (4, 0.75), (5, 0.75), (7, 0.875)];
        let mut given: Vec<Answer> =
            split.labels.iter().map(|&label| Answer { label, answer: label, confidence: 0.99 }).collect();
        for (i, confidence) in wrong {
            given[i] = Answer { answer: (given[i].label + 1) % 3, confidence, ..given[i] };
        }
        leave(&work, "test", &split, &given).unwrap();
        let document = std::fs::read_to_string(work.predictions()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let mistakes = document["mistakes"].as_array().unwrap();
        assert_eq!(mistakes.len(), wrong.len());
        for (mistake, i) in mistakes.iter().zip([7usize, 4, 5, 1]) {
            assert_eq!(mistake["file"], split.files[i]);
            assert_eq!(
                (&mistake["label"], &mistake["answer"]),
                (&given[i].label.into(), &given[i].answer.into())
            );
            let picture = image::open(work.mistakes().join(mistake["picture"].as_str().unwrap())).unwrap();
            assert_eq!(picture.to_rgb8().as_raw(), split.images.get(i));
        }
        assert_eq!(document["labels"].as_array().unwrap().len(), split.labels.len());
        // Mistakes of an earlier network do not stay.
        leave(&work, "test", &split, &given[..1]).unwrap();
        assert_eq!(std::fs::read_dir(work.mistakes()).unwrap().count(), 0);
    }
}
