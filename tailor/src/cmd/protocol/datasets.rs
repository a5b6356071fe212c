//! `tailor protocol datasets`: several data sets by several methods.

use super::end;
use crate::cmd::compare::{Compare, Compared};
use crate::cmd::names;
use crate::protocols::datasets::findings;

/// Compares several methods on several data sets (the paper's Table 2): accuracy on each, the average, and
/// the total size of all tasks.
///
/// Takes the options of `compare` and can continue in its work folder. The shared backbone is counted once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor protocol datasets --backbone net.backbone --data signs.zip photos.zip digits.zip \\\n          \
                  \x20       --methods fine-tune,features,packnet-75,piggyback,tailor --work run/datasets"
)]
pub struct Datasets {
    #[command(flatten)]
    compare: Compare,
}

impl Datasets {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Compared { plan, backbone, methods, outcomes } =
            self.compare.compare(|data, outcomes, _| self.compare.warn(data, outcomes))?;
        let Compare { data, work, json, .. } = &self.compare;
        let findings = findings((&plan, &backbone), &names("--data", data)?, &methods, &outcomes)?;
        Ok(end(&findings, work, *json)?)
    }
}
