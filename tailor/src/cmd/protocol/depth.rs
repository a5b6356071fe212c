//! `tailor protocol depth`: backbones of different depths on the same images.

use super::{Setting, progress};
use crate::cmd::{names, task_name};
use crate::protocols::depth;
use std::path::PathBuf;

/// Sweeps the number of dropped blocks on several backbones (the paper's Fig. 5): accuracy against
/// complexity.
///
/// Networks are in WORK/BACKBONE/tailored. Each number of blocks is a network to retrain, so deep backbones
/// take a long time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor protocol depth --backbone resnet20.backbone --backbone resnet56.backbone \\\n          \
                  \x20       --data photos.zip --work run/depth"
)]
pub struct Depth {
    /// Backbone file made by `tailor import` or `tailor pretrain`; repeat for each.
    #[arg(long, value_name = "FILE", required = true)]
    backbone: Vec<PathBuf>,
    /// Images, as for `fit`.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    setting: Setting,
}

impl Depth {
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        self.setting.choices.sweep("this protocol, which sweeps")?;
        let setting = &self.setting;
        let recipe = setting.recipe()?;
        let device = setting.on.open()?;
        let names = names("--backbone", &self.backbone)?;
        let mut sources = Vec::new();
        for path in &self.backbone {
            sources.push(setting.source(path, &recipe, &device)?);
        }
        setting.find(&self.data, &recipe, &sources)?;
        let data = task_name("--data", &self.data)?;
        let progress = progress()?;
        let lab = setting.lab(&device, &progress)?;
        let mut all = Vec::new();
        for (name, source) in names.iter().zip(&sources) {
            // Each backbone has its own image size.
            let task = setting.task(&data, setting.find(&self.data, &recipe, &[])?, source, &progress)?;
            all.push(depth::on(&lab, name, source, &task)?);
        }
        Ok(setting.end(&depth::findings(&data, &all))?)
    }
}
