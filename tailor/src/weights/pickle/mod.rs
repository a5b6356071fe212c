//! The subset of Python's pickle machine that state dicts need, without executing anything.
//!
//! Objects live in one arena and refer to each other by index, so shared and even cyclic data is only as
//! large as the bytes that describe it. Every opcode creates a bounded number of objects, so memory is
//! bounded by the length of the pickle. Code that walks the result must bound the walk, because shared lists
//! can expand.

mod machine;

use super::Fault;
use machine::Machine;

/// Index of an object in [`Pickle::objects`].
pub(super) type Id = usize;

/// A Python object as plain data.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    /// `None`, and anything of no interest: sets, huge integers.
    Nothing,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// A dict or OrderedDict, in insertion order.
    Dict(Vec<(Id, Id)>),
    /// A class or function as `module name`; never resolved.
    Global(String),
    /// A call, recorded instead of executed: callee and arguments.
    Call(Id, Id),
    /// A reference to something outside the pickle: a storage.
    Persistent(Id),
}

/// A decoded pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    /// The top-level object.
    pub root: Id,
    /// Bytes read, up to and including the STOP opcode.
    pub length: usize,
}

impl Pickle {
    /// Decodes the pickle at the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Pickle, Fault> {
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        Ok(Pickle { objects: machine.objects, root, length: machine.at })
    }

    /// The object with index `id`.
    pub fn get(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::Nothing)
    }

    /// The argument tuples of all persistent references.
    pub fn persistent(&self) -> impl Iterator<Item = Id> {
        self.objects.iter().filter_map(|object| match object {
            Object::Persistent(id) => Some(*id),
            _ => None,
        })
    }

    /// The object as a string, if it is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if the object is a tuple or list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// The object as a `usize`, if it is an integer in range.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Object::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The object as a list of sizes, if it is a tuple or list of them.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.items(id)?.iter().map(|&item| self.size(item)).collect()
    }
}
