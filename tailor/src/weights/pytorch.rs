//! The two formats of `torch.save`: a zip archive (since 1.6) and the older sequence of pickles.

use super::{
    Fault, StateDict, Tensor,
    pickle::{Id, Object, Pickle},
    storage::Number,
};
use std::{collections::HashMap, io::Cursor};
use zip::{CompressionMethod, ZipArchive};

/// Maximum depth of nested dicts searched for a state dict.
const MAX_DEPTH: usize = 3;

/// Keys under which checkpoints store their state dict, likeliest first.
const USUAL_KEYS: [&str; 8] =
    ["state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights"];

/// A storage: its bytes in the file, and their number type.
struct Storage<'a> {
    number: Number,
    bytes: &'a [u8],
}

/// Storages by key; their length has been checked against the pickle.
type Storages<'a> = HashMap<String, Storage<'a>>;

const ASK_STATE_DICT: &str = "save it again with torch.save(model.state_dict(), FILE)";

/// Since PyTorch 1.6: `NAME/data.pkl`, and one uncompressed entry `NAME/data/KEY` per storage.
pub(super) fn read_zip(bytes: &[u8]) -> Result<StateDict, Fault> {
    let damaged =
        |error: &dyn std::fmt::Display| Fault::damaged(format!("not a complete zip archive ({error})"));
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(&e))?;
    let mut entries = HashMap::new();
    let mut root = None;
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(|e| damaged(&e))?;
        let name = entry.name().map_err(|e| damaged(&e))?.into_owned();
        if let Some(before) = name.strip_suffix("data.pkl").filter(|before| before.matches('/').count() <= 1)
        {
            root = Some(before.to_owned());
        }
        if entry.compression() != CompressionMethod::Stored {
            let found = format!("the archive's entry {name} is compressed");
            return Err(Fault::new(found, "PyTorch never compresses; unpack and use the original"));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| {
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            bytes.get(start..end)
        });
        let range = range.ok_or_else(|| Fault::damaged(format!("entry {name} lies outside the archive")))?;
        entries.insert(name, range);
    }
    let root = root.ok_or_else(|| {
        Fault::new("a zip archive without data.pkl", "a state dict written by torch.save is needed")
    })?;
    if entries.get(&format!("{root}byteorder")).is_some_and(|order| order.trim_ascii() != b"little") {
        return Err(Fault::new("a big-endian checkpoint", "save it again on a little-endian machine"));
    }
    let pickle = Pickle::read(entries[&format!("{root}data.pkl")])?;
    if entries.contains_key(&format!("{root}constants.pkl")) {
        return Err(Fault::new("a TorchScript archive", ASK_STATE_DICT));
    }
    let mut storages = Storages::new();
    for (key, number, values) in declared(&pickle)? {
        let name = format!("{root}data/{key}");
        let bytes = entries.get(&name).ok_or_else(|| Fault::damaged(format!("no entry {name}")))?;
        if values.checked_mul(number.size()) != Some(bytes.len()) {
            let found = format!("entry {name} has {} bytes where {values} values are declared", bytes.len());
            return Err(Fault::damaged(found));
        }
        storages.insert(key.to_owned(), Storage { number, bytes });
    }
    Reader { pickle: &pickle, storages, budget: bytes.len().saturating_mul(2) }.state_dict()
}

