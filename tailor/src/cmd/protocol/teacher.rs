//! `tailor protocol teacher`: with and without the teacher's terms in the loss.

use super::{Setting, progress};
use crate::Error;
use crate::cmd::task_name;
use crate::protocols::teacher;
use std::path::PathBuf;

/// Sweeps the number of dropped blocks with and without the teacher in the loss (the paper's Fig. 6).
///
/// Networks are in WORK/with and WORK/without (--gamma2 0 --distill 0). Both are compared with the same
/// fine-tuned network. (The paper has no distillation; add --distill 0 to use only its matching term.)
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor protocol teacher --backbone net.backbone --data photos.zip --work run/teacher"
)]
pub struct Teacher {
    /// Backbone file made by `tailor import` or `tailor pretrain`.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Images, as for `fit`.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    setting: Setting,
}

impl Teacher {
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        self.setting.choices.sweep("this protocol, which sweeps")?;
        let setting = &self.setting;
        let recipe = setting.recipe()?;
        if !recipe.has_teacher() {
            let want = "this protocol compares training with and without a teacher: --gamma2 or --distill must \
                        be above 0";
            return Err(Error::config("--gamma2 0", want).into());
        }
        let device = setting.on.open()?;
        let source = setting.source(&self.backbone, &recipe, &device)?;
        let found = setting.find(&self.data, &recipe, std::slice::from_ref(&source))?;
        let data = task_name("--data", &self.data)?;
        let progress = progress()?;
        let lab = setting.lab(&device, &progress)?;
        let task = setting.task(&data, found, &source, &progress)?;
        let both = teacher::on(&lab, &source, &task)?;
        Ok(setting.end(&teacher::findings(&source, &data, &both))?)
    }
}
