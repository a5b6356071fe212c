//! The methods, their names and their learning rates.

use super::bench::{Bench, Trained};
use super::{adapters, dan, features, finetune, lwf, packnet, piggyback};
use crate::fit::Recipe;
use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// A method of adapting a backbone to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// All weights are trained.
    FineTune,
    /// A linear classifier on frozen features.
    Features,
    /// PackNet with half of the backbone's weights pruned.
    PackNet50,
    /// PackNet with three quarters of the backbone's weights pruned.
    PackNet75,
    /// Binary masks on frozen weights.
    Piggyback,
    /// All weights, constrained by the source classifier's responses.
    Lwf,
    /// Linear combinations of each layer's filters.
    Dan,
    /// A residual 1x1 adapter after each kernel.
    Series,
    /// A 1x1 adapter in parallel to each kernel.
    Parallel,
    /// NetTailor, by this project's `fit`.
    Tailor,
}

impl Method {
    /// All methods, in the order of the table.
    pub const ALL: [Method; 10] = [
        Method::FineTune,
        Method::Features,
        Method::PackNet50,
        Method::PackNet75,
        Method::Piggyback,
        Method::Lwf,
        Method::Dan,
        Method::Series,
        Method::Parallel,
        Method::Tailor,
    ];

    /// The name in options, files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Method::FineTune => "fine-tune",
            Method::Features => "features",
            Method::PackNet50 => "packnet-50",
            Method::PackNet75 => "packnet-75",
            Method::Piggyback => "piggyback",
            Method::Lwf => "lwf",
            Method::Dan => "dan",
            Method::Series => "adapters-series",
            Method::Parallel => "adapters-parallel",
            Method::Tailor => "tailor",
        }
    }

    /// Peak rate of its one-cycle schedule; `None` for methods that use the schedules of `fit`'s recipe.
    ///
    /// Chosen on validation images alone: CIFAR-100 ResNet-20, 5,000 images of Fashion-MNIST, six epochs,
    /// seed 1. Candidates were 0.02, 0.05, 0.1 and 0.2 (`packnet-75` 0.1 and 0.2; `adapters-parallel` also
    /// 0.4). 0.1 was the best, or as good as the best, for all but `adapters-parallel`, which does better at
    /// 0.2 (90.3 % against 88.8 %). For a classifier on frozen features, 0.05 to 3 were tried on sign-digits
    /// and Fashion-MNIST, where 0.2 to 2 are equivalent. Fine-tuning at 0.1 instead of the recipe's 0.05
    /// gained 0.4 points there, three images; it keeps the recipe's rate, because it is the teacher.
    pub fn peak(self) -> Option<f64> {
        match self {
            Method::FineTune | Method::Tailor => None,
            Method::Features => Some(features::PEAK),
            Method::PackNet50 | Method::PackNet75 => Some(0.1),
            Method::Piggyback => Some(0.1),
            Method::Lwf => Some(0.1),
            Method::Dan => Some(0.1),
            Method::Series => Some(0.1),
            Method::Parallel => Some(0.2),
        }
    }

    /// Epochs of each stage that uses, or may use, the method's [rate](Method::peak).
    pub fn stages(self, recipe: &Recipe) -> Vec<usize> {
        let epochs = recipe.teach.epochs;
        match self {
            Method::Features => vec![features::epochs(recipe)],
            Method::PackNet50 | Method::PackNet75 => [&packnet::stages(epochs)[..], &[epochs]].concat(),
            Method::Lwf => vec![lwf::stages(epochs)[1]],
            _ => vec![epochs],
        }
    }

    /// Whether training on a task builds on the network left by earlier tasks.
    pub fn is_sequential(self) -> bool {
        matches!(self, Method::PackNet50 | Method::PackNet75)
    }

    /// Trains the method on the task of `bench`.
    ///
    /// # Errors
    /// [`Error::Config`] if the backbone lacks what the method needs; any error of training.
    pub fn train(self, bench: &Bench<'_>) -> Result<Trained> {
        match self {
            Method::FineTune => finetune::train(bench),
            Method::Features => features::train(bench),
            Method::PackNet50 => packnet::train(bench, 0.5),
            Method::PackNet75 => packnet::train(bench, 0.75),
            Method::Piggyback => piggyback::train(bench),
            Method::Lwf => lwf::train(bench),
            Method::Dan => dan::train(bench),
            Method::Series => adapters::train(bench, adapters::Place::Series),
            Method::Parallel => adapters::train(bench, adapters::Place::Parallel),
            Method::Tailor => Err(Error::config("tailor", "trained by `fit`, not as a baseline")),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Method> {
        Method::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
            Error::config(format!("method `{text}`"), format!("one of {}", known.join(", ")))
        })
    }
}
