//! `tailor pack`: packs a backbone in a device's kernel layout, or a backbone or task in fewer bits, and records
//! facts about it.

use super::keys::read_key;
use super::{check_classes, load_images};
use crate::Error;
use crate::destination;
use crate::output::{note, out};
use crate::precision::{self, Chosen, File, Form, Loaded, Loss, Precision, Trial};
use crate::progress::Progress;
use crate::source::Source;
use anyhow::Context;
use bundles::container::{Bundle, Kind, SigningKey, check_fact, write_atomically};
use candle_core::Device;
use edge_runtime::kernels::Isa;
use edge_runtime::kernels::int8::Bits;
use std::path::{Path, PathBuf};
use targets::Profile;

/// Packs a backbone for a device (see `tailor targets`), or a backbone or task in f16 or int8.
///
/// f32 and f16 tasks run on f32 and f16 backbones. An int8 task needs the int8 backbone of the same id, and an
/// int8 backbone runs int8 tasks only. Packed files cannot be packed again: start from the output of `import`
/// or `fit`. Without --precision and --target, the file stays as it is but for --fact and --counter.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                  tailor pack net.backbone --target jetson-orin-nano --out store/net.backbone\n  \
                  tailor pack net.backbone --precision f16 --target jetson-orin-nano --out store/net.backbone\n  \
                  tailor pack net.backbone --precision int8 --out store/net.backbone\n  \
                  tailor pack digits.task --precision int8 --backbone net.backbone --data digits.zip \
                  --out store/digits.task\n  \
                  tailor pack digits.task --fact build=1.4 --counter 2 --key release.key --out store/digits.task")]
pub struct Pack {
    /// Backbone made by `tailor import`, or task made by `tailor fit`.
    file: PathBuf,
    /// Device to pack an f32 backbone for, or an f16 one if the device computes in half precision. Other
    /// packings are the same for all devices.
    #[arg(long, value_parser = Profile::named)]
    target: Option<&'static Profile>,
    /// Storage precision.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// For a task: its backbone, as imported.
    #[arg(long, value_name = "FILE")]
    backbone: Option<PathBuf>,
    /// Images to calibrate on (train/) and to measure the loss on (test/, else val/, else train/).
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Number of images for int8 calibration [default: 256].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    calibrate: Option<u32>,
    /// Bits to quantise an int8 task's weights to, 4 to 8. In memory each weight takes a byte, but fewer bits
    /// make the compressed bundle smaller [default: the first of 6, 7 and 8 that stays within --max-drop on
    /// val/ if there is also a test/, else on train/; on 2,000 images at most].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(4..=8))]
    bits: Option<u8>,
    /// Maximum accuracy loss in points; a greater loss writes nothing [default: 0.5].
    #[arg(long, value_name = "POINTS", value_parser = points)]
    max_drop: Option<f64>,
    /// Where to write the packed file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Secret key to sign with; the development key if omitted.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Fact to store in the file, such as batch=A7, replacing any existing value of this key; repeatable.
    #[arg(long = "fact", value_name = "KEY=VALUE", value_parser = fact)]
    facts: Vec<(String, String)>,
    /// Security counter, to be raised with each version that must not be rolled back. A device stores it with
    /// the bundle, but does not compare it yet [default: the file's own].
    #[arg(long, value_name = "N")]
    counter: Option<u64>,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

/// Default number of images for calibration.
const CALIBRATE: u32 = 256;

/// Default maximum accuracy loss, in points.
const MAX_DROP: f64 = 0.5;

/// Weight bit widths to try for an int8 task, in order. Each bit makes a bundle about an eighth larger.
const BITS: [u8; 3] = [6, 7, 8];

/// A packed file.
struct Packed {
    bytes: Vec<u8>,
    /// The loss, and the split of the images it was measured on.
    loss: Option<(Loss, &'static str)>,
    /// Bits of an int8 task's weights.
    bits: Option<Bits>,
}

impl From<Chosen> for Packed {
    fn from(Chosen { bytes, loss, split, bits }: Chosen) -> Packed {
        Packed { bytes, loss: Some((loss, split)), bits }
    }
}

impl Pack {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let inputs = [Some(&self.file), self.backbone.as_ref(), self.data.as_ref(), self.key.as_ref()];
        let inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
        destination::check("--out", &self.out, &inputs)?;
        let signers: Vec<SigningKey> = self.key.as_deref().map(read_key).transpose()?.into_iter().collect();
        let mut input = Loaded::read(&self.file)?;
        let file = input.file();
        let before = file.bytes.len();
        let parsed = file.parse()?;
        let kind = parsed.manifest().kind;
        check_unpacked(file, kind)?;
        self.check(kind)?;
        if signers.is_empty() && parsed.signers().iter().any(|signer| !signer.is_development()) {
            note!(
                "tailor: the signatures of {} do not cover the packed file: sign {} \
                 afterwards (`tailor sign`), or give the key now (--key)",
                file.name,
                self.out.display()
            );
        }
        if self.restates() {
            input = input.with(precision::restated(file, &self.facts, self.counter, &signers)?);
        }
        let file = input.file();
        let packed = match kind {
            _ if !self.repacks() => Packed { bytes: file.bytes.to_vec(), loss: None, bits: None },
            Kind::Backbone => self.backbone(file, &signers)?,
            Kind::Task => self.task(file, &signers)?,
        };
        if let Some((loss, _)) = &packed.loss {
            let finer = packed.bits.filter(|bits| self.bits.is_none() && bits.count() < 8);
            let hint = finer.map_or(String::new(), |bits| {
                format!(" with weights of {} bits; try --bits 8", bits.count())
            });
            loss.check(self.max_drop()).with_context(|| format!("{} is not packed{hint}", file.name))?;
        }
        write_atomically(&self.out, &packed.bytes)?;
        self.report(before, &packed)
    }

