//! The command line: one file per command, each a `struct` of what was typed and a `run`.

mod choices;
mod classify;
mod compare;
mod completions;
mod demo;
mod eval;
mod export;
mod fit;
mod import;
mod inspect;
mod keys;
mod pack;
mod pretrain;
mod protocol;
mod prune;
mod report;
mod targets;
mod training;
mod verify;

use crate::data::{self, Dataset, Found, Size};
use crate::device::Choice;
use crate::fit::{Judge, images_for_gap, margin_of_gap};
use crate::output::{self, note, note_once};
use crate::progress::Progress;
use candle_core::Device;
use clap::{Parser, Subcommand};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code of errors without a code of their own.
const FAILED: u8 = 1;

/// Tailors a pre-trained network to your images and packs it for a device.
#[derive(Debug, Parser)]
#[command(
    name = "tailor",
    version,
    after_help = "Examples:\n  tailor demo\n  tailor fit --backbone net.backbone --data photos/ --work run/\n\n\
                  Exit codes: 0 done, 1 failed, 2 usage, 3 signature or corruption, 4 incompatible, 6 self-test failed, \
                  130 interrupted"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Import(import::Import),
    Pretrain(Box<pretrain::Pretrain>),
    Fit(Box<fit::Fit>),
    Prune(Box<prune::Prune>),
    Compare(Box<compare::Compare>),
    Protocol(Box<protocol::Protocol>),
    Pack(pack::Pack),
    Eval(eval::Eval),
    Classify(classify::Classify),
    Report(report::Report),
    Export(export::Export),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Keygen(keys::Keygen),
    Sign(keys::Sign),
    Targets(targets::Targets),
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command; errors are printed to stderr and reflected in the exit code.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Demo(cmd) => cmd.run(),
            Command::Import(cmd) => cmd.run(),
            Command::Pretrain(cmd) => cmd.run(),
            Command::Fit(cmd) => cmd.run(),
            Command::Prune(cmd) => cmd.run(),
            Command::Compare(cmd) => cmd.run(),
            Command::Protocol(cmd) => cmd.run(),
            Command::Pack(cmd) => cmd.run(),
            Command::Eval(cmd) => cmd.run(),
            Command::Classify(cmd) => cmd.run(),
            Command::Report(cmd) => cmd.run(),
            Command::Export(cmd) => cmd.run(),
            Command::Inspect(cmd) => cmd.run(),
            Command::Verify(cmd) => cmd.run(),
            Command::Keygen(cmd) => cmd.run(),
            Command::Sign(cmd) => cmd.run(),
            Command::Targets(cmd) => cmd.run(),
            Command::Completions(cmd) => cmd.run(),
        };
        match outcome {
            Ok(()) => match output::failure() {
                None => ExitCode::SUCCESS,
                Some(error) => {
                    note!("tailor: standard output: {error}");
                    ExitCode::from(FAILED)
                }
            },
            Err(error) => {
                note!("tailor: {error:#}");
                ExitCode::from(exit_code(&error))
            }
        }
    }
}

/// The error's own code: 2 usage, 3 signature or corruption, 4 incompatible, 6 failed self-test, 130
/// interrupted; 1 for anything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(|cause| {
            if let Some(error) = cause.downcast_ref::<crate::Error>() {
                return Some(error.exit_code());
            }
            if let Some(error) = cause.downcast_ref::<edge_runtime::Error>() {
                return Some(error.exit_code());
            }
            cause.downcast_ref::<bundles::Error>().map(bundles::Error::exit_code)
        })
        .unwrap_or(FAILED)
}

/// The device a command computes on.
#[derive(Debug, Clone, Copy, clap::Args)]
struct On {
    /// Where to compute: cpu, cuda (or cuda:N; an NVIDIA GPU), or auto, a GPU if there is one.
    #[arg(long, value_name = "DEVICE", default_value_t = Choice::Cpu)]
    device: Choice,
}

impl On {
    /// Opens the device; the outcome of `auto` is reported on stderr.
    fn open(self) -> crate::Result<Device> {
        let (device, note) = self.device.open()?;
        if let Some(note) = note {
            note!("tailor: {note}");
        }
        Ok(device)
    }
}

/// Finds and reads a set of images with a progress bar, resized to `size` x `size`.
fn load_images(path: &Path, size: usize, progress: &Progress) -> crate::Result<Dataset> {
    read(data::find(path)?, false, size, progress)
}

/// Reads a set of images for training with a progress bar, resized to `size` x `size`. If it has no
/// validation images, some will be held out.
fn read_images(found: Found, size: usize, progress: &Progress) -> crate::Result<Dataset> {
    read(found, true, size, progress)
}

fn read(found: Found, holds_out: bool, size: usize, progress: &Progress) -> crate::Result<Dataset> {
    let classes = found.classes().len();
    note_once(found.summary(holds_out));
    found.oddities().into_iter().for_each(|odd| note_once(format!("tailor: {odd}")));
    let place = found.place().to_owned();
    let dataset = with_bar(progress, &format!("{classes} classes"), |done| {
        found.read(Size { height: size, width: size }, done)
    })?;
    dataset.overlaps().iter().for_each(|overlap| note_once(format!("tailor: {place}: {overlap}")));
    Ok(dataset)
}

