"""Exercises of lesson 02."""

import numpy as np
import torch
from torch import nn

from tlbook.course.exercises import Exercise


def _layers_needed(answer):
    plain, got = {1: 0, 2: 1, 3: 1, 4: 2, 67: 33, 160: 80}, answer(67, 1)  # of stride 1: n layers see 1 + 2n pixels
    assert np.ndim(got) == 0 and got is not None, f"It should return one number of layers, it returned {got!r}."
    assert got not in (22, 23), "A second layer does not add 3 pixels to the field: it adds k − 1 = 2."
    assert got != 34, "One layer too many: without any layer an output sees 1 pixel, not 0."
    assert got != 67, "A layer of kernel 3 sees one pixel more on the left *and* one on the right: 2 a layer."
    assert got != 135, "That is the field of so many layers. Turn it round: pixels come in, layers go out."
    assert got == 33, f"For 67 pixels and stride 1 it should be 33 layers, it is {got}."
    assert answer(160, 1) != 79, "79 layers see 159 pixels, one short of 160: round up."
    assert answer(160, 1) != 79.5, "There is no half layer: round up."
    for pixels, layers in plain.items():
        got = answer(pixels, 1)
        assert got == layers, f"For {pixels} pixels and stride 1 it should be {layers}, it is {got}."
    got = answer(67, 2)
    assert got != 33, (
        "That leaves the stride out. After a stride of 2, neighbouring outputs lie two input pixels apart, so "
        "every later kernel reaches twice as far."
    )
    assert got != 5, (
        "You let a layer's stride count for its own kernel. A layer's kernel moves over its *input*: add "
        "(k − 1) × jump first, then multiply the jump by its stride."
    )
    assert got not in (7, 17), (
        "That asks when the jump has grown to the field, or divides by the stride. The field grows by "
        "(k − 1) × jump, another step for each layer: 2, 4, 8 …"
    )
    assert got == 6, f"For 67 pixels and stride 2 it should be 6 layers, it is {got}."
    for pixels, stride, layers in ((1, 2, 0), (127, 2, 6), (128, 2, 7), (160, 2, 7), (100, 3, 5)):
        got = answer(pixels, stride)
        assert got == layers, f"For {pixels} pixels and stride {stride} it should be {layers}, it is {got}."


def _prepare(answer):
    x = torch.randint(0, 256, (4, 1, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    got = answer(x)
    assert isinstance(got, torch.Tensor), f"It should return a tensor, it returned {type(got).__name__}."
    assert got.shape != x.shape, (
        "The network has three input channels: repeat the grey one, (B, 1, H, W) -> (B, 3, H, W)."
    )
    assert tuple(got.shape) == (4, 3, 6, 5), f"(4, 1, 6, 5) should become (4, 3, 6, 5), it became {tuple(got.shape)}."
    assert got.dtype.is_floating_point, (
        f"The result is {got.dtype}, which has no fractions and no negative numbers: make the pixels floats first."
    )
    got, grey = got.float(), x.float().expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert not torch.allclose(got, (grey - 0.5) / 0.5, atol=1e-2), (
        "The pixels still run from 0 to 255: divide by 255 before (x − mean) / std."
    )
    assert not torch.allclose(got, grey / 255, atol=1e-3), (
        "Scaled to 0 … 1, but not yet (x − mean) / std with the model's own mean and std."
    )
    assert not torch.allclose(got, (grey / 255 - mean) / std, atol=1e-3), (
        "Those are the usual ImageNet mean and std. This model was trained with others: backbone.mean, backbone.std."
    )
    own = (grey - grey.mean()) / grey.std()
    assert not torch.allclose(got, own, atol=1e-2), (
        "That is standardised by the mean and deviation of this batch: an image would look different in other company. "
        "Use the model's fixed numbers."
    )
    assert torch.allclose(got, (grey / 255 - 0.5) / 0.5, atol=1e-3), (
        "Black (0) should become −1 and white (255) should become 1, in all three channels."
    )


def _freeze_batchnorm(answer):
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(block, nn.BatchNorm2d(8), nn.Dropout(0.5))
    model.eval()
    returned = answer(model)
    model = returned if isinstance(returned, nn.Module) else model  # changed in place, or returned: both will do
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    dropout = next(m for m in model.modules() if isinstance(m, nn.Dropout))
    assert dropout.training, (
        "Dropout is off: the model is in eval mode as a whole. Only BatchNorm should be; call model.train() first."
    )
    still = [m for m in norms if m.training]
    assert not (len(still) == len(norms) and any(m.momentum == 0 for m in norms)), (
        "With momentum 0 the running statistics stand still, but in train mode they are not used: the features "
        "still depend on the other images of the batch. Put the layers in eval mode."
    )
    assert not (len(still) == len(norms) and not any(p.requires_grad for m in norms for p in m.parameters())), (
        "Without requires_grad the scale and shift stay, but the running mean and variance are no parameters: "
        "no gradient moves them, the forward pass does. Put the layers in eval mode."
    )
    assert len(still) < len(norms), "The BatchNorm layers are in train mode. Find them among model.modules()."
    assert not still, (
        f"{len(still)} of {len(norms)} BatchNorm layers is still in train mode: one sits inside a block. "
        "model.children() stops at the first level, model.modules() goes all the way down."
    )


EXERCISES = {
    "02.1": Exercise(
        _layers_needed,
        "Put layer upon layer while the field is still too small, and count them. No layer at all sees 1 pixel.",
        "def answer(pixels, stride):\n    field = jump = 1\n    layers = 0\n    while field < pixels:\n"
        "        field += 2 * jump\n        jump *= stride\n        layers += 1\n    return layers",
    ),
    "02.2": Exercise(
        _prepare,
        "Three steps: float and divide by 255; subtract 0.5 and divide by 0.5; expand(-1, 3, -1, -1).",
        "def answer(x):\n    return ((x.float() / 255 - 0.5) / 0.5).expand(-1, 3, -1, -1)",
    ),
    "02.3": Exercise(
        _freeze_batchnorm,
        "model.train() first; then .eval() on every module for which isinstance(module, torch.nn.BatchNorm2d) holds.",
        "def answer(model):\n    model.train()\n    for module in model.modules():\n"
        "        if isinstance(module, torch.nn.BatchNorm2d):\n            module.eval()\n    return model",
    ),
}
