"""Frames of ours beside ONNX Runtime's, interleaved in one run: `tests/peers/run infer [--json]`.

Both sides run exactly the same network (batch 1) on the same image and must agree before any time counts: to 1e-4 in
f32. In f16 ours stores halves and computes in f32, theirs is f32. In int8 theirs is the statically quantised form (QDQ,
per channel) of onnxruntime.quantization; each side rounds in its own way, so their scores need only be near each other.
The bench of edge-runtime writes the tensors; here they become an ONNX graph with every affine folded into its
convolution, which is what ONNX Runtime makes of batch-norms itself. Each side runs in its own process; rounds alternate;
the figure is the median over rounds of each round's median frame, the ratio the median of the rounds' ratios.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

# Name of the bench's network, then stem (kernel, stride, pooled) and blocks per stage.
NETS = {
    "cifar-resnet20-b": ((3, 1, False), [3, 3, 3]),
    "cifar-resnet56-b": ((3, 1, False), [9, 9, 9]),
    "resnet18": ((7, 2, True), [2, 2, 2, 2]),
    "resnet34": ((7, 2, True), [3, 4, 6, 3]),
}


def graph(net, tensors):
    """The network as ONNX bytes."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, weights = [], []

    def add(kind, inputs, **attributes):
        out = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def constant(name, value):
        weights.append(numpy_helper.from_array(value, name))
        return name

    def conv(x, name, norm, stride):
        weight, scale, shift = tensors[f"{name}.weight"], tensors[f"{norm}.scale"], tensors[f"{norm}.shift"]
        kernel = weight.shape[2]
        weight = constant(f"{name}.weight", weight * scale[:, None, None, None])
        shift = constant(f"{name}.bias", shift)
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return add("Conv", [x, weight, shift], **sizes)

    (_, stem_stride, pooled), stages = NETS[net]
    x = add("Relu", [conv("image", "conv1", "bn1", stem_stride)])
    if pooled:
        x = add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, count in enumerate(stages):
        for i in range(count):
            at = f"layer{stage + 1}.{i}"
            stride = 2 if stage and not i else 1
            body = add("Relu", [conv(x, f"{at}.conv1", f"{at}.bn1", stride)])
            body = conv(body, f"{at}.conv2", f"{at}.bn2", 1)
            across = conv(x, f"{at}.downsample.0", f"{at}.downsample.1", stride) if stride == 2 else x
            x = add("Relu", [add("Add", [body, across])])
    x = add("Flatten", [add("GlobalAveragePool", [x])])
    weight, bias = constant("fc.weight", tensors["fc.weight"]), constant("fc.bias", tensors["fc.bias"])
    nodes.append(helper.make_node("Gemm", [x, weight, bias], ["scores"], transB=1))
    info = helper.make_tensor_value_info
    image = info("image", TensorProto.FLOAT, tensors["test.image"].shape)
    scores = info("scores", TensorProto.FLOAT, tensors["test.scores"].shape)
    body = helper.make_graph(nodes, net, [image], [scores], weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


# Largest difference of scores, relative to the largest one.
AGREEMENT = {"f32": 1e-4, "f16": 1e-2, "int8": 0.3}


def quantised(model, folder, feed):
    """The model in ONNX Runtime's own static int8 form, as bytes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class One(CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([feed])

        def get_next(self):
            return next(self.feeds, None)

    plain, small = os.path.join(folder, "f32.onnx"), os.path.join(folder, "int8.onnx")
    with open(plain, "wb") as file:
        file.write(model)
    quantize_static(
        plain,
        small,
        One(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    with open(small, "rb") as file:
        return file.read()


def median_frame(session, feed, frames):
    """Median milliseconds of `frames` frames."""
    times = []
    for _ in range(frames):
        start = time.perf_counter()
        session.run(None, feed)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def case(bench, net, threads, rounds, isa, precision):
    """One line of the result."""
    import numpy
    import onnxruntime
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.safetensors")
        command = [bench, "--serve", path, "--net", net, "--threads", str(threads), "--precision", precision]
        command += ["--isa", isa] if isa else []
        ours = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if ours.stdout.readline().strip() != "ready":
            sys.exit(f"infer: {bench} did not start; run it by hand: {' '.join(command)}")
        tensors = load_file(path)
        feed, model = {"image": tensors["test.image"]}, graph(net, tensors)
        if precision == "int8":
            model = quantised(model, folder, feed)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    theirs = session.run(None, feed)[0]
    scores = tensors["test.scores"]
    apart = float(numpy.abs(theirs - scores).max() / numpy.abs(scores).max())
    most = AGREEMENT[precision]
    if not apart <= most:
        sys.exit(f"infer: {net}: scores differ by {apart:.1e} of the largest, at most {most} allowed: not the same network")

    def our_frame(frames):
        print(frames, file=ours.stdin, flush=True)
        return float(ours.stdout.readline().split()[0])

    frames = max(5, round(100 / median_frame(session, feed, 5)))
    our_frame(frames)
    pairs = []
    for _ in range(rounds):
        # The pause lets the other side's threads go to sleep.
        time.sleep(0.02)
        mine = our_frame(frames)
        time.sleep(0.02)
        pairs.append((mine, median_frame(session, feed, frames)))
    ours.stdin.close()
    ours.wait()
    return {
        "net": net,
        "precision": precision,
        "threads": threads,
        "ours_ms": round(statistics.median(a for a, _ in pairs), 4),
        "peer": f"onnxruntime {onnxruntime.__version__}",
        "peer_ms": round(statistics.median(b for _, b in pairs), 4),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "ours_min_ms": round(min(a for a, _ in pairs), 4),
        "peer_min_ms": round(min(b for _, b in pairs), 4),
        "difference": float(f"{apart:.1e}"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="edge-runtime's compiled bench `frame` (run finds it)")
    parser.add_argument("--net", choices=NETS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--precision", choices=AGREEMENT, action="append", help="default: f32 (may be repeated)")
    parser.add_argument("--threads", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--isa", help="avx512, avx2, portable, neon; default: the fastest here")
    parser.add_argument("--json", action="store_true", help="one JSON line per case")
    options = parser.parse_args()
    if not options.json:
        print(f"{'network':<18} {'precision':<9} threads     ours ms   ONNX Runtime ms   ratio")
    chosen = itertools.product(options.net or NETS, options.precision or ["f32"], options.threads or [1, 2])
    for net, precision, threads in chosen:
        line = case(options.bench, net, threads, options.rounds, options.isa, precision)
        if options.json:
            print(json.dumps(line), flush=True)
        else:
            print(f"{net:<18} {precision:<9} {threads:>7} {line['ours_ms']:>11.3f} {line['peer_ms']:>17.3f} {line['ratio']:>7.3f}", flush=True)


if __name__ == "__main__":
    main()