    /// Whether facts or the counter change.
    fn restates(&self) -> bool {
        !self.facts.is_empty() || self.counter.is_some()
    }

    /// Whether numbers or their order change.
    fn repacks(&self) -> bool {
        self.precision != Precision::F32 || self.target.is_some()
    }

    fn max_drop(&self) -> f64 {
        self.max_drop.unwrap_or(MAX_DROP)
    }

    /// Rejects a command that changes nothing in a file of this `kind`, and options that have no effect on it.
    fn check(&self, kind: Kind) -> Result<(), Error> {
        if !self.repacks() && !self.restates() {
            let want = match kind {
                Kind::Backbone => {
                    "the backbone is f32 already: give f16 or int8, or the --target to reorder its kernels for \
                     (`tailor targets`), or a --fact or --counter to record"
                }
                Kind::Task => "the task is f32 already: give f16 or int8, or a --fact or --counter to record",
            };
            return Err(Error::config("--precision f32", want));
        }
        let (is_task, has_data) = (kind == Kind::Task, self.data.is_some());
        let (is_f32, is_int8) = (self.precision == Precision::F32, self.precision == Precision::Int8);
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let target = self.target.map(|target| target.name.to_owned());
        let bits = self.bits.map(|bits| bits.to_string());
        let calibrate = self.calibrate.map(|images| images.to_string());
        // Option, value if given, whether it has an effect, and why not.
        let options = [
            ("bits", bits.clone(), is_int8, "only applies to --precision int8"),
            (
                "bits",
                bits,
                is_task,
                "only applies to tasks: a backbone is mapped uncompressed, so fewer bits save nothing",
            ),
            ("target", target, !is_task, "only applies to backbones: tasks are the same for all devices"),
            ("backbone", path(&self.backbone), is_task, "only applies to tasks"),
            ("backbone", path(&self.backbone), !is_f32, "not with f32: the task stays as it is"),
            ("data", path(&self.data), !is_f32, "not with f32, in which no accuracy is lost"),
            ("calibrate", calibrate.clone(), is_int8, "only applies to --precision int8"),
            ("calibrate", calibrate, has_data, "has no effect without --data, which has the images"),
            (
                "max-drop",
                self.max_drop.map(|points| points.to_string()),
                has_data,
                "has no effect without --data, on which the loss is measured",
            ),
        ];
        let idle = options.into_iter().find_map(|(option, value, applies, want)| {
            let value = value.filter(|_| !applies)?;
            Some(Error::config(format!("--{option} {value}"), want))
        });
        idle.map_or(Ok(()), Err)
    }

