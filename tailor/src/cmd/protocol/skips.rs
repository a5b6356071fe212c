//! `tailor protocol skips`: how far back proxies should reach.

use super::{Setting, progress};
use crate::Error;
use crate::cmd::task_names;
use crate::fit::Recipe;
use crate::protocols::skips::{self, REACHES};
use bundles::plan;
use std::path::PathBuf;

/// Tailors with proxies that reach 1, 3, 5 or all nodes back (the paper's Table 1), and draws what survives
/// (Fig. 4).
///
/// All variants share one teacher, the fine-tuned row of the table. Networks are in WORK/DATA/skips-K.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor protocol skips --backbone net.backbone --data signs.zip photos.zip --work run/skips"
)]
pub struct Skips {
    /// Backbone file made by `tailor import` or `tailor pretrain`.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Images, as for `fit`; one or more.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// How far back proxies reach, comma-separated: numbers, or `dense` [default: 1,3,5,dense].
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_values_t = REACHES, hide_default_value = true)]
    reach: Vec<plan::Skips>,
    #[command(flatten)]
    setting: Setting,
}

impl Skips {
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let setting = &self.setting;
        if setting.choices.skips().is_some() {
            return Err(Error::config("--skips", "use --reach instead, which lists the values to try").into());
        }
        self.reach.sort_by_key(|reach| match reach {
            plan::Skips::Nearest(k) => *k,
            plan::Skips::Dense => usize::MAX,
        });
        self.reach.dedup();
        let recipe = setting.recipe()?;
        let device = setting.on.open()?;
        let source = setting.source(&self.backbone, &recipe, &device)?;
        let names = task_names("--data", &self.data)?;
        let mut found = Vec::new();
        for path in &self.data {
            let images = setting.find(path, &recipe, &[])?;
            for &skips in &self.reach {
                setting.check_cost(&Recipe { skips, ..recipe.clone() }, &source, &images)?;
            }
            found.push(images);
        }
        let progress = progress()?;
        let lab = setting.lab(&device, &progress)?;
        let mut all = Vec::new();
        for (name, found) in names.iter().zip(found) {
            let task = setting.task(name, found, &source, &progress)?;
            all.push(skips::on(&lab, &source, &task, &self.reach)?);
        }
        Ok(setting.end(&skips::findings(&source, &all)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        skips: Skips,
    }

    #[test]
    fn the_reaches_that_help_shows_as_default_can_be_typed() {
        let line = Line::command();
        let option = line.get_arguments().find(|option| option.get_long() == Some("reach")).unwrap();
        let help = option.get_help().unwrap().to_string();
        let (_, shown) = help.split_once("[default: ").unwrap();
        let (shown, _) = shown.split_once(']').unwrap();
        let reach = |more: &[&str]| {
            let words = ["tailor", "--backbone", "b", "--work", "w", "--data", "d"];
            Line::try_parse_from(words.iter().chain(more)).unwrap().skips.reach
        };
        assert_eq!(reach(&["--reach", shown]), reach(&[]));
    }
}
