//! A recipe as a document: every option under the name and in the unit of the command line.

use super::{Measure, Recipe};
use crate::data::{Augment, Padding, digest_of};
use crate::net::Gating;
use clap::ValueEnum;
use serde_json::{Value, json};

impl Recipe {
    /// All options but the seed, named as on the command line (without the dashes); `null` for those that are
    /// off or have no effect next to others. Momentum and decay have no option there, and a latency table is
    /// named by the digest of its rows.
    pub(crate) fn options(&self) -> Value {
        // Without `..`, so that no option is forgotten.
        let Recipe {
            teach,
            train,
            retrain,
            finish,
            gamma1,
            gamma2,
            distill,
            momentum,
            decay,
            skips,
            theta,
            tolerance,
            judge,
            caution,
            looks,
            formula,
            cost,
            budget,
            gating,
            local_matching,
            free_norms,
            search,
            validation,
            augment,
            balance,
            patience,
            clip,
            seed: _,
        } = self;
        let Augment { crop_pad, padding: _, flip, policy, jitter, erase } = augment;
        let (cost, table) = match cost {
            Measure::Macs => ("macs", None),
            Measure::Params => ("params", None),
            Measure::Latency(table) => ("latency", Some(digest_of(&[table.fingerprint()]))),
        };
        let is_charged = budget.is_some() || *gamma1 > 0.0;
        let matching = if *local_matching { "local" } else { "end-to-end" };
        json!({
            "epochs": [teach.epochs, train.epochs, retrain.epochs],
            "finish": finish,
            "batch": [teach.batch, train.batch, retrain.batch],
            "teach-rate": teach.schedule.to_string(),
            "train-rate": train.schedule.to_string(),
            "retrain-rate": retrain.schedule.to_string(),
            "skips": skips.to_string(),
            "gamma1": budget.is_none().then_some(gamma1),
            "gamma2": gamma2,
            "distill": distill,
            "momentum": momentum,
            "decay": decay,
            "theta": (*gating == Gating::Softmax).then(|| short(*theta)),
            "tolerance": short((100.0 * tolerance) as f32),
            "judge": judge.name(),
            "caution": caution,
            "looks": looks,
            "cost": cost,
            "table": table,
            "budget": budget.map(|budget| budget.to_string()),
            "gates": word(gating),
            "complexity": is_charged.then(|| word(formula)),
            "matching": (*gamma2 > 0.0).then_some(matching),
            "free-norms": free_norms,
            "search": word(search),
            "validation": validation,
            "crop": crop_pad,
            "padding": augment.border().map(Padding::name),
            "flip": flip,
            "augment": policy.to_string(),
            "jitter": jitter.to_string(),
            "erase": short(*erase),
            "balance": balance,
            "patience": patience,
            "clip": clip,
        })
    }

    /// All options in one line, each as its name and its value: a run's identity.
    pub(crate) fn identity(&self) -> String {
        let options = self.options();
        let names = options.as_object().into_iter().flat_map(|all| all.keys().map(String::as_str));
        format!("{} seed {}", listed(&options, names), self.seed)
    }
}

/// The [options](Recipe::options) of these names, each with its value.
pub(super) fn listed<'a>(options: &Value, names: impl IntoIterator<Item = &'a str>) -> String {
    let words = names.into_iter().map(|name| format!("{name} {}", said(&options[name])));
    words.collect::<Vec<_>>().join(" ")
}

/// The value of an [option](Recipe::options) in one word.
pub(crate) fn said(value: &Value) -> String {
    match value {
        Value::Null => "off".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// What the command line calls this choice.
fn word(choice: &impl ValueEnum) -> Option<String> {
    choice.to_possible_value().map(|value| value.get_name().to_owned())
}

/// A number with as many digits as its single precision needs.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::LatencyTable;

    #[test]
    fn a_latency_table_is_named_by_its_rows_alone() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, us: u32| {
            let path = folder.path().join(name);
            std::fs::write(
                &path,
                format!(r#"{{"rows":[{{"node":0,"source":null,"role":"stem","us":{us}}}]}}"#),
            )
            .unwrap();
            Recipe { cost: Measure::Latency(LatencyTable::read(&path).unwrap()), ..Recipe::small() }
        };
        let (one, moved, other) = (of("one.json", 5), of("moved.json", 5), of("other.json", 6));
        assert_eq!(one.identity(), moved.identity());
        assert_ne!(one.identity(), other.identity());
        let table = one.options()["table"].as_str().unwrap().to_owned();
        assert!(table.len() == 12 && table.bytes().all(|digit| digit.is_ascii_hexdigit()), "{table}");
        assert_ne!(one.identity(), Recipe { seed: 2, ..one }.identity());
    }

    #[test]
    fn options_without_effect_are_off() {
        let off = |recipe: Recipe, name: &str| recipe.options()[name].is_null();
        let small = Recipe::small();
        for name in ["gamma1", "theta", "complexity", "matching"] {
            assert!(!off(small.clone(), name), "{name}");
        }
        let budget = Some("50%".parse().unwrap());
        assert!(off(Recipe { budget, ..small.clone() }, "gamma1"));
        assert!(!off(Recipe { budget, gamma1: 0.0, ..small.clone() }, "complexity"));
        assert!(off(Recipe { gamma1: 0.0, ..small.clone() }, "complexity"));
        assert!(off(Recipe { gating: Gating::HardConcrete, ..small.clone() }, "theta"));
        assert!(off(Recipe { gamma2: 0.0, ..small }, "matching"));
    }
}
