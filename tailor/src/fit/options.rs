//! A recipe as a document: every option under the name and in the unit of the command line.

use super::{Measure, Recipe, Search};
use crate::data::Augment;
use crate::net::{Formula, Gating};
use serde_json::{Value, json};

impl Recipe {
    /// All options but the seed, named as on the command line (without the dashes); `null` for those that are
    /// off. Momentum and decay have no option there, and a latency table is given by its digest.
    pub(crate) fn options(&self) -> Value {
        let Recipe { teach, train, retrain, finish, gamma1, gamma2, distill, momentum, decay, .. } = self;
        let Recipe { skips, theta, tolerance, judge, caution, looks, formula, cost, budget, gating, .. } =
            self;
        let Recipe { local_matching, free_norms, search, validation, augment, balance, .. } = self;
        let Recipe { patience, clip, seed: _, .. } = self;
        let Augment { crop_pad, flip, policy, jitter, erase } = augment;
        let table = matches!(cost, Measure::Latency(_)).then(|| cost.fingerprint());
        json!({
            "epochs": [teach.epochs, train.epochs, retrain.epochs],
            "finish": finish,
            "batch": [teach.batch, train.batch, retrain.batch],
            "teach-rate": teach.schedule.to_string(),
            "train-rate": train.schedule.to_string(),
            "retrain-rate": retrain.schedule.to_string(),
            "skips": skips.to_string(),
            "gamma1": gamma1,
            "gamma2": gamma2,
            "distill": distill,
            "momentum": momentum,
            "decay": decay,
            "theta": short(*theta),
            "tolerance": short((100.0 * tolerance) as f32),
            "judge": judge.name(),
            "caution": caution,
            "looks": looks,
            "cost": match cost {
                Measure::Macs => "macs",
                Measure::Params => "params",
                Measure::Latency(_) => "latency",
            },
            "table": table,
            "budget": budget.map(|budget| budget.to_string()),
            "gates": match gating {
                Gating::Softmax => "softmax",
                Gating::HardConcrete => "hard-concrete",
            },
            "complexity": match formula {
                Formula::Product => "product",
                Formula::Paper => "paper",
            },
            "matching": if *local_matching { "local" } else { "end-to-end" },
            "free-norms": free_norms,
            "search": match search {
                Search::Sweep => "sweep",
                Search::Bisect => "bisect",
                Search::Iterative => "iterative",
            },
            "validation": validation,
            "crop": crop_pad,
            "flip": flip,
            "augment": policy.to_string(),
            "jitter": short(*jitter),
            "erase": short(*erase),
            "balance": balance,
            "patience": patience,
            "clip": clip,
        })
    }
}

/// A number with as many digits as its single precision needs.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
