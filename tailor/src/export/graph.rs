//! Builds an ONNX graph node by node; every value is named after the node or constant that produces it.

use super::schema::{
    self, Attribute, AttributeKind, Dimension, Extent, FLOAT, INT64, Node, Tensor, TensorShape, TensorType,
    ValueInfo,
};
use std::collections::HashSet;

/// The nodes and constants added so far.
#[derive(Debug, Default)]
pub(super) struct Builder {
    nodes: Vec<Node>,
    constants: Vec<Tensor>,
    known: HashSet<String>,
}

impl Builder {
    /// Appends a node; returns the name of its only output, which equals its own.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes,
        });
        name.to_owned()
    }

    /// A constant of floats; stored once per name, so the same tensor may be requested repeatedly.
    pub fn floats<'v>(
        &mut self,
        name: &str,
        dims: &[usize],
        values: impl IntoIterator<Item = &'v f32>,
    ) -> String {
        self.constant(name, dims, FLOAT, || values.into_iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A list of integers as a constant.
    pub fn ints(&mut self, name: &str, values: &[usize]) -> String {
        let bytes = || values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect();
        self.constant(name, &[values.len()], INT64, bytes)
    }

    fn constant(
        &mut self,
        name: &str,
        dims: &[usize],
        data_type: i32,
        bytes: impl FnOnce() -> Vec<u8>,
    ) -> String {
        if self.known.insert(name.to_owned()) {
            let dims = dims.iter().map(|&d| d as i64).collect();
            self.constants.push(Tensor { dims, data_type, name: name.to_owned(), raw_data: bytes() });
        }
        name.to_owned()
    }

    /// The graph, with the last node's output renamed to the graph's output.
    pub fn finish(mut self, name: &str, input: ValueInfo, output: ValueInfo) -> schema::Graph {
        if let Some(result) = self.nodes.last_mut().and_then(|node| node.output.first_mut()) {
            result.clone_from(&output.name);
        }
        schema::Graph {
            node: self.nodes,
            name: name.to_owned(),
            initializer: self.constants,
            input: vec![input],
            output: vec![output],
        }
    }
}

/// A list of integers as an attribute.
pub(super) fn ints(name: &str, values: &[usize]) -> Attribute {
    let ints = values.iter().map(|&v| v as i64).collect();
    Attribute { name: name.to_owned(), ints, kind: AttributeKind::Ints.into(), ..Attribute::default() }
}

/// An integer as an attribute.
pub(super) fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_owned(), i: value, kind: AttributeKind::Int.into(), ..Attribute::default() }
}

/// A float as an attribute.
pub(super) fn float(name: &str, value: f32) -> Attribute {
    Attribute { name: name.to_owned(), f: value, kind: AttributeKind::Float.into(), ..Attribute::default() }
}

/// An input or output of floats, batch axis first.
pub(super) fn value(name: &str, batch: Extent, dims: &[usize]) -> ValueInfo {
    let fixed = dims.iter().map(|&d| Extent::Fixed(d as i64));
    let dim = std::iter::once(batch).chain(fixed).map(|extent| Dimension { value: Some(extent) }).collect();
    let tensor_type = TensorType { elem_type: FLOAT, shape: Some(TensorShape { dim }) };
    let r#type = Some(schema::Type { tensor_type: Some(tensor_type) });
    ValueInfo { name: name.to_owned(), r#type }
}
