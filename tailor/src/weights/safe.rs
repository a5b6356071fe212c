//! .safetensors files.

use super::{Fault, StateDict, Tensor, storage::Number};
use safetensors::{Dtype, SafeTensors};

pub(super) fn read(bytes: &[u8]) -> Result<StateDict, Fault> {
    let damaged = |error| Fault::damaged(format!("not a complete safetensors file ({error})"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut dict = StateDict::default();
    if let Some(metadata) = header.metadata() {
        dict.metadata = metadata.clone().into_iter().collect();
    }
    for (name, view) in file.iter() {
        let number = match view.dtype() {
            Dtype::F64 => Number::F64,
            Dtype::F32 => Number::F32,
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::BF16,
            Dtype::I64 => Number::I64,
            Dtype::I32 => Number::I32,
            Dtype::I16 => Number::I16,
            Dtype::I8 => Number::I8,
            Dtype::U8 => Number::U8,
            Dtype::BOOL => Number::Bool,
            other => {
                let found = format!("tensor `{name}` is of type {other:?}");
                return Err(Fault::new(found, "save it as f32, f16 or bf16"));
            }
        };
        let (shape, raw) = (view.shape().to_vec(), view.data());
        let data = (0..raw.len() / number.size()).map(|i| number.get(raw, i)).collect();
        dict.tensors.insert(name.to_owned(), Tensor { shape, data });
    }
    if dict.tensors.is_empty() {
        return Err(Fault::new("it contains no tensors", "a state dict is needed"));
    }
    Ok(dict)
}