/// Before PyTorch 1.6: pickles of the magic number, protocol, machine, object and storage keys; then, for
/// each key, the number of values (i64) and the values.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<StateDict, Fault> {
    let mut rest = bytes;
    let mut next = || -> Result<Pickle, Fault> {
        let pickle = Pickle::read(rest)?;
        rest = &rest[pickle.length..];
        Ok(pickle)
    };
    const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
    let magic = next()?;
    if magic.get(magic.root) != &Object::Int(MAGIC) {
        return Err(Fault::new("a pickle that torch.save did not write", ASK_STATE_DICT));
    }
    let protocol = next()?;
    if protocol.get(protocol.root) != &Object::Int(1001) {
        let found = format!("PyTorch file protocol {:?}, where 1001 is known", protocol.get(protocol.root));
        return Err(Fault::new(found, ASK_STATE_DICT));
    }
    let machine = next()?;
    if let Object::Dict(items) = machine.get(machine.root) {
        let little = items.iter().find(|(key, _)| machine.text(*key) == Some("little_endian"));
        if little.is_some_and(|(_, value)| machine.get(*value) == &Object::Bool(false)) {
            return Err(Fault::new("a big-endian checkpoint", "save it again on a little-endian machine"));
        }
    }
    let (pickle, keys) = (next()?, next()?);
    let known: HashMap<&str, (Number, usize)> =
        declared(&pickle)?.into_iter().map(|(key, number, values)| (key, (number, values))).collect();
    let mut storages = Storages::new();
    for &key in keys.items(keys.root).ok_or_else(|| Fault::damaged("no list of storages"))? {
        let key = keys.text(key).ok_or_else(|| Fault::damaged("a storage without a name"))?;
        let &(number, values) = known
            .get(key)
            .ok_or_else(|| Fault::damaged(format!("storage {key}, which nothing refers to")))?;
        let ended = || Fault::damaged(format!("the file ends within storage {key}"));
        let (count, after) = rest.split_first_chunk().ok_or_else(ended)?;
        if i64::from_le_bytes(*count) != i64::try_from(values).unwrap_or(-1) {
            let found = format!("storage {key} has {} values, not {values}", i64::from_le_bytes(*count));
            return Err(Fault::damaged(found));
        }
        let length = values.checked_mul(number.size()).ok_or_else(ended)?;
        let (bytes, after) = after.split_at_checked(length).ok_or_else(ended)?;
        rest = after;
        storages.insert(key.to_owned(), Storage { number, bytes });
    }
    Reader { pickle: &pickle, storages, budget: bytes.len().saturating_mul(2) }.state_dict()
}

/// Key, type and number of values of every storage the pickle refers to:
/// `('storage', CLASS, key, device, values, ...)`.
fn declared(pickle: &Pickle) -> Result<Vec<(&str, Number, usize)>, Fault> {
    let mut found = Vec::new();
    for id in pickle.persistent() {
        let reference = storage_reference(pickle, id);
        let (class, key, values) = reference.ok_or_else(|| Fault::damaged("a storage of unknown form"))?;
        let number = class.rsplit(' ').next().and_then(Number::of_storage).ok_or_else(|| {
            Fault::new(
                format!("a storage of type {class}"),
                "save the weights as float32, float16 or bfloat16",
            )
        })?;
        found.push((key, number, values));
    }
    Ok(found)
}

fn storage_reference(pickle: &Pickle, id: Id) -> Option<(&str, &str, usize)> {
    let &[kind, class, key, _, values, ..] = pickle.items(id)? else { return None };
    match (pickle.text(kind)?, pickle.get(class)) {
        ("storage", Object::Global(class)) => Some((class, pickle.text(key)?, pickle.size(values)?)),
        _ => None,
    }
}

/// Builds tensors from a pickle and its storages.
struct Reader<'a> {
    pickle: &'a Pickle,
    storages: Storages<'a>,
    /// Number of values that may still be created: a few bytes can refer to one storage many times.
    budget: usize,
}

