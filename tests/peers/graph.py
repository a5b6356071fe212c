"""Any plan as an ONNX graph, with every affine and alpha folded into the preceding convolution.

ONNX Runtime folds batch-norms in the same way, so the peer gets its best form. The plan is the JSON that
edge-runtime's benches write next to the tensors.
"""


class Graph:
    """Nodes and constants under construction."""

    def __init__(self, tensors):
        self.tensors, self.nodes, self.constants = tensors, [], {}

    def add(self, kind, inputs, **attributes):
        from onnx import helper

        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def constant(self, name, value):
        from onnx import numpy_helper

        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def line(self, x, ops, factor=None):
        """The operations of a path applied to `x`, times `factor` if given."""
        import numpy

        ops = list(ops)
        while ops:
            op = ops.pop(0)
            kind = op["op"]
            if kind == "conv":
                name = op["name"]
                weight = self.tensors[f"{name}.weight"]
                bias = self.tensors[f"{name}.bias"] if op["bias"] else numpy.zeros(len(weight), weight.dtype)
                if ops and ops[0]["op"] == "affine":
                    norm = ops.pop(0)["name"]
                    scale, shift = self.tensors[f"{norm}.scale"], self.tensors[f"{norm}.shift"]
                    weight, bias = weight * scale[:, None, None, None], bias * scale + shift
                if factor is not None and not ops:
                    weight, bias, factor = weight * factor, bias * factor, None
                at = f"n{len(self.nodes)}.{name}"
                inputs = [x, self.constant(f"{at}.weight", weight), self.constant(f"{at}.bias", bias)]
                kernel, pad = op["kernel"], op["pad"]
                x = self.add("Conv", inputs, kernel_shape=[kernel] * 2, strides=[op["stride"]] * 2, pads=[pad] * 4)
            elif kind == "affine":
                scale, shift = (self.tensors[f"{op['name']}.{part}"][:, None, None] for part in ("scale", "shift"))
                at = f"n{len(self.nodes)}.{op['name']}"
                x = self.add("Mul", [x, self.constant(f"{at}.scale", scale)])
                x = self.add("Add", [x, self.constant(f"{at}.shift", shift)])
            elif kind == "relu":
                x = self.add("Relu", [x])
            elif kind in ("max-pool", "avg-pool"):
                sizes = {"kernel_shape": [op["kernel"]] * 2, "strides": [op["stride"]] * 2, "pads": [op.get("pad", 0)] * 4}
                x = self.add("MaxPool" if kind == "max-pool" else "AveragePool", [x], **sizes)
            elif kind == "subsample":
                x = self.add("MaxPool", [x], kernel_shape=[1, 1], strides=[op["stride"]] * 2)
            elif kind == "pad-channels":
                pads = numpy.array([0, op["front"], 0, 0, 0, op["back"], 0, 0], dtype=numpy.int64)
                x = self.add("Pad", [x, self.constant(f"n{len(self.nodes)}.pads", pads)])
            elif kind == "global-avg-pool":
                x = self.add("GlobalAveragePool", [x])
            elif kind == "linear":
                names = [f"{op['name']}.weight", f"{op['name']}.bias"]
                x = self.add("Flatten", [x])
                x = self.add("Gemm", [x] + [self.constant(name, self.tensors[name]) for name in names], transB=1)
            else:
                raise ValueError(f"graph: no operation called {kind!r}")
        if factor is not None:
            x = self.add("Mul", [x, self.constant(f"n{len(self.nodes)}.alpha", numpy.float32(factor).reshape(1))])
        return x


def model(plan, tensors):
    """ONNX bytes of `plan` over `tensors`; `test.image` and `test.scores` give the shapes of input and
    output.
    """
    from onnx import TensorProto, checker, helper

    graph = Graph(tensors)
    nodes = [graph.line("image", plan["stem"])]
    for number, cell in enumerate(plan["cells"], 1):
        total = None
        for gate in cell["gates"]:
            alpha = None if gate["alpha"] is None else tensors[f"cell{number}.alpha"][gate["alpha"]]
            for path in gate["paths"]:
                term = graph.line(nodes[gate["source"]], path, alpha)
                total = term if total is None else graph.add("Add", [total, term])
        nodes.append(graph.add("Relu", [total]) if total and cell["relu"] else total)
    last = graph.line(nodes[-1], plan["head"])
    graph.nodes.append(helper.make_node("Identity", [last], ["scores"]))
    info = helper.make_tensor_value_info
    image = info("image", TensorProto.FLOAT, tensors["test.image"].shape)
    scores = info("scores", TensorProto.FLOAT, tensors["test.scores"].shape)
    body = helper.make_graph(graph.nodes, "network", [image], [scores], list(graph.constants.values()))
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(made)
    return made.SerializeToString()
