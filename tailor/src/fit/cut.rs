//! Cutting gates off a trained student, before retraining.

use super::select::Attempt;
use super::{Student, Tailoring};
use crate::Result;
use crate::net::{Gating, Params, alphas};
use bundles::plan::{Plan, Role};

/// Prefix of the stages that retrain a pruned network.
pub(super) const PRUNE: &str = "prune-";

/// Prefix of the stages that fine-tune a candidate for long ("finish").
pub(super) const FINISH: &str = "finish-";

/// A pruned network, before or after retraining.
pub(super) struct Cut {
    /// Universal blocks dropped by choice (exclusion may have removed more).
    pub(super) dropped: usize,
    /// Name of its retraining stage.
    pub(super) stage: String,
    pub(super) plan: Plan,
    pub(super) params: Params,
}

impl Cut {
    /// A copy for the long fine-tuning, which leaves the original as it is.
    pub(super) fn to_finish(&self) -> Result<Cut> {
        let params = survivors(&self.plan, &self.params, &self.plan)?;
        let stage = format!("{FINISH}{}", self.stage.strip_prefix(PRUNE).unwrap_or(&self.stage));
        Ok(Cut { dropped: self.dropped, stage, plan: self.plan.clone(), params })
    }
}

impl Tailoring<'_> {
    /// Number of blocks whose gate is permanently closed: they are dropped first, at no loss of accuracy.
    pub(super) fn closed_blocks(&self, student: &Student) -> Result<usize> {
        let gates = self.gates(&student.plan, &student.params)?;
        let is_closed = |(cell, alphas): (&bundles::plan::Cell, &Vec<f32>)| {
            cell.gates.iter().zip(alphas).any(|(gate, &alpha)| gate.role == Role::Block && alpha == 0.0)
        };
        Ok(student.plan.cells.iter().zip(&gates).filter(|&pair| is_closed(pair)).count())
    }

    /// Values of all gates, by node.
    pub(super) fn gates(&self, plan: &Plan, params: &Params) -> Result<Vec<Vec<f32>>> {
        let values = alphas(plan, params)?;
        let values = values.iter().map(|alpha| alpha.as_ref().map_or(Ok(Vec::new()), |a| a.to_vec1()));
        Ok(values.collect::<candle_core::Result<_>>()?)
    }

    /// The student without its `dropped` lowest-ranked blocks, or the attempt that says why pruning refused.
    pub(super) fn cut(&self, student: &Student, dropped: usize) -> Result<std::result::Result<Cut, Attempt>> {
        let mut gates = self.gates(&student.plan, &student.params)?;
        let theta = match student.params.gating() {
            Gating::Softmax => self.recipe.theta,
            Gating::HardConcrete => {
                rank_by_logits(student, &mut gates)?;
                // They close exactly, so any open one is meant to stay.
                f32::MIN_POSITIVE
            }
        };
        if self.recipe.keeps_ways_round() {
            keep_ways_round(&student.plan, &mut gates, theta);
        }
        let plan = match student.plan.pruned(&gates, dropped, theta) {
            Ok(plan) => plan,
            Err(why @ bundles::Error::Disconnected { .. }) => {
                return Ok(Err(Attempt::Refused { dropped, why: why.to_string() }));
            }
            Err(other) => return Err(other.into()),
        };
        let params = survivors(&student.plan, &student.params, &plan)?;
        Ok(Ok(Cut { dropped, stage: self.recipe.candidate_stage(dropped), plan, params }))
    }
}

/// Replaces the blocks' gates, which only rank them, by their logits: hard-concrete gates that are wide open
/// are all exactly 1, but not equally far from closing.
fn rank_by_logits(student: &Student, gates: &mut [Vec<f32>]) -> Result<()> {
    for (i, (cell, alphas)) in student.plan.cells.iter().zip(gates).enumerate() {
        if cell.scaled_gates() == 0 {
            continue;
        }
        let logits: Vec<f32> = student.params.get(&Plan::alpha_name(i + 1))?.to_vec1()?;
        for ((gate, alpha), logit) in cell.gates.iter().zip(alphas).zip(logits) {
            if gate.role == Role::Block {
                *alpha = logit;
            }
        }
    }
    Ok(())
}

/// Raises the largest proxy gate of each node to `theta` if all are below it. Without a bypass, no block
/// could be dropped later, however little it contributes. Thinning removes the proxy if nothing needs it.
fn keep_ways_round(plan: &Plan, gates: &mut [Vec<f32>], theta: f32) {
    for (cell, alphas) in plan.cells.iter().zip(gates) {
        let proxies = (0..alphas.len()).filter(|&g| cell.gates[g].role == Role::Proxy);
        if let Some(best) = proxies.max_by(|&a, &b| alphas[a].total_cmp(&alphas[b])) {
            alphas[best] = alphas[best].max(theta);
        }
    }
}

