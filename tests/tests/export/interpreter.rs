//! A plain f64 interpreter for ONNX models, given only the file: operators as defined by the ONNX
//! specification, and a panic for anything a model may not do.

use prost::Message;
use std::collections::HashMap;
use tailor::export::schema::{Extent, FLOAT, INT64, Model, Node, Tensor};

/// A tensor in the graph.
#[derive(Debug, Clone)]
pub struct Value {
    pub dims: Vec<usize>,
    pub data: Vec<f64>,
}

/// Decodes a file and checks global properties that readers rely on.
pub fn read(bytes: &[u8]) -> Model {
    let model = Model::decode(bytes).expect("a protobuf of a model");
    assert_eq!(model.encode_to_vec(), bytes, "nothing in the file is unknown to the schema");
    let graph = model.graph.as_ref().expect("a graph");
    let mut made: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    made.extend(graph.input.iter().map(|i| i.name.as_str()));
    made.extend(graph.node.iter().flat_map(|n| &n.output).map(String::as_str));
    let count = made.len();
    made.sort_unstable();
    made.dedup();
    assert_eq!(made.len(), count, "every value is made once");
    for tensor in &graph.initializer {
        let read = graph.node.iter().any(|n| n.input.contains(&tensor.name));
        assert!(read, "constant {} is read by nobody", tensor.name);
    }
    let mut names: Vec<&str> = graph.node.iter().map(|n| n.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), graph.node.len(), "node names are distinct");
    model
}

/// The graph's output for `input`, whose batch size may differ from one only if the model allows it.
pub fn run(model: &Model, input: &Value) -> Value {
    let graph = model.graph.as_ref().expect("a graph");
    let [port] = graph.input.as_slice() else { panic!("one input: {:?}", graph.input) };
    let [result] = graph.output.as_slice() else { panic!("one output: {:?}", graph.output) };
    let batch = input.dims[0];
    assert_eq!(dims(port, batch), input.dims, "input of {}", port.name);
    let mut values: HashMap<&str, Value> = HashMap::new();
    for tensor in &graph.initializer {
        values.insert(&tensor.name, constant(tensor));
    }
    values.insert(&port.name, input.clone());
    for node in &graph.node {
        let inputs: Vec<&Value> = node
            .input
            .iter()
            .map(|name| {
                values.get(name.as_str()).unwrap_or_else(|| panic!("{name} is read before it is made"))
            })
            .collect();
        let out = apply(node, &inputs);
        assert_eq!(out.data.len(), out.dims.iter().product::<usize>(), "{node:?}");
        let [name] = node.output.as_slice() else { panic!("one output: {node:?}") };
        values.insert(name, out);
    }
    let out = values.remove(result.name.as_str()).expect("the output is made");
    assert_eq!(dims(result, batch), out.dims, "output of {}", result.name);
    out
}

fn dims(port: &tailor::export::schema::ValueInfo, batch: usize) -> Vec<usize> {
    let tensor = port.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).expect("a tensor");
    assert_eq!(tensor.elem_type, FLOAT);
    let dims = tensor.shape.as_ref().expect("a shape").dim.iter().map(|d| match d.value.as_ref() {
        Some(Extent::Fixed(n)) => usize::try_from(*n).unwrap(),
        Some(Extent::Named(name)) if name == "batch" => batch,
        other => panic!("{}: {other:?}", port.name),
    });
    dims.collect()
}

fn constant(tensor: &Tensor) -> Value {
    let dims: Vec<usize> = tensor.dims.iter().map(|&d| usize::try_from(d).unwrap()).collect();
    let data: Vec<f64> = match tensor.data_type {
        FLOAT => tensor.raw_data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        INT64 => tensor.raw_data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
        other => panic!("{}: element type {other}", tensor.name),
    };
    let width = if tensor.data_type == FLOAT { 4 } else { 8 };
    assert_eq!(tensor.raw_data.len(), width * dims.iter().product::<usize>(), "{}", tensor.name);
    Value { dims, data }
}

/// A list of integers: an attribute of `node`.
fn ints(node: &Node, name: &str) -> Vec<usize> {
    let found = node.attribute.iter().find(|a| a.name == name);
    let found = found.unwrap_or_else(|| panic!("{} without {name}", node.name));
    found.ints.iter().map(|&i| usize::try_from(i).unwrap()).collect()
}