impl Reader<'_> {
    fn state_dict(mut self) -> Result<StateDict, Fault> {
        let Some(items) = self.find(self.pickle.root, 0).map(<[_]>::to_vec) else {
            return Err(self.nothing_found());
        };
        let mut dict = StateDict::default();
        for (key, value) in &items {
            if let (Some(name), Some(args)) = (self.pickle.text(*key), self.tensor_args(*value, 0)) {
                let tensor = self.tensor(name, args)?;
                dict.tensors.insert(name.to_owned(), tensor);
            }
        }
        Ok(dict)
    }

    /// The items of the first dict that holds tensors: preferably one under a usual key, or nested below it;
    /// otherwise this one, since checkpoints may have a tensor next to the state dict (the best accuracy so
    /// far, for example).
    fn find(&self, id: Id, depth: usize) -> Option<&[(Id, Id)]> {
        let Object::Dict(items) = self.pickle.get(id) else { return None };
        // The last of several equal keys counts, as in Python; this also bounds the search, however the dicts
        // repeat.
        let named = |wanted| items.iter().rev().find(|(key, _)| self.pickle.text(*key) == Some(wanted));
        let below =
            |(_, value): &(Id, Id)| if depth < MAX_DEPTH { self.find(*value, depth + 1) } else { None };
        let holds_tensors = || items.iter().any(|(_, value)| self.tensor_args(*value, 0).is_some());
        USUAL_KEYS
            .into_iter()
            .filter_map(named)
            .find_map(below)
            .or_else(|| holds_tensors().then_some(&items[..]))
    }

    fn nothing_found(&self) -> Fault {
        let found = match self.pickle.get(self.pickle.root) {
            Object::Dict(items) => {
                let keys: Vec<&str> =
                    items.iter().take(12).map(|(key, _)| self.pickle.text(*key).unwrap_or("?")).collect();
                format!("no tensors found; its keys are: {}", keys.join(", "))
            }
            Object::Call(callee, _) => match self.pickle.get(*callee) {
                Object::Global(name) => format!("a whole pickled object ({name}), not a state dict"),
                _ => "a whole pickled object, not a state dict".into(),
            },
            _ => "it contains no dict".into(),
        };
        Fault::new(found, ASK_STATE_DICT)
    }

    /// `[storage, offset, size, stride]` if the object is a call that constructs a tensor.
    fn tensor_args(&self, id: Id, depth: usize) -> Option<[Id; 4]> {
        let Object::Call(callee, args) = self.pickle.get(id) else { return None };
        let Object::Global(name) = self.pickle.get(*callee) else { return None };
        let args = self.pickle.items(*args)?;
        match (name.as_str(), args) {
            ("torch._utils _rebuild_tensor" | "torch._utils _rebuild_tensor_v2", args) => {
                args.first_chunk::<4>().copied()
            }
            (
                "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state",
                [data, ..],
            ) if depth < MAX_DEPTH => self.tensor_args(*data, depth + 1),
            _ => None,
        }
    }

    fn tensor(&mut self, name: &str, [storage, offset, size, stride]: [Id; 4]) -> Result<Tensor, Fault> {
        let bad = |what: &str| Fault::damaged(format!("tensor `{name}`: {what}"));
        let key = match self.pickle.get(storage) {
            Object::Persistent(id) => storage_reference(self.pickle, *id).map(|(_, key, _)| key),
            _ => None,
        };
        let storage = key.and_then(|key| self.storages.get(key)).ok_or_else(|| bad("no such storage"))?;
        let offset = self.pickle.size(offset).ok_or_else(|| bad("no offset"))?;
        let shape = self.pickle.sizes(size).ok_or_else(|| bad("no shape"))?;
        let strides = self.pickle.sizes(stride).ok_or_else(|| bad("no strides"))?;
        if shape.len() != strides.len() || shape.len() > 8 {
            return Err(bad("shape and strides disagree"));
        }
        let values = storage.bytes.len() / storage.number.size();
        let count = shape.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
        let count = count.filter(|&n| n <= values).ok_or_else(|| bad("it is larger than its storage"))?;
        let last = shape.iter().zip(&strides).try_fold(offset, |at, (&axis, &stride)| {
            at.checked_add(axis.saturating_sub(1).checked_mul(stride)?)
        });
        if count > 0 && last.is_none_or(|last| last >= values) {
            return Err(bad("it reaches beyond its storage"));
        }
        self.budget =
            self.budget.checked_sub(count).ok_or_else(|| bad("far more values than bytes in the file"))?;

        let mut data = Vec::with_capacity(count);
        let mut index = vec![0; shape.len()];
        for _ in 0..count {
            let at: usize = offset + index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>();
            data.push(storage.number.get(storage.bytes, at));
            for (i, &axis) in index.iter_mut().zip(&shape).rev() {
                *i += 1;
                if *i < axis {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Tensor { shape, data })
    }
}