    fn backbone(&self, file: File<'_>, signers: &[SigningKey]) -> anyhow::Result<Packed> {
        let isa = self.isa()?.unwrap_or(Isa::Portable);
        let bytes = precision::backbone(file, self.precision, isa, signers)?;
        let Some(data) = &self.data else { return Ok(Packed { bytes, loss: None, bits: None }) };
        let Some(task) = precision::source_task(file)? else {
            let want = format!("must be omitted: {} has no source classifier to measure", file.name);
            return Err(Error::config("--data", want).into());
        };
        let own = File { name: file.name, bytes: &task };
        // Here f16 is measured with the same numbers, but computed in f32.
        let here = if isa.is_half() {
            &precision::backbone(file, self.precision, Isa::Portable, &[])?
        } else {
            &bytes
        };
        let packed = File { name: file.name, bytes: here };
        let Chosen { loss, split, .. } =
            self.rounded(own, (&self.file, file), packed, data, &[Bits::ALL], &[])?;
        Ok(Packed { bytes, loss: Some((loss, split)), bits: None })
    }

    /// The instruction set of the target in this precision.
    fn isa(&self) -> anyhow::Result<Option<Isa>> {
        let Some(target) = self.target else { return Ok(None) };
        let half = target.isa_f16.filter(|_| self.precision == Precision::F16);
        Ok(Some(half.unwrap_or(target.isa).parse()?))
    }

    fn task(&self, file: File<'_>, signers: &[SigningKey]) -> anyhow::Result<Packed> {
        let refuse = |option: &str, want: &str| Err(Error::config(option, want).into());
        let Some(path) = &self.backbone else {
            return refuse("--backbone", "required: the task's backbone, as imported");
        };
        let source = Loaded::read(path)?;
        check_unpacked(source.file(), Kind::Backbone)?;
        let Some(data) = &self.data else {
            return refuse(
                "--data",
                "required: the loss is measured on images (and int8 calibrated on them)",
            );
        };
        let packed = source.with(precision::backbone(source.file(), self.precision, Isa::Portable, &[])?);
        let (source, packed) = (source.file(), packed.file());
        let asked = self.bits.as_ref().map_or(&BITS[..], std::slice::from_ref);
        let tries: Vec<Bits> = asked.iter().filter_map(|&bits| Bits::new(bits)).collect();
        Ok(self.rounded(file, (path, source), packed, data, &tries, signers)?.into())
    }

