//! `tailor report`: renders work folders as one self-contained page.

use crate::destination;
use crate::output::out;
use crate::report::{Run, page};
use std::path::PathBuf;

/// Writes a self-contained HTML page about work folders: tables, plots, drawings, curves, confusion and
/// mistakes.
///
/// The page needs no network access and contains no scripts. Folders that differ only in their seed also get
/// a table of means and standard deviations. Folders of older runs are reported with whatever they contain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor report run/photos-1 run/photos-2 run/photos-3 -o photos.html")]
pub struct Report {
    /// Work folders of `tailor fit`, `tailor compare` and `tailor protocol`; results of other methods are
    /// found in WORK/METHOD/result.json.
    #[arg(required = true, value_name = "WORK")]
    work: Vec<PathBuf>,
    /// Where to write the page.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

/// What is read of a work folder.
const READ: [&str; 6] =
    ["report.json", "result.json", "protocol.json", "predictions.json", "metrics.jsonl", "architecture.svg"];

impl Report {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let read: Vec<PathBuf> =
            self.work.iter().flat_map(|work| READ.iter().map(|file| work.join(file))).collect();
        destination::check("--out", &self.out, &read.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
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
