"""LoRA: fine-tuning as a low-rank map T, W′ = W + (α / r) B A.

W (out × in) is frozen; A (r × in) and B (out × r) are trained. B starts at zero, so T starts as the identity.
A convolution's weight (out, in / groups, h, w) counts as a matrix of out rows.

A layer with LoRA forms W′ and does with it what it always did. So stride, padding and its mode, dilation,
groups and whatever a subclass adds are kept by construction, and merging is exact: it stores the W′ that was
in use. The price is a gradient as large as W for each such layer; what shrinks is the optimizer's state and
the saved file.

Lesson 05; Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685.
"""

import functools
import math
import re
from collections import Counter
from numbers import Integral, Real

import torch
from torch import nn

from tlbook.named_tensors import TransferError, owned, refuse_compiled, unwrapped
from tlbook.parameter_transfer import transfer
from tlbook.training.trainable import derived, is_frozen


def _update(layer):
    """ΔW = (α / r) B A, in the shape of W."""
    return layer.lora_scale * (layer.lora_B @ layer.lora_A).view_as(layer._parameters["weight"])


@functools.cache
def _with_lora(kind):
    """The layer's class, except that ``weight`` reads as W′; the parameter W keeps its name."""
    weight = property(lambda layer: layer._parameters["weight"] + _update(layer))
    return derived(_with_lora, kind, "LoRA", {"weight": weight, "_plain": kind})


def _attach(layer, a, b, scale):
    layer.lora_A, layer.lora_B = a, b
    layer.register_buffer("lora_scale", scale)
    layer.__class__ = _with_lora(type(layer))


def inject(model, rank, alpha, targets):
    """Give layers a low-rank update, W′ = W + (α / r) B A, and freeze every other parameter, in place.

    Names stay as they were; an adapted layer gains ``lora_A`` (r, in), ``lora_B`` (out, r) and the buffer
    ``lora_scale``. A new head that should train as well is unfrozen afterwards. BatchNorm's running
    statistics are not parameters: freeze them as in any fine-tuning.

    Args:
        model: nn.Module; of one that torch.compile wrapped, the original inside.
        rank: r, a positive integer.
        alpha: α, a positive number: the scale of the update, not the α of an interpolation.
        targets: regular expressions, each of which must match the whole name of a Linear or Conv2d, or of
            several.

    Returns:
        The names of the adapted layers.

    Raises:
        TransferError: a pattern matches no Linear or Conv2d; a layer has LoRA already; its weight is shared
            with another layer. ValueError: rank or alpha; a part of the model is compiled. The model is
            then unchanged.

    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    >>> inject(model, rank=2, alpha=4, targets=["0"])
    ['0']
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['0.lora_A', '0.lora_B']

    Lesson 05; Hu et al. (2021).
    """
    # Arguments
    if not isinstance(rank, Integral) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"rank must be a positive integer, got {rank!r}")
    if not isinstance(alpha, Real) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a positive number, got {alpha!r}")
    model = unwrapped(model)
    refuse_compiled(model)

    # The layers that the patterns name
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    chosen = set()
    for pattern in [targets] if isinstance(targets, str) else targets:
        matching = {name for name in layers if re.fullmatch(pattern, name)}
        if not matching:
            some = ", ".join(list(layers)[:9])
            raise TransferError(f"targets: {pattern!r} matches no Linear or Conv2d; there are {len(layers)}: {some} …")
        chosen |= matching

    # Each can be adapted, and merged later
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    for name in chosen:
        if hasattr(layers[name], "_plain") or hasattr(layers[name], "_merged"):
            raise TransferError(f"{name} has LoRA already")
        if is_frozen(layers[name]):
            raise TransferError(f"{name} is frozen, and a later unfreeze would drop LoRA: tl.unfreeze the model first")
        if owners[id(layers[name]._parameters.get("weight"))] != 1:
            raise TransferError(f"the weight of {name} is shared with another layer, which a merge would change too")

    # Only A and B learn
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(("lora_A", "lora_B")))
    for layer in (layers[name] for name in layers if name in chosen):
        weight = layer.weight
        a = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        b = nn.Parameter(weight.new_zeros(len(weight), rank))
        _attach(layer, a, b, weight.new_tensor(alpha / rank))
    return [name for name in layers if name in chosen]


@torch.no_grad()
def merge(model):
    """Store W′ = W + (α / r) B A as each adapted layer's weight, in place: no extra work at inference.

    The model has its old layers and names again, so its state dict loads into one without LoRA. `unmerge`
    undoes it.

    Raises:
        TransferError: the model has no layer with LoRA.

    >>> model = nn.Sequential(nn.Linear(8, 2))
    >>> _ = inject(model, rank=2, alpha=4, targets=["0"])
    >>> merge(model)
    >>> list(model.state_dict())
    ['0.weight', '0.bias']

    Lesson 05; Hu et al. (2021).
    """
    for layer in _layers(model, "_plain", "there is nothing to merge"):
        layer._parameters["weight"] += _update(layer)
        layer._merged = (layer.lora_A, layer.lora_B, layer.lora_scale)  # a tuple: not in the state dict
        del layer.lora_A, layer.lora_B, layer.lora_scale
        layer.__class__ = layer._plain


@torch.no_grad()
def unmerge(model):
    """Take the update out again, W = W′ − (α / r) B A, in place, up to rounding; A and B can train on.

    Raises:
        TransferError: the model has no merged layer, or a frozen one.

    Lesson 05.
    """
    layers = _layers(model, "_merged", "there is nothing to unmerge")
    if any(map(is_frozen, layers)):
        raise TransferError(
            "a merged layer is frozen, and a later unfreeze would drop LoRA: tl.unfreeze the model first"
        )
    for layer in layers:
        for tensor in layer._merged:
            tensor.data = tensor.data.to(layer.weight)  # the model may have moved meanwhile
        _attach(layer, *layer._merged)
        del layer._merged
        layer._parameters["weight"] -= _update(layer)


def state_dict(model):
    """Return what training may have changed: LoRA's tensors, parameters unfrozen beside them, and buffers.

    Together with the base that LoRA was injected into, that is the whole model. The tensors are copies, contiguous as
    safetensors wants them.

    Raises:
        TransferError: the model has no layer with LoRA (merged ones included).

    Lesson 05.
    """
    model = unwrapped(model)
    _layers(model, "_plain", "there is no LoRA to save")
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: owned(tensor) for name, tensor in model.state_dict().items() if name not in frozen}


def load_state_dict(model, state):
    """Load what `state_dict` returned, or a path to it, into the base after the same `inject`.

    Raises:
        TransferError: the states do not match, by names or by rank; the model is then unchanged.

    Returns:
        TransferReport; "initialised" are the frozen tensors, which keep the base's values.

    Lesson 05.
    """
    model = unwrapped(model)
    own = state_dict(model)
    return transfer(state, model, allow_missing=[re.escape(name) for name in model.state_dict() if name not in own])


def _layers(model, mark, otherwise):
    found = [m for m in model.modules() if hasattr(m, mark)]
    if not found:
        raise TransferError(f"{otherwise}: no layer of the model has LoRA in that state")
    return found
