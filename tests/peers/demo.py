"""What tailoring saves per frame: `tests/peers/run demo [--json] FOLDER`, after `tailor demo --out FOLDER`.

Compares the demo's tailored networks on edge-runtime with ONNX Runtime, which runs the fine-tuned teacher
(what a user has without tailoring) and the same tailored network. A teacher is the backbone with other
weights and another classifier, so the backbone's export stands in for all of them: the classifier accounts
for less than 0.1 % of its multiply-adds. Batch 1; rounds alternate; times are medians over rounds of each
round's median frame, ratios are medians of the rounds' ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from engines import Network, OnnxRuntime

# From the demo: the backbone, and a folder per task.
BACKBONE = "cifar100-resnet20.backbone"
TASKS = ["digits", "fashion"]
# Per side and round: enough that the fastest networks, at some 30 microseconds, run past the warm-up.
FRAMES = 1000


def session(options, folder, task, threads):
    """An ONNX Runtime session of the backbone, or of a task's network."""
    import numpy

    path = os.path.join(folder, "net.onnx")
    command = [options.tailor, "export", "--backbone", os.path.join(options.folder, BACKBONE), "--onnx", path]
    subprocess.run(command + (["--task", task] if task else []), check=True, stdout=subprocess.DEVNULL)
    with open(path, "rb") as file:
        model = file.read()
    image = numpy.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(numpy.float32)
    engine = OnnxRuntime(Network(folder, model, image, None), threads)
    # Its input has the name given by `tailor export`.
    engine.feed = {engine.session.get_inputs()[0].name: image}
    return engine


def ours(options, task, threads, frames):
    """Median milliseconds of `frames` frames on edge-runtime."""
    command = [options.edge_runtime, "bench", "--backbone", os.path.join(options.folder, BACKBONE), "--task", task]
    command += ["--threads", str(threads), "--frames", str(frames), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["tasks"][0]["frame_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tailor", required=True, help="the tailor program (run builds it)")
    parser.add_argument("--edge-runtime", required=True, help="the device's program (run builds it)")
    parser.add_argument("folder", help="the folder given to `tailor demo --out`")
    parser.add_argument("--threads", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON line per case")
    options = parser.parse_args()
    wanted = [BACKBONE, *(os.path.join(name, f"{name}.task") for name in TASKS)]
    for path in (os.path.join(options.folder, file) for file in wanted):
        if not os.path.exists(path):
            sys.exit(f"demo: no {path}; run `tailor demo --out {options.folder}` first")
    if not options.json:
        print(f"{'task':<10} threads   tailored ms   {'ONNX Runtime runs':<18}         ms   times faster")
    for name in TASKS:
        task = os.path.join(options.folder, name, f"{name}.task")
        for threads in options.threads or [1, 2]:
            with tempfile.TemporaryDirectory() as folder:
                peers = {"the teacher": session(options, folder, None, threads), "the tailored": session(options, folder, task, threads)}
            rounds = []
            for _ in range(options.rounds):
                times = [ours(options, task, threads, FRAMES)]
                for peer in peers.values():
                    # The pause lets the other sides' threads go to sleep.
                    time.sleep(0.02)
                    times.append(peer.median(FRAMES))
                rounds.append(times)
            mine = statistics.median(times[0] for times in rounds)
            for at, (what, peer) in enumerate(peers.items(), 1):
                theirs = statistics.median(times[at] for times in rounds)
                ratio = statistics.median(times[0] / times[at] for times in rounds)
                if options.json:
                    line = {"task": name, "threads": threads, "ours_ms": round(mine, 4), "peer": peer.name, "runs": what}
                    print(json.dumps({**line, "peer_ms": round(theirs, 4), "ratio": round(ratio, 3)}), flush=True)
                else:
                    print(f"{name:<10} {threads:>7} {mine:>13.3f}   {what:<18} {theirs:>10.3f} {1 / ratio:>14.2f}", flush=True)


if __name__ == "__main__":
    main()
