//! `tailor demo`: the whole workflow on the samples that come with the program.

mod device;
mod samples;

use crate::cmd::{On, load_images};
use crate::data::Augment;
use crate::fit::{BackboneSize, Claim, Job, Recipe, Report, Stage, Work};
use crate::import::{self, Request};
use crate::interrupt::Interrupt;
use crate::output::out;
use crate::progress::Progress;
use crate::shell::quoted;
use crate::source::Source;
use crate::train::Schedule;
use device::Timing;
use samples::Sample;
use std::path::{Path, PathBuf};

/// Tailors one backbone to two tasks of different difficulty and switches between them on the edge runtime.
///
/// Needs no arguments and no network: a CIFAR-100 ResNet-20 and two small sets of real images are part of the
/// program. Takes about a quarter of an hour on two cores; an interrupted run resumes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor demo --out demo-out")]
pub struct Demo {
    /// Folder for everything the demo makes.
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    #[command(flatten)]
    on: On,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// The backbone's file.
const BACKBONE: &str = "cifar100-resnet20.backbone";

/// Short schedules that still bring both teachers to their plateau.
fn recipe(sample: &Sample) -> Recipe {
    let one_cycle = |epochs, batch, peak| Stage { epochs, batch, schedule: Schedule::OneCycle { peak } };
    let [teach, train, retrain] = sample.epochs;
    Recipe {
        teach: one_cycle(teach, 64, 0.05),
        train: one_cycle(train, 32, 0.1),
        retrain: one_cycle(retrain, 32, 0.05),
        finish: 2,
        augment: Augment { crop_pad: sample.crop_pad, flip: sample.flip, ..Augment::default() },
        ..Recipe::small()
    }
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let device = self.on.open()?;
        let progress = Progress::visible().stopped_by(Interrupt::by_signal()?);
        let folder = &self.out;
        let _claim = Claim::alone(folder)?;
        let weights = samples::unpack(folder, &samples::WEIGHTS)?;
        let backbone = folder.join(BACKBONE);
        import::write_backbone(&import::import(&weights, &Request::default())?, &backbone)?;

        let mut reports = Vec::new();
        let mut bundles = Vec::new();
        let mut size = None;
        for sample in &samples::TASKS {
            let data = samples::unpack(folder, &sample.images)?;
            let source = Source::open(&backbone, &device)?;
            let work = Work::open(folder.join(sample.name))?;
            let dataset = load_images(&data, source.size(), &progress.for_task(sample.name))?;
            size = Some(BackboneSize::of(&source, dataset.train.images.size())?);
            let job = Job {
                name: sample.name,
                dataset,
                source,
                data_name: sample.images.name,
                recipe: &recipe(sample),
                work: &work,
                signers: &[],
                device: &device,
                jobs: None,
                progress: &progress.for_task(sample.name),
            };
            reports.push(job.run()?);
            bundles.push(work.bundle(sample.name));
        }
        let timings = device::measure(&backbone, &bundles)?;
        let Some(size) = size else { return Ok(()) };
        if self.json {
            out!("{}", document(&size, &reports, &timings));
        } else {
            table(&size, &reports, &timings, folder);
        }
        Ok(())
    }
}

fn document(size: &BackboneSize, reports: &[Report], timings: &[Timing]) -> serde_json::Value {
    let tasks = reports.iter().zip(timings).map(|(report, timing)| {
        let mut task = report.json();
        task["warm_switch_us"] = timing.warm_switch_us.into();
        task["cold_switch_ms"] = timing.cold_switch_ms.into();
        task["frame_ms"] = timing.frame_ms.into();
        task
    });
    serde_json::json!({ "backbone": size.json(), "tasks": tasks.collect::<Vec<_>>() })
}

fn table(size: &BackboneSize, reports: &[Report], timings: &[Timing], folder: &Path) {
    let mut columns: Vec<Vec<(&str, String)>> = reports.iter().map(|r| r.rows(size)).collect();
    for (column, timing) in columns.iter_mut().zip(timings) {
        column.push(("warm switch", format!("{:.3} µs", timing.warm_switch_us)));
        column.push(("cold switch", format!("{:.2} ms", timing.cold_switch_ms)));
        column.push(("frame", format!("{:.3} ms", timing.frame_ms)));
    }
    let line = |title: &str, cells: Vec<&str>| {
        out!("{title:<22}{}", cells.into_iter().map(|cell| format!("{cell:<32}")).collect::<String>());
    };
    out!();
    line("", reports.iter().map(|report| report.name.as_str()).collect());
    for (row, (title, _)) in columns.first().into_iter().flatten().enumerate() {
        line(title, columns.iter().map(|column| column[row].1.as_str()).collect());
    }
    out!(
        "\nPercentages are of the backbone: {} parameters, {} multiply-adds.",
        crate::fit::count(size.params),
        crate::fit::count(size.macs)
    );
    out!(
        "Selection accepts networks within 0.5 points of the teacher on validation, by the probability of the \
         correct class; test shows the result.\n"
    );
    for report in reports {
        out!("{:<10} {}", report.name, report.strip);
    }
    out!("           (■ block, □ proxies only, · nothing; +n proxies)\n");
    let show = |words: &str, path: PathBuf| out!("{words:<10} {}", path.display());
    for report in reports {
        show("drawing", folder.join(&report.name).join("architecture.svg"));
    }
    let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
    out!("\nOn a device:\n    {}", bench(folder, &names));
}

/// The command that measures the demo's `tasks` on a device, as a shell takes it.
fn bench(folder: &Path, tasks: &[&str]) -> String {
    let quote = |path: PathBuf| quoted(path.as_os_str());
    let tasks = tasks.iter().map(|task| quote(folder.join(task).join(format!("{task}.task"))));
    let mut words = format!("edge-runtime bench --backbone {}", quote(folder.join(BACKBONE)));
    tasks.for_each(|task| words += &format!(" \\\n        --task {task}"));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_command_can_be_pasted() {
        let command = bench(Path::new("my demo"), &["digits", "fashion"]);
        // A shell takes it as one command, and each path as one word.
        let words = command.replacen("edge-runtime", "printf '%s|'", 1);
        let output = std::process::Command::new("sh").args(["-c", &words]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "bench|--backbone|my demo/cifar100-resnet20.backbone|--task|my demo/digits/digits.task|--task|\
             my demo/fashion/fashion.task|",
            "{command}"
        );
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
