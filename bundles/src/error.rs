//! The one error type of this crate: what was found, where, and what was expected.

use std::fmt;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can be wrong with a plan or a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An operation cannot follow the one before it.
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
    /// Two different tensors carry one name.
    NameClash {
        /// The name.
        name: String,
    },
    /// Pruning cut every way from the stem to the classifier.
    Disconnected {
        /// Nodes (from 1) that no live path reaches or leaves.
        dead: Vec<usize>,
        /// Why, in a sentence.
        why: String,
    },
    /// A builder, a pruning step or a caller asked for something that does not exist.
    BadRequest {
        /// What was asked for.
        what: String,
        /// What is possible.
        want: String,
    },
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
        }
    }
}

impl std::error::Error for Error {}
