//! A backbone file opened for training: architecture, parameters, normalisation and identity.

use crate::net::{Net, Params, Pass};
use crate::{Error, Result, import};
use bundles::plan::{Arch, Plan};
use candle_core::{Device, Tensor};
use std::path::Path;

/// A backbone ready to be tailored.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its architecture.
    pub arch: Arch,
    /// Its plan, with the source classifier, if there is one.
    pub plan: Plan,
    /// Kernels, norms and classifier, all frozen.
    pub params: Params,
    /// Per-channel mean of pixels scaled to 0..1.
    pub mean: [f32; 3],
    /// Per-channel standard deviation.
    pub std: [f32; 3],
    /// Hash of its universal kernels.
    pub id: [u8; 32],
    /// Whether its norms were folded into biases: their statistics are unknown until
    /// [`calibrate`](Source::calibrate) has seen images.
    pub folded: bool,
    /// Whether it has its source classifier.
    pub classifier: bool,
    /// Names of the source classifier's classes; empty if unknown.
    pub labels: Vec<String>,
    /// Size of the file in bytes.
    pub bytes: u64,
}

impl Source {
    /// Reads a backbone file.
    ///
    /// # Errors
    /// [`Error::Io`], or any error in the container.
    pub fn open(path: &Path, device: &Device) -> Result<Source> {
        let (backbone, id) = import::read_backbone(path)?;
        let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
        let mut params = Params::default();
        for (name, (shape, values)) in &backbone.tensors {
            params.freeze(name.clone(), Tensor::from_slice(values, shape.as_slice(), device)?);
        }
        Ok(Source {
            arch: backbone.arch,
            plan: backbone.plan,
            params,
            mean: backbone.mean,
            std: backbone.std,
            id,
            folded: backbone.folded,
            classifier: backbone.classifier,
            labels: backbone.labels,
            bytes,
        })
    }

    /// Image height and width the backbone was trained for.
    pub fn size(&self) -> usize {
        self.plan.input.h
    }

    /// Restores the statistics that folded norms have lost, as measured on `images` `(n, 3, h, w)`: weight,
    /// bias, mean and variance are set so that inference stays the same. Does nothing to other backbones.
    ///
    /// # Errors
    /// If the images do not fit the plan.
    pub fn calibrate(&mut self, images: &Tensor) -> Result<()> {
        if !self.folded {
            return Ok(());
        }
        let (_, _, height, width) = images.dims4()?;
        let plan = self.arch.plan(height, width, 2)?;
        let stats = Net { plan: &plan, params: &self.params }.observe(images)?;
        for stat in stats {
            let (scale, shift) = self.params.scale_shift(&stat.norm)?;
            let deviation = (&stat.var + crate::net::NORM_EPS)?.sqrt()?;
            let set = [
                ("weight", (&scale * deviation)?),
                ("bias", ((&scale * &stat.mean)? + shift)?),
                ("running_mean", stat.mean),
                ("running_var", stat.var),
            ];
            for (part, value) in set {
                self.params.set(&format!("{}.{part}", stat.norm), &value)?;
            }
        }
        self.folded = false;
        Ok(())
    }

    /// Scores of the source classifier.
    ///
    /// # Errors
    /// If the classifier was dropped or the images do not fit.
    pub fn classify(&self, images: &Tensor) -> Result<Tensor> {
        Ok(Net { plan: &self.plan, params: &self.params }.forward(images, Pass::Infer)?.logits)
    }
}
