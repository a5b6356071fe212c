//! `tailor pack`: a backbone in the layout that a device's kernels read, or a backbone or task in fewer bits.

use super::keys::read_key;
use super::{check_classes, load_images};
use crate::data::{Dataset, Loader, Split, spread};
use crate::net::Net;
use crate::output::{note, out};
use crate::pack::PackedTask;
use crate::precision::{self, Loss, Precision, Rounding};
use crate::progress::Progress;
use crate::source::Source;
use anyhow::{Context, bail};
use bundles::container::{Bundle, Kind, SigningKey, write_atomically};
use candle_core::{Device, Tensor};
use edge_runtime::kernels::Isa;
use edge_runtime::kernels::int8::{Bits, Grid};
use edge_runtime::needs;
use std::path::{Path, PathBuf};
use targets::Profile;

/// Packs a backbone for a device (see `tailor targets`), or a backbone or task in f16 or int8.
///
/// f32 tasks run on f32 and f16 backbones. An int8 task needs the int8 backbone of the same id, and an int8 backbone
/// runs int8 tasks only. Files that are already packed cannot be packed again: start from what `import` and `fit`
/// made.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tailor pack net.backbone --target jetson-orin-nano --out store/net.backbone\n  tailor pack net.backbone --precision int8 --out store/net.backbone\n  tailor pack digits.task --precision int8 --backbone net.backbone --data digits.zip --out store/digits.task"
)]
pub struct Pack {
    /// Backbone made by `tailor import`, or task made by `tailor fit`.
    file: PathBuf,
    /// Device to pack an f32 backbone for. Other packings are the same for all devices.
    #[arg(long, value_parser = Profile::named)]
    target: Option<&'static Profile>,
    /// How numbers are stored.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// For a task: its backbone, as imported.
    #[arg(long, value_name = "FILE")]
    backbone: Option<PathBuf>,
    /// Images to calibrate on (train/) and to measure the loss on (test/, else val/, else train/).
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Images that int8 maps are calibrated on.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    calibrate: u32,
    /// Bits that an int8 task's weights are rounded to, 4 to 8. They take a byte each at work, but fewer in the bundle, which is
    /// compressed [default: the first of 6, 7 and 8 that keeps within --max-drop on val/ where there is a test/, too, else on
    /// train/; on 2,000 images at most].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(4..=8))]
    bits: Option<u8>,
    /// Most points of accuracy that may be lost; a greater loss writes nothing.
    #[arg(long, value_name = "POINTS", default_value_t = 0.5)]
    max_drop: f64,
    /// Where the packed file goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Secret key to sign it with; the development key when left out.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

/// Images per batch of calibration.
const BATCH: usize = 32;

/// Bits that an int8 task's weights are rounded to in turn. Each makes a bundle about an eighth larger.
const BITS: [u8; 3] = [6, 7, 8];

/// Images by which bits are chosen, at most.
const CHOOSING: usize = 2_000;

/// A packed file.
struct Packed {
    bytes: Vec<u8>,
    /// Where it was measured, with the split of the images.
    loss: Option<(Loss, &'static str)>,
    /// Of an int8 task's weights.
    bits: Option<Bits>,
}

/// What a task runs on: the imported backbone, where it lies and its bytes, and the one it will run on.
#[derive(Clone, Copy)]
struct Beneath<'a> {
    file: &'a Path,
    source: &'a [u8],
    packed: &'a [u8],
}

impl Pack {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let signers: Vec<SigningKey> = self.key.as_deref().map(read_key).transpose()?.into_iter().collect();
        let bytes = read(&self.file)?;
        if self.bits.is_some() && self.precision != Precision::Int8 {
            bail!("--bits says how finely --precision int8 rounds")
        }
        let parsed = Bundle::parse(&bytes).with_context(|| self.file.display().to_string())?;
        let kind = parsed.manifest().kind;
        if signers.is_empty() && parsed.signers().iter().any(|signer| !signer.is_development()) {
            note!(
                "tailor: the signatures of {} are of its bytes, not of those packed now: sign {} when it is there \
                 (`tailor sign`), or name the key here (--key)",
                self.file.display(),
                self.out.display()
            );
        }
        let packed = match kind {
            Kind::Backbone => self.backbone(&bytes, &signers)?,
            Kind::Task => self.task(&bytes, &signers)?,
        };
        if let Some((loss, _)) = &packed.loss {
            let finer = packed.bits.filter(|bits| self.bits.is_none() && bits.count() < 8);
            let hint = finer.map_or(String::new(), |bits| {
                format!(" with weights of {} bits; try --bits 8", bits.count())
            });
            loss.check(self.max_drop)
                .with_context(|| format!("{} is not packed{hint}", self.file.display()))?;
        }
        write_atomically(&self.out, &packed.bytes)?;
        self.report(bytes.len(), &packed)
    }

