//! Ctrl-C while a network trains: the run is kept at the next step, not lost.

use crate::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether somebody asked a training run to stop. Clones share the answer.
///
/// The flag is up while nothing trains and comes down with the first [`Working`]. A signal that finds it up
/// ends the program at once, as always; one that finds it down raises it. So the first Ctrl-C during training
/// stops at the next step, and a second one does not wait for it.
#[derive(Debug, Clone)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    working: Arc<AtomicUsize>,
}

impl Default for Interrupt {
    fn default() -> Interrupt {
        Interrupt { flag: Arc::new(AtomicBool::new(true)), working: Arc::default() }
    }
}

impl Interrupt {
    /// Asked for by SIGINT (Ctrl-C) and SIGTERM (a scheduler's notice).
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses a handler.
    pub fn by_signal() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // Actions run in this order: what the flag was before the signal decides.
            flag::register_conditional_default(signal, Arc::clone(&interrupt.flag))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupt.flag)))
                .map_err(Error::io(Path::new("signal handler")))?;
        }
        Ok(interrupt)
    }

    /// Asks for a stop, as a signal would.
    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Holds back signals until the result is dropped.
    pub fn begin(&self) -> Working<'_> {
        if self.working.fetch_add(1, Ordering::SeqCst) == 0 {
            self.flag.store(false, Ordering::SeqCst);
        }
        Working(self)
    }
}

/// Some training in progress.
#[derive(Debug)]
pub struct Working<'a>(&'a Interrupt);

impl Working<'_> {
    /// Whether to stop at the next opportunity.
    pub fn is_unwanted(&self) -> bool {
        self.0.flag.load(Ordering::SeqCst)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.flag.store(true, Ordering::SeqCst);
        }
    }
}
