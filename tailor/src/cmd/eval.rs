//! `tailor eval`: accuracy of a backbone's source classifier, or of a packed task, on labelled images.

mod tally;

use self::tally::Tally;
use crate::Error;
use crate::cmd::{On, check_classes, with_bar};
use crate::data::{self, Loader, Part, Split};
use crate::device::Choice;
use crate::output::{note, out};
use crate::pack::{PackedTask, check_kind};
use crate::precision::{self, Form, Loaded};
use crate::progress::Progress;
use crate::source::Source;
use anyhow::Context;
use bundles::container::Kind;
use candle_core::{D, Device};
use std::path::PathBuf;

/// Measures accuracy on a split of labelled images.
///
/// Packed files (`tailor pack`) are measured by the device runtime with this machine's kernels; int8 tasks
/// need their int8 backbone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor eval --backbone resnet20.backbone --data cifar10.zip --json")]
pub struct Eval {
    /// Backbone file. Without --task, its source classifier is measured.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Task bundle made for this backbone; measures the task.
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// Images: a folder with train/CLASS/… (optional val/, test/), a .zip of one, or a folder of IDX files.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Split to measure on.
    #[arg(long, value_enum, default_value = "test")]
    split: Part,
    /// Image height and width; the backbone's own (or the task's) if omitted.
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    #[command(flatten)]
    on: On,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

/// Images per batch.
const BATCH: usize = 100;

/// The network to measure, and how.
enum Network {
    /// With training arithmetic, on any device and at any size.
    Trained { source: Box<Source>, task: Option<Box<PackedTask>>, device: Device },
    /// As packed, by the device runtime.
    Packed { backbone: Loaded, task: Loaded },
}

/// Image requirements of the network.
struct Wanted {
    classes: usize,
    labels: Vec<String>,
    size: data::Size,
}

impl Eval {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (network, wanted) = self.open()?;
        let found = data::find(&self.data)?;
        let classes = found.classes().to_vec();
        check_classes(&self.data, &classes, wanted.classes, &wanted.labels)?;
        found.oddities().iter().for_each(|odd| note!("tailor: {odd}"));
        let read = |done: &dyn Fn(usize, usize)| found.read_parts([self.split], wanted.size, done);
        let [Some(split)] = with_bar(&Progress::visible(), "", read)? else {
            let want = format!("not in {}; --split train always exists", self.data.display());
            return Err(Error::config(format!("--split {}", word(self.split)), want).into());
        };
        let tally = Tally::new(&network.answers(&split)?, &split.labels, &classes);
        if self.json {
            let mut line = tally.json();
            line["engine"] = network.engine().into();
            out!("{line}");
            return Ok(());
        }
        let score = tally.score();
        out!("{} of {} images", score.percent(2), score.n);
        tally.warnings().iter().for_each(|warning| note!("tailor: {warning}"));
        Ok(())
    }

    fn open(&self) -> anyhow::Result<(Network, Wanted)> {
        let backbone = Loaded::read(&self.backbone)?;
        let task = self.task.as_deref().map(Loaded::read).transpose()?;
        // Errors in the file are reported by whoever reads it below.
        let is_packed = |loaded: &Loaded| {
            loaded.file().parse().is_ok_and(|bundle| Form::of(bundle.manifest()) != Form::Plain)
        };
        if is_packed(&backbone) || task.as_ref().is_some_and(is_packed) {
            return self.packed(backbone, task);
        }
        let device = self.on.open()?;
        let source = Source::open(&self.backbone, &device)?;
        let task = match &task {
            Some(task) => {
                let file = task.file();
                Some(PackedTask::read(&file.parse()?, &source).with_context(|| file.name.to_owned())?)
            }
            None if source.classifier => None,
            None => return Err(self.no_classifier()),
        };
        let (native, classes, labels) = match &task {
            Some(task) => (task.preprocess.height, task.plan.classes(), task.labels.clone()),
            None => (source.size(), source.plan.classes(), source.labels.clone()),
        };
        let size = self.size.unwrap_or(native);
        source.arch.plan(size, size, classes).with_context(|| format!("--size {size}"))?;
        let wanted = Wanted { classes, labels, size: data::Size { height: size, width: size } };
        let task = task.map(Box::new);
        Ok((Network::Trained { source: Box::new(source), task, device }, wanted))
    }

