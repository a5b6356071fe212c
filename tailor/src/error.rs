//! The error type of this library: what was found, where, and what would have been accepted.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a folder of images and a packed task.
///
/// Every message names the file, folder or tensor at fault and says what would have been accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An I/O operation failed.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A set of images cannot be used.
    Data {
        /// The file, folder or zip entry at fault.
        place: String,
        /// What was found there.
        found: String,
        /// What is needed, or what to do about it.
        want: String,
    },
    /// A file of weights cannot be read.
    Weights {
        /// The file.
        path: PathBuf,
        /// What was found there.
        found: String,
        /// What is needed, or what to do about it.
        want: String,
    },
    /// Weights do not fit the architecture they are imported into.
    Import {
        /// The tensor, or the file when no single tensor is at fault.
        place: String,
        /// What was found there.
        found: String,
        /// What is needed, or what to do about it.
        want: String,
    },
    /// An option, or a combination of options, is invalid; found before any work is done.
    Config {
        /// The option as the user typed it (`--batch 0`).
        option: String,
        /// What is accepted.
        want: String,
    },
    /// The requested device cannot be used.
    Device {
        /// The device as the user named it (`cuda:0`).
        device: String,
        /// What stands in the way.
        found: String,
        /// What to do about it.
        want: String,
    },
    /// A training run cannot continue.
    Training {
        /// The stage and epoch, for example `train, epoch 3`.
        place: String,
        /// What happened.
        found: String,
        /// What to do about it.
        want: String,
    },
    /// Training has led to numbers that are not finite.
    Diverged {
        /// The stage, epoch and step, for example `train, epoch 3, step 2 of 20`.
        place: String,
        /// What is not finite: `loss` or `network`.
        what: &'static str,
    },
    /// A training run was asked to stop.
    Interrupted {
        /// The stage, epoch and step it had reached.
        place: String,
        /// The checkpoint to resume from, if the interrupted work keeps one of its own.
        kept: Option<PathBuf>,
    },
    /// A network lacks a tensor its plan reads.
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor's shape differs from that in the network it is meant for.
    TensorShape {
        /// The tensor.
        name: String,
        /// The shape in the network.
        want: Vec<usize>,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A bundle is intact, but not signed by any trusted key.
    Untrusted {
        /// The bundle.
        path: PathBuf,
        /// The state of its signature.
        found: String,
    },
    /// Packing at reduced precision costs more accuracy than allowed.
    Precision {
        /// What it costs.
        found: String,
        /// What was allowed, and what to do about it.
        want: String,
    },
    /// The device runtime refused a bundle.
    Runtime(edge_runtime::Error),
    /// A backbone or task file is invalid.
    Container {
        /// The file, as it was given.
        file: String,
        /// What is wrong with it.
        source: bundles::Error,
    },
    /// A plan or a container is invalid.
    Bundle(bundles::Error),
    /// The tensor library reported an error.
    Tensor(candle_core::Error),
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// An [`Error::Container`] about `file`, for `map_err`.
    pub fn container(file: impl Into<String>) -> impl FnOnce(bundles::Error) -> Error {
        let file = file.into();
        move |source| Error::Container { file, source }
    }

    /// An [`Error::Data`].
    pub fn data(place: impl fmt::Display, found: impl Into<String>, want: impl Into<String>) -> Error {
        Error::Data { place: place.to_string(), found: found.into(), want: want.into() }
    }

    /// An [`Error::Weights`].
    pub fn weights(path: impl AsRef<Path>, found: impl Into<String>, want: impl Into<String>) -> Error {
        Error::Weights { path: path.as_ref().to_path_buf(), found: found.into(), want: want.into() }
    }

    /// An [`Error::Import`].
    pub fn import(place: impl fmt::Display, found: impl Into<String>, want: impl Into<String>) -> Error {
        Error::Import { place: place.to_string(), found: found.into(), want: want.into() }
    }

    /// An [`Error::Config`].
    pub fn config(option: impl Into<String>, want: impl Into<String>) -> Error {
        Error::Config { option: option.into(), want: want.into() }
    }

    /// An [`Error::Training`].
    pub fn training(place: impl fmt::Display, found: impl Into<String>, want: impl Into<String>) -> Error {
        Error::Training { place: place.to_string(), found: found.into(), want: want.into() }
    }
}

impl Error {
    /// Exit code of a command that fails with this error: 2 usage, 3 signature or corruption, 4 incompatible,
    /// 130 interrupted (as shells report Ctrl-C), 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config { .. } => 2,
            Error::Untrusted { .. } => 3,
            Error::Device { .. } => 4,
            Error::Interrupted { .. } => 130,
            Error::Container { source: error, .. } | Error::Bundle(error) => error.exit_code(),
            Error::Runtime(error) => error.exit_code(),
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Data { place, found, want }
            | Error::Import { place, found, want }
            | Error::Training { place, found, want } => write!(f, "{place}: {found}; {want}"),
            Error::Diverged { place, what } => {
                write!(f, "{place}: the {what} is no longer finite; lower the learning rate")
            }
            Error::Device { device, found, want } => write!(f, "--device {device}: {found}; {want}"),
            Error::Weights { path, found, want } => write!(f, "{}: {found}; {want}", path.display()),
            Error::Config { option, want } => write!(f, "{option}: {want}"),
            Error::Interrupted { place, kept: Some(path) } => {
                write!(f, "{place}: interrupted; the same command resumes from {}", path.display())
            }
            Error::Interrupted { place, kept: None } => {
                write!(f, "{place}: interrupted; the same command resumes from what has been finished")
            }
            Error::MissingTensor { name } => {
                write!(f, "tensor `{name}` is missing; the weights belong to another network")
            }
            Error::TensorShape { name, want, got } => {
                write!(f, "tensor `{name}`: expected shape {want:?}, found {got:?}")
            }
            Error::Untrusted { path, found } => {
                write!(f, "{}: {found}; a signature by one of the given keys is needed", path.display())
            }
            Error::Precision { found, want } => write!(f, "{found}; {want}"),
            Error::Container { file, source } => write!(f, "{file}: {source}"),
            Error::Bundle(error) => error.fmt(f),
            Error::Runtime(error) => error.fmt(f),
            Error::Tensor(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message of a wrapped error is part of ours, so the chain continues after it.
        match self {
            Error::Io { source, .. } => source.source(),
            Error::Container { source: error, .. } | Error::Bundle(error) => error.source(),
            Error::Runtime(error) => error.source(),
            Error::Tensor(error) => error.source(),
            _ => None,
        }
    }
}

impl From<bundles::Error> for Error {
    fn from(error: bundles::Error) -> Error {
        Error::Bundle(error)
    }
}

impl From<edge_runtime::Error> for Error {
    fn from(error: edge_runtime::Error) -> Error {
        Error::Runtime(error)
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Tensor(error)
    }
}
