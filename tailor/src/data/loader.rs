//! Batches of normalised images, prepared ahead on another thread.

use super::{Augment, Images, Split};
use crate::{Error, Result, random::Random};
use bundles::preprocess::Normaliser;
use candle_core::{Device, Tensor};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Batches prepared in advance.
const AHEAD: usize = 3;

/// One batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `(n, 3, h, w)`, `f32`, normalised.
    pub images: Tensor,
    /// `(n,)`, `u32`.
    pub labels: Tensor,
    /// Indices of the images in the split.
    pub indices: Vec<usize>,
}

/// Makes batches from one split.
#[derive(Debug, Clone)]
pub struct Loader {
    images: Images,
    labels: Arc<Vec<u32>>,
    normaliser: Arc<Normaliser>,
    batch: usize,
    balanced: bool,
    device: Device,
}

impl Loader {
    /// A loader for batches of `batch` images of `split`, normalised with `mean` and `std` (of pixels scaled
    /// to 0..1), on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for a batch of 0, [`Error::Bundle`] for an invalid normalisation.
    pub fn new(
        split: &Split,
        mean: [f32; 3],
        std: [f32; 3],
        batch: usize,
        device: &Device,
    ) -> Result<Loader> {
        if batch == 0 {
            return Err(Error::config("--batch 0", "at least 1"));
        }
        Ok(Loader {
            images: split.images.clone(),
            labels: Arc::new(split.labels.clone()),
            normaliser: Arc::new(Normaliser::new(mean, std)?),
            batch,
            balanced: false,
            device: device.clone(),
        })
    }

    /// Makes training epochs draw every class equally often (give or take one image), repeating images of
    /// small classes. The length of an epoch does not change.
    #[must_use]
    pub fn balanced(self, balanced: bool) -> Loader {
        Loader { balanced, ..self }
    }

    /// Number of images in the split.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if the split has no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of batches in one epoch of [`train`](Loader::train).
    pub fn steps(&self) -> usize {
        self.len() / self.batch
    }

    /// One training epoch: shuffled, augmented, the incomplete last batch dropped.
    ///
    /// Order and augmentation are a function of `seed`, `epoch`, the image's index and, for repeated images,
    /// the number of earlier occurrences.
    ///
    /// # Errors
    /// [`Error::Config`] if there are fewer images than one batch holds.
    pub fn train(&self, seed: u64, epoch: u64, augment: Augment) -> Result<Batches> {
        if self.steps() == 0 {
            let option = format!("--batch {}", self.batch);
            return Err(Error::config(
                option,
                format!("at most {}, the number of training images", self.len()),
            ));
        }
        let images = self.steps() * self.batch;
        let mut order: Vec<usize> =
            if self.balanced { self.balance(seed, epoch, images) } else { (0..self.len()).collect() };
        Random::new(&[seed, SHUFFLE, epoch]).shuffle(&mut order);
        order.truncate(images);
        Ok(self.batches(order, Some((seed, epoch, augment))))
    }

    /// Draws `images` images: every class equally often, and every image of a class equally often, give or
    /// take one. Which classes and images occur once more is random.
    fn balance(&self, seed: u64, epoch: u64, images: usize) -> Vec<usize> {
        let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (i, &label) in self.labels.iter().enumerate() {
            members.entry(label).or_default().push(i);
        }
        let mut random = Random::new(&[seed, BALANCE, epoch]);
        let mut classes: Vec<Vec<usize>> = members.into_values().collect();
        classes.iter_mut().for_each(|members| random.shuffle(members));
        random.shuffle(&mut classes);
        (0..images)
            .map(|i| (i % classes.len(), i / classes.len()))
            .map(|(c, i)| classes[c][i % classes[c].len()])
            .collect()
    }

    /// Every image once, in order and unchanged, the incomplete last batch included.
    pub fn eval(&self) -> Batches {
        self.batches((0..self.len()).collect(), None)
    }

