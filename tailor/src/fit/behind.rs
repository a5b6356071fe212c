//! How far a network's accuracy falls short of its teacher's, with the standard error of that gap.

use super::{EVAL_BATCH, Search, Tailoring, Teacher};
use crate::Result;
use crate::data::{Augment, Policy};
use crate::net::{Net, Params};
use crate::train::Verdict;
use bundles::plan::Plan;

/// The augmentations used for every view of a validation image after the first: geometry and colours, but
/// none of those that make training deliberately harder.
fn changes(augment: Augment) -> Option<Augment> {
    let mild = Augment { policy: Policy::None, erase: 0.0, ..augment };
    (mild != Augment::default()).then_some(mild)
}

/// The metric by which a network is compared with its teacher (the selection metric).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Judge {
    /// Fraction of correct answers, as in the paper: accuracy. Half a point is four of 750 images.
    Answers,
    /// Mean probability of the correct class: the expected accuracy of a network that is as sure as it is
    /// right (calibrated). Every image contributes to it, not only those near a decision boundary, so it
    /// depends less on which images the split happens to contain; but a network that is right less surely
    /// than its teacher counts as behind it.
    Probability,
}

impl Judge {
    /// The default for `search`: the sweep follows the paper.
    pub fn of(search: Search) -> Judge {
        if search == Search::Sweep { Judge::Answers } else { Judge::Probability }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Judge::Answers => "answers",
            Judge::Probability => "probability",
        }
    }

    fn credit(self, verdict: Verdict) -> f64 {
        match self {
            Judge::Answers => f64::from(u8::from(verdict.right)),
            Judge::Probability => verdict.probability,
        }
    }
}

/// Accuracy gap between a network and its teacher, compared image by image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behind {
    /// The teacher's fraction of correct answers (or mean probability of the correct class) minus the
    /// network's, over all views.
    pub gap: f64,
    /// Standard error of the gap, over the choice of images.
    pub error: f64,
    /// Unchanged images that only the teacher classifies correctly.
    pub lost: usize,
    /// Unchanged images that only the network classifies correctly.
    pub won: usize,
}

impl Behind {
    /// Compares two sets of verdicts on the same images: one list per view, the first of unchanged images.
    pub fn of(judge: Judge, teacher: &[Vec<Verdict>], network: &[Vec<Verdict>]) -> Behind {
        let images = teacher.first().map_or(0, Vec::len);
        let looks = teacher.len().max(1) as f64;
        let only = |one: &[Vec<Verdict>], other: &[Vec<Verdict>]| {
            let pairs = one.iter().zip(other).take(1).flat_map(|(one, other)| one.iter().zip(other));
            pairs.filter(|(one, other)| one.right && !other.right).count()
        };
        let share = |of: &[Vec<Verdict>], image: usize| {
            of.iter().map(|look| judge.credit(look[image])).sum::<f64>() / looks
        };
        let differences: Vec<f64> = (0..images).map(|i| share(teacher, i) - share(network, i)).collect();
        let n = images.max(1) as f64;
        let gap = differences.iter().sum::<f64>() / n;
        let spread = differences.iter().map(|d| (d - gap).powi(2)).sum::<f64>() / n;
        Behind { gap, error: (spread / n).sqrt(), lost: only(teacher, network), won: only(network, teacher) }
    }

    /// Whether the network certainly (95 %) answers correctly less often than `tolerance` allows on `images`
    /// unchanged images, whatever the metric says: a teacher that is right but unsure can be matched in
    /// probability by a network that has learned nothing. Two more images are added, of which each network alone
    /// answers one correctly, as for the interval of the gap.
    pub fn answers_fall_short(&self, images: usize, tolerance: f64) -> bool {
        let (lost, won) = (self.lost as f64, self.won as f64);
        lost - won - tolerance * images as f64 > 1.96 * (lost + won + 2.0).sqrt()
    }
}

/// Half-width of the 95 % confidence interval of a gap with this standard error over `images` images, as if
/// there were two more images, of which each network alone answers one correctly (after Bonett & Price, J.
/// Educ. Behav. Stat. 37, 2012): that two networks hardly differ on a few images is no proof yet.
pub(crate) fn margin_of_gap(error: f64, images: usize) -> f64 {
    let one = 1.0 / images.max(1) as f64;
    1.96 * (error * error + 2.0 * one * one).sqrt()
}

/// Approximate number of images that would tell the gap to within `tolerance`, rounded up to two digits; `None`
/// if `images`, over which it has this standard error, suffice. The [margin](margin_of_gap) is taken to shrink
/// with the root of their number.
pub(crate) fn images_for_gap(error: f64, images: usize, tolerance: f64) -> Option<usize> {
    let margin = margin_of_gap(error, images);
    if margin <= tolerance || tolerance <= 0.0 {
        return None;
    }
    let needed = (images as f64 * (margin / tolerance).powi(2)).ceil() as usize;
    let unit = 10usize.pow(needed.max(1).ilog10().saturating_sub(1));
    Some(needed.div_ceil(unit).saturating_mul(unit))
}

/// Formats a gap with this standard error over `images` images: points, their 95 % interval, and the name of
/// the metric.
pub(crate) fn points(gap: f64, error: f64, images: usize, judge: &str) -> String {
    format!("{:.2} ± {:.2} by {judge}", 100.0 * gap, 100.0 * margin_of_gap(error, images))
}

