//! Takes every tensor the plan needs from a state dict and checks it.

use super::{Imported, NORM_EPS};
use crate::{Error, Result, weights::Tensor};
use bundles::plan::{Arch, Linear, Op};
use std::collections::{BTreeMap, BTreeSet};

/// The classifier.
const HEAD: &str = "fc";

/// Fills the plan of `arch` from `tensors`, which have canonical names. Mean and standard deviation are left
/// at 0 and 1.
pub(super) fn fit(arch: Arch, tensors: BTreeMap<String, Tensor>, place: &str) -> Result<Imported> {
    let classes = tensors.get("fc.weight").and_then(|fc| fc.shape.first().copied()).filter(|&n| n > 0);
    let size = arch.native_size();
    let plan = arch.plan(size, size, classes.unwrap_or(1))?;
    let mut fitting =
        Fitting { arch, place, source: tensors, taken: BTreeMap::new(), folded: 0, notes: Vec::new() };

    let gates = plan.cells.iter().flat_map(|cell| &cell.gates);
    let bodies = gates.flat_map(|gate| &gate.paths).map(|path| &path.ops);
    let lines: Vec<&Vec<Op>> = [&plan.stem].into_iter().chain(bodies).chain([&plan.head]).collect();
    let mut classifier = false;
    for ops in lines {
        let mut before: Option<&str> = None;
        for op in ops {
            match op {
                Op::Conv(conv) => {
                    let shape = [conv.c_out, conv.c_in, conv.kernel, conv.kernel];
                    fitting.take(&format!("{}.weight", conv.name), &shape)?;
                }
                Op::Affine(norm) => fitting.norm(&norm.name, norm.channels, before)?,
                Op::Linear(linear) => classifier = fitting.classifier(linear)?,
                Op::Relu
                | Op::MaxPool { .. }
                | Op::AvgPool { .. }
                | Op::Subsample { .. }
                | Op::PadChannels { .. }
                | Op::GlobalAvgPool => {}
            }
            before = match op {
                Op::Conv(conv) => Some(&conv.name),
                _ => None,
            };
        }
    }
    let Fitting { source, taken, folded, mut notes, .. } = fitting;
    let norms = taken.keys().filter(|name| name.ends_with(".running_var")).count();
    if folded != 0 && folded != norms {
        let found = format!("{folded} of {norms} norms folded into convolution biases, the others not");
        return Err(Error::import(place, found, "all or none must be folded"));
    }
    // Unused tensors outside our layers, such as another head, are ignored; inside one, they mean a different
    // layer.
    let layers: BTreeSet<String> =
        plan.tensors().iter().filter_map(|spec| Some(spec.name.split_once('.')?.0.to_owned())).collect();
    let inside = |name: &&String| {
        name.split_once('.').is_some_and(|(layer, _)| layer != HEAD && layers.contains(layer))
    };
    if let Some(name) = source.keys().find(inside) {
        let want = "weights of one of the architectures that `tailor import --help` names";
        return Err(Error::import(format!("{place}: tensor `{name}`"), format!("no part of {arch}"), want));
    }
    if !source.is_empty() {
        let names: Vec<&str> = source.keys().map(String::as_str).collect();
        let shown = names[..names.len().min(8)].join(", ");
        let more = if names.len() > 8 { ", ..." } else { "" };
        notes
            .push(format!("{} tensors are not part of {arch} and were left out: {shown}{more}", names.len()));
    }
    if folded > 0 {
        notes.push("norms are folded into biases; their statistics are unknown".into());
    }
    Ok(Imported {
        plan,
        arch,
        tensors: taken,
        classifier,
        labels: Vec::new(),
        folded: folded > 0,
        mean: [0.0; 3],
        std: [1.0; 3],
        facts: BTreeMap::new(),
        notes,
    })
}

struct Fitting<'a> {
    arch: Arch,
    place: &'a str,
    /// Tensors not taken yet.
    source: BTreeMap<String, Tensor>,
    taken: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Number of norms reconstructed from biases.
    folded: usize,
    notes: Vec<String>,
}

