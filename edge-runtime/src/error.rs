//! This crate's error type: what was found, where, what was expected, and what to do about it.

use crate::kernels::KernelError;
use std::{fmt, io, path::Path};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a file and a score.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    File {
        /// Path as it was given.
        path: String,
        /// What was being done: `open`, `map`, `read`, `write`.
        action: &'static str,
        /// The system's own class of error.
        kind: io::ErrorKind,
    },
    /// A backbone or task file is not a valid container, or its plan is invalid.
    Container {
        /// Path or name of the container.
        file: String,
        /// What is wrong with it.
        source: bundles::Error,
    },
    /// A task was tailored to a backbone other than the open one.
    WrongBackbone {
        /// The task.
        task: String,
        /// Id of the backbone it needs.
        want: String,
        /// Id of the backbone that is open.
        got: String,
    },
    /// A container lacks a tensor that its plan names, or holds it with another shape.
    Tensor {
        /// Path or name of the container.
        file: String,
        /// Name of the tensor.
        name: String,
        /// Floats the plan requires.
        want: usize,
        /// Floats found; `None` when the tensor is absent.
        got: Option<usize>,
    },
    /// A container needs another machine or a newer program.
    Incompatible {
        /// Path or name of the container.
        file: String,
        /// What it needs.
        want: String,
        /// What is available.
        got: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A network exceeds a memory limit.
    TooLarge {
        /// What is too large.
        what: String,
        /// Bytes (or steps) needed.
        need: usize,
        /// The limit.
        limit: usize,
    },
    /// The system cannot provide more memory.
    OutOfMemory {
        /// Bytes requested.
        bytes: usize,
    },
    /// An image or tensor has the wrong size or form.
    Input {
        /// What was found.
        got: String,
        /// What is accepted.
        want: String,
    },
    /// A command line or call requests something that does not exist.
    Usage {
        /// What was requested.
        got: String,
        /// What is possible.
        want: String,
    },
    /// A file is not signed by any key the caller trusts.
    Untrusted {
        /// Path or name of the container.
        file: String,
        /// The state of its signatures.
        trust: String,
    },
    /// A task is not, or no longer, in memory.
    NotResident {
        /// Its name, or its number if it has no name; `None` if no task was selected.
        task: Option<String>,
    },
    /// A frame's deadline passed while its task was still being loaded.
    Deadline {
        /// The task.
        task: String,
    },
    /// A background load was cancelled before it finished.
    Cancelled {
        /// The task.
        task: String,
    },
    /// A task does not reproduce its bundle's golden vectors.
    Health {
        /// The task.
        task: String,
        /// What differs, by how much, and the tolerance.
        why: String,
    },
    /// A kernel refused its buffers.
    Kernel {
        /// The step of the network.
        step: String,
        /// The kernel's reason.
        source: KernelError,
    },
    /// An internal inconsistency. A defect of this program, reported instead of panicking.
    Internal {
        /// The violated invariant.
        what: String,
    },
}

impl Error {
    /// Process exit code: 2 usage or unreadable image, 3 signature or corruption, 4 incompatible, 6 health
    /// check failed, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } | Error::Input { .. } => 2,
            Error::Tensor { .. } | Error::Untrusted { .. } => 3,
            Error::Container { source, .. } => source.exit_code(),
            Error::WrongBackbone { .. }
            | Error::Incompatible { .. }
            | Error::TooLarge { .. }
            | Error::OutOfMemory { .. } => 4,
            Error::Health { .. } => 6,
            Error::File { .. }
            | Error::NotResident { .. }
            | Error::Deadline { .. }
            | Error::Cancelled { .. }
            | Error::Kernel { .. }
            | Error::Internal { .. } => 1,
        }
    }

    /// A stable identifier for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Error::File { .. } => "file",
            Error::Container { .. } => "container",
            Error::WrongBackbone { .. } => "wrong-backbone",
            Error::Tensor { .. } => "tensor",
            Error::Incompatible { .. } => "incompatible",
            Error::TooLarge { .. } => "too-large",
            Error::OutOfMemory { .. } => "out-of-memory",
            Error::Input { .. } => "input",
            Error::Usage { .. } => "usage",
            Error::Untrusted { .. } => "untrusted",
            Error::NotResident { .. } => "not-resident",
            Error::Deadline { .. } => "deadline",
            Error::Cancelled { .. } => "cancelled",
            Error::Health { .. } => "health",
            Error::Kernel { .. } => "kernel",
            Error::Internal { .. } => "internal",
        }
    }

    /// For `map_err` on a file operation: [`Error::File`] with the kind of the system's error.
    pub fn file<P: AsRef<Path> + ?Sized>(path: &P, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |error| of_file(path.as_ref(), action, error)
    }

    /// For `map_err` on container parsing.
    pub(crate) fn container(file: &str) -> impl FnOnce(bundles::Error) -> Error {
        move |source| Error::Container { file: file.into(), source }
    }
}