impl Tailoring<'_> {
    /// The network's gap to its teacher on validation, over the recipe's test-time-augmentation views
    /// ([`looks`](super::Recipe::looks)).
    pub(super) fn behind(&self, teacher: &Teacher, plan: &Plan, params: &Params) -> Result<Behind> {
        let verdicts = match teacher.verdicts.get() {
            Some(verdicts) => verdicts,
            None => {
                let verdicts = self.looks(&teacher.plan, &teacher.params)?;
                teacher.verdicts.get_or_init(|| verdicts)
            }
        };
        Ok(Behind::of(self.recipe.judge, verdicts, &self.looks(plan, params)?))
    }

    /// Verdicts on validation: first on unchanged images, then on augmented ones.
    fn looks(&self, plan: &Plan, params: &Params) -> Result<Vec<Vec<Verdict>>> {
        let loader = self.loader(self.val, EVAL_BATCH)?;
        let net = Net { plan, params };
        let verdicts = |batches| crate::train::verdicts(&net, self.progress.interrupt().watch(batches));
        let mut looks = vec![verdicts(loader.eval())?];
        if let Some(changes) = changes(self.recipe.augment) {
            for look in 1..self.recipe.looks {
                looks.push(verdicts(loader.look(self.recipe.seed, look, changes))?);
            }
        }
        Ok(looks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gap_and_error_follow_from_the_images_only_one_gets_right() {
        // All correct answers have the same probability, and so do all wrong ones.
        let verdicts = |right: [bool; 5]| {
            right.map(|right| Verdict { right, probability: if right { 0.75 } else { 0.25 } }).to_vec()
        };
        let teacher = [verdicts([true, true, true, false, false])];
        let network = [verdicts([true, false, false, true, false])];
        let behind = Behind::of(Judge::Answers, &teacher, &network);
        assert_eq!((behind.lost, behind.won), (2, 1));
        // Differences 1, 1, -1, 0, 0: their variance is 3 / 5 - 0.2^2.
        assert!((behind.gap - 0.2).abs() < 1e-12 && (behind.error - (0.56f64 / 5.0).sqrt()).abs() < 1e-12);
        // A second view, in which the network also gets the fourth image wrong: 1, 1, -1/2, 0, 0.
        let second = verdicts([true, false, false, false, false]);
        let [teacher, network] = [teacher, network].map(|[first]| first);
        let (teacher, network) = ([teacher.clone(), teacher], [network, second]);
        let looks = Behind::of(Judge::Answers, &teacher, &network);
        assert_eq!((looks.lost, looks.won), (2, 1));
        assert!((looks.gap - 0.3).abs() < 1e-12 && (looks.error - (0.36f64 / 5.0).sqrt()).abs() < 1e-12);
        // By probability, a correct answer is worth only 0.5 more than a wrong one here.
        let likely = Behind::of(Judge::Probability, &teacher, &network);
        assert_eq!((likely.lost, likely.won), (2, 1));
        assert!((likely.gap - 0.15).abs() < 1e-12 && (likely.error - (0.09f64 / 5.0).sqrt()).abs() < 1e-12);
        let nothing = Behind::of(Judge::Answers, &[], &[]);
        assert_eq!((nothing.gap, nothing.error), (0.0, 0.0));
    }

    #[test]
    fn answers_fall_short_only_beyond_chance() {
        let behind = |lost, won| Behind { gap: -0.1, error: 0.0, lost, won };
        assert!(behind(17, 0).answers_fall_short(40, 0.005));
        assert!(!behind(17, 12).answers_fall_short(40, 0.005));
        // By the exact test, 5 to 0 has a probability of 6 % if neither is better, 6 to 0 one of 3 %.
        assert!(!behind(5, 0).answers_fall_short(40, 0.005) && behind(6, 0).answers_fall_short(40, 0.005));
        // Five of thousand are allowed.
        assert!(
            behind(11, 0).answers_fall_short(1000, 0.0) && !behind(11, 0).answers_fall_short(1000, 0.005)
        );
        assert!(!behind(0, 30).answers_fall_short(40, 0.0));
    }

    #[test]
    fn a_quarter_of_the_margin_takes_sixteen_times_the_images() {
        // So many images that two more make no difference.
        let (error, images) = (0.0002 / 1.96, 10_000_000);
        assert_eq!(images_for_gap(error, images, 0.000_05), Some(170_000_000), "rounded up to two digits");
        assert_eq!(images_for_gap(error, images, 0.000_21), None);
        assert_eq!(images_for_gap(error, images, 0.0), None);
        assert!(images_for_gap(error, images, 1e-300).is_some());
    }

    #[test]
    fn networks_that_hardly_differ_on_a_few_images_may_still_differ() {
        // By the exact interval, images of which none differs may hide 3.7 (n large), those of which one does
        // 5.6; by ours, 2.8 and 1 + 3.4.
        assert!((margin_of_gap(0.0, 400) - 1.96 * 2f64.sqrt() / 400.0).abs() < 1e-12);
        assert!((margin_of_gap(1.0 / 400.0, 400) - 1.96 * 3f64.sqrt() / 400.0).abs() < 1e-12);
        assert_eq!(images_for_gap(0.0, 400, 0.005), Some(770));
        assert_eq!(images_for_gap(0.0, 770, 0.005), None);
        assert_eq!(images_for_gap(0.0, 50, 0.005), Some(6200));
        assert_eq!(points(0.0, 0.0, 400, "answers"), "0.00 ± 0.69 by answers");
    }

    #[test]
    fn views_use_only_the_milder_augmentations() {
        assert_eq!(changes(Augment::default()), None);
        let crop = Augment { crop_pad: 2, ..Augment::default() };
        assert_eq!(changes(Augment { erase: 0.5, ..crop }), Some(crop));
    }
}
