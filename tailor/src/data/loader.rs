//! Batches of normalised images, prepared ahead of training on another thread.

use super::{Images, Split};
use crate::{Error, Result, random::Random};
use bundles::preprocess::Normaliser;
use candle_core::{Device, Tensor};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Batches prepared before they are asked for.
const AHEAD: usize = 3;

/// What is changed at random in every training image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Augment {
    /// Shifts by up to this many pixels in both directions; black comes in.
    pub crop_pad: usize,
    /// Mirrors left and right every second time. Not for text, signs or anything with a handedness.
    pub flip: bool,
}

impl Augment {
    /// Refuses shifts that would leave little of an image of `size` pixels.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, size: usize) -> Result<()> {
        if self.crop_pad > size / 2 {
            let want = format!("at most {}, half of the {size} pixels of an image", size / 2);
            return Err(Error::config(format!("--crop {}", self.crop_pad), want));
        }
        Ok(())
    }
}

/// One batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `(n, 3, h, w)`, `f32`, normalised.
    pub images: Tensor,
    /// `(n,)`, `u32`.
    pub labels: Tensor,
    /// Which images of the split these are.
    pub indices: Vec<usize>,
}

/// Makes batches of one split.
#[derive(Debug, Clone)]
pub struct Loader {
    images: Images,
    labels: Arc<Vec<u32>>,
    normaliser: Arc<Normaliser>,
    batch: usize,
    device: Device,
}

impl Loader {
    /// Batches of `batch` images of `split`, normalised with `mean` and `std` (of pixels scaled to 0..1), on
    /// `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for a batch of 0, [`Error::Bundle`] for a normalisation that cannot be.
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
            device: device.clone(),
        })
    }

    /// Images in the split.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True when the split has no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Batches of one epoch of [`train`](Loader::train).
    pub fn steps(&self) -> usize {
        self.len() / self.batch
    }

    /// One training epoch: shuffled, augmented, the incomplete last batch dropped.
    ///
    /// Order and augmentation are a function of `seed`, `epoch` and the image's index alone.
    ///
    /// # Errors
    /// [`Error::Config`] when there are fewer images than one batch holds.
    pub fn train(&self, seed: u64, epoch: u64, augment: Augment) -> Result<Batches> {
        if self.steps() == 0 {
            let option = format!("--batch {}", self.batch);
            return Err(Error::config(
                option,
                format!("at most {}, the number of training images", self.len()),
            ));
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        Random::new(&[seed, SHUFFLE, epoch]).shuffle(&mut order);
        order.truncate(self.steps() * self.batch);
        Ok(self.batches(order, Some((seed, epoch, augment))))
    }

    /// Every image once, in order and unchanged, the incomplete last batch included.
    pub fn eval(&self) -> Batches {
        self.batches((0..self.len()).collect(), None)
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
            for indices in order.chunks(loader.batch) {
                // The receiver is gone when training stops early: nobody is left to tell.
                if send.send(loader.prepare(indices, random)).is_err() {
                    break;
                }
            }
        });
        Batches { receive: Some(receive), worker: Some(worker), remaining, device }
    }

    fn prepare(&self, indices: &[usize], random: Option<(u64, u64, Augment)>) -> Prepared {
        let size = self.images.size();
        let area = size.area();
        let mut input = vec![0.0; indices.len() * 3 * area];
        for (&index, input) in indices.iter().zip(input.chunks_exact_mut(3 * area)) {
            let change = match random {
                Some((seed, epoch, augment)) => Change::draw(augment, &[seed, AUGMENT, epoch, index as u64]),
                None => Change::default(),
            };
            let pixels = self.images.get(index);
            for (c, plane) in input.chunks_exact_mut(area).enumerate() {
                for (y, row) in plane.chunks_exact_mut(size.width).enumerate() {
                    for (x, out) in row.iter_mut().enumerate() {
                        let pixel = change.source(y, x, size.height, size.width);
                        let value = pixel.map_or(0, |at| pixels[at * 3 + c]);
                        *out = self.normaliser.value(c, value);
                    }
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

/// Keep the draws of one seed apart from each other.
const SHUFFLE: u64 = 0x7368_7566;
const AUGMENT: u64 = 0x6175_676d;

/// What happens to one image: a shift and perhaps a mirroring.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    down: isize,
    right: isize,
    mirror: bool,
}

impl Change {
    fn draw(augment: Augment, key: &[u64]) -> Change {
        let mut random = Random::new(key);
        let mut shift = || random.below(2 * augment.crop_pad + 1) as isize - augment.crop_pad as isize;
        let (down, right) = (shift(), shift());
        Change { down, right, mirror: augment.flip && random.below(2) == 1 }
    }

    /// Which pixel comes to `(y, x)`; `None` where black comes in.
    fn source(&self, y: usize, x: usize, height: usize, width: usize) -> Option<usize> {
        let x = if self.mirror { width - 1 - x } else { x };
        let y = y.checked_add_signed(self.down).filter(|&y| y < height)?;
        let x = x.checked_add_signed(self.right).filter(|&x| x < width)?;
        Some(y * width + x)
    }
}

/// A batch before it becomes tensors.
struct Prepared {
    input: Vec<f32>,
    labels: Vec<u32>,
    indices: Vec<usize>,
    shape: (usize, usize, usize, usize),
}

/// The batches of one epoch, in order. Dropping it early ends the preparing thread.
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
                // Its thread panicked; ending quietly would pass for the end of the epoch.
                self.remaining = 0;
                let want = "this is a defect of the program, please report it";
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
        // Hang up first, or the worker would wait for room in the channel for ever.
        drop(self.receive.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