/// Rejects images whose classes differ from the network's in number or, if the network names them, in name.
fn check_classes(path: &Path, found: &[String], count: usize, names: &[String]) -> crate::Result<()> {
    let refuse = |want| Err(crate::Error::config(format!("--data {}", path.display()), want));
    if found.len() != count {
        return refuse(format!(
            "images of {count} classes, as many as the network has; these have {}",
            found.len()
        ));
    }
    if !names.is_empty() && names != found {
        let (want, got) = (names.join(", "), found.join(", "));
        return refuse(format!("images of the classes the network was trained on ({want}), not {got}"));
    }
    Ok(())
}

/// Runs `read` with a progress bar; it reports (images done, images in total).
fn with_bar<T>(
    progress: &Progress,
    last: &str,
    read: impl FnOnce(&dyn Fn(usize, usize)) -> crate::Result<T>,
) -> crate::Result<T> {
    let bar = std::cell::OnceCell::new();
    let done = read(&|done, total| {
        bar.get_or_init(|| progress.stage("images", total as u64, 0)).at(done as u64);
    })?;
    if let Some(bar) = bar.into_inner() {
        bar.finish(last);
    }
    Ok(done)
}

/// Warns if `images` validation images of `data` tell the gap between teacher and network, which has the standard
/// `error`, less exactly than the tolerance (in points) by which the network was selected.
fn warn_of_uncertain_gap(data: &str, images: usize, error: f64, judge: Judge, points: f64) {
    if let Some(needed) = images_for_gap(error, images, points / 100.0) {
        note!(
            "tailor: the {images} validation images of {data} tell the gap to the teacher to within {:.2} points of {} \
             (95 % confidence), not the {points} of --tolerance, which would need about {needed} images",
            100.0 * margin_of_gap(error, images),
            judge.name()
        );
    }
}

/// Derives the name of a task or backbone from the path of its data: the folder's name, or the file's without
/// `.zip` or `.backbone`. Control characters, which bundles cannot hold, are replaced.
fn stem(path: &Path) -> String {
    // `.` and `..` are not names. Others stay as typed: a link to the latest photographs keeps its own name.
    let real = if path.file_name().is_none() { path.canonicalize().ok() } else { None };
    let name = real.as_deref().unwrap_or(path).file_name().unwrap_or(OsStr::new("task")).to_string_lossy();
    let is_ending = |ending: &str| ["zip", "backbone"].iter().any(|known| ending.eq_ignore_ascii_case(known));
    let name = match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && is_ending(ending) && !path.is_dir() => stem,
        _ => &name,
    };
    name.replace(char::is_control, "_")
}

/// The [`stem`] of `data`, checked to be a valid name for a bundle and its file, so that an invalid one is
/// reported before hours of training.
fn task_name(option: &str, data: &Path) -> crate::Result<String> {
    let name = stem(data);
    let refuse = |want| crate::Error::config(format!("{option} {}", data.display()), want);
    check_name(&name).map_err(refuse)?;
    Ok(name)
}

/// The task name of each of `paths`, given with `option`; all must be distinct.
fn task_names(option: &str, paths: &[PathBuf]) -> crate::Result<Vec<String>> {
    paths.iter().try_for_each(|path| task_name(option, path).map(drop))?;
    names(option, paths)
}

/// Describes a valid name, as an error, if `name` is not one.
fn check_name(name: &str) -> Result<(), String> {
    bundles::container::check_name(name).map_err(|error| format!("a name that a bundle can have ({error})"))
}

/// The name of each of `paths`, given with `option`; all must be distinct, because results are stored by
/// name.
fn names(option: &str, paths: &[PathBuf]) -> crate::Result<Vec<String>> {
    let names: Vec<String> = paths.iter().map(|path| stem(path)).collect();
    match (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
        None => Ok(names),
        Some(twice) => {
            let want = "each needs a name of its own, because results are stored by name: rename one";
            Err(crate::Error::config(format!("{option} {}", paths[twice].display()), want))
        }
    }
}

/// One number per colour channel.
fn channels(text: &str) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    let three = numbers.and_then(|n| <[f32; 3]>::try_from(n).ok());
    match three {
        Some(three) if three.iter().all(|x| (0.0..=1.0).contains(x)) => Ok(three),
        Some(_) => Err("three numbers from 0 to 1 are needed: pixels are scaled to that range first".into()),
        None => Err("three numbers are needed, for example 0.485,0.456,0.406".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_folder_or_file() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for folder in ["photos/train", "signs.v1", "signs.v2", "set.zip", ".zip"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("digits.ZIP"), "").unwrap();
        std::os::unix::fs::symlink("photos", at("latest")).unwrap();
        let cases = [
            ("photos", "photos"),
            ("photos/", "photos"),
            ("photos/.", "photos"),
            ("photos/train/..", "photos"),
            ("latest", "latest"),
            ("signs.v1", "signs.v1"),
            ("signs.v2/", "signs.v2"),
            ("set.zip", "set.zip"),
            ("digits.ZIP", "digits"),
            ("nowhere/digits.v2.zip", "digits.v2"),
            ("nowhere/net20.backbone", "net20"),
            ("nowhere/photos.v3", "photos.v3"),
            ("nowhere/..", "task"),
            (".zip", ".zip"),
            ("a\tb", "a_b"),
        ];
        for (path, name) in cases {
            assert_eq!(stem(&at(path)), name, "{path}");
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(stem(Path::new(".")), here.file_name().unwrap().to_string_lossy());
        assert_eq!(stem(Path::new("..")), here.parent().unwrap().file_name().unwrap().to_string_lossy());
        let two = names("--data", &[at("signs.v1"), at("signs.v2")]).unwrap();
        assert_eq!(two, ["signs.v1", "signs.v2"]);
    }
}
