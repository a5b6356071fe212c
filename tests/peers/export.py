"""Exported models in ONNX Runtime beside edge-runtime: `tests/peers/run export [--json]`.

Each model passes ONNX's own checker (full: shapes are inferred and compared) and is run by ONNX Runtime on
the input for which edge-runtime has computed the scores. Prints the largest difference relative to the
largest score; the exit status is 1 if one exceeds 1e-4.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

TOLERANCE = 1e-4


def case(folder, entry):
    """One line of the result."""
    import numpy
    import onnx
    import onnxruntime

    base = os.path.join(folder, entry["name"])
    onnx.checker.check_model(base + ".onnx", full_check=True)
    model = onnx.load(base + ".onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(base + ".onnx", options, providers=["CPUExecutionProvider"])
    image = numpy.fromfile(base + ".input", "<f4").reshape([entry["batch"], *entry["dims"]])
    want = numpy.fromfile(base + ".scores", "<f4").reshape([entry["batch"], -1])
    got = session.run([entry["output"]], {entry["input"]: image})[0]
    # If all scores are tiny, compare with a hundredth instead.
    size = max(float(numpy.abs(want).max()), 1e-2)
    difference = float(numpy.abs(got - want).max()) / size if got.shape == want.shape else float("inf")
    return {
        "net": entry["name"],
        "input": entry["input"],
        "batch": entry["batch"],
        "nodes": len(model.graph.node),
        "bytes": os.path.getsize(base + ".onnx"),
        "peer": f"onnxruntime {onnxruntime.__version__}",
        "difference": float(f"{difference:.2e}"),
        "passed": difference <= TOLERANCE,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", required=True, help="the compiled example `export_cases` (run finds it)")
    parser.add_argument("--bundles", nargs=2, metavar=("BACKBONE", "TASK"), action="append", help="also compare these")
    parser.add_argument("--json", action="store_true", help="one JSON line per model")
    options = parser.parse_args()
    worst, failed = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        command = [options.cases, folder]
        for pair in options.bundles or []:
            command += ["--bundles", *pair]
        entries = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        for entry in map(json.loads, entries):
            line = case(folder, entry)
            worst = max(worst, line["difference"])
            failed += not line["passed"]
            if options.json:
                print(json.dumps(line), flush=True)
            else:
                result = "ok" if line["passed"] else "FAILED"
                print(f"{line['net']:<32} {line['nodes']:>4} nodes {line['difference']:.2e} {result}", flush=True)
    print(f"{len(entries)} models, largest relative difference {worst:.2e}, {failed} above {TOLERANCE:.0e}", file=sys.stderr)
    sys.exit(1 if failed or not entries else 0)


if __name__ == "__main__":
    main()
