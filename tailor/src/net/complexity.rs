//! Expected complexity of a gated network (NetTailor eq. 5-10), differentiable in the gates.

use crate::{Error, Result};
use bundles::plan::Plan;
use candle_core::{DType, Tensor};

/// How the probability that a path runs is composed from gate values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Formula {
    /// `alpha (1 - p_in) (1 - p_out)`: never negative, so diffuse gates earn nothing.
    #[default]
    Product,
    /// `alpha - p_in - p_out`, the paper's eq. 9, which goes negative on diffuse gates.
    Paper,
}

/// Relative cost of every gate, fixed before training.
#[derive(Debug, Clone)]
pub struct Complexity {
    formula: Formula,
    /// `costs[l - 1][g]`: the gate's cost over the whole backbone's.
    costs: Vec<Vec<f64>>,
    sources: Vec<Vec<usize>>,
}

impl Complexity {
    /// From costs per gate in any unit and the backbone's cost (stem and blocks) in the same unit.
    ///
    /// # Errors
    /// [`Error::Bundle`] when `costs` does not have one number per live gate of `plan`.
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
    /// With `p_in` the product of `1 - alpha` over paths into the source node (0 for node 0), and `p_out` the
    /// product of `1 - alpha` over paths leaving the target node (0 for the last node).
    ///
    /// # Errors
    /// When a live cell has no alpha.
    pub fn expected(&self, alphas: &[Option<Tensor>]) -> Result<Tensor> {
        let nodes = self.costs.len();
        let Some(first) = alphas.iter().flatten().next() else {
            return Err(Error::MissingTensor { name: Plan::alpha_name(1) });
        };
        let zero = Tensor::zeros(1, DType::F32, first.device())?;
        // Scalars `1 - alpha` per gate, shape (1,).
        let mut closed: Vec<Vec<Tensor>> = Vec::with_capacity(nodes);
        for (l, sources) in self.sources.iter().enumerate() {
            let mut of_cell = Vec::with_capacity(sources.len());
            for g in 0..sources.len() {
                let alpha = alphas[l].as_ref().ok_or_else(|| missing(l + 1))?;
                of_cell.push(alpha.narrow(0, g, 1)?.affine(-1.0, 1.0)?);
            }
            closed.push(of_cell);
        }
        let mut p_in = vec![zero.clone()];
        for of_cell in &closed {
            p_in.push(product(of_cell.iter(), &zero)?);
        }
        let mut total = zero.clone();
        for l in 1..=nodes {
            let leaving = self.sources.iter().zip(&closed).flat_map(|(sources, closed)| {
                sources.iter().zip(closed).filter(move |(source, _)| **source == l).map(|(_, c)| c)
            });
            let p_out = if l == nodes { zero.clone() } else { product(leaving, &zero)? };
            for (g, &source) in self.sources[l - 1].iter().enumerate() {
                let alpha = closed[l - 1][g].affine(-1.0, 1.0)?;
                let runs = match self.formula {
                    Formula::Product => {
                        let open = p_in[source].affine(-1.0, 1.0)? * p_out.affine(-1.0, 1.0)?;
                        (alpha * open?)?
                    }
                    Formula::Paper => ((alpha - &p_in[source])? - &p_out)?,
                };
                total = (total + runs.affine(self.costs[l - 1][g], 0.0)?)?;
            }
        }
        Ok(total.sum_all()?)
    }
}

fn missing(node: usize) -> Error {
    Error::MissingTensor { name: Plan::alpha_name(node) }
}

/// Product of scalars; `empty` when there are none.
fn product<'a>(mut all: impl Iterator<Item = &'a Tensor>, empty: &Tensor) -> Result<Tensor> {
    let Some(first) = all.next() else { return Ok(empty.clone()) };
    let mut out = first.clone();
    for next in all {
        out = (out * next)?;
    }
    Ok(out)
}
