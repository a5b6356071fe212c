"""A residual network's ONNX graph in ncnn's own format
(https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure).
"""

# An activation that is fused into a convolution.
RELU = 1


def convert(model, param, weights):
    """Writes ONNX bytes `model` to the files `param` (text) and `weights` (binary). ReLUs after convolutions
    are fused.
    """
    import numpy
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(model).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type not in ("Identity", "Flatten")]
    # A flattened or renamed blob is an alias of its input.
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Identity", "Flatten")}

    def source(name):
        while name in same:
            name = same[name]
        return name

    readers = {}
    for node in nodes:
        for name in map(source, node.input):
            readers.setdefault(name, []).append(node)
    last = source(graph.output[0].name)

    layers, blobs = [["Input", "image", 0, 1, "image"]], 1
    arrays, copies, fused = [], {}, {}

    def read(name):
        name = source(name)
        name = fused.get(name, name)
        return copies[name].pop() if copies.get(name) else name

    def split(name, uses):
        """ncnn requires a separate blob for each reader."""
        nonlocal blobs
        if uses < 2:
            return
        copies[name] = [f"{name}_{i}" for i in range(uses)]
        layers.append(["Split", f"split_{name}", 1, uses, name, *copies[name]])
        blobs += uses

    for node in nodes:
        out = node.output[0]
        at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Relu" and source(node.input[0]) in fused.values():
            continue
        inputs = [read(name) for name in node.input if name not in constants]
        held = [constants[name] for name in node.input if name in constants]
        after = readers.get(out, [])
        name, options = out, []
        if node.op_type == "Conv":
            weight, bias = held
            options = [f"0={weight.shape[0]}", f"1={weight.shape[2]}", f"3={at['strides'][0]}", f"4={at['pads'][0]}", "5=1", f"6={weight.size}"]
            if len(after) == 1 and after[0].op_type == "Relu":
                options.append(f"9={RELU}")
                fused[after[0].output[0]] = name
                after = readers.get(after[0].output[0], [])
            kind = "Convolution"
            arrays += [numpy.zeros(1, numpy.uint32), weight, bias]
        elif node.op_type == "Gemm":
            weight, bias = held
            options = [f"0={weight.shape[0]}", "1=1", f"2={weight.size}"]
            kind = "InnerProduct"
            arrays += [numpy.zeros(1, numpy.uint32), weight, bias]
        elif node.op_type == "MaxPool":
            options = ["0=0", f"1={at['kernel_shape'][0]}", f"2={at['strides'][0]}", f"3={at['pads'][0]}", "5=1"]
            kind = "Pooling"
        elif node.op_type == "GlobalAveragePool":
            options, kind = ["0=1", "4=1"], "Pooling"
        elif node.op_type == "Relu":
            kind = "ReLU"
        elif node.op_type == "Add":
            options, kind = ["0=0"], "BinaryOp"
        else:
            raise ValueError(f"ncnn_model: unsupported operation {node.op_type!r}")
        name = "scores" if out == last else name
        layers.append([kind, f"layer_{out}", len(inputs), 1, *inputs, name, *options])
        blobs += 1
        split(name, len(after))
    with open(param, "w", encoding="utf-8") as file:
        print("7767517", f"{len(layers)} {blobs}", *(" ".join(map(str, layer)) for layer in layers), sep="\n", file=file)
    with open(weights, "wb") as file:
        for array in arrays:
            file.write(numpy.ascontiguousarray(array).tobytes())
