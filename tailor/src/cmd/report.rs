//! `tailor report`: work folders become one page to look at, keep or send.

use crate::Error;
use crate::output::out;
use crate::report::{Run, page};
use std::path::PathBuf;

/// Writes one self-contained HTML page about work folders: tables, plots, drawings, curves, confusion and mistakes.
///
/// The page needs no network and holds no script. Folders that differ only in their seed also make a table of means and
/// standard deviations. Folders of older runs are reported with what they have.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor report run/photos-1 run/photos-2 run/photos-3 -o photos.html")]
pub struct Report {
    /// Work folders of `tailor fit`, `tailor compare` and `tailor protocol`; results of other methods are found in
    /// WORK/METHOD/result.json.
    #[arg(required = true, value_name = "WORK")]
    work: Vec<PathBuf>,
    /// The page.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

impl Report {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let folder = self.out.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let want = format!("a file in a folder that is there; {} is none", folder.display());
            return Err(Error::config(format!("--out {}", self.out.display()), want).into());
        }
        let runs: Vec<Vec<Run>> =
            self.work.iter().map(|folder| Run::read(folder)).collect::<crate::Result<_>>()?;
        let page = page(&runs.concat());
        bundles::container::write_atomically(&self.out, page.as_bytes())?;
        out!("{} ({:.0} KiB)", self.out.display(), page.len() as f64 / 1024.0);
        Ok(())
    }
}
