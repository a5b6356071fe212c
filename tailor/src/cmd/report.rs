//! `tailor report`: work folders become one page to look at, keep or send.

use crate::destination;
use crate::output::out;
use crate::report::{Run, page};
use std::path::PathBuf;

/// Writes one self-contained HTML page about work folders: tables, plots, drawings, curves, confusion and
/// mistakes.
///
/// The page needs no network and holds no script. Folders that differ only in their seed also make a table of
/// means and standard deviations. Folders of older runs are reported with what they have.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor report run/photos-1 run/photos-2 run/photos-3 -o photos.html")]
pub struct Report {
    /// Work folders of `tailor fit`, `tailor compare` and `tailor protocol`; results of other methods are
    /// found in WORK/METHOD/result.json.
    #[arg(required = true, value_name = "WORK")]
    work: Vec<PathBuf>,
    /// The page.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

impl Report {
    pub(super) fn run(self) -> anyhow::Result<()> {
        destination::check("--out", &self.out, &[])?;
        let runs: Vec<Vec<Run>> =
            self.work.iter().map(|folder| Run::read(folder)).collect::<crate::Result<_>>()?;
        let page = page(&runs.concat());
        bundles::container::write_atomically(&self.out, page.as_bytes())?;
        let out = self.out.display();
        if self.json {
            let folders: Vec<_> = self.work.iter().map(|folder| folder.display().to_string()).collect();
            let line = serde_json::json!({
                "file": out.to_string(), "bytes": page.len(), "work": folders,
                "runs": runs.iter().map(Vec::len).sum::<usize>(),
            });
            out!("{line}");
        } else {
            out!("{out} ({:.0} KiB)", page.len() as f64 / 1024.0);
        }
        Ok(())
    }
}
