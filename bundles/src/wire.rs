//! Canonical little-endian encoding shared by plan and manifest: one byte sequence per value, every length
//! capped.

use crate::{Error, Result};

/// The set of characters a text may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    /// Printable ASCII without spaces, not empty: names of tensors and variants, keys of facts.
    Token,
    /// UTF-8 without control characters, not empty: labels and display names.
    Line,
    /// Like [`Text::Line`], but may be empty.
    Free,
}

impl Text {
    fn accepts(self, s: &str) -> bool {
        match self {
            Text::Token => !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic()),
            Text::Line => !s.is_empty() && !s.chars().any(char::is_control),
            Text::Free => !s.chars().any(char::is_control),
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Text::Token => "printable ASCII without spaces, not empty",
            Text::Line => "UTF-8 text without control characters, not empty",
            Text::Free => "UTF-8 text without control characters",
        }
    }
}

pub(crate) fn corrupt<T>(what: impl Into<String>, want: impl Into<String>, got: impl ToString) -> Result<T> {
    Err(Error::Corrupt { what: what.into(), want: want.into(), got: got.to_string() })
}

pub(crate) fn at_most(what: &str, size: u64, limit: u64) -> Result<()> {
    if size > limit {
        return Err(Error::TooLarge { what: what.into(), size, limit });
    }
    Ok(())
}

/// For a size that does not fit in 64 bits.
pub(crate) fn uncountable(what: impl Into<String>) -> Error {
    Error::TooLarge { what: what.into(), size: u64::MAX, limit: u64::MAX }
}

/// Reads untrusted bytes: nothing is allocated before the bytes it is made from have been seen.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Cursor<'a> {
        Cursor { rest: bytes, what }
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            let have = self.rest.len() as u64;
            return Err(Error::Truncated { what: self.what.into(), need: n as u64, have });
        };
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub fn bool(&mut self, what: &str) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => corrupt(what, "0 or 1", other),
        }
    }

    /// A finite number.
    pub fn f32(&mut self, what: &str) -> Result<f32> {
        let x = f32::from_le_bytes(self.array()?);
        if x.is_finite() { Ok(x) } else { corrupt(what, "a finite number", x) }
    }

    /// Unsigned LEB128 in its shortest form.
    pub fn varint(&mut self, what: &str) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return corrupt(what, "a number below 2^64", "a longer one");
            }
            value |= bits << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return corrupt(what, "the shortest form of a number", "a padded one");
                }
                return Ok(value);
            }
        }
        corrupt(what, "a number of at most ten bytes", "a longer one")
    }

    /// A number no larger than `max`.
    pub fn size(&mut self, what: &str, max: usize) -> Result<usize> {
        let value = self.varint(what)?;
        at_most(what, value, max as u64)?;
        // At most `max`, a usize.
        Ok(value as usize)
    }

    /// Number of elements to follow, each at least one byte long.
    pub fn count(&mut self, what: &str, max: usize) -> Result<usize> {
        let n = self.size(what, max)?;
        if n > self.rest.len() {
            let have = self.rest.len() as u64;
            return Err(Error::Truncated { what: what.into(), need: n as u64, have });
        }
        Ok(n)
    }

    /// Reads `n` elements without excess capacity. Allocates nothing before the first element is read.
    pub fn list<T>(&mut self, n: usize, mut element: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut list = Vec::new();
        for _ in 0..n {
            list.push(element(self)?);
        }
        // The list lives as long as its task.
        list.shrink_to_fit();
        Ok(list)
    }

    pub fn text(&mut self, what: &str, rule: Text, max: usize) -> Result<String> {
        let n = self.size(what, max)?;
        match std::str::from_utf8(self.take(n)?) {
            Ok(s) if rule.accepts(s) => Ok(s.to_owned()),
            Ok(s) => corrupt(what, rule.rule(), format!("{s:?}")),
            Err(_) => corrupt(what, rule.rule(), "bytes that are not UTF-8"),
        }
    }

    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        corrupt(self.what, "nothing after its last field", format!("{} more bytes", self.rest.len()))
    }
}

/// Writes what [`Cursor`] reads, and refuses what it would refuse.
#[derive(Default)]
pub(crate) struct Sink {
    pub bytes: Vec<u8>,
}

impl Sink {
    pub fn u8(&mut self, x: u8) {
        self.bytes.push(x);
    }

    pub fn bool(&mut self, x: bool) {
        self.bytes.push(u8::from(x));
    }

    pub fn f32(&mut self, what: &str, x: f32) -> Result<()> {
        if !x.is_finite() {
            return corrupt(what, "a finite number", x);
        }
        self.bytes.extend_from_slice(&x.to_le_bytes());
        Ok(())
    }

    pub fn varint(&mut self, mut x: u64) {
        while x >= 0x80 {
            self.bytes.push(x as u8 | 0x80);
            x >>= 7;
        }
        self.bytes.push(x as u8);
    }

    pub fn size(&mut self, what: &str, x: usize, max: usize) -> Result<()> {
        at_most(what, x as u64, max as u64)?;
        self.varint(x as u64);
        Ok(())
    }

    pub fn text(&mut self, what: &str, s: &str, rule: Text, max: usize) -> Result<()> {
        if !rule.accepts(s) {
            return corrupt(what, rule.rule(), format!("{s:?}"));
        }
        self.size(what, s.len(), max)?;
        self.bytes.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_have_one_form() {
        for x in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut sink = Sink::default();
            sink.varint(x);
            let mut cursor = Cursor::new(&sink.bytes, "test");
            assert_eq!(cursor.varint("n").unwrap(), x);
            cursor.finish().unwrap();
        }
        let cases: [&[u8]; 4] = [
            &[0x80, 0x00],                                                       // padded zero
            &[0xff, 0x00],                                                       // padded 127
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],       // 2^64
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // eleven bytes
        ];
        for bytes in cases {
            let error = Cursor::new(bytes, "test").varint("n").unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{bytes:x?}: {error}");
        }
        assert!(matches!(Cursor::new(&[0x80], "test").varint("n"), Err(Error::Truncated { .. })));
    }

    #[test]
    fn texts_obey_their_rule() {
        for (rule, s, ok) in [
            (Text::Token, "layer1.0.conv1", true),
            (Text::Token, "", false),
            (Text::Token, "two words", false),
            (Text::Token, "größe", false),
            (Text::Line, "größe 3", true),
            (Text::Line, "", false),
            (Text::Line, "clear\u{1b}[2J", false),
            (Text::Free, "", true),
            (Text::Free, "a\nb", false),
        ] {
            assert_eq!(Sink::default().text("t", s, rule, 64).is_ok(), ok, "{rule:?} {s:?}");
            let mut bytes = vec![s.len() as u8];
            bytes.extend_from_slice(s.as_bytes());
            assert_eq!(Cursor::new(&bytes, "test").text("t", rule, 64).is_ok(), ok, "{rule:?} {s:?}");
        }
        assert!(matches!(
            Sink::default().text("t", "abcdef", Text::Line, 5),
            Err(Error::TooLarge { size: 6, limit: 5, .. })
        ));
    }
}
