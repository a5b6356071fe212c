//! Iterative pruning: one block at a time, each step from the network that was retrained before it, with roll-back.

use super::pruning::{Cut, Tried, survivors};
use super::select::{Attempt, Goal, Selection};
use super::{Student, Tailoring, Teacher};
use crate::Result;
use bundles::plan::{GateId, Role};
use std::collections::{BTreeMap, BTreeSet};

/// Blocks that are tried in one round before pruning ends there.
const TRIES: usize = 2;

impl Tailoring<'_> {
    /// Drops the block whose absence raises validation loss least, retrains, and goes on from there while accuracy stays
    /// at or above the floor; a step below it is rolled back and the next block is tried. With a budget blocks are
    /// dropped until it is met, whatever that costs.
    pub(super) fn iterate(
        &self,
        teacher: &Teacher,
        student: &Student,
        goal: &Goal,
        networks: &mut BTreeMap<String, Cut>,
    ) -> Result<Selection> {
        let mut attempts = Vec::new();
        let first = match self.cut(student, 0)? {
            Ok(cut) => self.retrain(cut, teacher)?,
            Err(refused) => return Ok(Selection::of(vec![refused], goal)),
        };
        let mut at = first;
        let mut path: Vec<usize> = Vec::new();
        while let Some(next) = self.step(teacher, &at, &path, goal, networks, &mut attempts)? {
            let before = std::mem::replace(&mut at, next.0);
            self.keep(before, goal, networks, &mut attempts)?;
            path.push(next.1);
        }
        self.keep(at, goal, networks, &mut attempts)?;
        attempts.sort_by_key(Attempt::dropped);
        Ok(Selection::of(attempts, goal))
    }

    /// The network one block leaner, and the node of that block; `None` when pruning ends here.
    fn step(
        &self,
        teacher: &Teacher,
        at: &Tried,
        path: &[usize],
        goal: &Goal,
        networks: &mut BTreeMap<String, Cut>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Option<(Tried, usize)>> {
        if goal.budget.is_some_and(|budget| at.candidate.cost <= budget) {
            return Ok(None);
        }
        for (node, cut) in self.by_harm(&at.cut, path)?.into_iter().take(TRIES) {
            let tried = self.retrain(cut, teacher)?;
            if goal.budget.is_some() || tried.candidate.validation.accuracy() >= goal.floor {
                return Ok(Some((tried, node)));
            }
            self.keep(tried, goal, networks, attempts)?;
        }
        Ok(None)
    }

    /// Every network one block leaner, the one that its validation loss harms least first.
    fn by_harm(&self, at: &Cut, path: &[usize]) -> Result<Vec<(usize, Cut)>> {
        let mut ranked = Vec::new();
        for (i, cell) in at.plan.cells.iter().enumerate() {
            let Some(gate) = cell.gates.iter().position(|gate| gate.role == Role::Block) else { continue };
            let node = i + 1;
            let plan = match at.plan.without(&BTreeSet::from([GateId { node, gate }])) {
                Err(bundles::Error::Disconnected { .. }) => continue,
                plan => plan?,
            };
            let params = survivors(&at.plan, &at.params, &plan)?;
            let loss = self.validation_loss(&plan, &params)?;
            let names: Vec<String> = path.iter().chain([&node]).map(usize::to_string).collect();
            let stage = format!("prune-without-{}", names.join("-"));
            ranked.push((loss, node, Cut { dropped: path.len() + 1, stage, plan, params }));
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(ranked.into_iter().map(|(_, node, cut)| (node, cut)).collect())
    }

    fn keep(
        &self,
        tried: Tried,
        goal: &Goal,
        networks: &mut BTreeMap<String, Cut>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<()> {
        attempts.push(match self.over(&tried.cut, goal)? {
            Some(over) => over,
            None => Attempt::Trained(tried.candidate),
        });
        networks.insert(tried.cut.stage.clone(), tried.cut);
        Ok(())
    }
}
