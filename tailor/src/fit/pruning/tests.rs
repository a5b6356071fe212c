//! Which networks are retrained, finished and thinned, and which one is kept.

use super::*;
use crate::fit::select::tests::{attempt, goal};
use crate::fit::{Judge, Work, testing};
use crate::progress::Progress;
use candle_core::Device;

/// Tailors a small network by `recipe`.
fn pruned(recipe: &Recipe) -> Pruned {
    let folder = tempfile::tempdir().unwrap();
    pruned_in(&Work::open(folder.path()).unwrap(), recipe)
}

/// The same, in this work folder.
fn pruned_in(work: &Work, recipe: &Recipe) -> Pruned {
    let ground = testing::ground(1, true);
    let progress = Progress::hidden();
    let tailoring = ground.tailoring(recipe, work, &Device::Cpu, &progress);
    let teacher = tailoring.teach().unwrap();
    let student = tailoring.train(&teacher).unwrap();
    tailoring.prune(&teacher, &student).unwrap()
}

#[test]
fn smaller_steps_follow_if_finishing_recovered_nothing() {
    let goal = goal(0.98);
    let cases: [(&[usize], bool); 4] =
        [(&[], false), (&[970], true), (&[970, 979], true), (&[970, 985], false)];
    for (right, smaller) in cases {
        let finished: Vec<Attempt> = right.iter().map(|&right| attempt(1, Some(right))).collect();
        assert_eq!(nothing_kept(&finished, &goal), smaller, "{right:?}");
    }
}

/// A short sweep.
fn brief() -> Recipe {
    let mut brief =
        Recipe { search: Search::Sweep, theta: 0.0, tolerance: 1.0, finish: 0, ..Recipe::small() };
    for stage in [&mut brief.teach, &mut brief.train, &mut brief.retrain] {
        (stage.epochs, stage.batch) = (2, 12);
    }
    brief
}

#[test]
fn candidates_that_diverge_are_reported_and_given_up_only_if_all_do() {
    let ground = testing::ground(1, true);
    let folder = tempfile::tempdir().unwrap();
    let (work, progress) = (Work::open(folder.path()).unwrap(), Progress::hidden());
    let mut recipe = brief();
    recipe.retrain.schedule = crate::train::Schedule::OneCycle { peak: 1e30 };
    for search in [Search::Sweep, Search::Bisect, Search::Iterative] {
        let recipe = Recipe { search, ..recipe.clone() };
        let tailoring = ground.tailoring(&recipe, &work, &Device::Cpu, &progress);
        let teacher = tailoring.teach().unwrap();
        let student = tailoring.train(&teacher).unwrap();
        if let Attempt::Diverged { dropped, why } = tailoring.candidate(&teacher, &student, 1).unwrap() {
            assert!(dropped == 1 && why.contains("no longer finite"), "{why}");
        } else {
            panic!("trained");
        }
        let Err(why) = tailoring.prune(&teacher, &student) else { panic!("{search:?} pruned") };
        assert!(matches!(why, Error::Training { .. }), "{why:?}");
        assert!(
            why.to_string().contains("every candidate diverged")
                && why.to_string().contains("--retrain-rate")
        );
    }
}

#[test]
fn what_diverges_in_finishing_leaves_the_search_its_candidates() {
    let ground = testing::ground(1, true);
    let folder = tempfile::tempdir().unwrap();
    let (work, progress) = (Work::open(folder.path()).unwrap(), Progress::hidden());
    let recipe = Recipe { finish: 1, ..brief() };
    let tailoring = ground.tailoring(&recipe, &work, &Device::Cpu, &progress);
    let (teacher, goal) = (tailoring.teach().unwrap(), tailoring.goal().unwrap());
    let student = tailoring.train(&teacher).unwrap();
    let mut tries = Tries::default();
    let found = tailoring.search(&teacher, &student, &goal, &mut tries).unwrap();
    let worth = worth_finishing(&found, &goal);
    // A network of numbers that are not finite stands for one that training spoils.
    for cut in tries.0.values_mut() {
        for (_, var) in cut.params.vars() {
            var.set(&(var.as_tensor() * f64::NAN).unwrap()).unwrap();
        }
    }
    let finished = tailoring.finish(&worth, true, &teacher, &goal, &mut tries).unwrap();
    assert!(!finished.is_empty() && finished.iter().all(|a| matches!(a, Attempt::Diverged { .. })));
    assert!(worth.iter().all(|candidate| tries.0.contains_key(&candidate.stage)));
}

#[test]
fn the_winner_is_finished_from_the_searchs_candidate() {
    let brief = brief();
    let finished = |pruned: &Pruned| -> Vec<bool> {
        let trained = pruned.selection.attempts.iter().filter_map(Attempt::trained);
        trained.map(|candidate| candidate.finished).collect()
    };
    let short = pruned(&brief);
    assert!(!finished(&short).contains(&true));
    let won = short.selection.winner().unwrap();

    let long = pruned(&Recipe { finish: 3, ..brief.clone() });
    let kept = long.selection.winner().unwrap();
    assert!(kept.finished && kept.stage == won.stage.replace("prune-", "finish-"), "{}", kept.stage);
    let (brief, long_ones): (Vec<bool>, Vec<bool>) = finished(&long).into_iter().partition(|&f| !f);
    assert_eq!(brief.len(), finished(&short).len(), "the search is the same");
    assert_eq!(
        long_ones.len(),
        1,
        "the leanest is within tolerance: none of the other {} is finished",
        brief.len()
    );
    // Trained further: the parameters have changed.
    assert_eq!(long.plan, short.plan);
    let changed = |(name, _): (&str, &candle_core::Var)| {
        long.params.values(name).unwrap() != short.params.values(name).unwrap()
    };
    assert!(short.params.vars().any(changed));
}

