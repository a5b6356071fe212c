//! The cost of a network, in the unit the user cares about, and the budget for it.

use super::LatencyTable;
use crate::{Error, Result};
use bundles::plan::{Counter, Plan};
use std::{fmt, str::FromStr};

/// The quantity in which cost is measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Measure {
    /// Multiply-adds per image.
    #[default]
    Macs,
    /// Parameters the network reads, shared and task-owned.
    Params,
    /// Microseconds per image on a device.
    Latency(LatencyTable),
}

impl Measure {
    /// Cost of every live gate of `plan`, as in the deployed network.
    ///
    /// # Errors
    /// If a latency table lacks one of them.
    pub fn gates(&self, plan: &Plan) -> Result<Vec<Vec<f64>>> {
        let deployed = plan.folded();
        let costs = deployed.costs(Counter::True)?.gates;
        let of_cell = |(i, gates): (usize, Vec<bundles::plan::Cost>)| {
            let of_gate = |(g, cost): (usize, bundles::plan::Cost)| match self {
                Measure::Macs => Ok(cost.macs as f64),
                // The block's alpha is a parameter too.
                Measure::Params => {
                    Ok(cost.params as f64 + f64::from(u8::from(deployed.cells[i].gates[g].scaled)))
                }
                Measure::Latency(table) => table.gate(plan, i + 1, g),
            };
            gates.into_iter().enumerate().map(of_gate).collect()
        };
        costs.into_iter().enumerate().map(of_cell).collect()
    }

    /// Cost of the parts that pruning cannot remove: stem and head.
    ///
    /// # Errors
    /// If a latency table lacks them.
    pub fn fixed(&self, plan: &Plan) -> Result<f64> {
        let costs = plan.folded().costs(Counter::True)?;
        Ok(match self {
            Measure::Macs => (costs.stem.macs + costs.head.macs) as f64,
            Measure::Params => (costs.stem.params + costs.head.params) as f64,
            Measure::Latency(table) => table.fixed(plan)?,
        })
    }

    /// Cost of the whole network.
    ///
    /// # Errors
    /// If a latency table lacks a part of it.
    pub fn total(&self, plan: &Plan) -> Result<f64> {
        let gates: f64 = self.gates(plan)?.iter().flatten().sum();
        Ok(self.fixed(plan)? + gates + self.shared(plan))
    }

    /// Cost of what live gates share, which therefore is no single gate's: on a device, the sums of nodes, the calls
    /// that compute their proxies, and pools.
    pub fn shared(&self, plan: &Plan) -> f64 {
        match self {
            Measure::Macs | Measure::Params => 0.0,
            Measure::Latency(table) => table.shared(plan),
        }
    }

    /// Lower bound on the cost of a network pruned from `student`: stem, head, and the cheapest path between
    /// them.
    ///
    /// # Errors
    /// If a latency table lacks a part of it.
    pub fn least(&self, student: &Plan) -> Result<f64> {
        let gates = self.gates(student)?;
        // Cost of the cheapest path to each node.
        let mut ways = vec![0.0];
        for (i, (cell, costs)) in student.cells.iter().zip(gates).enumerate() {
            let shared =
                |gate| if let Measure::Latency(table) = self { table.shared_by(i + 1, gate) } else { 0.0 };
            let through = cell.gates.iter().zip(costs);
            let through = through.map(|(gate, cost)| ways[gate.source] + cost + shared(gate));
            ways.push(through.fold(f64::INFINITY, f64::min));
        }
        Ok(self.fixed(student)? + ways.last().copied().unwrap_or(0.0))
    }

    /// Formats a cost.
    pub fn say(&self, cost: f64) -> String {
        in_words(cost, self.unit())
    }

    /// Formats a cost rounded up, so that a budget of that amount suffices.
    pub fn exactly(&self, cost: f64) -> String {
        match self {
            Measure::Macs => format!("{} multiply-adds", cost.ceil()),
            Measure::Params => format!("{} parameters", cost.ceil()),
            Measure::Latency(_) => format!("{}us", cost.ceil()),
        }
    }