fn whole(value: &Value) -> Vec<usize> {
    value.data.iter().map(|&v| v as usize).collect()
}

fn apply(node: &Node, inputs: &[&Value]) -> Value {
    let x = inputs[0];
    match (node.op_type.as_str(), inputs) {
        ("Relu", [x]) => map(x, |v, _| v.max(0.0)),
        ("Add", [a, b]) => pairwise(a, b, |a, b| a + b),
        ("Mul", [a, b]) => pairwise(a, b, |a, b| a * b),
        ("BatchNormalization", [x, scale, bias, mean, variance]) => {
            assert_eq!(node.attribute[0].name, "epsilon");
            let epsilon = f64::from(node.attribute[0].f);
            for part in [scale, bias, mean, variance] {
                assert_eq!(part.dims, [x.dims[1]], "{}", node.name);
            }
            map(x, |v, c| {
                (v - mean.data[c]) / (variance.data[c] + epsilon).sqrt() * scale.data[c] + bias.data[c]
            })
        }
        ("Conv", [x, weight, bias @ ..]) => conv(node, x, weight, bias.first().copied()),
        ("MaxPool", [x]) => {
            pool(x, &ints(node, "kernel_shape"), &ints(node, "strides"), &ints(node, "pads"), |window| {
                window.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            })
        }
        ("AveragePool", [x]) => {
            pool(x, &ints(node, "kernel_shape"), &ints(node, "strides"), &[0; 4], |window| {
                window.iter().sum::<f64>() / window.len() as f64
            })
        }
        ("GlobalAveragePool", [x]) => {
            let area = x.dims[2] * x.dims[3];
            let data = x.data.chunks(area).map(|plane| plane.iter().sum::<f64>() / area as f64).collect();
            Value { dims: vec![x.dims[0], x.dims[1], 1, 1], data }
        }
        ("Flatten", [x]) => {
            assert_eq!((node.attribute[0].name.as_str(), node.attribute[0].i), ("axis", 1));
            Value { dims: vec![x.dims[0], x.dims[1..].iter().product()], data: x.data.clone() }
        }
        ("Unsqueeze", [x, axes]) => {
            assert_eq!((x.dims.len(), whole(axes)), (2, vec![2, 3]));
            Value { dims: vec![x.dims[0], x.dims[1], 1, 1], data: x.data.clone() }
        }
        ("Slice", [x, starts, ends, axes, steps]) => {
            assert_eq!((whole(starts), whole(axes)), (vec![0, 0], vec![2, 3]));
            assert_eq!(whole(ends), x.dims[2..]);
            let steps = whole(steps);
            pool(x, &[1, 1], &steps, &[0; 4], |window| window[0])
        }
        ("Pad", [x, pads]) => {
            let pads = whole(pads);
            assert_eq!(pads.len(), 8);
            let (front, back) = (pads[1], pads[5]);
            assert_eq!(pads.iter().sum::<usize>(), front + back, "only channels are padded");
            let area = x.dims[2] * x.dims[3];
            let zeros = |n: usize| std::iter::repeat_n(0.0, n * area);
            let mut data = Vec::new();
            for image in x.data.chunks(x.dims[1] * area) {
                data.extend(zeros(front).chain(image.iter().copied()).chain(zeros(back)));
            }
            Value { dims: vec![x.dims[0], front + x.dims[1] + back, x.dims[2], x.dims[3]], data }
        }
        ("Gemm", [x, weight, bias]) => {
            assert_eq!((node.attribute[0].name.as_str(), node.attribute[0].i), ("transB", 1));
            let (c_out, c_in) = (weight.dims[0], weight.dims[1]);
            assert_eq!((x.dims[1], &bias.dims), (c_in, &vec![c_out]), "{}", node.name);
            let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            let rows = || weight.data.chunks(c_in).zip(&bias.data);
            let data = x.data.chunks(c_in).flat_map(|x| rows().map(move |(row, b)| dot(row, x) + b));
            Value { dims: vec![x.dims[0], c_out], data: data.collect() }
        }
        (op, _) => panic!("{op} of {} inputs, the first {:?}", inputs.len(), x.dims),
    }
}

