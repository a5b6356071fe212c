//! What the program says: results on stdout, and on stderr notes that nobody has to read.
//!
//! Work that took hours does not end because whoever read along has gone: `println!` and `eprintln!` would panic then.

use std::fmt::Arguments;
use std::io::{Error, ErrorKind, Write};
use std::sync::OnceLock;

/// Why nothing is written to stdout any more.
static FAILURE: OnceLock<Error> = OnceLock::new();

/// Prints a line of results to stdout.
macro_rules! out {
    () => { $crate::output::text("\n") };
    ($($argument:tt)+) => { $crate::output::line(format_args!($($argument)+)) };
}

/// Prints a line to stderr, if anybody reads it.
macro_rules! note {
    ($($argument:tt)*) => { $crate::output::aside(format_args!($($argument)*)) };
}

pub(crate) use {note, out};

/// Writes `line` and its end to stdout, unless that failed before.
pub(crate) fn line(line: Arguments<'_>) {
    text(&format!("{line}\n"));
}

/// Writes `text` to stdout, unless that failed before.
pub(crate) fn text(text: &str) {
    if FAILURE.get().is_some() {
        return;
    }
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        let _ = FAILURE.set(error);
    }
}

/// Writes `line` and its end to stderr; what fails there can be told to nobody.
pub(crate) fn aside(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Why results are incomplete: a full disk, for example. A reader that went away, as `head` does, had enough.
pub(crate) fn failure() -> Option<&'static Error> {
    FAILURE.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}
