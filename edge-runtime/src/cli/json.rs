//! Writes to standard output: text, and hand-written JSON (one level of it needs no library).

use edge_runtime::{Error, Result};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the reader of standard output has gone.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the reader of standard output has gone.
pub fn closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Writes `text` to standard output. A closed pipe (`| head`) is not an error; later output is dropped.
///
/// # Errors
/// [`Error::File`].
pub fn print(text: &str) -> Result<()> {
    if closed() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(Error::file("standard output", "write")(error)),
        Ok(()) => Ok(()),
    }
}

/// A JSON object under construction.
#[derive(Debug, Default)]
pub struct Object(String);

impl Object {
    pub fn new() -> Object {
        Object::default()
    }

    /// Adds a string.
    #[inline(never)] // A dozen copies would add to the program's size.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Object {
        self.key(key);
        quote(&mut self.0, value);
        self
    }

    /// Adds a number; a value JSON cannot represent becomes null.
    #[inline(never)] // As `text`.
    pub fn number(&mut self, key: &str, value: f64) -> &mut Object {
        self.key(key);
        // Writing to a String cannot fail.
        let _ = if value.is_finite() { write!(self.0, "{value}") } else { write!(self.0, "null") };
        self
    }

    /// Adds a value that is already JSON.
    #[inline(never)] // As `text`.
    pub fn raw(&mut self, key: &str, json: &str) -> &mut Object {
        self.key(key);
        self.0.push_str(json);
        self
    }

    /// The complete object.
    #[inline(never)] // As `text`.
    pub fn end(&mut self) -> String {
        let start = if self.0.is_empty() { "{" } else { "" };
        std::mem::take(&mut self.0) + start + "}"
    }

    /// The complete object on a line of its own.
    #[inline(never)] // As `text`.
    pub fn line(&mut self) -> String {
        self.end() + "\n"
    }

    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quote(&mut self.0, key);
        self.0.push(':');
    }
}

/// A JSON array of encoded values.
#[inline(never)] // As `text`.
pub fn array(values: &[String]) -> String {
    let mut out = String::from("[");
    for value in values {
        out.push_str(if out.len() > 1 { "," } else { "" });
        out.push_str(value);
    }
    out + "]"
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_valid_json() {
        let json = Object::new()
            .text("label", "a \"b\"\\\n\u{1}é")
            .number("x", 0.25)
            .number("y", f64::NAN)
            .raw("z", &array(&["1".into(), Object::new().end()]))
            .end();
        assert_eq!(json, r#"{"label":"a \"b\"\\\u000a\u0001é","x":0.25,"y":null,"z":[1,{}]}"#);
    }
}
