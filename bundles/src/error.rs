//! This crate's error type: what was found, where, and what was expected.

use std::{fmt, io};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can be wrong with a plan or a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An operation cannot follow the previous one.
    ShapeMismatch {
        /// Where in the plan, for example `cell 3, proxy from node 1, op 0 (conv)`.
        place: String,
        /// What the operation needs.
        want: String,
        /// What it was given.
        got: String,
    },
    /// The plan refers to a node that is missing, dead, or not earlier than its reader.
    BadSource {
        /// The reading cell (node number, from 1).
        cell: usize,
        /// The node it reads.
        source: usize,
    },
    /// Two different tensors have the same name.
    NameClash {
        /// The name.
        name: String,
    },
    /// Pruning removed every path from the stem to the classifier.
    Disconnected {
        /// Nodes (from 1) that are on no live path.
        dead: Vec<usize>,
        /// The reason, as a sentence.
        why: String,
    },
    /// A builder, a pruning step or a caller requested something that does not exist.
    BadRequest {
        /// What was asked for.
        what: String,
        /// What is possible.
        want: String,
    },
    /// The bytes end earlier than they state.
    Truncated {
        /// What is cut short.
        what: String,
        /// Bytes needed.
        need: u64,
        /// Bytes present.
        have: u64,
    },
    /// The file is not a bundle, or went through a text-mode transfer.
    BadMagic {
        /// The first bytes, in hexadecimal.
        got: String,
        /// What probably happened.
        hint: &'static str,
    },
    /// A field breaks a rule of the format.
    Corrupt {
        /// The field.
        what: String,
        /// The rule.
        want: String,
        /// The value found.
        got: String,
    },
    /// The BLAKE3 hash does not match.
    HashMismatch {
        /// Which bytes.
        what: String,
    },
    /// A signature is present but invalid.
    BadSignature {
        /// Id of the claimed signing key.
        key: String,
    },
    /// A size exceeds its limit.
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size; `u64::MAX` also means too large to count.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Written by a newer program, or for a different one.
    Unsupported {
        /// Which property of the file.
        what: String,
        /// What this program understands.
        want: String,
        /// What the file says.
        got: String,
    },
    /// A bundle lacks a requested tensor.
    MissingTensor {
        /// The tensor.
        name: String,
        /// The bundle.
        bundle: String,
    },
    /// A key file is unusable.
    BadKey {
        /// What is wrong with it.
        what: String,
        /// What a key file holds.
        want: String,
    },
    /// A file operation failed.
    Io {
        /// The object: the path of a file being written, a part of one being read, or a decoder.
        what: String,
        /// What was being done to it.
        action: &'static str,
        /// The operating system's message.
        why: String,
    },
    /// Two things, each valid, are incompatible.
    Incompatible {
        /// What is incompatible, and what to do about it.
        what: String,
        /// What one needs.
        want: String,
        /// What the other offers.
        got: String,
    },
}

impl Error {
    /// For `map_err` on a system operation.
    pub(crate) fn io(what: impl Into<String>, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |error| Error::Io { what, action, why: error.to_string() }
    }

    /// A stable word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Error::ShapeMismatch { .. } => "shape-mismatch",
            Error::BadSource { .. } => "bad-source",
            Error::NameClash { .. } => "name-clash",
            Error::Disconnected { .. } => "disconnected",
            Error::BadRequest { .. } => "bad-request",
            Error::Truncated { .. } => "truncated",
            Error::BadMagic { .. } => "bad-magic",
            Error::Corrupt { .. } => "corrupt",
            Error::HashMismatch { .. } => "hash-mismatch",
            Error::BadSignature { .. } => "bad-signature",
            Error::TooLarge { .. } => "too-large",
            Error::Unsupported { .. } => "unsupported",
            Error::MissingTensor { .. } => "missing-tensor",
            Error::BadKey { .. } => "bad-key",
            Error::Io { .. } => "io",
            Error::Incompatible { .. } => "incompatible",
        }
    }

    /// Process exit code for this error: 2 usage, 3 signature or corruption, 4 incompatible, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Truncated { .. }
            | Error::BadMagic { .. }
            | Error::Corrupt { .. }
            | Error::HashMismatch { .. }
            | Error::BadSignature { .. }
            | Error::TooLarge { .. }
            | Error::BadKey { .. } => 3,
            Error::Unsupported { .. }
            | Error::Incompatible { .. }
            | Error::MissingTensor { .. }
            | Error::ShapeMismatch { .. } => 4,
            Error::BadRequest { .. } => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ShapeMismatch { place, want, got } => {
                write!(f, "{place}: expected {want}, found {got}")
            }
            Error::BadSource { cell, source } => {
                write!(f, "cell {cell} reads node {source}, which is not a live earlier node")
            }
            Error::NameClash { name } => write!(f, "two different tensors are named `{name}`"),
            Error::Disconnected { dead, why } => {
                write!(f, "no path is left from stem to classifier (dead nodes {dead:?}): {why}")
            }
            Error::BadRequest { what, want } => write!(f, "{what}: {want}"),
            Error::Truncated { what, need, have } => {
                write!(f, "{what} is cut short: {need} bytes needed, {have} present; copy the file again")
            }
            Error::BadMagic { got, hint } => write!(f, "not a bundle (it starts with {got}): {hint}"),
            Error::Incompatible { what, want, got } => write!(f, "{what}: needs {want}, found {got}"),
            Error::Corrupt { what, want, got } => write!(f, "{what}: expected {want}, found {got}"),
            Error::HashMismatch { what } => {
                write!(
                    f,
                    "{what}: hash mismatch; the file is damaged, \
                     copy it again"
                )
            }
            Error::BadSignature { key } => {
                write!(
                    f,
                    "the signature by key {key} is invalid: the bundle was changed after signing; do not use it"
                )
            }
            Error::TooLarge { what, size: u64::MAX, .. } => write!(f, "{what}: too large to count"),
            Error::TooLarge { what, size, limit } => {
                write!(f, "{what}: {size} exceeds the limit of {limit}")
            }
            Error::Unsupported { what, want, got } => {
                write!(
                    f,
                    "{what}: this program understands {want}, the file has {got}; use a program and a file \
                     of the same version"
                )
            }
            Error::MissingTensor { name, bundle } => write!(f, "bundle `{bundle}` holds no tensor `{name}`"),
            Error::BadKey { what, want } => write!(f, "key: {what}; expected {want}"),
            Error::Io { what, action, why, .. } => write!(f, "{what}: cannot {action}: {why}"),
        }
    }
}

impl std::error::Error for Error {}