/// Applies `f(element, channel)` to every element.
fn map(x: &Value, f: impl Fn(f64, usize) -> f64) -> Value {
    let area: usize = x.dims[2..].iter().product();
    let data = x.data.iter().enumerate().map(|(i, &v)| f(v, i / area % x.dims[1])).collect();
    Value { dims: x.dims.clone(), data }
}

/// Elementwise, with the smaller operand broadcast as in NumPy.
fn pairwise(a: &Value, b: &Value, f: impl Fn(f64, f64) -> f64) -> Value {
    let rank = a.dims.len().max(b.dims.len());
    let lift = |dims: &[usize]| [vec![1; rank - dims.len()], dims.to_vec()].concat();
    let (from_a, from_b) = (lift(&a.dims), lift(&b.dims));
    let join = |(&m, &n): (&usize, &usize)| {
        assert!(m == n || m == 1 || n == 1, "{:?} and {:?}", a.dims, b.dims);
        m.max(n)
    };
    let dims: Vec<usize> = from_a.iter().zip(&from_b).map(join).collect();
    let at = |of: &[usize], mut index: usize| {
        let (mut place, mut step) = (0, 1);
        for (&n, &extent) in dims.iter().zip(of).rev() {
            place += if extent == 1 { 0 } else { index % n * step };
            step *= extent;
            index /= n;
        }
        place
    };
    let count = dims.iter().product();
    let data = (0..count).map(|i| f(a.data[at(&from_a, i)], b.data[at(&from_b, i)])).collect();
    Value { dims, data }
}

/// Applies `f` to each window of each channel; values outside the map are left out of the window.
fn pool(x: &Value, kernel: &[usize], stride: &[usize], pads: &[usize], f: impl Fn(&[f64]) -> f64) -> Value {
    let &[n, c, h, w] = x.dims.as_slice() else { panic!("a map, not {:?}", x.dims) };
    let out =
        |extent: usize, axis: usize| (extent + pads[axis] + pads[axis + 2] - kernel[axis]) / stride[axis] + 1;
    let (oh, ow) = (out(h, 0), out(w, 1));
    let inside = |o: usize, axis: usize, extent: usize| {
        let start = o * stride[axis];
        (start..start + kernel[axis]).filter_map(move |p| p.checked_sub(pads[axis]).filter(|&p| p < extent))
    };
    let mut data = Vec::with_capacity(n * c * oh * ow);
    for plane in x.data.chunks(h * w) {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            let rows = inside(oy, 0, h);
            let window: Vec<f64> =
                rows.flat_map(|y| inside(ox, 1, w).map(move |p| plane[y * w + p])).collect();
            data.push(f(&window));
        }
    }
    Value { dims: vec![n, c, oh, ow], data }
}

fn conv(node: &Node, x: &Value, weight: &Value, bias: Option<&Value>) -> Value {
    let (kernel, stride, pads) = (ints(node, "kernel_shape"), ints(node, "strides"), ints(node, "pads"));
    let (&[n, c, h, w], &[c_out, c_in, kh, kw]) = (x.dims.as_slice(), weight.dims.as_slice()) else {
        panic!("{:?} and {:?}", x.dims, weight.dims)
    };
    assert_eq!((c_in, kernel.as_slice()), (c, [kh, kw].as_slice()), "{}", node.name);
    let (oh, ow) =
        ((h + pads[0] + pads[2] - kh) / stride[0] + 1, (w + pads[1] + pads[3] - kw) / stride[1] + 1);
    let mut data = Vec::with_capacity(n * c_out * oh * ow);
    for image in x.data.chunks(c * h * w) {
        for o in 0..c_out {
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                let mut sum = bias.map_or(0.0, |b| b.data[o]);
                for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                    let y = (oy * stride[0] + ky).wrapping_sub(pads[0]);
                    let p = (ox * stride[1] + kx).wrapping_sub(pads[1]);
                    if y < h && p < w {
                        for i in 0..c {
                            sum +=
                                image[(i * h + y) * w + p] * weight.data[((o * c + i) * kh + ky) * kw + kx];
                        }
                    }
                }
                data.push(sum);
            }
        }
    }
    Value { dims: vec![n, c_out, oh, ow], data }
}