#[test]
fn proxies_are_halved_starting_from_the_leanest_network() {
    let tried = |recipe: Recipe| -> Vec<Candidate> {
        let attempts = pruned(&recipe).selection.attempts;
        attempts.iter().filter_map(Attempt::trained).cloned().collect()
    };
    let is_thinned = |c: &&Candidate| c.stage.ends_with("-p");
    for search in [Search::Bisect, Search::Iterative] {
        let all = tried(Recipe { search, ..brief() });
        let (mut thinned, blocks): (Vec<&Candidate>, Vec<&Candidate>) = all.iter().partition(is_thinned);
        let from = blocks.iter().min_by(|a, b| a.cost.total_cmp(&b.cost)).unwrap();
        assert!(!thinned.is_empty(), "{search:?}");
        thinned.insert(0, from);
        for step in thinned.windows(2) {
            assert!(step[1].stage.starts_with(&step[0].stage), "{search:?}: {step:?}");
            assert!(step[1].proxies < step[0].proxies && step[1].dropped == from.dropped, "{step:?}");
        }
    }
    assert!(
        !tried(brief()).iter().any(|c| is_thinned(&c)),
        "the paper's sweep leaves proxies to their gates"
    );
    let budget = Some("90%".parse().unwrap());
    let bisect = Recipe { search: Search::Bisect, budget, ..brief() };
    assert!(!tried(bisect).iter().any(|c| is_thinned(&c)), "a budget is met by the search itself");
}

#[test]
fn thinning_starts_from_the_finished_network_and_its_result_is_finished_too() {
    let pruned = pruned(&Recipe { search: Search::Bisect, finish: 2, ..brief() });
    let trained: Vec<&Candidate> = pruned.selection.attempts.iter().filter_map(Attempt::trained).collect();
    let long: Vec<&str> = trained.iter().filter(|c| c.finished).map(|c| c.stage.as_str()).collect();
    let [thick, thin] = long[..] else { panic!("{long:?}") };
    let blocks = thick.strip_prefix("finish-").unwrap();
    assert!(thin.starts_with(&format!("{thick}-without-p")), "{long:?}");
    assert_eq!(pruned.selection.winner().unwrap().stage, thin);
    // What thinning tried was retrained briefly, and its name says so.
    let tried = format!("prune-{blocks}-without-p");
    assert!(trained.iter().any(|c| c.stage == tried && !c.finished), "{trained:?}");
}

#[test]
fn a_search_that_is_repeated_measures_no_loss_again() {
    let folder = tempfile::tempdir().unwrap();
    let work = Work::open(folder.path()).unwrap();
    let recipe = Recipe { search: Search::Iterative, ..brief() };
    let search = || {
        let pruned = pruned_in(&work, &recipe);
        let tried = pruned.selection.attempts.iter().filter_map(Attempt::trained);
        (pruned.plan, tried.map(|candidate| candidate.stage.clone()).collect::<Vec<_>>())
    };
    let first = search();
    let losses = std::fs::read(work.losses()).unwrap();
    assert_eq!(search(), first);
    assert!(std::fs::read(work.losses()).unwrap() == losses, "measured again");
    // What a stopped search has kept is not measured again either, and the rest is the same.
    let lines: Vec<&[u8]> = losses.split_inclusive(|&byte| byte == b'\n').collect();
    std::fs::write(work.losses(), lines[..lines.len() / 2].concat()).unwrap();
    assert_eq!(search(), first);
    assert!(lines.len() > 4 && std::fs::read(work.losses()).unwrap() == losses, "{} lines", lines.len());
}

#[test]
fn candidates_are_compared_by_as_many_looks_as_the_recipe_says() {
    let augment = crate::data::Augment { crop_pad: 3, ..Default::default() };
    let behind = |looks| -> Vec<Behind> {
        let pruned = pruned(&Recipe { looks, augment, judge: Judge::Answers, ..brief() });
        pruned.selection.attempts.iter().filter_map(Attempt::trained).map(|c| c.behind).collect()
    };
    let (one, five) = (behind(1), behind(5));
    // The verdicts on unchanged images are the same; the gap over all views differs, and is finer than
    // one image.
    let as_they_are = |b: &Behind| (b.lost, b.won);
    assert!(one.iter().map(as_they_are).eq(five.iter().map(as_they_are)));
    let images = |b: &Behind| b.gap * 9.0;
    assert!(one.iter().all(|b| (images(b) - images(b).round()).abs() < 1e-9), "{one:?}");
    assert!(five.iter().any(|b| (images(b) - images(b).round()).abs() > 0.1), "{five:?}");
}
