//! Sets of images made on the fly, and batches drawn from them.

mod amiss;
mod batches;
mod sets;

use super::*;
