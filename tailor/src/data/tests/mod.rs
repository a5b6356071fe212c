//! Sets of images made on the spot, and what is drawn from them.

mod amiss;
mod batches;
mod sets;

use super::*;
