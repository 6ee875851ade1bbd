"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import math

import torch
from torch import nn

NORMS = nn.BatchNorm2d
MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def layers(pixels, stride, start=1, add=2, stride_first=False):
    count, jump, size = 0, 1, start
    while size < pixels:
        jump *= stride if stride_first else 1
        size += add * jump
        jump *= 1 if stride_first else stride
        count += 1
    return count


def closed(pixels, stride):
    """n layers of stride 1 see 1 + 2n pixels; of stride s, 1 + 2 (sⁿ − 1) / (s − 1)."""
    if stride == 1:
        return math.ceil((pixels - 1) / 2)
    return math.ceil(math.log((pixels - 1) * (stride - 1) / 2 + 1) / math.log(stride) - 1e-9)


def three(x):
    return x.expand(-1, 3, -1, -1).float()


def standardise(x):
    x = three(x)
    return (x - x.mean()) / x.std()


def to_modules(change, where=lambda model: model.modules()):
    def answer(model):
        model.train()
        for module in where(model):
            if isinstance(module, NORMS):
                change(module)

    return answer


def no_momentum(module):
    module.momentum = 0


RIGHT = {
    "02.1": [layers, closed],
    "02.2": [lambda x: (three(x) / 255 - 0.5) / 0.5, lambda x: x.repeat(1, 3, 1, 1).double() / 127.5 - 1],
    "02.3": [to_modules(lambda m: m.eval()), lambda model: to_modules(lambda m: m.train(False))(model) or model],
}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "stride left out": ("02.1", lambda pixels, stride: layers(pixels, 1), "leaves the stride out"),
    "stride counts for its own kernel": (
        "02.1",
        lambda pixels, stride: layers(pixels, stride, stride_first=True),
        "its own kernel",
    ),
    "the jump": (
        "02.1",
        lambda pixels, stride: closed(pixels, 1) if stride == 1 else math.ceil(math.log(pixels, stride)),
        "when the jump has grown",
    ),
    "divided by the stride": ("02.1", lambda pixels, stride: math.ceil(closed(pixels, 1) / stride), "by the stride"),
    "kernels added up": ("02.1", lambda pixels, stride: math.ceil(pixels / 3), "does not add 3"),
    "three more a layer": ("02.1", lambda pixels, stride: layers(pixels, stride, add=3), "does not add 3"),
    "one side": ("02.1", lambda pixels, stride: layers(pixels, stride, start=0, add=1), "2 a layer"),
    "starts at 0": ("02.1", lambda pixels, stride: layers(pixels, stride, start=0), "One layer too many"),
    "the field itself": ("02.1", lambda pixels, stride: 1 + 2 * pixels, "Turn it round"),
    "rounded down": ("02.1", lambda pixels, stride: (pixels - 1) // 2, "one short of 160"),
    "half a layer": ("02.1", lambda pixels, stride: (pixels - 1) / 2, "no half layer"),
    "learned by heart": ("02.1", lambda pixels, stride: {67: 33, 160: 80}.get(pixels, 0), "For 2 pixels"),
    "one channel": ("02.2", lambda x: (x.float() / 255 - 0.5) / 0.5, "three input channels"),
    "0 to 255": ("02.2", lambda x: (three(x) - 0.5) / 0.5, "divide by 255"),
    "not normalised": ("02.2", lambda x: three(x) / 255, "Scaled to 0 … 1"),
    "ImageNet's usual numbers": ("02.2", lambda x: (three(x) / 255 - MEAN) / STD, "usual ImageNet"),
    "the batch's own numbers": ("02.2", standardise, "in other company"),
    "still integers": ("02.2", lambda x: x.repeat(1, 3, 1, 1) // 255, "no fractions"),
    "eval for all": ("02.3", lambda model: model.eval(), "Dropout is off"),
    "momentum 0": ("02.3", to_modules(no_momentum), "With momentum 0"),
    "no gradient": ("02.3", to_modules(lambda m: m.requires_grad_(False)), "Without requires_grad"),
    "train for all": ("02.3", lambda model: model.train(), "are in train mode"),
    "children only": ("02.3", to_modules(lambda m: m.eval(), lambda model: model.children()), "model.children()"),
}
