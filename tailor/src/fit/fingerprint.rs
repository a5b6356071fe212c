//! What shapes each stage of a run, as text: a checkpoint continues a stage only if its fingerprint is the same.

use super::iterate::WITHOUT;
use super::options::listed;
use super::recipe::{Recipe, Stage};

/// The [options](Recipe::options) that shape the teacher, besides its stage.
const TEACHER: [&str; 12] = [
    "momentum",
    "decay",
    "validation",
    "crop",
    "padding",
    "flip",
    "augment",
    "jitter",
    "erase",
    "balance",
    "patience",
    "clip",
];

/// Those that shape the student as well.
const STUDENT: [&str; 11] = [
    "skips",
    "gamma1",
    "gamma2",
    "distill",
    "cost",
    "table",
    "budget",
    "gates",
    "complexity",
    "matching",
    "free-norms",
];

impl Recipe {
    /// Everything that shapes the teacher, as text.
    pub(crate) fn teacher_fingerprint(&self) -> String {
        format!("{} {} seed {}", steps(&self.teach), listed(&self.options(), TEACHER), self.seed)
    }

    /// Everything that shapes the student, as text.
    pub(super) fn student_fingerprint(&self) -> String {
        let options = listed(&self.options(), STUDENT);
        format!("{} | {} {options}", self.teacher_fingerprint(), steps(&self.train))
    }

    /// Everything that shapes a candidate retrained by `how`, as text.
    pub(super) fn candidate_fingerprint(&self, stage: &str, how: &Stage) -> String {
        let before =
            if *how == self.retrain { String::new() } else { format!(" after {}", steps(&self.retrain)) };
        let ways = if self.keeps_ways_round() { " with a way round each block" } else { "" };
        // A search may continue from networks that were fine-tuned for long.
        let finish = if stage.contains(WITHOUT) { format!(" finish {}", self.finish) } else { String::new() };
        let (student, how, theta) =
            (self.student_fingerprint(), steps(how), listed(&self.options(), ["theta"]));
        format!("{student} | {how}{before} {theta}{ways}{finish} {stage}")
    }
}

/// The stage's own options, as text.
fn steps(Stage { epochs, batch, schedule }: &Stage) -> String {
    format!("epochs {epochs} batch {batch} rate {schedule}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Search;
    use crate::net::Gating;

    /// Options of single stages, those of candidates, and those that only select among candidates.
    const OTHERS: [&str; 12] = [
        "epochs",
        "batch",
        "teach-rate",
        "train-rate",
        "retrain-rate",
        "finish",
        "theta",
        "search",
        "tolerance",
        "judge",
        "caution",
        "looks",
    ];

    #[test]
    fn every_option_either_shapes_a_stage_or_is_known_not_to() {
        let options = Recipe::small().options();
        for name in options.as_object().unwrap().keys() {
            let lists = [&TEACHER[..], &STUDENT, &OTHERS];
            let times = lists.iter().filter(|list| list.contains(&name.as_str())).count();
            assert_eq!(times, 1, "{name}");
        }
        for name in TEACHER.iter().chain(&STUDENT) {
            assert!(options.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_stage_depends_on_its_own_options_and_on_those_before_it() {
        let small = Recipe::small();
        let prints = |recipe: &Recipe| {
            let candidate = recipe.candidate_fingerprint("prune-1", &recipe.retrain);
            [recipe.teacher_fingerprint(), recipe.student_fingerprint(), candidate]
        };
        let differs = |other: Recipe| {
            let (here, there) = (prints(&small), prints(&other));
            [0, 1, 2].map(|i| here[i] != there[i])
        };
        let of = |epochs| Stage { epochs, ..small.teach.clone() };
        assert_eq!(differs(Recipe { teach: of(99), ..small.clone() }), [true; 3]);
        assert_eq!(differs(Recipe { decay: 0.0, ..small.clone() }), [true; 3]);
        assert_eq!(differs(Recipe { seed: 9, ..small.clone() }), [true; 3]);
        assert_eq!(differs(Recipe { train: of(99), ..small.clone() }), [false, true, true]);
        assert_eq!(differs(Recipe { gamma1: 0.1, ..small.clone() }), [false, true, true]);
        assert_eq!(differs(Recipe { retrain: of(99), ..small.clone() }), [false, false, true]);
        assert_eq!(differs(Recipe { theta: 0.1, ..small.clone() }), [false, false, true]);
        assert_eq!(differs(Recipe { tolerance: 0.1, ..small.clone() }), [false; 3]);
        assert!(
            small.teacher_fingerprint().starts_with("epochs 12 batch 64 rate one-cycle:0.05 momentum 0.9 ")
        );
    }

    #[test]
    fn finishing_shapes_only_candidates_that_may_follow_it() {
        let of = |stage, finish| {
            let recipe = Recipe { finish, ..Recipe::small() };
            recipe.candidate_fingerprint(stage, &recipe.retrain)
        };
        assert_ne!(of("prune-without-7-6", 0), of("prune-without-7-6", 1));
        assert_eq!(of("prune-3", 0), of("prune-3", 1), "it starts from the student");
    }

    #[test]
    fn searches_share_the_candidates_that_they_have_in_common() {
        let of = |search| {
            let recipe = Recipe { search, gating: Gating::HardConcrete, ..Recipe::small() };
            let stage = recipe.candidate_stage(3);
            (recipe.candidate_fingerprint(&stage, &recipe.retrain), stage)
        };
        assert_eq!(of(Search::Sweep), of(Search::Bisect));
        assert_eq!(of(Search::Sweep), of(Search::Iterative));
    }
}
