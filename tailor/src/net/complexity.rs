//! Expected complexity of a gated network (NetTailor eq. 5-10), differentiable in the gates.

use crate::{Error, Result, ops};
use bundles::plan::Plan;
use candle_core::Tensor;

/// How the probability that a path runs follows from gate values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Formula {
    /// `alpha (1 - p_in) (1 - p_out)`: never negative, so diffuse gates gain nothing.
    #[default]
    Product,
    /// `alpha - p_in - p_out`, the paper's eq. 9, which becomes negative for diffuse gates.
    Paper,
}

/// Relative cost of every gate, fixed before training.
#[derive(Debug, Clone)]
pub struct Complexity {
    formula: Formula,
    /// `costs[l - 1][g]`: the gate's cost relative to the whole backbone's.
    costs: Vec<Vec<f64>>,
    sources: Vec<Vec<usize>>,
}

impl Complexity {
    /// Takes costs per gate in any unit, and the backbone's cost (stem and blocks) in the same unit.
    ///
    /// # Errors
    /// [`Error::Bundle`] if `costs` does not have one number per live gate of `plan`.
    pub fn new(plan: &Plan, costs: Vec<Vec<f64>>, backbone: f64, formula: Formula) -> Result<Complexity> {
        let fits = costs.len() == plan.cells.len()
            && costs.iter().zip(&plan.cells).all(|(c, cell)| c.len() == cell.gates.len());
        if !fits || backbone <= 0.0 {
            return Err(Error::Bundle(bundles::Error::BadRequest {
                what: "costs do not match the plan".into(),
                want: "one cost per live gate, and a positive cost of the backbone".into(),
            }));
        }
        let costs = costs.into_iter().map(|c| c.into_iter().map(|c| c / backbone).collect()).collect();
        let sources = plan.cells.iter().map(|c| c.gates.iter().map(|g| g.source).collect()).collect();
        Ok(Complexity { formula, costs, sources })
    }

    /// Expected relative complexity, a scalar. `alphas[l - 1]` is `(gates,)`.
    ///
    /// `p_in` is the product of `1 - alpha` over the paths into the source node (0 for node 0), `p_out` the
    /// product of `1 - alpha` over the paths leaving the target node (0 for the last node).
    ///
    /// # Errors
    /// If a live cell has no alpha.
    pub fn expected(&self, alphas: &[Option<Tensor>]) -> Result<Tensor> {
        let mut arguments = Vec::new();
        for (l, sources) in self.sources.iter().enumerate().filter(|(_, sources)| !sources.is_empty()) {
            let alpha = alphas.get(l).and_then(Option::as_ref).ok_or_else(|| missing(l + 1))?;
            if alpha.dims() != [sources.len()] {
                let (want, got) = (vec![sources.len()], alpha.dims().to_vec());
                return Err(Error::TensorShape { name: Plan::alpha_name(l + 1), want, got });
            }
            arguments.push(alpha);
        }
        if arguments.is_empty() {
            return Err(missing(1));
        }
        // Read all gates at once: every read from a GPU waits for it.
        let together: Vec<Tensor> = arguments.iter().map(|alpha| alpha.detach()).collect();
        let mut gates = Tensor::cat(&together, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from);
        let open: Vec<Vec<f64>> =
            self.sources.iter().map(|sources| gates.by_ref().take(sources.len()).collect()).collect();
        let (value, mut slopes) = self.value_and_slopes(&open);
        slopes.retain(|of_cell| !of_cell.is_empty());
        Ok(ops::scalar("complexity", &arguments, value, &slopes)?)
    }

    /// The expectation and its derivative with respect to each gate value in `open`.
    fn value_and_slopes(&self, open: &[Vec<f64>]) -> (f64, Vec<Vec<f64>>) {
        let nodes = self.costs.len();
        // Gates as (cell, index), grouped by target node and by source node.
        let (mut into, mut leaving) = (vec![Vec::new(); nodes + 1], vec![Vec::new(); nodes + 1]);
        for (l, sources) in self.sources.iter().enumerate() {
            for (g, &source) in sources.iter().enumerate() {
                into[l + 1].push((l, g));
                leaving[source].push((l, g));
            }
        }
        let shut =
            |gates: &[(usize, usize)]| -> f64 { gates.iter().map(|&(l, g)| 1.0 - open[l][g]).product() };
        // Nothing leads into the first node or out of the last: both are always live.
        let p_in: Vec<f64> =
            (0..=nodes).map(|n| if into[n].is_empty() { 0.0 } else { shut(&into[n]) }).collect();
        let p_out: Vec<f64> =
            (0..=nodes).map(|n| if leaving[n].is_empty() { 0.0 } else { shut(&leaving[n]) }).collect();
        let mut value = 0.0;
        let mut slopes: Vec<Vec<f64>> = open.iter().map(|of_cell| vec![0.0; of_cell.len()]).collect();
        // Derivatives with respect to `p_in` and `p_out`.
        let (mut by_in, mut by_out) = (vec![0.0; nodes + 1], vec![0.0; nodes + 1]);
        for (l, sources) in self.sources.iter().enumerate() {
            for (g, &source) in sources.iter().enumerate() {
                let (cost, alpha) = (self.costs[l][g], open[l][g]);
                let (before, after) = (1.0 - p_in[source], 1.0 - p_out[l + 1]);
                let (runs, slope, shut_in, shut_out) = match self.formula {
                    Formula::Product => {
                        (alpha * before * after, before * after, -alpha * after, -alpha * before)
                    }
                    Formula::Paper => (alpha - p_in[source] - p_out[l + 1], 1.0, -1.0, -1.0),
                };
                value += cost * runs;
                slopes[l][g] += cost * slope;
                by_in[source] += cost * shut_in;
                by_out[l + 1] += cost * shut_out;
            }
        }
        for (gates, by) in into.iter().zip(&by_in).chain(leaving.iter().zip(&by_out)) {
            for (i, &(l, g)) in gates.iter().enumerate() {
                let others = [&gates[..i], &gates[i + 1..]].concat();
                slopes[l][g] -= by * shut(&others);
            }
        }
        (value, slopes)
    }
}

fn missing(node: usize) -> Error {
    Error::MissingTensor { name: Plan::alpha_name(node) }
}