impl Fitting<'_> {
    fn refuse(&self, name: &str, found: String, want: String) -> Error {
        Error::import(format!("{}: tensor `{name}`", self.place), found, want)
    }

    /// Moves a tensor over unchanged.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        if self.taken.contains_key(name) {
            return Ok(());
        }
        let Some(tensor) = self.source.remove(name) else {
            return Err(self.refuse(
                name,
                "missing".into(),
                format!("{} needs it, of shape {shape:?}", self.arch),
            ));
        };
        if tensor.shape != shape {
            let want = format!("{} needs {shape:?} (--arch chooses another architecture)", self.arch);
            return Err(self.refuse(name, format!("shape {:?}", tensor.shape), want));
        }
        if let Some(i) = tensor.data.iter().position(|value| !value.is_finite()) {
            let found = format!("the value {} at {i}", tensor.data[i]);
            return Err(self.refuse(name, found, "weights must be finite".into()));
        }
        self.taken.insert(name.to_owned(), (tensor.shape, tensor.data));
        Ok(())
    }

    /// The four vectors of a norm, or their equivalents if it was folded into the convolution `before`.
    fn norm(&mut self, name: &str, channels: usize, before: Option<&str>) -> Result<()> {
        let part = |part: &str| format!("{name}.{part}");
        if self.taken.contains_key(&part("running_var")) {
            return Ok(());
        }
        let conv_bias = before.map(|conv| format!("{conv}.bias"));
        let bias = match conv_bias.filter(|bias| self.source.contains_key(bias)) {
            Some(bias) => {
                self.take(&bias, &[channels])?;
                self.taken.remove(&bias).map(|(_, values)| values)
            }
            None => None,
        };
        let parts = ["weight", "bias", "running_mean", "running_var"];
        if let Some(bias) =
            bias.as_ref().filter(|_| parts.iter().all(|p| !self.source.contains_key(&part(p))))
        {
            // A variance of 1 - eps makes the divisor exactly one.
            let values =
                [vec![1.0; channels], bias.clone(), vec![0.0; channels], vec![1.0 - NORM_EPS; channels]];
            for (p, values) in parts.iter().zip(values) {
                self.taken.insert(part(p), (vec![channels], values));
            }
            self.folded += 1;
            return Ok(());
        }
        for p in parts {
            self.take(&part(p), &[channels])?;
        }
        let variance = &self.taken[&part("running_var")].1;
        if let Some(&value) = variance.iter().find(|&&value| value < 0.0) {
            let want = "a variance is never negative".into();
            return Err(self.refuse(&part("running_var"), format!("the value {value}"), want));
        }
        if let (Some(bias), Some((_, mean))) = (bias, self.taken.get_mut(&part("running_mean"))) {
            // norm(conv + bias) equals a norm of conv with mean - bias as its mean.
            mean.iter_mut().zip(bias).for_each(|(mean, bias)| *mean -= bias);
        }
        Ok(())
    }

    /// The source classifier, if present and matching.
    fn classifier(&mut self, linear: &Linear) -> Result<bool> {
        let (weight, bias) = (format!("{}.weight", linear.name), format!("{}.bias", linear.name));
        let Some(fc) = self.source.get(&weight) else {
            self.notes.push("it has no classifier".into());
            return Ok(false);
        };
        if fc.shape != [linear.c_out, linear.c_in] {
            let (shape, features) = (fc.shape.clone(), linear.c_in);
            let note = format!("its classifier {shape:?} was dropped: {} has {features} features", self.arch);
            self.notes.push(note);
            self.source.remove(&weight);
            self.source.remove(&bias);
            return Ok(false);
        }
        self.take(&weight, &[linear.c_out, linear.c_in])?;
        if !self.source.contains_key(&bias) {
            let zeros = Tensor { shape: vec![linear.c_out], data: vec![0.0; linear.c_out] };
            self.source.insert(bias.clone(), zeros);
        }
        self.take(&bias, &[linear.c_out])?;
        Ok(true)
    }
}
