//! Output: results on stdout, and optional notes on stderr.
//!
//! `println!` and `eprintln!` panic if the reader has gone away, which must not end work that took hours.

use std::collections::BTreeSet;
use std::fmt::Arguments;
use std::io::{Error, ErrorKind, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Why writing to stdout has been given up.
static FAILURE: OnceLock<Error> = OnceLock::new();

/// Prints a line of results to stdout.
macro_rules! out {
    () => { $crate::output::text("\n") };
    ($($argument:tt)+) => { $crate::output::line(format_args!($($argument)+)) };
}

/// Prints a line to stderr, ignoring errors.
macro_rules! note {
    ($($argument:tt)*) => { $crate::output::aside(format_args!($($argument)*)) };
}

pub(crate) use {note, out};

/// Writes `line` and a newline to stdout, unless an earlier write failed.
pub(crate) fn line(line: Arguments<'_>) {
    text(&format!("{line}\n"));
}

/// Writes `text` to stdout, unless an earlier write failed.
pub(crate) fn text(text: &str) {
    if FAILURE.get().is_some() {
        return;
    }
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        let _ = FAILURE.set(error);
    }
}

/// Writes `line` and a newline to stderr; errors are ignored, as there is nowhere to report them.
pub(crate) fn aside(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints `line` to stderr unless it was printed before: some work is prepared more than once.
pub(crate) fn note_once(line: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        aside(format_args!("{line}"));
    }
}

/// Whether stdout takes no more results.
pub(crate) fn is_closed() -> bool {
    FAILURE.get().is_some()
}

/// Why results are incomplete, a full disk for example. A reader that closed its end, as `head` does, is not
/// a failure.
pub(crate) fn failure() -> Option<&'static Error> {
    FAILURE.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}
