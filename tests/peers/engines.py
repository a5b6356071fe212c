"""The engines to compare frame times with. Each runs one network, batch 1, on one image.

`Engine(network, threads)`; `scores()` returns the scores of its image, `median(frames)` the median of that
many frames in milliseconds.
"""

import importlib.util
import os
import statistics
import subprocess
import time


class Network:
    """The input of every engine."""

    def __init__(self, folder, model, image, scores):
        # `model`: bytes of the ONNX graph, in the precision being measured; `folder`: the bench's output.
        self.folder, self.model, self.image, self.wanted = folder, model, image, scores


class InProcess:
    """An engine with a Python binding."""

    def median(self, frames):
        times = []
        for _ in range(frames):
            start = time.perf_counter()
            self.frame()
            times.append((time.perf_counter() - start) * 1e3)
        return statistics.median(times)

    def close(self):
        pass


class OnnxRuntime(InProcess):
    package, precisions = "onnxruntime", ("f32", "f16", "int8")

    def __init__(self, network, threads):
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(network.model, options, providers=["CPUExecutionProvider"])
        self.feed = {"image": network.image}

    def frame(self):
        return self.session.run(None, self.feed)

    def scores(self):
        return self.frame()[0]


class OpenVino(InProcess):
    package, precisions = "openvino", ("f32", "f16", "int8")

    def __init__(self, network, threads):
        import openvino

        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        core = openvino.Core()
        # Otherwise, cores with bfloat16 would compute f32 networks in it.
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self.request = core.compile_model(core.read_model(network.model), "CPU", settings).create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(network.image))

    def frame(self):
        self.request.infer()

    def scores(self):
        self.frame()
        return self.request.get_output_tensor().data


class Ncnn(InProcess):
    package, precisions = "ncnn", ("f32", "f16")

    def __init__(self, network, threads):
        import ncnn

        from ncnn_model import convert

        self.name = f"ncnn {ncnn.__version__}"
        paths = [os.path.join(network.folder, f"net.{end}") for end in ("param", "bin")]
        convert(network.model, *paths)
        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_vulkan_compute = False
        # As exact as the others.
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed"):
            if hasattr(self.net.opt, option):
                setattr(self.net.opt, option, False)
        if self.net.load_param(paths[0]) or self.net.load_model(paths[1]):
            raise RuntimeError("ncnn cannot load the network")
        # A copy, because a Mat made from an array does not keep the array alive.
        self.image = ncnn.Mat(network.image[0]).clone()

    def frame(self):
        extractor = self.net.create_extractor()
        extractor.input("image", self.image)
        return extractor.extract("scores")[1]

    def scores(self):
        import numpy

        return numpy.array(self.frame()).reshape(1, -1)


class Served:
    """A program that answers every line `N` with the median and best of N frames."""

    def __init__(self, command, environment=None):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, **pipes)
        self.words = self.process.stdout.readline().split()
        if self.words[:1] != ["ready"]:
            raise RuntimeError(f"{command[0]} did not start; run it by hand: {' '.join(command)}")

    def median(self, frames):
        print(frames, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline().split()[0])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Candle(Served):
    package, precisions = None, ("f32", "f16")
    # Its bench; set by the caller that has it.
    program = None

    def __init__(self, network, threads):
        super().__init__([self.program, "--serve", network.folder], {"RAYON_NUM_THREADS": str(threads)})
        self.name, self.apart = "candle", float(self.words[1])


PEERS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "ncnn": Ncnn, "candle": Candle}


def is_here(peer):
    """Whether it is installed or built."""
    engine = PEERS[peer]
    return engine.program is not None if engine is Candle else importlib.util.find_spec(engine.package) is not None
