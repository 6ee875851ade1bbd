"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import torch
from torch import nn

NORMS = nn.BatchNorm2d
MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def field(layers, start=1, stride_first=False):
    jump, size = 1, start
    for kernel, stride in layers:
        jump *= stride if stride_first else 1
        size += (kernel - 1) * jump
        jump *= 1 if stride_first else stride
    return size


def field_backwards(layers):
    size = 1
    for kernel, stride in reversed(layers):  # the classic recursion, from the output down
        size = (size - 1) * stride + kernel
    return size


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
    "02.1": [field, field_backwards],
    "02.2": [lambda x: (three(x) / 255 - 0.5) / 0.5, lambda x: x.repeat(1, 3, 1, 1).double() / 127.5 - 1],
    "02.3": [to_modules(lambda m: m.eval()), lambda model: to_modules(lambda m: m.train(False))(model) or model],
}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "strides left out": ("02.1", lambda layers: 1 + sum(k - 1 for k, _ in layers), "leaves the strides out"),
    "stride counts for its own kernel": ("02.1", lambda layers: field(layers, stride_first=True), "its own kernel"),
    "the jump": ("02.1", lambda layers: torch.tensor([s for _, s in layers]).prod().item(), "That is the jump"),
    "kernels added up": ("02.1", lambda layers: sum(k for k, _ in layers), "adds the kernels up"),
    "starts at 0": ("02.1", lambda layers: field(layers, start=0), "One pixel too few"),
    "learned by heart": ("02.1", lambda layers: 23, "other layers too"),
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