/// [`Error::File`]. Never inlined: twenty copies would add to the program's size.
#[cold]
#[inline(never)]
fn of_file(path: &Path, action: &'static str, error: io::Error) -> Error {
    Error::File { path: path.display().to_string(), action, kind: error.kind() }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { path, action, kind } => {
                write!(f, "{path}: cannot {action} it: {kind}")?;
                match kind {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                        f.write_str("; check the path and its permissions")
                    }
                    _ => Ok(()),
                }
            }
            Error::Container { file, source } => write!(f, "{file}: {source}"),
            Error::WrongBackbone { task, want, got } => write!(
                f,
                "task `{task}` was tailored to backbone {want}, but {got} is open; open that backbone, or \
                 tailor the task to this one"
            ),
            Error::Tensor { file, name, want, got: Some(got) } => {
                write!(f, "{file}: tensor `{name}` has {got} numbers, its plan needs {want}; pack it again")
            }
            Error::Tensor { file, name, want, got: None } => {
                write!(f, "{file}: tensor `{name}` ({want} numbers) is missing; pack it again")
            }
            Error::Incompatible { file, want, got, remedy } => {
                write!(f, "{file}: needs {want}, but this is {got}; {remedy}")
            }
            Error::TooLarge { what, need, limit } => {
                write!(f, "{what}: needs {need}, the limit is {limit}")
            }
            Error::OutOfMemory { bytes } => {
                write!(f, "cannot allocate {bytes} bytes of memory; keep fewer tasks resident")
            }
            Error::Input { got, want } => write!(f, "input is {got}, expected {want}"),
            Error::Usage { got, want } => write!(f, "{got}; expected {want}"),
            Error::Untrusted { file, trust } => {
                write!(f, "{file}: {trust}; sign it with a key that this device trusts (`tailor sign`)")
            }
            Error::NotResident { task: Some(task) } => {
                write!(f, "task `{task}` is not in memory; load it first")
            }
            Error::NotResident { task: None } => f.write_str("no task selected; switch to one first"),
            Error::Deadline { task } => {
                write!(
                    f,
                    "the frame's deadline passed while task `{task}` was still loading; try the next frame"
                )
            }
            Error::Cancelled { task } => write!(f, "loading task `{task}` was cancelled"),
            Error::Health { task, why } => write!(f, "task `{task}` fails its golden vectors: {why}"),
            Error::Kernel { step, source } => write!(f, "{step}: {source}"),
            Error::Internal { what } => write!(f, "internal error: {what}; please report it"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message of a wrapped error is part of ours, so the chain continues after it.
        match self {
            Error::Container { source, .. } => source.source(),
            Error::Kernel { source, .. } => source.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn a_chain_of_errors_says_nothing_twice() {
        let container = Error::container("x.task")(bundles::Error::HashMismatch { what: "fc".into() });
        let kernel = Error::Kernel { step: "conv1".into(), source: KernelError::UnknownIsa };
        for (error, words) in [(container, "fc: hash mismatch"), (kernel, "no such instruction set")] {
            let mut chain = vec![error.to_string()];
            let mut cause = error.source();
            while let Some(error) = cause {
                chain.push(error.to_string());
                cause = error.source();
            }
            assert_eq!(chain.concat().matches(words).count(), 1, "{chain:?}");
        }
    }
}
