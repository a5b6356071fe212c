//! What stands for the `report.json` of a folder of `pretrain`, which writes none.

use super::run::entries;
use crate::pretrain::STAGE;
use crate::{Error, Result};
use bundles::container::Bundle;
use bundles::plan::Counter;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The report on `folder`, whose metrics are `epochs`; `None` unless all of them are of pre-training.
///
/// Its part `pretrained` has the number of epochs and the accuracies: as recorded in the backbone or, without
/// one in the folder, that after the last epoch.
pub(super) fn report(folder: &Path, epochs: &[Value]) -> Result<Option<Value>> {
    let Some(last) = epochs.last().filter(|_| epochs.iter().all(|epoch| epoch["stage"] == STAGE)) else {
        return Ok(None);
    };
    let mut report =
        backbone(folder)?.unwrap_or_else(|| json!({ "pretrained": { "val": last["val_accuracy"] } }));
    report["pretrained"]["epochs"] = last["epoch"].clone();
    Ok(Some(report))
}

/// What the backbone in `folder` tells; `None` if none has been written there yet.
fn backbone(folder: &Path) -> Result<Option<Value>> {
    let is_backbone = |path: &Path| path.extension().is_some_and(|ending| ending == "backbone");
    for path in entries(folder)?.into_iter().filter(|path| is_backbone(path)) {
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let wrong = |error: bundles::Error| {
            Error::data(path.display(), error.to_string(), "remove the file, or pre-train it again")
        };
        let bundle = Bundle::parse(&bytes).map_err(wrong)?;
        let manifest = bundle.manifest();
        // One that was imported has other origins than this folder's training.
        if manifest.fact("epochs").is_none() {
            continue;
        }
        let accuracy = |key: &str| manifest.fact(key).and_then(|fact| fact.parse::<f64>().ok());
        let cost = manifest.plan.costs(Counter::True)?.without_head();
        return Ok(Some(json!({
            "name": manifest.fact("data"),
            "data": manifest.fact("data"),
            "seed": manifest.fact("seed").and_then(|seed| seed.parse::<u64>().ok()),
            "classes": manifest.labels,
            "backbone": { "arch": manifest.plan.arch, "params": cost.params, "macs": cost.macs },
            "pretrained": { "val": accuracy("validation"), "test": accuracy("test") },
        })));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use crate::report::{Run, page};
    use std::fs;

    #[test]
    fn pretraining_that_goes_on_is_shown_after_its_last_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = |stage: &str, n: usize| {
            format!("{{\"stage\":\"{stage}\",\"epoch\":{n},\"val_accuracy\":0.{n}25,\"rate\":0.1}}\n")
        };
        let read = |metrics: &str| {
            fs::write(folder.path().join("metrics.jsonl"), metrics).unwrap();
            Run::read(folder.path()).unwrap()
        };
        let runs = read(&(epoch("pretrain", 1) + &epoch("pretrain", 2)));
        let shown = page(&runs);
        assert!(shown.contains(">pre-trained<br/>") && shown.contains("<td>22.5 %</td>"), "{shown}");
        assert!(shown.contains("<dt>Epochs</dt><dd>2</dd>"), "{shown}");
        assert!(shown.contains("<dt>Validation</dt><dd>22.5 %</dd>"), "{shown}");
        assert!(shown.contains("Training</h3>") && !shown.contains("Missing"), "{shown}");
        assert!(!shown.contains(">teacher<br/>"), "{shown}");

        let runs = read(&(epoch("pretrain", 1) + &epoch("teach", 2)));
        assert!(runs[0].report.is_null() && page(&runs).contains("Missing in"), "a tailoring, too");
    }
}
