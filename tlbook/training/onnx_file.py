"""A network as an ONNX file, which other programs run: written, and checked against the original."""

import copy

import numpy as np
import torch
from torch import nn

from tlbook import cache


class FromPixels(nn.Module):
    """(B, 3, H, W) in 0 … 255 -> "probabilities" (B, K), or the final "features" (B, D)."""

    def __init__(self, backbone, output):
        super().__init__()
        self.model, self.output = copy.deepcopy(backbone), output
        for name in ("mean", "std"):
            self.register_buffer(name, 255 * torch.tensor(getattr(backbone, name)).view(1, 3, 1, 1))
        self.cpu().eval()

    def forward(self, x):
        x = (x - self.mean) / self.std
        if self.output == "features":
            return self.model.forward_head(self.model.forward_features(x), pre_logits=True)
        return self.model(x).softmax(1)


def write_onnx(path, backbone, output="probabilities", **about):
    """Write the network from pixels to ``output`` as ONNX, and check with ONNX Runtime that it answers as the original.

    Args:
        path: of the file. backbone: a `tlbook.backbones.Backbone`. output: as of `FromPixels`.
        about: strings for the file's metadata, beside "height" and "width".

    Returns:
        The largest difference between the two: of a probability, or of the features by their norm.

    Raises:
        ValueError: an encoder of texts or sounds. ModuleNotFoundError: onnx, onnxscript and onnxruntime are not there.
        RuntimeError: they differ by more than 1e-4; nothing is written then.
    """
    if backbone.kind != "images":
        raise ValueError(f"only classifiers of images are exported, and {backbone.name} takes {backbone.kind}")
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 what torch exports with
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is missing: pip install 'tlbook[export]'") from None

    (height, width), whole = backbone._size, FromPixels(backbone, output)
    x = (255 * torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))).round()
    with cache.atomic(path) as part:
        program = _program(whole, x)
        program.model.metadata_props.update(height=str(height), width=str(width), **about)
        program.save(part)
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        with torch.inference_mode():
            answers = [(session.run(None, {"image": x[:n].numpy()})[0], whole(x[:n]).numpy()) for n in (1, 3)]
        scale = np.linalg.norm(answers[1][1], axis=1).mean() if output == "features" else 1
        difference = max(float(np.abs(a - b).max()) / scale for a, b in answers)
        if not difference <= 1e-4:
            raise RuntimeError(f"the ONNX model answers differently, by up to {difference:.1e}: nothing was written")
    return difference


def _program(whole, x):
    """The module as torch exports it, for any number of images, without the paths of the source files here."""
    program = torch.onnx.export(
        whole,
        (x,),
        dynamo=True,
        verbose=False,
        input_names=["image"],
        output_names=[whole.output],
        dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
    )
    for node in program.model.graph:
        node.metadata_props.clear()
    return program