    /// A network of which at least one file is packed: a task on a backbone, or a backbone's own.
    fn packed(&self, backbone: Loaded, task: Option<Loaded>) -> anyhow::Result<(Network, Wanted)> {
        if let Choice::Cuda(_) = self.on.device {
            let want = "cpu: packed files are measured by the device runtime";
            return Err(Error::config(format!("--device {}", self.on.device), want).into());
        }
        let file = backbone.file();
        let bundle = file.parse()?;
        check_kind(file.name, bundle.manifest(), Kind::Backbone)?;
        let form = Form::of(bundle.manifest());
        if let (Form::Blocked { isa, .. }, false) = (form, form.kernels().is_some_and(|isa| isa.runs_here()))
        {
            return Err(Error::Container {
                file: file.name.into(),
                source: bundles::Error::Incompatible {
                    what: "kernels".into(),
                    want: format!("a machine with {}", isa.word()),
                    got: match form.precision() {
                        "f16" => "this one; measure the backbone packed with --precision f16 and no --target",
                        _ => "this one; measure with the backbone they were packed from",
                    }
                    .into(),
                },
            }
            .into());
        }
        let own = bundle.manifest();
        let (task, labels) = match task {
            Some(task) => {
                let labels = {
                    let bundle = task.file().parse()?;
                    check_kind(task.file().name, bundle.manifest(), Kind::Task)?;
                    bundle.manifest().labels.clone()
                };
                (task, labels)
            }
            None if form == Form::Int8 => {
                let want = "required, packed with --precision int8: an int8 backbone has no scales for a \
                            network of its own";
                return Err(Error::config("--task", want).into());
            }
            None => match precision::source_task(file)? {
                Some(bytes) => (backbone.with(bytes), own.labels.clone()),
                None => return Err(self.no_classifier()),
            },
        };
        let parsed = task.file().parse()?;
        let (preprocess, classes) = (parsed.manifest().preprocess, parsed.manifest().plan.classes());
        let size = data::Size { height: preprocess.height, width: preprocess.width };
        if let Some(asked) = self.size.filter(|&asked| (asked, asked) != (size.height, size.width)) {
            let want = format!("must be {}, the size it was packed for", size.height);
            return Err(Error::config(format!("--size {asked}"), want).into());
        }
        Ok((Network::Packed { backbone, task }, Wanted { classes, labels, size }))
    }

    fn no_classifier(&self) -> anyhow::Error {
        let want = "no source classifier to measure; give a --task made for it";
        Error::config(format!("--backbone {}", self.backbone.display()), want).into()
    }
}

impl Network {
    fn engine(&self) -> &'static str {
        match self {
            Network::Trained { .. } => "tailor",
            Network::Packed { .. } => "edge-runtime",
        }
    }

    /// The predicted class of each image.
    fn answers(&self, split: &Split) -> crate::Result<Vec<u32>> {
        let (source, task, device) = match self {
            Network::Trained { source, task, device } => (source, task, device),
            Network::Packed { backbone, task } => {
                return precision::answers(backbone.file(), task.file(), split);
            }
        };
        let (mean, std) = match task {
            Some(task) => (task.preprocess.mean, task.preprocess.std),
            None => (source.mean, source.std),
        };
        let grey = task.as_ref().is_some_and(|task| task.preprocess.grey).then(|| split.in_grey());
        let split = grey.as_ref().unwrap_or(split);
        let mut answers = Vec::with_capacity(split.len());
        for batch in Loader::new(split, mean, std, BATCH, device)?.eval() {
            let images = batch?.images;
            let logits = match task {
                Some(task) => task.classify(&images)?,
                None => source.classify(&images)?,
            };
            answers.extend(logits.argmax(D::Minus1)?.to_vec1::<u32>()?);
        }
        Ok(answers)
    }
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Val => "val",
        Part::Test => "test",
    }
}
