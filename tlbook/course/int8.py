"""A classifier in few bits: quantised by ONNX Runtime, run by it or by OpenVINO."""

import numpy as np

from tlbook.course.clock import Meter
from tlbook.forward import _core


def quantise(path, out, images, *, by_channel=True):
    """Write an exported classifier in 8-bit integers: weights, and the outputs of its layers.

    A weight becomes a whole multiple of a step, w ≈ s k with k in −127 … 127; the step is s = max |w| / 127 over an
    output channel or over the whole tensor. The range of each layer's outputs is what ``images`` bring about.

    Args:
        path: what `FineTuned.export` wrote. out: the file to write.
        images: (n, 3, H, W) of 0 … 255, some training images.
        by_channel: a step for each output channel, or one for each tensor.

    Lesson 08; Krishnamoorthi (2018), Quantizing deep convolutional networks for efficient inference, arXiv:1806.08342.
    """
    import tempfile
    from pathlib import Path

    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self):
            self.batches = (np.asarray(images[i : i + 16], dtype=np.float32) for i in range(0, len(images), 16))

        def get_next(self):
            return next(({"image": batch} for batch in self.batches), None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(path, prepared)  # folds BatchNorm into the convolutions
        quantize_static(prepared, out, Images(), per_channel=by_channel)


def answer(path, images, engine="onnxruntime", precision="f32"):
    """Return (n, K) float64 probabilities for ``images`` (n, 3, H, W) of 0 … 255, and the `Meter` of computing them.

    Args:
        path: what `FineTuned.export` or `quantise` wrote.
        engine: "onnxruntime" or "openvino".
        precision: by OpenVINO, of what is not in integers: "f32" or "bf16".
    """
    network = _by_openvino(path, precision) if engine == "openvino" else _by_onnxruntime(path)
    batches = [np.asarray(images[i : i + 32], dtype=np.float32) for i in range(0, len(images), 32)]
    network(batches[0])  # warms up
    with Meter() as cost:
        p = np.concatenate([network(batch) for batch in batches]).astype(np.float64)
    return p / p.sum(1, keepdims=True), cost


def _by_onnxruntime(path):
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"image": batch})[0]


def _by_openvino(path, precision):
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    network = _core().compile_model(str(path), "CPU", hints)
    return lambda batch: network(batch)[0]
