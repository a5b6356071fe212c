//! `tailor report`: renders work folders as one self-contained page.

use crate::destination;
use crate::output::out;
use crate::report::{Run, START, page};
use crate::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Writes a self-contained HTML page about work folders: tables, plots, drawings, curves, confusion and
/// mistakes.
///
/// The page needs no network access and contains no scripts. Folders that differ only in their seed also get
/// a table of means and standard deviations. Folders of older runs are reported with whatever they contain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor report run/photos-1 run/photos-2 run/photos-3 -o photos.html")]
pub struct Report {
    /// Work folders of `tailor fit`, `tailor pretrain`, `tailor compare` and `tailor protocol`, or folders of
    /// them; results of other methods are found in WORK/METHOD/result.json.
    #[arg(required = true, value_name = "WORK")]
    work: Vec<PathBuf>,
    /// Where to write the page. An existing file is replaced only if it is an HTML page.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

impl Report {
    pub(super) fn run(self) -> anyhow::Result<()> {
        destination::check("--out", &self.out, &[])?;
        refuse_others(&self.out)?;
        let runs: Vec<Vec<Run>> = self.work.iter().map(|folder| Run::read(folder)).collect::<Result<_>>()?;
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

/// Refuses to replace a file that is not a page, such as one of those in a work folder. An empty one has
/// nothing to lose.
fn refuse_others(out: &Path) -> Result<()> {
    let mut start = Vec::new();
    match File::open(out) {
        Ok(file) => file.take(START.len() as u64).read_to_end(&mut start).map_err(Error::io(out))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(out)(error)),
    };
    if start.is_empty() || start == START.as_bytes() {
        return Ok(());
    }
    let want = "must be a new file or an HTML page to replace; this is another kind of file: choose another name, or \
                remove it first";
    Err(Error::config(format!("--out {}", out.display()), want))
}
