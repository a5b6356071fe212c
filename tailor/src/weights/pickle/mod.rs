//! The part of Python's pickle machine that state dicts need, running nothing.
//!
//! Objects live in one arena and refer to each other by index, so shared and even cyclic data is only as
//! large as the bytes that describe it. Every opcode makes at most one object, so memory is bounded by the
//! length of the pickle; whoever walks the result must bound the walk, because shared lists can unfold.

mod machine;

use super::Fault;
use machine::Machine;

/// Index of an object in [`Pickle::objects`].
pub(super) type Id = usize;

/// A Python object as plain data.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    /// `None`, and whatever is of no interest: sets, huge integers.
    Nothing,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// A dict or OrderedDict, in order of insertion.
    Dict(Vec<(Id, Id)>),
    /// A class or function by `module name`; never looked up.
    Global(String),
    /// A call that was recorded instead of made: what, with which arguments.
    Call(Id, Id),
    /// A reference to something outside the pickle, a storage.
    Persistent(Id),
}

/// A decoded pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    /// The object the pickle stands for.
    pub root: Id,
    /// Bytes read, up to and including the STOP opcode.
    pub length: usize,
}

impl Pickle {
    /// Decodes the pickle at the beginning of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Pickle, Fault> {
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        Ok(Pickle { objects: machine.objects, root, length: machine.at })
    }

    /// The object of this index.
    pub fn get(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::Nothing)
    }

    /// Every persistent reference's tuple of arguments.
    pub fn persistent(&self) -> impl Iterator<Item = Id> {
        self.objects.iter().filter_map(|object| match object {
            Object::Persistent(id) => Some(*id),
            _ => None,
        })
    }

    /// The text, if it is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// A number that is no less than zero and small enough to count with.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Object::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A tuple or list of sizes.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.items(id)?.iter().map(|&item| self.size(item)).collect()
    }
}
