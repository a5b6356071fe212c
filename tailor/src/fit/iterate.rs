//! Iterative pruning: what a network could do without next, and how little it would be missed.

use super::Tailoring;
use super::pruning::{Cut, survivors};
use crate::Result;
use bundles::plan::{GateId, Role};
use std::collections::BTreeSet;

/// How stages begin that say which blocks were dropped, in order.
const WITHOUT: &str = "prune-without-";

impl Tailoring<'_> {
    /// Every network one block leaner than `at`, the one whose validation loss is lowest first. Blocks without which stem and
    /// classifier would be apart are left out.
    pub(super) fn leaner(&self, at: &Cut) -> Result<Vec<Cut>> {
        let before = at.stage.strip_prefix(WITHOUT).map_or(String::new(), |path| format!("{path}-"));
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
            let stage = format!("{WITHOUT}{before}{node}");
            ranked.push((loss, Cut { dropped: at.dropped + 1, stage, plan, params }));
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(ranked.into_iter().map(|(_, cut)| cut).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Recipe, Work, testing};
    use crate::net::{Gating, Params};
    use crate::progress::Progress;
    use bundles::plan::Skips;
    use candle_core::Device;

    #[test]
    fn the_block_that_is_missed_least_comes_first() {
        let ground = testing::ground(1, true);
        let folder = tempfile::tempdir().unwrap();
        let (recipe, work) = (Recipe::small(), Work::open(folder.path()).unwrap());
        let progress = Progress::hidden();
        let tailoring = ground.tailoring(&recipe, &work, &Device::Cpu, &progress);
        let backbone = tailoring.backbone_plan().unwrap();
        let plan = backbone.with_proxies(Skips::Nearest(3), ground.source.arch.proxy_form()).unwrap();
        let numbers = &ground.source.params;
        let params = Params::student(&plan, numbers, true, Gating::Softmax, 5, &Device::Cpu).unwrap();
        let whole = Cut { dropped: 0, stage: "prune-0".into(), plan, params };

        let leaner = tailoring.leaner(&whole).unwrap();
        assert_eq!(leaner.len(), whole.plan.blocks());
        let losses: Vec<f64> =
            leaner.iter().map(|cut| tailoring.validation_loss(&cut.plan, &cut.params).unwrap()).collect();
        assert!(losses.is_sorted() && losses[0] < losses[losses.len() - 1], "{losses:?}");
        for cut in &leaner {
            assert_eq!((cut.dropped, cut.plan.blocks()), (1, whole.plan.blocks() - 1));
            let node: usize = cut.stage.strip_prefix(WITHOUT).unwrap().parse().unwrap();
            assert!(cut.plan.cells[node - 1].block().is_none(), "{}", cut.stage);
        }
        let next = tailoring.leaner(&leaner[0]).unwrap();
        assert!(next.iter().all(|cut| cut.stage.starts_with(&format!("{}-", leaner[0].stage))));
        // Without any proxy, every block is needed.
        let bare = Cut { plan: backbone, ..whole };
        assert!(tailoring.leaner(&bare).unwrap().is_empty());
    }
}
