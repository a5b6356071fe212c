//! Pruning by gate values and the three exclusion rules (NetTailor sec. 3.5).

use super::{Plan, Role};
use crate::{Error, Result};
use std::collections::BTreeSet;

/// One gate of a plan: cell `node` (from 1) and the gate's index in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateId {
    /// Number of the cell.
    pub node: usize,
    /// Index into [`Cell::gates`](super::Cell::gates).
    pub gate: usize,
}

impl Plan {
    /// Removes the `blocks` live blocks with the lowest alpha and every proxy with alpha below `theta`, then
    /// everything left without input or output.
    ///
    /// `alphas[l - 1][g]` is the trained alpha of gate `g` of cell `l`. Among equal alphas the earlier block
    /// is removed first.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if `alphas` does not match the plan or `blocks` exceeds the live blocks;
    /// [`Error::Disconnected`] if nothing connects stem and classifier any more.
    pub fn pruned(&self, alphas: &[Vec<f32>], blocks: usize, theta: f32) -> Result<Plan> {
        let fits = alphas.len() == self.cells.len()
            && alphas.iter().zip(&self.cells).all(|(a, cell)| a.len() == cell.gates.len());
        if !fits {
            return Err(Error::BadRequest {
                what: "gate values do not match the plan".into(),
                want: "one alpha per live gate".into(),
            });
        }
        let mut ranked = Vec::new();
        let mut drop = BTreeSet::new();
        for (i, cell) in self.cells.iter().enumerate() {
            for (gate, term) in cell.gates.iter().enumerate() {
                let alpha = alphas[i][gate];
                let id = GateId { node: i + 1, gate };
                match term.role {
                    Role::Block => ranked.push((alpha, id)),
                    Role::Proxy if alpha < theta => {
                        drop.insert(id);
                    }
                    Role::Proxy => {}
                }
            }
        }
        if blocks > ranked.len() {
            return Err(Error::BadRequest {
                what: format!("cannot drop {blocks} blocks"),
                want: format!("at most the {} that are alive", ranked.len()),
            });
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        drop.extend(ranked.iter().take(blocks).map(|(_, id)| *id));
        self.without(&drop)
    }

    /// Removes `gates` and then, to a fixpoint, every gate whose source node is dead (input rule) or whose
    /// target node feeds nothing (output rule).
    ///
    /// # Errors
    /// [`Error::Disconnected`] if nothing connects stem and classifier any more.
    pub fn without(&self, gates: &BTreeSet<GateId>) -> Result<Plan> {
        let mut plan = self.clone();
        for (i, cell) in plan.cells.iter_mut().enumerate() {
            let mut gate = 0;
            cell.gates.retain(|_| {
                let id = GateId { node: i + 1, gate };
                gate += 1;
                !gates.contains(&id)
            });
        }
        let cut = plan.dead_nodes();
        plan.exclude_dead_ends();
        if plan.cells.last().is_some_and(|last| last.is_dead()) {
            return Err(Error::Disconnected { dead: cut.clone(), why: reason(&cut, self) });
        }
        plan.check()?;
        Ok(plan)
    }

    fn exclude_dead_ends(&mut self) {
        loop {
            let last = self.cells.len();
            let mut feeds = vec![false; last + 1];
            feeds[last] = true;
            for gate in self.cells.iter().flat_map(|c| &c.gates) {
                if let Some(fed) = feeds.get_mut(gate.source) {
                    *fed = true;
                }
            }
            let dead: Vec<bool> =
                std::iter::once(false).chain(self.cells.iter().map(|c| c.is_dead())).collect();
            let mut changed = false;
            for (i, cell) in self.cells.iter_mut().enumerate() {
                let before = cell.gates.len();
                let is_fed = feeds[i + 1];
                cell.gates.retain(|g| is_fed && !dead.get(g.source).copied().unwrap_or(true));
                changed |= cell.gates.len() != before;
            }
            if !changed {
                return;
            }
        }
    }
}

/// Why `cut` (nodes with no path into them) separates stem and classifier.
fn reason(cut: &[usize], before: &Plan) -> String {
    let reach = before
        .cells
        .iter()
        .enumerate()
        .flat_map(|(i, cell)| cell.gates.iter().map(move |g| i + 1 - g.source))
        .max()
        .unwrap_or(1);
    let mut run = 0;
    let mut longest = 0;
    for l in 1..=before.cells.len() {
        run = if cut.contains(&l) { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    if longest >= reach {
        format!("{longest} dead nodes in a row, and the longest skip reaches back {reach}")
    } else if cut.contains(&before.cells.len()) {
        "nothing leads into the last node".into()
    } else {
        "the remaining nodes lead nowhere".into()
    }
}