    fn backbone(&self, bytes: &[u8], signers: &[SigningKey]) -> anyhow::Result<Packed> {
        if self.bits.is_some() {
            bail!("--bits is for tasks: a backbone is mapped as it lies, so fewer bits make it no smaller")
        }
        if self.precision == Precision::F32 && self.data.is_some() {
            bail!("in f32 kernels are only put in another order, which costs no accuracy: leave out --data")
        }
        let isa: Isa = match (self.target, self.precision) {
            (Some(target), _) => target.isa.parse()?,
            (None, Precision::F32) => bail!("an f32 backbone is packed for a device: name it with --target"),
            (None, _) => Isa::Portable,
        };
        let place = self.file.display().to_string();
        let packed = precision::backbone(&place, bytes, self.precision, isa, signers)?;
        let Some(data) = &self.data else { return Ok(Packed { bytes: packed, loss: None, bits: None }) };
        let Some(task) = precision::source_task(bytes)? else {
            bail!("{place} has no source classifier whose loss could be measured; leave out --data")
        };
        let beneath = Beneath { file: &self.file, source: bytes, packed: &packed };
        let loss = self.rounded(&task, beneath, data, &[Bits::ALL], &[])?.loss;
        Ok(Packed { bytes: packed, loss, bits: None })
    }

    fn task(&self, bytes: &[u8], signers: &[SigningKey]) -> anyhow::Result<Packed> {
        let Some(file) = &self.backbone else {
            bail!("a task is packed beside its backbone: name the imported one with --backbone")
        };
        let source = read(file)?;
        let place = file.display().to_string();
        let on = |precision| precision::backbone(&place, &source, precision, Isa::Portable, &[]);
        match (self.precision, &self.data) {
            (Precision::F32, _) => bail!("a task is made in f32; choose --precision f16 or int8"),
            (Precision::Int8, None) => {
                bail!("int8 needs --data: images to calibrate on and to measure the loss")
            }
            (Precision::F16, None) => {
                let bytes = precision::task(bytes, None, &on(Precision::F16)?, signers)?;
                Ok(Packed { bytes, loss: None, bits: None })
            }
            (precision, Some(data)) => {
                let packed = on(precision)?;
                let beneath = Beneath { file, source: &source, packed: &packed };
                let asked = self.bits.as_ref().map_or(&BITS[..], std::slice::from_ref);
                let tries: Vec<Bits> = asked.iter().filter_map(|&bits| Bits::new(bits)).collect();
                self.rounded(bytes, beneath, data, &tries, signers)
            }
        }
    }

