"""EfficientNet-Lite0 as its own project lays it out, written from the paper: the independent witness of lesson 05.

The tensors have the names of the bundled checkpoint, so that its weights load as they are, with no renaming; nothing
here comes from timm. That timm's network with renamed weights gives the same logits proves the renaming.

Tan & Le (2019), EfficientNet, arXiv:1905.11946, table 1. "Lite" has no squeeze-and-excitation, and ReLU6 for swish.
"""

from torch import nn
from torch.nn import functional as F

STAGES = (  # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class Conv(nn.Conv2d):
    """A convolution whose output has ⌈size / stride⌉ pixels a side: TensorFlow's "same" padding, the odd pixel last."""

    def forward(self, x):
        sizes = zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
        needed = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in sizes]  # in all, for height and width
        (top, left), (height, width) = [n // 2 for n in needed], needed
        return super().forward(F.pad(x, (left, width - left, top, height - top)))


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted bottleneck: widen, filter each channel by itself, narrow; added to its input where shapes allow."""

    def __init__(self, inputs, expansion, kernel, stride, outputs):
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = Conv(inputs, wide, 1, bias=False), norm(wide)
        self._depthwise_conv = Conv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = norm(wide)
        self._project_conv, self._bn2 = Conv(wide, outputs, 1, bias=False), norm(outputs)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x):
        z = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        z = F.relu6(self._bn1(self._depthwise_conv(z)))
        z = self._bn2(self._project_conv(z))
        return x + z if self.adds else z


class EfficientNetLite0(nn.Module):
    """Logits (B, 1000) of images (B, 3, H, W) in −1 … 1.

    >>> import torch
    >>> EfficientNetLite0().eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])

    Lesson 05; Tan & Le (2019).
    """

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = Conv(3, 32, 3, 2, bias=False), norm(32)
        blocks, inputs = [], 32
        for expansion, kernel, stride, channels, count in STAGES:
            for k in range(count):
                blocks.append(Block(inputs, expansion, kernel, stride if k == 0 else 1, channels))
                inputs = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Conv(320, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))
