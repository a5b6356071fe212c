//! The part of ONNX's `onnx.proto3` used by exported networks, with the published field numbers.

use prost::{Enumeration, Message, Oneof};

/// Element type of 32-bit floats (`TensorProto.DataType.FLOAT`).
pub const FLOAT: i32 = 1;
/// Element type of 64-bit integers (`TensorProto.DataType.INT64`).
pub const INT64: i32 = 7;

/// A whole file.
#[derive(Clone, PartialEq, Message)]
pub struct Model {
    /// Version of the file format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// Name of the producing program.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// Version of the producing program.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// A human-readable description.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// The network.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    /// Operator sets used by its nodes.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    /// Metadata of the exporter.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Entry>,
}

/// A version of an operator set; the empty domain is ONNX's own.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSet {
    /// Domain of the operators.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Version.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A key and its value.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// Unique in its list.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Any text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Nodes in topological order, with their constants, inputs and outputs.
#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    /// Operations.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    /// Name of the network.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    /// Inputs.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// One operation.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Names of its inputs.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of its outputs.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Its own name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// Its parameters.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
}

/// A parameter of a node; `kind` selects the field that holds its value.
#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    /// Name defined by the operator.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value of [`AttributeKind::Float`].
    #[prost(float, tag = "2")]
    pub f: f32,
    /// Value of [`AttributeKind::Int`].
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// Value of [`AttributeKind::Ints`].
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    /// The type of its value.
    #[prost(enumeration = "AttributeKind", tag = "20")]
    pub kind: i32,
}

/// Types of attributes (`AttributeProto.AttributeType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum AttributeKind {
    /// None given.
    Undefined = 0,
    /// One float.
    Float = 1,
    /// One integer.
    Int = 2,
    /// A list of integers.
    Ints = 7,
}

/// A constant.
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    /// Extent of each axis.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// [`FLOAT`] or [`INT64`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Name by which nodes refer to it.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Elements, little-endian, row-major.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
}

/// A named value and its type.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

/// A type; here always a tensor.
#[derive(Clone, PartialEq, Message)]
pub struct Type {
    /// Element type and shape.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

/// Type of a tensor.
#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    /// As in [`Tensor::data_type`].
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// Extent of each axis.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShape>,
}

/// Axes of a tensor.
#[derive(Clone, PartialEq, Message)]
pub struct TensorShape {
    /// Outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// One axis.
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    /// Its extent.
    #[prost(oneof = "Extent", tags = "1, 2")]
    pub value: Option<Extent>,
}

/// Extent of an axis: fixed, or named and chosen by the caller.
#[derive(Clone, PartialEq, Oneof)]
pub enum Extent {
    /// Fixed.
    #[prost(int64, tag = "1")]
    Fixed(i64),
    /// Chosen by the caller.
    #[prost(string, tag = "2")]
    Named(String),
}