    /// Packs `task` in this precision and measures the loss on `data`. `source` is its backbone as imported,
    /// `packed` the one it will run on.
    fn rounded(
        &self,
        task: File<'_>,
        source: (&Path, File<'_>),
        packed: File<'_>,
        data: &Path,
        bits: &[Bits],
        signers: &[SigningKey],
    ) -> anyhow::Result<Chosen> {
        let bundle = task.parse()?;
        let manifest = bundle.manifest();
        let dataset = load_images(data, manifest.preprocess.height, &Progress::visible())?;
        // A backbone without class names uses numbers as labels.
        let is_named = manifest.labels.iter().enumerate().any(|(class, label)| *label != class.to_string());
        let names = if is_named { &manifest.labels[..] } else { &[] };
        check_classes(data, &dataset.classes, manifest.plan.classes(), names)?;
        let (path, source) = source;
        let grids = match self.precision {
            Precision::Int8 => {
                let backbone = Source::open(path, &Device::Cpu)?;
                let images = self.calibrate.unwrap_or(CALIBRATE) as usize;
                Some(precision::calibrate_on(task, &backbone, &dataset.train, images)?)
            }
            Precision::F32 | Precision::F16 => None,
        };
        let grids = grids.as_deref();
        let trial = Trial { task, source, packed, grids, bits, max_drop: self.max_drop() };
        Ok(trial.pack(&dataset, signers)?)
    }

    fn report(&self, before: usize, packed: &Packed) -> anyhow::Result<()> {
        let Packed { bytes, loss, bits } = packed;
        let (loss, split) = loss.map_or((None, None), |(loss, split)| (Some(loss), Some(split)));
        let after = bytes.len();
        let ratio = before as f64 / after as f64;
        let bundle = Bundle::parse(bytes)?;
        let manifest = bundle.manifest();
        let target = self.isa()?;
        let arithmetic = Form::of(manifest).arithmetic(target);
        let (isa, needs) = match target {
            Some(isa) => (isa.name(), precision::needs(manifest, isa)?),
            None => ("any", precision::most_needed(manifest)?),
        };
        if self.json {
            let line = serde_json::json!({
                "file": self.out.display().to_string(), "bytes": after, "bytes_before": before,
                "bits": bits.map(Bits::count),
                "accuracy_before": loss.map(|loss| loss.before.accuracy()),
                "accuracy": loss.map(|loss| loss.after.accuracy()),
                "drop_points": loss.map(|loss| loss.points()), "n": loss.map(|loss| loss.before.n),
                "split": split,
                "isa": isa, "arithmetic": arithmetic,
                "memory_bytes": {
                    "arena": needs.arena, "scratch": needs.scratch,
                    "task": needs.task, "kernels": needs.kernels,
                },
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
            None => out!("accuracy loss not measured (needs --data)"),
        }
        let kib = |bytes: usize| bytes.div_ceil(1024);
        let on = if self.target.is_some() { isa.into() } else { format!("at most, on {isa} device") };
        let (arena, scratch) = (kib(needs.arena), kib(needs.scratch));
        match manifest.kind {
            Kind::Backbone => out!(
                "{:<16} {} KiB of kernels, mapped; {arena} KiB of arena and {scratch} KiB of scratch for its \
                 own network in {arithmetic} on one thread ({on}); tasks share one workspace, as large as \
                 the largest needs",
                "memory",
                kib(needs.kernels)
            ),
            Kind::Task => out!(
                "{:<16} {} KiB of its own; {arena} KiB of arena and {scratch} KiB of scratch in {arithmetic} \
                 on one thread ({on}), which all tasks share; {} KiB of the backbone's kernels",
                "memory",
                kib(needs.task),
                kib(needs.kernels)
            ),
        }
        Ok(())
    }
}

/// Refuses files that are already packed: lost precision cannot be recovered, and kernels are reordered only
/// once.
fn check_unpacked(file: File<'_>, kind: Kind) -> anyhow::Result<()> {
    let form = Form::of(file.parse()?.manifest());
    if form == Form::Plain {
        return Ok(());
    }
    let made = match kind {
        Kind::Backbone => "`tailor import` or `tailor pretrain` wrote",
        Kind::Task => "`tailor fit` made",
    };
    let want = format!("already packed ({form}): start from what {made}");
    Err(Error::config(file.name, want).into())
}

/// Parses a difference of two accuracies in points.
fn points(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(points) if (-100.0..=100.0).contains(&points) => Ok(points),
        _ => Err("a number of points from -100 (a gain) to 100 is needed".into()),
    }
}

/// Parses `KEY=VALUE` and checks that a bundle can store it.
fn fact(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    check_fact(key, value).map_err(|error| error.to_string())?;
    Ok((key.into(), value.into()))
}