    /// Every image once, in order, augmented as in [`train`](Loader::train), the incomplete last batch
    /// included. Augmentation is a function of `seed`, `look` and the image's index.
    pub fn look(&self, seed: u64, look: u64, augment: Augment) -> Batches {
        self.batches((0..self.len()).collect(), Some((seed ^ LOOK, look, augment)))
    }

    /// These images, in this order and unchanged, the incomplete last batch included.
    pub fn of(&self, indices: Vec<usize>) -> Batches {
        self.batches(indices, None)
    }

    fn batches(&self, order: Vec<usize>, random: Option<(u64, u64, Augment)>) -> Batches {
        let remaining = order.len().div_ceil(self.batch);
        let (send, receive) = sync_channel(AHEAD);
        let (loader, device) = (self.clone(), self.device.clone());
        let worker = thread::spawn(move || {
            let mut seen = vec![0; if random.is_some() { loader.len() } else { 0 }];
            for indices in order.chunks(loader.batch) {
                // The receiver is gone if training stops early.
                if send.send(loader.prepare(indices, random, &mut seen)).is_err() {
                    break;
                }
            }
        });
        Batches { receive: Some(receive), worker: Some(worker), remaining, device }
    }

    /// Prepares one batch; `seen[i]` counts occurrences of image `i` in this epoch.
    fn prepare(&self, indices: &[usize], random: Option<(u64, u64, Augment)>, seen: &mut [u64]) -> Prepared {
        let size = self.images.size();
        let area = size.area();
        let mut input = vec![0.0; indices.len() * 3 * area];
        let mut changed = Vec::new();
        for (&index, input) in indices.iter().zip(input.chunks_exact_mut(3 * area)) {
            let mut pixels = self.images.get(index);
            if let Some((seed, epoch, augment)) = random {
                augment.apply(pixels, size, [seed, epoch, index as u64, seen[index]], &mut changed);
                seen[index] += 1;
                pixels = &changed;
            }
            for (c, plane) in input.chunks_exact_mut(area).enumerate() {
                for (out, pixel) in plane.iter_mut().zip(pixels.chunks_exact(3)) {
                    *out = self.normaliser.value(c, pixel[c]);
                }
            }
        }
        let labels = indices.iter().map(|&i| self.labels[i]).collect();
        Prepared {
            input,
            labels,
            indices: indices.to_vec(),
            shape: (indices.len(), 3, size.height, size.width),
        }
    }
}

/// Keep the random streams of one seed independent.
const SHUFFLE: u64 = 0x7368_7566;
const BALANCE: u64 = 0x6261_6c61;
const LOOK: u64 = 0x6c6f_6f6b;

/// A batch before conversion to tensors.
struct Prepared {
    input: Vec<f32>,
    labels: Vec<u32>,
    indices: Vec<usize>,
    shape: (usize, usize, usize, usize),
}

/// The batches of one epoch, in order. Dropping it early stops the thread that prepares them.
pub struct Batches {
    receive: Option<Receiver<Prepared>>,
    worker: Option<JoinHandle<()>>,
    remaining: usize,
    device: Device,
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let prepared = match self.receive.as_ref()?.recv() {
            Ok(prepared) => prepared,
            Err(_) if self.remaining == 0 => return None,
            Err(_) => {
                // The thread panicked; returning `None` would look like the end of the epoch.
                self.remaining = 0;
                let want = "this is a bug; please report it";
                return Some(Err(Error::training("loader", "the thread that prepares batches died", want)));
            }
        };
        self.remaining -= 1;
        let n = prepared.labels.len();
        let make = || -> Result<Batch> {
            Ok(Batch {
                images: Tensor::from_vec(prepared.input, prepared.shape, &self.device)?,
                labels: Tensor::from_vec(prepared.labels, n, &self.device)?,
                indices: prepared.indices,
            })
        };
        Some(make())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Batches {}

impl Drop for Batches {
    fn drop(&mut self) {
        // Hang up first, or the worker would wait for ever for room in the channel.
        drop(self.receive.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
