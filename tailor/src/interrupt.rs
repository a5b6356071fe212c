//! Graceful handling of Ctrl-C during training: the run is saved at the next step, not lost.

use crate::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether a training run has been asked to stop. Clones share their state.
///
/// Outside training, a signal ends the program at once, as usual. During training it is only recorded, and
/// training stops at the next step. From then on, further signals are ignored until the program ends, because
/// some senders (`timeout`, or a terminal together with a shell) send a signal twice.
#[derive(Debug, Clone)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
    idle: Arc<AtomicBool>,
    working: Arc<AtomicUsize>,
}

impl Default for Interrupt {
    fn default() -> Interrupt {
        Interrupt {
            requested: Arc::default(),
            idle: Arc::new(AtomicBool::new(true)),
            working: Arc::default(),
        }
    }
}

impl Interrupt {
    /// Reacts to SIGINT (Ctrl-C), SIGTERM (sent by schedulers) and SIGHUP (the terminal was closed).
    ///
    /// # Errors
    /// [`Error::Io`] if a handler cannot be installed.
    pub fn by_signal() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_default(signal, Arc::clone(&interrupt.idle))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupt.requested)))
                .map_err(Error::io(Path::new("signal handler")))?;
        }
        Ok(interrupt)
    }

    /// Requests a stop, as a signal would.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// Whether a stop has been requested.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Defers signals until the result is dropped, or for good if one has arrived by then.
    pub fn begin(&self) -> Working<'_> {
        self.working.fetch_add(1, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
        Working(self)
    }

    /// Passes `items` on until a stop is requested.
    pub fn watch<T>(&self, items: impl Iterator<Item = Result<T>>) -> impl Iterator<Item = Result<T>> {
        items.map(|item| match self.is_requested() {
            true => Err(Error::Interrupted { place: "validation".into(), kept: None }),
            false => item,
        })
    }
}

/// A training in progress.
#[derive(Debug)]
pub struct Working<'a>(&'a Interrupt);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::SeqCst) == 1 && !self.0.is_requested() {
            self.0.idle.store(true, Ordering::SeqCst);
        }
    }
}
