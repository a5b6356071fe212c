//! Ctrl-C while a network trains: the run is kept at the next step, not lost.

use crate::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether somebody asked a training run to stop. Clones share the answer.
///
/// While nothing trains a signal ends the program at once, as always. While something does, it is only noted, and
/// training stops at the next step; so it stays until the program ends, because some senders (`timeout`, a terminal
/// and a shell together) send a signal twice.
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
    /// Asked for by SIGINT (Ctrl-C), SIGTERM (a scheduler's notice) and SIGHUP (a terminal that closed).
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses a handler.
    pub fn by_signal() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_default(signal, Arc::clone(&interrupt.idle))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupt.requested)))
                .map_err(Error::io(Path::new("signal handler")))?;
        }
        Ok(interrupt)
    }

    /// Asks for a stop, as a signal would.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// Whether to stop at the next opportunity.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Holds back signals until the result is dropped, or for good once one has come.
    pub fn begin(&self) -> Working<'_> {
        self.working.fetch_add(1, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
        Working(self)
    }

    /// The same items, until a stop is asked for.
    pub fn watch<T>(&self, items: impl Iterator<Item = Result<T>>) -> impl Iterator<Item = Result<T>> {
        items.map(|item| match self.is_requested() {
            true => Err(Error::Interrupted { place: "validation".into(), kept: None }),
            false => item,
        })
    }
}

/// Some training in progress.
#[derive(Debug)]
pub struct Working<'a>(&'a Interrupt);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::SeqCst) == 1 && !self.0.is_requested() {
            self.0.idle.store(true, Ordering::SeqCst);
        }
    }
}