/// The parameters that `plan`, pruned from `before`, keeps of `params`.
pub(super) fn survivors(before: &Plan, params: &Params, plan: &Plan) -> Result<Params> {
    let kept: Vec<Vec<usize>> = before
        .cells
        .iter()
        .zip(&plan.cells)
        .map(|(before, after)| {
            (0..before.gates.len()).filter(|&g| after.gates.contains(&before.gates[g])).collect()
        })
        .collect();
    params.pruned(plan, &kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Recipe, Search, Work, testing};
    use crate::progress::Progress;
    use bundles::plan::Cell;
    use candle_core::{Device, Tensor};

    /// Prunes `dropped` blocks of a student, by the rules of `search`, whose gates have these logits, given by
    /// node and gate. Also returns the student's plan.
    fn cut(
        search: Search,
        gating: Gating,
        dropped: usize,
        logit: impl Fn(usize, usize) -> f32,
    ) -> (Plan, Plan) {
        let ground = testing::ground(1, true);
        let folder = tempfile::tempdir().unwrap();
        let (recipe, work) =
            (Recipe { search, gating, ..Recipe::small() }, Work::open(folder.path()).unwrap());
        let progress = Progress::hidden();
        let tailoring = ground.tailoring(&recipe, &work, &Device::Cpu, &progress);
        let plan = tailoring
            .backbone_plan()
            .unwrap()
            .with_proxies(recipe.skips, ground.source.arch.proxy_form())
            .unwrap();
        let params = Params::student(&plan, &ground.source.params, true, gating, 5, &Device::Cpu).unwrap();
        for node in 1..=plan.cells.len() {
            let name = Plan::alpha_name(node);
            let (_, var) = params.vars().find(|(var, _)| *var == name).unwrap();
            let logits: Vec<f32> = (0..var.elem_count()).map(|gate| logit(node, gate)).collect();
            var.set(&Tensor::new(logits, &Device::Cpu).unwrap()).unwrap();
        }
        let student = Student { plan, params, validation: Default::default() };
        let Ok(cut) = tailoring.cut(&student, dropped).unwrap() else { panic!("refused") };
        (cut.plan, student.plan)
    }

    /// For a student whose gates have almost closed its proxies, the sources of each node's remaining proxies
    /// and of the one with the largest gate.
    fn proxies_left(search: Search, gating: Gating) -> Vec<(Vec<usize>, Option<usize>)> {
        // The block's logit, then the proxies', the last of which is the largest.
        let (cut, student) =
            cut(search, gating, 0, |_, gate| if gate == 0 { 9.0 } else { -9.0 + gate as f32 });
        let sources = |cell: &Cell| -> Vec<usize> { cell.proxies().map(|gate| gate.source).collect() };
        let before = student.cells.iter().map(|cell| sources(cell).last().copied());
        cut.cells.iter().map(sources).zip(before).collect()
    }

    #[test]
    fn blocks_are_ranked_by_their_logits_even_if_all_gates_are_wide_open() {
        for gating in [Gating::Softmax, Gating::HardConcrete] {
            // Node 2's block is the nearest to closing.
            let logit = |node, gate| match (node, gate) {
                (2, 0) => 2.5,
                (_, 0) => 9.0 - node as f32,
                _ => 2.0,
            };
            let (cut, _) = cut(Search::Sweep, gating, 1, logit);
            let blocks: Vec<bool> = cut.cells.iter().map(|cell| cell.block().is_some()).collect();
            assert_eq!(blocks, [true, false, true], "{gating:?}");
        }
    }

    #[test]
    fn every_block_keeps_one_bypass_except_in_a_sweep() {
        for search in [Search::Iterative, Search::Bisect] {
            let left = proxies_left(search, Gating::Softmax);
            assert!(
                left.iter().all(|(left, widest)| left.iter().copied().eq(*widest)),
                "{search:?}: {left:?}"
            );
            assert!(left.iter().all(|(left, _)| left.len() == 1), "{search:?}: {left:?}");
        }
        for (search, gating) in [(Search::Sweep, Gating::Softmax), (Search::Iterative, Gating::HardConcrete)]
        {
            let left = proxies_left(search, gating);
            assert!(left.iter().all(|(left, _)| left.is_empty()), "{search:?}, {gating:?}: {left:?}");
        }
    }
}
