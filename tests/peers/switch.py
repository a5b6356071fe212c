"""Our task switches compared with new ONNX Runtime sessions, in one run: `tests/peers/run switch [--json]`.

Both sides switch to the same tailored network (a third of the blocks removed, proxies over the gaps, batch 1,
f32), ours from a task bundle in the page cache, ONNX Runtime from ONNX bytes in memory, and must agree to
1e-4 before any time counts. For ONNX Runtime, a switch drops the session, creates the next one, and runs it
once. Ours are `resident` (the task is in memory: only a pointer moves), `cold` (the task was evicted: read,
checked, decoded, ready), `new` (the same for a bundle that this process has not loaded before, or not
recently: signatures are verified and the plan is compiled, too), and `cold + first frame` (streamed: the
frame starts while the rest is still being decoded). `over_frame` is the last one divided by a plain frame,
and `switch_only_ratio` is what a cold, streamed switch adds to a frame divided by what a switch adds for ONNX
Runtime. Rounds alternate; figures are medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from graph import model

NETS = ["cifar-resnet20-a", "cifar-resnet56-a", "resnet18"]


def case(bench, net, threads, rounds):
    """The result lines of one network."""
    import numpy
    import onnxruntime
    from safetensors.numpy import load_file

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1

    with tempfile.TemporaryDirectory() as folder:
        command = [bench, "--serve", folder, "--net", net, "--threads", str(threads)]
        ours = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if ours.stdout.readline().strip() != "ready":
            sys.exit(f"switch: {bench} did not start; run it by hand: {' '.join(command)}")

        def mine(what, often):
            print(what, often, file=ours.stdin, flush=True)
            return float(ours.stdout.readline())

        tensors = load_file(os.path.join(folder, "task0.safetensors"))
        with open(os.path.join(folder, "task0.json"), encoding="utf-8") as file:
            network = model(json.load(file), tensors)
        feed = {"image": tensors["test.image"]}

        def session():
            return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

        current = session()
        scores = tensors["test.scores"]
        apart = float(numpy.abs(current.run(None, feed)[0] - scores).max() / numpy.abs(scores).max())
        if not apart <= 1e-4:
            sys.exit(f"switch: {net}: scores differ by {apart:.1e} of the largest, at most 1e-4 allowed: not the same network")

        figures = {name: [] for name in ("frame", "warm", "cold", "new", "streamed", "peer", "peer_frame")}
        for _ in range(rounds):
            for name, often in (("frame", 5), ("warm", 1), ("cold", 3), ("new", 3), ("streamed", 3)):
                # The pause lets the other side's threads go to sleep.
                time.sleep(0.01)
                figures[name].append(mine(name, often))
            time.sleep(0.01)
            start = time.perf_counter()
            del current
            current = session()
            current.run(None, feed)
            figures["peer"].append((time.perf_counter() - start) * 1e3)
            start = time.perf_counter()
            current.run(None, feed)
            figures["peer_frame"].append((time.perf_counter() - start) * 1e3)
        ours.stdin.close()
        ours.wait()

    middle = {name: statistics.median(times) for name, times in figures.items()}
    common = {"net": net, "precision": "f32", "threads": threads, "peer": f"onnxruntime {onnxruntime.__version__}"}
    extra = {
        "frame_ms": round(middle["frame"], 4),
        "over_frame": round(statistics.median(s / f for s, f in zip(figures["streamed"], figures["frame"])), 3),
        "switch_only_ratio": round((middle["streamed"] - middle["frame"]) / (middle["peer"] - middle["peer_frame"]), 5),
        "peer_frame_ms": round(middle["peer_frame"], 4),
    }
    for what, name in (("resident", "warm"), ("cold", "cold"), ("new", "new"), ("cold + first frame", "streamed")):
        ratio = statistics.median(a / b for a, b in zip(figures[name], figures["peer"]))
        line = {**common, "switch": what, "ours_ms": round(middle[name], 6), "peer_ms": round(middle["peer"], 3), "ratio": ratio}
        if name == "warm":
            line["warm_ns"] = round(middle["warm"] * 1e6, 1)
        yield {**line, **(extra if name == "streamed" else {})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="edge-runtime's compiled bench `switch` (run finds it)")
    parser.add_argument("--net", choices=NETS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--threads", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON line per case")
    options = parser.parse_args()
    if not options.json:
        print(f"{'network':<18} threads {'switch':<20} {'ours ms':>10} {'ONNX Runtime ms':>16} {'times faster':>13}")
    for net in options.net or NETS:
        for threads in options.threads or [1, 2]:
            for line in case(options.bench, net, threads, options.rounds):
                if options.json:
                    print(json.dumps(line), flush=True)
                    continue
                mine, peer, ratio = line["ours_ms"], line["peer_ms"], line["ratio"]
                print(f"{net:<18} {threads:>7} {line['switch']:<20} {mine:>10.4f} {peer:>16.2f} {1 / ratio:>13.1f}", flush=True)


if __name__ == "__main__":
    main()
