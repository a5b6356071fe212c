//! The pickle virtual machine: opcodes in, objects out.

use super::{Id, Object};
use crate::weights::Fault;
use std::collections::HashMap;

/// State of the decoder.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Number of bytes read.
    pub(super) at: usize,
    /// All objects so far.
    pub(super) objects: Vec<Object>,
    stack: Vec<Id>,
    /// Stack heights at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Number of list items copied into dicts.
    copied: usize,
}

/// The shared `None`.
const NOTHING: Id = 0;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine {
            bytes,
            at: 0,
            objects: vec![Object::Nothing],
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    /// Runs up to and including STOP and returns the object on top of the stack.
    pub(super) fn run(&mut self) -> Result<Id, Fault> {
        loop {
            let at = self.at;
            let op = self.fixed::<1>()?[0];
            if op == b'.' {
                return self.pop();
            }
            self.step(op, at)?;
        }
    }

    fn step(&mut self, op: u8, at: usize) -> Result<(), Fault> {
        match op {
            // Frames and the protocol number carry no information.
            0x80 => self.fixed::<1>().map(|_| ()),
            0x95 => self.fixed::<8>().map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' => {
                self.stack.push(NOTHING);
                Ok(())
            }
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.fixed()?);
                self.push(Object::Int(value.into()))
            }
            b'K' => {
                let value = self.fixed::<1>()?[0];
                self.push(Object::Int(value.into()))
            }
            b'M' => {
                let value = u16::from_le_bytes(self.fixed()?);
                self.push(Object::Int(value.into()))
            }
            0x8a => self.long(1),
            0x8b => self.long(4),
            b'I' | b'L' => {
                let object = match self.line()?.trim_end_matches('L') {
                    "00" => Object::Bool(false),
                    "01" => Object::Bool(true),
                    digits => digits.parse().map_or(Object::Nothing, Object::Int),
                };
                self.push(object)
            }
            b'F' => {
                let value = self.line()?.parse().map_or(Object::Nothing, Object::Float);
                self.push(value)
            }
            b'G' => {
                let value = f64::from_be_bytes(self.fixed()?);
                self.push(Object::Float(value))
            }
            b'S' | b'V' => {
                let text = self.line()?.trim_matches(['\'', '"']).to_owned();
                self.push(Object::Str(text))
            }
            b'X' | b'T' => self.string(4),
            b'U' | 0x8c => self.string(1),
            0x8d => self.string(8),
            b'B' => self.blob(4),
            b'C' => self.blob(1),
            0x8e | 0x96 => self.blob(8),
            b']' => self.push(Object::List(Vec::new())),
            b')' => self.push(Object::Tuple(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            0x8f => self.push(Object::Nothing),
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item], at)
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(items, at)
            }
            0x90 => self.pop_mark().map(|_| ()),
            0x91 => {
                self.pop_mark()?;
                self.push(Object::Nothing)
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Object::List(items))
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items))
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(op - 0x84))?;
                self.push(Object::Tuple(items))
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Object::Dict(Vec::new()))?;
                self.set(items, at)
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(items, at)
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(items, at)
            }
            b'c' => {
                let name = format!("{} {}", self.line()?.to_owned(), self.line()?);
                self.push(Object::Global(name))
            }
            0x93 => {
                let [module, name] = self.pop_array()?;
                let part = |id| match &self.objects[id] {
                    Object::Str(text) => text.as_str(),
                    _ => "?",
                };
                let name = format!("{} {}", part(module), part(name));
                self.push(Object::Global(name))
            }
            b'R' | 0x81 => {
                let [callee, args] = self.pop_array()?;
                self.call(callee, args)
            }
            0x92 => {
                let [callee, args, _] = self.pop_array()?;
                self.call(callee, args)
            }
            b'i' => {
                let name = format!("{} {}", self.line()?.to_owned(), self.line()?);
                let items = self.pop_mark()?;
                let (callee, args) = (self.make(Object::Global(name)), self.make(Object::Tuple(items)));
                self.call(callee, args)
            }
            b'o' => {
                let mut items = self.pop_mark()?;
                if items.is_empty() {
                    return Err(self.bad(at, "an object without a class"));
                }
                let callee = items.remove(0);
                let args = self.make(Object::Tuple(items));
                self.call(callee, args)
            }
            // State set on an object, such as an OrderedDict's `_metadata` or a module's attributes; not
            // needed.
            b'b' => self.pop().map(|_| ()),
            b'p' => {
                let key =
                    self.line()?.parse().map_err(|_| self.bad(at, "a memo key that is not a number"))?;
                self.remember(key)
            }
            b'q' => {
                let key = self.fixed::<1>()?[0];
                self.remember(key.into())
            }
            b'r' => {
                let key = u32::from_le_bytes(self.fixed()?);
                self.remember(key.into())
            }
            0x94 => self.remember(self.memo.len() as u64),
            b'g' => {
                let key =
                    self.line()?.parse().map_err(|_| self.bad(at, "a memo key that is not a number"))?;
                self.recall(key, at)
            }
            b'h' => {
                let key = self.fixed::<1>()?[0];
                self.recall(key.into(), at)
            }
            b'j' => {
                let key = u32::from_le_bytes(self.fixed()?);
                self.recall(key.into(), at)
            }
            b'P' => {
                let text = self.line()?.to_owned();
                let id = self.make(Object::Str(text));
                self.push(Object::Persistent(id))
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))
            }
            _ => Err(self.bad(at, &format!("opcode {op:#04x}, which no state dict uses"))),
        }
    }

    fn bad(&self, at: usize, what: &str) -> Fault {
        Fault::damaged(format!("a pickle with {what} at byte {at}"))
    }

    fn make(&mut self, object: Object) -> Id {
        self.objects.push(object);
        self.objects.len() - 1
    }

    fn push(&mut self, object: Object) -> Result<(), Fault> {
        let id = self.make(object);
        self.stack.push(id);
        Ok(())
    }

    /// The topmost object above the last mark.
    fn top(&self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&top) if self.stack.len() > floor => Ok(top),
            _ => Err(self.bad(self.at, "an empty stack")),
        }
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Id>, Fault> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_array<const N: usize>(&mut self) -> Result<[Id; N], Fault> {
        let mut items = [NOTHING; N];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        Ok(items)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().ok_or_else(|| self.bad(self.at, "a missing mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn extend(&mut self, items: Vec<Id>, at: usize) -> Result<(), Fault> {
        let top = self.top()?;
        match self.objects.get_mut(top) {
            Some(Object::List(list)) => list.extend(items),
            // An object that was recorded but not constructed may be extended like a list.
            Some(Object::Call(..) | Object::Nothing) => {}
            _ => return Err(self.bad(at, "items appended to something other than a list")),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>, at: usize) -> Result<(), Fault> {
        let top = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err(self.bad(at, "a key without a value"));
        }
        match self.objects.get_mut(top) {
            Some(Object::Dict(dict)) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Some(Object::Call(..) | Object::Nothing) => {}
            _ => return Err(self.bad(at, "keys set on something other than a dict")),
        }
        Ok(())
    }

    /// Records a call; an OrderedDict becomes a dict at once, because items will be set on it.
    fn call(&mut self, callee: Id, args: Id) -> Result<(), Fault> {
        if !matches!(&self.objects[callee], Object::Global(name) if name == "collections OrderedDict") {
            return self.push(Object::Call(callee, args));
        }
        let mut pairs = Vec::new();
        // Python 2 passes the items as an argument: a list of two-item lists.
        if let Object::Tuple(args) = &self.objects[args]
            && let Some(Object::List(items)) = args.first().map(|&list| &self.objects[list])
        {
            // A few bytes can refer to the same list many times.
            self.copied = self.copied.saturating_add(items.len());
            if self.copied > self.bytes.len() {
                return Err(self.bad(self.at, "more dict items than it has bytes"));
            }
            for &item in items {
                if let Object::List(pair) | Object::Tuple(pair) = &self.objects[item]
                    && let [key, value] = pair[..]
                {
                    pairs.push((key, value));
                }
            }
        }
        self.push(Object::Dict(pairs))
    }

    fn remember(&mut self, key: u64) -> Result<(), Fault> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64, at: usize) -> Result<(), Fault> {
        let id = *self.memo.get(&key).ok_or_else(|| self.bad(at, "a reference to nothing"))?;
        self.stack.push(id);
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Fault> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.bad(self.at, "an early end"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// Reads a little-endian length of `width` bytes, then that many bytes.
    fn counted(&mut self, width: usize) -> Result<&[u8], Fault> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX))
    }

    fn string(&mut self, width: usize) -> Result<(), Fault> {
        let text = String::from_utf8_lossy(self.counted(width)?).into_owned();
        self.push(Object::Str(text))
    }

    fn blob(&mut self, width: usize) -> Result<(), Fault> {
        self.counted(width)?;
        self.push(Object::Bytes)
    }

    /// A two's complement integer of any length; those over 128 bits are of no interest.
    fn long(&mut self, width: usize) -> Result<(), Fault> {
        let bytes = self.counted(width)?;
        let object = if bytes.len() > 16 {
            Object::Nothing
        } else {
            let negative = bytes.last().is_some_and(|&last| last & 0x80 != 0);
            let mut all = [if negative { 0xff } else { 0 }; 16];
            all[..bytes.len()].copy_from_slice(bytes);
            Object::Int(i128::from_le_bytes(all))
        };
        self.push(object)
    }

    fn line(&mut self) -> Result<&str, Fault> {
        let rest = &self.bytes[self.at..];
        let length =
            rest.iter().position(|&b| b == b'\n').ok_or_else(|| self.bad(self.at, "an early end"))?;
        let start = self.at;
        self.at += length + 1;
        std::str::from_utf8(&self.bytes[start..start + length])
            .map_err(|_| self.bad(start, "text that is not UTF-8"))
    }
}