    /// The unit as it is named in documents: `macs`, `params` or `us`.
    pub fn unit(&self) -> &'static str {
        match self {
            Measure::Macs => "macs",
            Measure::Params => "params",
            Measure::Latency(_) => MICROSECONDS,
        }
    }
}

/// Name of microseconds in documents.
pub(super) const MICROSECONDS: &str = "us";

/// Formats a cost in the given [unit](Measure::unit).
pub(super) fn in_words(cost: f64, unit: &str) -> String {
    match unit {
        MICROSECONDS => format!("{:.3} ms", cost / 1e3),
        "params" => format!("{} parameters", super::count(cost as u64)),
        _ => format!("{} multiply-adds", super::count(cost as u64)),
    }
}

/// Maximum cost of a tailored network: `15M` or `100k` multiply-adds or parameters, `1.5ms` or `800us` on the
/// device, or `40%` of the plain backbone with its classifier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    amount: f64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Multiply-adds or parameters.
    Count,
    /// Given in milliseconds or microseconds, stored in microseconds.
    Time,
    /// Percentage of the plain backbone's cost.
    Percent,
}

impl Budget {
    /// Converts the budget to the unit of `measure`, for tailoring `backbone`.
    ///
    /// # Errors
    /// [`Error::Config`] for a time without a latency table, a count with one, or no more than what stem and
    /// head cost.
    pub fn resolve(&self, measure: &Measure, backbone: &Plan) -> Result<f64> {
        let refuse = |want: String| Err(Error::config(format!("--budget {self}"), want));
        let timed = matches!(measure, Measure::Latency(_));
        let allowed = match self.unit {
            Unit::Percent => self.amount / 100.0 * measure.total(backbone)?,
            Unit::Time if !timed => return refuse("a time needs --cost latency --table FILE".into()),
            Unit::Count if timed => return refuse("with --cost latency a time, for example 1.5ms".into()),
            Unit::Time | Unit::Count => self.amount,
        };
        let fixed = measure.fixed(backbone)?;
        if allowed <= fixed {
            let (fixed, whole) = (measure.say(fixed), measure.say(measure.total(backbone)?));
            let units =
                if self.unit == Unit::Count { "; 15M is fifteen million, 15% a share of it" } else { "" };
            return refuse(format!(
                "must be more than {fixed}, which stem and classifier alone take (the whole backbone takes \
                 {whole}){units}"
            ));
        }
        Ok(allowed)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Count => write!(f, "{}", self.amount),
            Unit::Time => write!(f, "{}us", self.amount),
            Unit::Percent => write!(f, "{}%", self.amount),
        }
    }
}

impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Budget> {
        let units = [
            ("ms", Unit::Time, 1e3),
            ("us", Unit::Time, 1.0),
            ("%", Unit::Percent, 1.0),
            ("k", Unit::Count, 1e3),
            ("M", Unit::Count, 1e6),
            ("G", Unit::Count, 1e9),
            ("", Unit::Count, 1.0),
        ];
        let parsed = units.iter().find_map(|&(suffix, unit, factor)| {
            let amount: f64 = text.strip_suffix(suffix)?.trim_end().parse().ok()?;
            (amount.is_finite() && amount > 0.0).then_some(Budget { amount: amount * factor, unit })
        });
        parsed.ok_or_else(|| {
            let want = "a positive amount: 15M or 100k (multiply-adds or parameters), 1.5ms, or 40%";
            Error::config(format!("--budget {text}"), want)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::plan::{Arch, GateId, Role, Skips};

    fn backbone() -> Plan {
        "cifar-resnet20-b".parse::<Arch>().unwrap().plan(32, 32, 10).unwrap()
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let form = "cifar-resnet20-b".parse::<Arch>().unwrap().proxy_form();
        let student = backbone().with_proxies(Skips::Nearest(3), form).unwrap();
        let deployed = student.folded();
        let whole = deployed.costs(Counter::True).unwrap().total();
        assert_eq!(Measure::Macs.total(&student).unwrap(), whole.macs as f64);
        let reported = deployed.task_params() + deployed.backbone_params();
        assert_eq!(Measure::Params.total(&student).unwrap(), reported as f64);
        assert!(Measure::Macs.fixed(&student).unwrap() < 0.02 * whole.macs as f64);
    }

    #[test]
    fn no_pruned_network_costs_less_than_the_lower_bound() {
        let arch: Arch = "cifar-resnet8-b".parse().unwrap();
        let student =
            arch.plan(32, 32, 10).unwrap().with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
        let gates: Vec<GateId> = student
            .cells
            .iter()
            .enumerate()
            .flat_map(|(i, cell)| (0..cell.gates.len()).map(move |gate| GateId { node: i + 1, gate }))
            .collect();
        let mut rows = vec![(0, None, "stem", 5.0), (4, None, "head", 1.0)];
        for (i, cell) in student.cells.iter().enumerate() {
            let node = i + 1;
            rows.extend([(node, None, "sum", 2.0), (node, None, "proxies", 3.0 * node as f64)]);
            rows.push((node, Some(i), "block", 20.0));
            for source in cell.gates.iter().filter(|gate| gate.role == Role::Proxy).map(|gate| gate.source) {
                rows.push((node, Some(source), "proxy", 6.0 + source as f64));
                rows.push((node, Some(source), "pool", 4.0));
            }
        }
        let latency = Measure::Latency(LatencyTable::of(&rows));
        for measure in [Measure::Macs, Measure::Params, latency] {
            let dropped =
                |subset: u32| (0..gates.len()).filter(move |g| subset >> g & 1 == 1).map(|g| gates[g]);
            let networks =
                (0..1 << gates.len()).filter_map(|subset| student.without(&dropped(subset).collect()).ok());
            let costs = networks.map(|plan| measure.total(&plan).unwrap());
            assert_eq!(costs.fold(f64::INFINITY, f64::min), measure.least(&student).unwrap(), "{measure:?}");
        }
    }

    #[test]
    fn budgets_are_read_in_every_unit() {
        let macs = |text: &str| text.parse::<Budget>().unwrap().resolve(&Measure::Macs, &backbone()).unwrap();
        let whole = Measure::Macs.total(&backbone()).unwrap();
        for (text, want) in [("15M", 15e6), ("1.5e7", 15e6), ("15000 k", 15e6), ("50%", whole / 2.0)] {
            assert_eq!(macs(text), want, "{text}");
        }
    }

    #[test]
    fn times_are_microseconds_however_they_are_written() {
        let arch: Arch = "cifar-resnet8-b".parse().unwrap();
        let plan = arch.plan(32, 32, 10).unwrap();
        let blocks =
            [(1, Some(0), "block", 300.0), (2, Some(1), "block", 400.0), (3, Some(2), "block", 500.0)];
        let ends = [(0, None, "stem", 5.0), (4, None, "head", 1.0)];
        let measure = Measure::Latency(LatencyTable::of(&[&ends[..], &blocks].concat()));
        let resolve = |text: &str| text.parse::<Budget>().unwrap().resolve(&measure, &plan);
        for (text, want) in
            [("0.2ms", 200.0), ("200us", 200.0), ("1.5 ms", 1500.0), ("7us", 7.0), ("50%", 603.0)]
        {
            assert_eq!(resolve(text).unwrap(), want, "{text}");
        }
        let cases = [
            (
                "0.006ms",
                "must be more than 0.006 ms, which stem and classifier alone take (the whole backbone takes 1.206 ms)",
            ),
            ("15M", "a time"),
        ];
        for (text, want) in cases {
            let error = resolve(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn impossible_budgets_are_refused_with_the_reason() {
        for text in ["", "fast", "-3M", "0", "NaN", "inf", "3 ks"] {
            let error = text.parse::<Budget>().unwrap_err().to_string();
            assert!(error.contains("15M"), "{error}");
        }
        let resolve = |text: &str| text.parse::<Budget>().unwrap().resolve(&Measure::Macs, &backbone());
        let cases = [("2ms", "--table"), ("1%", "stem and classifier")];
        for (text, want) in cases {
            let error = resolve(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