    /// The task `bytes` in this precision, and what that costs on `data`: in int8 with weights of the first of these bits that
    /// keep within the limit, or the last of them. What it costs is told of the test images, bits are chosen by others.
    fn rounded(
        &self,
        bytes: &[u8],
        beneath: Beneath<'_>,
        data: &Path,
        tries: &[Bits],
        signers: &[SigningKey],
    ) -> anyhow::Result<Packed> {
        let bundle = Bundle::parse(bytes)?;
        let manifest = bundle.manifest();
        let dataset = load_images(data, manifest.preprocess.height, &Progress::visible())?;
        // A backbone that names no classes has numbers for names.
        let is_named = manifest.labels.iter().enumerate().any(|(class, label)| *label != class.to_string());
        let names = if is_named { &manifest.labels[..] } else { &[] };
        check_classes(data, &dataset.classes, manifest.plan.classes(), names)?;
        let grids = match self.precision {
            Precision::Int8 => Some(self.grids(&bundle, beneath.file, &dataset)?),
            Precision::F32 | Precision::F16 => None,
        };
        let splits =
            [("test", dataset.test.as_ref()), ("val", dataset.val.as_ref()), ("train", Some(&dataset.train))];
        let mut there = splits.into_iter().filter_map(|(name, split)| Some((name, split?)));
        let (name, measured) = there.next().unwrap_or(("train", &dataset.train));
        // Nothing is chosen by test images where there are others.
        let choosing = there.next().map_or(measured, |(_, split)| split);
        let choosing = choosing.gather(&spread(choosing.len(), CHOOSING));
        let packed = |bits: Option<Bits>| -> anyhow::Result<Vec<u8>> {
            let rounding = grids.as_deref().zip(bits).map(|(grids, bits)| Rounding { grids, bits });
            Ok(precision::task(bytes, rounding, beneath.packed, signers)?)
        };
        let before = |split: &Split| precision::accuracy(beneath.source, bytes, split);
        let after = |task: &[u8], split: &Split| precision::accuracy(beneath.packed, task, split);
        let tries: Vec<Bits> = tries.iter().filter(|_| grids.is_some()).copied().collect();
        let mut chosen = tries.last().copied();
        if let Some((_, others)) = tries.split_last().filter(|(_, others)| !others.is_empty()) {
            let before = before(&choosing)?;
            for &bits in others {
                let loss = Loss { before, after: after(&packed(Some(bits))?, &choosing)? };
                if loss.check(self.max_drop).is_ok() {
                    chosen = Some(bits);
                    break;
                }
            }
        }
        let task = packed(chosen)?;
        let loss = Loss { before: before(measured)?, after: after(&task, measured)? };
        Ok(Packed { bytes: task, loss: Some((loss, name)), bits: chosen })
    }

    fn grids(&self, bundle: &Bundle<'_>, file: &Path, dataset: &Dataset) -> anyhow::Result<Vec<Grid>> {
        let source = Source::open(file, &Device::Cpu)?;
        let task = PackedTask::read(bundle, &source)?;
        let p = task.preprocess;
        let loader = Loader::new(&dataset.train, p.mean, p.std, BATCH, &Device::Cpu)?;
        let chosen = spread(loader.len(), self.calibrate as usize);
        let batches: Vec<Tensor> =
            loader.of(chosen).map(|batch| batch.map(|batch| batch.images)).collect::<crate::Result<_>>()?;
        let net = Net { plan: &task.plan, params: task.params() };
        Ok(precision::calibrate(&net, &batches)?)
    }

    fn report(&self, before: usize, packed: &Packed) -> anyhow::Result<()> {
        let Packed { bytes, loss, bits } = packed;
        let (loss, split) = loss.map_or((None, None), |(loss, split)| (Some(loss), Some(split)));
        let after = bytes.len();
        let ratio = before as f64 / after as f64;
        if self.json {
            let line = serde_json::json!({
                "file": self.out.display().to_string(), "bytes": after, "bytes_before": before,
                "bits": bits.map(Bits::count),
                "accuracy_before": loss.map(|loss| loss.before.accuracy()),
                "accuracy": loss.map(|loss| loss.after.accuracy()),
                "drop_points": loss.map(|loss| loss.points()), "n": loss.map(|loss| loss.before.n), "split": split,
            });
            out!("{line}");
            return Ok(());
        }
        let out = self.out.display();
        let rounded = bits.map_or(String::new(), |bits| format!(", weights of {} bits", bits.count()));
        let (times, what) = if ratio < 1.0 { (1.0 / ratio, "larger") } else { (ratio, "smaller") };
        out!("{out}: {after} bytes, from {before} ({times:.2} times {what}{rounded})");
        match loss {
            Some(loss) => out!(
                "accuracy {:.2} % before, {:.2} % after: {:.2} points lost on {} images of {}",
                100.0 * loss.before.accuracy(),
                100.0 * loss.after.accuracy(),
                loss.points(),
                loss.before.n,
                split.unwrap_or_default()
            ),
            None if self.precision == Precision::F32 => {}
            None => out!("its loss of accuracy was not measured; --data would measure it"),
        }
        let Some(target) = self.target.filter(|_| self.precision == Precision::F32) else { return Ok(()) };
        let own = needs(&Bundle::parse(bytes)?.manifest().plan, target.isa.parse()?, 1)?;
        let kib = |bytes: usize| bytes.div_ceil(1024);
        out!(
            "{:<16} {} KiB of kernels, mapped; {} KiB of arena and scratch for its own network on one thread ({}); \
             tasks share one arena, as large as the largest needs (tailor inspect TASK)",
            "memory",
            kib(own.kernels),
            kib(own.workspace()),
            target.isa
        );
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}
