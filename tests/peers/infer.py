"""Our frame times compared with other engines', interleaved in one run: `tests/peers/run infer [--json]`.

All sides run exactly the same network (batch 1) on the same image and must agree before any time counts: to
1e-4 in f32. In f16, ours stores halves and computes in f32, theirs is f32. In int8, theirs is the statically
quantised form (QDQ, per channel) of onnxruntime.quantization; each side rounds differently, so scores need
only be close. The bench of edge-runtime writes plan and tensors; they are converted to an ONNX graph with
every affine folded into its convolution, as the engines do with batch-norms themselves. Rounds alternate
between all sides; a figure is the median over rounds of each round's median frame, and the ratio is the
median of the rounds' ratios.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time

from engines import PEERS, Candle, Network, Served, is_here
from graph import model

NETS = ["cifar-resnet20-b", "cifar-resnet56-b", "resnet18", "resnet34"]

# Largest difference of scores, relative to the largest score.
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


def agreement(peer, network):
    """Largest difference of its scores from ours, relative to the largest score."""
    import numpy

    if isinstance(peer, Candle):
        return peer.apart
    return float(numpy.abs(peer.scores() - network.wanted).max() / numpy.abs(network.wanted).max())


def case(options, net, threads, precision):
    """The result lines of one network, one per peer."""
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        command = [options.bench, "--serve", folder, "--net", net, "--threads", str(threads), "--precision", precision]
        ours = Served(command + (["--isa", options.isa] if options.isa else []))
        tensors = load_file(os.path.join(folder, "net.safetensors"))
        with open(os.path.join(folder, "net.json"), encoding="utf-8") as file:
            onnx = model(json.load(file), tensors)
        if precision == "int8":
            onnx = quantised(onnx, folder, {"image": tensors["test.image"]})
        network = Network(folder, onnx, tensors["test.image"], tensors["test.scores"])
        sides, apart = [], []
        for peer in options.peer:
            if precision in PEERS[peer].precisions:
                sides.append(PEERS[peer](network, threads))
                apart.append(agreement(sides[-1], network))
    most = AGREEMENT[precision]
    for peer, difference in zip(sides, apart):
        if not difference <= most:
            sys.exit(f"infer: {net}: scores of {peer.name} differ by {difference:.1e} of the largest, at most {most} allowed: not the same network")

    everybody = [ours, *sides]
    frames = [max(5, round(100 / side.median(5))) for side in everybody]
    rounds = []
    for _ in range(options.rounds):
        times = []
        for side, count in zip(everybody, frames):
            # The pause lets the other sides' threads go to sleep.
            time.sleep(0.02)
            times.append(side.median(count))
        rounds.append(times)
    for side in everybody:
        side.close()
    mine = [times[0] for times in rounds]
    for at, (peer, difference) in enumerate(zip(sides, apart), 1):
        theirs = [times[at] for times in rounds]
        yield {
            "net": net,
            "precision": precision,
            "threads": threads,
            "ours_ms": round(statistics.median(mine), 4),
            "peer": peer.name,
            "peer_ms": round(statistics.median(theirs), 4),
            "ratio": round(statistics.median(a / b for a, b in zip(mine, theirs)), 3),
            "ours_min_ms": round(min(mine), 4),
            "peer_min_ms": round(min(theirs), 4),
            "difference": float(f"{difference:.1e}"),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="edge-runtime's compiled bench `frame` (run finds it)")
    parser.add_argument("--candle", help="tailor's compiled bench `candle` (run finds it)")
    parser.add_argument("--peer", choices=PEERS, action="append", help="default: all that are installed (may be repeated)")
    parser.add_argument("--net", choices=NETS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--precision", choices=AGREEMENT, action="append", help="default: f32 (may be repeated)")
    parser.add_argument("--threads", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--isa", help="avx512, avx2, portable, neon, neon-fp16; default: the fastest here")
    parser.add_argument("--json", action="store_true", help="one JSON line per case and peer")
    options = parser.parse_args()
    Candle.program = options.candle
    for peer in options.peer or []:
        if not is_here(peer):
            sys.exit(f"infer: {peer} is not installed; leave --peer {peer} out, or see why it could not be")
    options.peer = options.peer or [peer for peer in PEERS if is_here(peer)]
    if not options.json:
        print(f"{'network':<18} {'precision':<9} threads     ours ms   {'peer':<22}    peer ms   ratio")
    for net, precision, threads in itertools.product(options.net or NETS, options.precision or ["f32"], options.threads or [1, 2]):
        for line in case(options, net, threads, precision):
            if options.json:
                print(json.dumps(line), flush=True)
            else:
                print(f"{net:<18} {precision:<9} {threads:>7} {line['ours_ms']:>11.3f}   {line['peer']:<22} {line['peer_ms']:>10.3f} {line['ratio']:>7.3f}", flush=True)


if __name__ == "__main__":
    main()
