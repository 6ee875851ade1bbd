"""Parameter transfer: θ′ = T(θ), where T is a partial map on named tensors.

The state of a model is θ = {name: tensor}, buffers included. T says for each name k of the target where its
tensor comes from: θ′[k] = a_k(θ[ρ⁻¹(k)]), with ρ a renaming of the source's names, and a_k an adapter, the
identity unless the shape must change. Where ρ⁻¹(k) does not exist, T is undefined and the target keeps its
own value, if the caller said that it may. Interpolation, soups and task vectors are maps T with several
sources.

Lesson 05. Works cited below:
  Yosinski et al. (2014), How transferable are features in deep neural networks?, arXiv:1411.1792
  Izmailov et al. (2018), Averaging Weights Leads to Wider Optima and Better Generalization, arXiv:1803.05407
  Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, arXiv:2010.11929
  Wortsman et al. (2021), Robust fine-tuning of zero-shot models, arXiv:2109.01903
  Wortsman et al. (2022), Model soups, arXiv:2203.05482
  Ilharco et al. (2023), Editing Models with Task Arithmetic, arXiv:2212.04089
"""

import math
import os
import re
from collections.abc import Mapping
from numbers import Real

import numpy as np
import torch
from torch import nn

from tlbook.loading import seen_at
from tlbook.named_tensors import (
    Move,
    TransferError,
    TransferReport,
    adapters_of,
    aligned,
    called,
    exactness,
    explain,
    fit,
    is_real,
    matches,
    mix,
    owned,
    remedy,
    renamed,
    size,
    step,
    tensors_of,
    twins_of,
    unwrapped,
    warn_of_negative_variances,
)

__all__ = ["TaskVector", "TransferError", "TransferReport", "interpolate", "recalibrate_batchnorm", "soup", "transfer"]


def transfer(source, target, *, rename=(), adapt=(), allow_missing=(), allow_unused=()):
    """Load a source's tensors into a target and account for every one of them, or refuse and change nothing.

    θ′ = T(θ): θ′[k] = a_k(θ[ρ⁻¹(k)]) for each name k of the target. With no arguments, T is the identity.

    Args:
        source: θ, as a module, a state dict, or the path of a file (safetensors, or a pickle of tensors
            only). Of a checkpoint that holds one state dict beside other things, that one is taken.
        target: nn.Module, loaded in place; dtypes and devices stay its own, and tied tensors stay tied. What
            torch.compile or DistributedDataParallel wrapped is loaded without the wrapper's prefix.
        rename: ρ, as steps applied in order to each name of the source: pairs (regular expression,
            replacement) for `re.sub`, and functions from name to name. One function alone will do.
        adapt: {pattern of target names: adapter}; the first pattern that matches counts. An adapter is
            "new_head", "input_channels", "position_embedding", or a function (source tensor, target tensor)
            -> tensor of the target's shape, such as ``partial(keep_classes, source_classes=…,
            target_classes=…)``.
        allow_missing: patterns of target names that keep the target's own value if the source has none for
            them.
        allow_unused: patterns of source names that may go nowhere. All patterns must match the whole name.

    Returns:
        TransferReport, with every tensor of both sides in it.

    Raises:
        TransferError: a tensor of either side is unexplained, does not fit, would lose its value in the
            target's dtype, or is not finite (−∞ may stand in a buffer, as in attention masks); a file holds
            more than tensors; nothing would be moved. The target is then as it was, to the bit.

    >>> old, new = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, classes)) for classes in (9, 2))
    >>> transfer(old, new, adapt={"1[.].*": "new_head"})
    2 tensors copied, 0 adapted, 2 initialised; 2 of the source unused
                 target    ← source  shape  how
    -----------  --------  --------  -----  --------
    copied       0.weight  0.weight  4×3
    copied       0.bias    0.bias    4
    initialised  1.weight            2×4    new_head
    initialised  1.bias              2      new_head
    unused                 1.weight  9×4    new_head
    unused                 1.bias    9      new_head

    Lesson 05. Copied first layers under a new end are the experiment of Yosinski et al. (2014).
    """
    if not isinstance(target, nn.Module):
        raise TypeError(f"target must be an nn.Module, got {type(target).__name__}")
    target = unwrapped(target)
    state = target.state_dict()
    theta, own = tensors_of(source), tensors_of(state)
    memory = {v.untyped_storage().data_ptr() for v in own.values()}  # of the target; what shares it, loading overwrites
    theta = {k: v.clone() if v.untyped_storage().data_ptr() in memory else v for k, v in theta.items()}
    names = renamed(theta, rename)  # ρ⁻¹: {target name: source name}
    adapters = adapters_of(adapt, own, _NAMED)
    twins = twins_of(own)  # {target name: names of the tensors tied to it}
    parameters = dict(target.named_parameters(remove_duplicate=False))
    new, used, absent, misfits, report = {}, set(), [], [], TransferReport()

    for key, value in own.items():
        name = next((names[k] for k in (key, *twins[key]) if k in names), None)
        adapter = next((a for pattern, a in adapters.items() if re.fullmatch(pattern, key)), None)
        shape, was = tuple(value.shape), tuple(theta[name].shape) if name else None
        used.add(name)
        if name is None or adapter is new_head:  # T is undefined at key
            new[key], report.initialised[key] = value, Move(None, None, shape, called(adapter))
            if name:
                report.unused[name] = Move(name, was, None, called(adapter))
            elif adapter is not new_head:
                absent.append(key)
            continue
        try:
            tensor = adapter(theta[name], value.clone()) if adapter else theta[name]
            new[key] = fit(tensor, value, infinite=key not in parameters)
        except TransferError as error:
            misfits.append(f"{key} ← {name}: {error}" + ("" if adapter else remedy(key, was, shape)))
            continue
        how = exactness(source, target) if adapter is input_channels else called(adapter)
        (report.reshaped if adapter else report.copied)[key] = Move(name, was, shape, how)

    for key in new:
        for twin in twins[key]:
            if twin in new and not torch.equal(new[key], new[twin]):
                misfits.append(f"{key} is tied to {twin} in the target, but the source has two values for them")
    left = {name: key for key, name in names.items() if name not in used}
    report.unused |= {name: Move(name, tuple(theta[name].shape), None) for name in left}
    missing = [key for key in absent if not matches(key, allow_missing)]
    idle = [name for name in left if not matches(name, allow_unused)]
    if missing or misfits or idle or own and not (report.copied or report.reshaped):
        raise TransferError(explain(missing, misfits, idle, absent, left, own, theta))
    state.update(new)
    target.load_state_dict(state)
    return report


# Adapters a_k: (source tensor, target tensor) -> tensor of the target's shape


def new_head(source, target):
    """Start the head anew: keep the target's own values, though the source may have a tensor that fits."""
    return target


def keep_classes(source, target, source_classes, target_classes):
    """Keep a head's rows for the classes that source and target share by name, and the target's other rows.

    θ′[i] = θ[j] where the target's class i is the source's class j. For weights (classes, D) and biases
    (classes,).

    >>> keep_classes(torch.tensor([1.0, 2.0]), torch.zeros(2), ["cat", "cow"], ["cow", "emu"])
    tensor([2., 0.])
    """
    for classes, rows in ((source_classes, len(source)), (target_classes, len(target))):
        if not len(classes) == len(set(classes)) == rows:
            raise TransferError(f"{rows} rows need as many different class names, got {list(classes)[:9]}")
    there, here = list(source_classes), list(target_classes)
    shared = [name for name in here if name in set(there)]
    if source.shape[1:] != target.shape[1:] or not shared:
        raise TransferError(f"{len(shared)} classes shared, {size(source.shape)} and {size(target.shape)}")
    new = target.clone()
    new[[here.index(name) for name in shared]] = source[[there.index(name) for name in shared]].to(new)
    return new


def input_channels(source, target):
    """Change a first convolution's number of input channels, (out, C, h, w) -> (out, C′, h, w).

    W′_j = Σ_c M_jc W_c: M sends channel c to all channels j ≡ c modulo min(C, C′), in equal parts, so that
    the sum over channels is kept. RGB to grey is W_R + W_G + W_B: grey pictures get the same answer, exactly,
    if all channels are normalised alike. With C′ > C the answer is the same if the further channels repeat
    the first ones.

    >>> input_channels(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1), torch.zeros(1, 1, 1, 1)).item()
    6.0
    """
    if source.ndim != 4 or target.ndim != 4:
        raise TransferError(f"input_channels wants the weight of a Conv2d, got {size(source.shape)}")
    c, j = torch.arange(source.shape[1]), torch.arange(target.shape[1])
    period = min(len(c), len(j))
    mix = (j[:, None] % period == c % period).to(source)  # (C′, C)
    return torch.einsum("ochw,jc->ojhw", source, mix / mix.sum(0))


def position_embedding(source, target, source_grid=None, target_grid=None):
    """Resample a ViT's position embeddings to another grid of patches, (1, p + h w, D) -> (1, p + h′ w′, D).

    Bicubic, antialiased; the p leading tokens (class token, registers) are kept. A grid is given as (rows,
    columns), through `functools.partial`; one that is not given is taken to be square. Dosovitskiy et al.
    (2021), section 3.2.
    """
    for p in range(9):  # the leading tokens are what two full grids leave over
        old, new = (
            grid or (math.isqrt(max(0, tensor.shape[1] - p)),) * 2
            for grid, tensor in ((source_grid, source), (target_grid, target))
        )
        if math.prod(old) == source.shape[1] - p > 0 and math.prod(new) == target.shape[1] - p > 0:
            break
    else:
        raise TransferError(
            f"{source.shape[1]} and {target.shape[1]} tokens are not grids {source_grid or 'square'} and "
            f"{target_grid or 'square'} after the same few leading tokens; give source_grid or target_grid"
        )
    patches = (
        source[:, p:].float().cpu().unflatten(1, old).permute(0, 3, 1, 2)
    )  # (1, h w, D) -> (1, D, h, w), there where every torch can antialias
    patches = nn.functional.interpolate(patches, new, mode="bicubic", antialias=True)
    return torch.cat([source[:, :p], patches.flatten(2).mT.to(source)], 1)  # -> (1, p + h′ w′, D)


_NAMED = {f.__name__: f for f in (new_head, input_channels, position_embedding)}


# Maps T with several sources


def interpolate(theta0, theta1, alpha):
    """Return the point θ(α) = (1 − α) θ⁰ + α θ¹ on the line through two states, exact at both ends.

    Args:
        theta0, theta1: modules, fine-tuned models, state dicts or paths, with the same names and shapes.
        alpha: α, a number; outside 0 … 1 it extrapolates.

    Returns:
        A new state dict with θ⁰'s dtypes and devices, contiguous as safetensors wants it. Integer tensors are not
        mixed but copied from the nearer end. BatchNorm's running statistics are mixed, which is not what a mixed
        model needs: `recalibrate_batchnorm`.

    Raises:
        TransferError: names, shapes or classes differ. ValueError: alpha is not a finite number.

    >>> interpolate({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
    {'w': tensor([1.])}

    Lesson 05; Wortsman et al. (2021).
    """
    if isinstance(alpha, torch.Tensor) and alpha.numel() == 1:
        alpha = alpha.item()
    if not isinstance(alpha, Real) or not math.isfinite(alpha):
        raise ValueError(f"alpha must be a finite number, got {alpha!r}")
    theta0, theta1 = aligned(theta0, theta1)
    nearer = theta0 if alpha < 0.5 else theta1
    new = {k: mix(a, theta1[k], alpha) if is_real(a) else owned(nearer[k]) for k, a in theta0.items()}
    return warn_of_negative_variances({k: v.to(theta0[k]) for k, v in new.items()})


def soup(thetas):
    """Return the mean of K states, θ = (1/K) Σₖ θₖ: the uniform soup.

    Args:
        thetas: a list of K ≥ 1 modules, fine-tuned models, state dicts or paths, with the same names and shapes.

    Returns:
        A new state dict with the first one's dtypes, devices and integer tensors, contiguous.

    Raises:
        TransferError: names or shapes differ, or the classes of fine-tuned models or their order.

    >>> soup([{"w": torch.tensor([x])} for x in (1.0, 2.0, 6.0)])
    {'w': tensor([3.])}

    Lesson 05; Wortsman et al. (2022).
    """
    if isinstance(thetas, (str, os.PathLike, nn.Module, Mapping)):
        raise TransferError(f"thetas must be a list of states, got one {type(thetas).__name__}: write [theta]")
    first, *others = aligned(*thetas)
    mean = {k: owned(v) for k, v in first.items()}
    for n, theta in enumerate(others, start=2):
        mean |= {k: mix(mean[k], v, 1 / n) for k, v in theta.items() if is_real(first[k])}
    return {k: v.to(first[k]) for k, v in mean.items()}


class TaskVector:
    """Hold the step that fine-tuning took, τ = θ¹ − θ⁰, for arithmetic: a + b, a - b, -a, 2 * a, a.apply(θ⁰).

    Args:
        theta1, theta0: modules, fine-tuned models, state dicts or paths, with the same names and shapes; the
            fine-tuned one first. Integer tensors take no part.

    Raises:
        TransferError: names, shapes or classes differ, here or in an operation. ValueError: a factor is not finite.

    >>> tau = TaskVector({"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])})
    >>> (0.5 * tau).apply({"w": torch.tensor([1.0])})
    {'w': tensor([2.])}

    Lesson 05; Ilharco et al. (2023).
    """

    def __init__(self, theta1, theta0):
        theta1, theta0 = aligned(theta1, theta0)
        self.delta = {k: step(theta0[k], a) for k, a in theta1.items() if is_real(a)}

    def _with(self, delta):
        new = object.__new__(TaskVector)
        new.delta = delta
        return new

    def __add__(self, other):
        mine, others = aligned(self.delta, other.delta)
        return self._with({k: d + others[k].to(d) for k, d in mine.items()})

    def __sub__(self, other):
        return self + -other

    def __neg__(self):
        return -1 * self

    def __mul__(self, scale):
        if not isinstance(scale, Real):
            return NotImplemented
        if not math.isfinite(scale):
            raise ValueError(f"a task vector's factor must be a finite number, got {scale!r}")
        return self._with({k: scale * d for k, d in self.delta.items()})

    __rmul__ = __mul__

    def apply(self, theta0):
        """Return the state dict θ⁰ + τ, with θ⁰'s dtypes and integers; `recalibrate_batchnorm` comes next."""
        theta0 = {k: owned(v) for k, v in tensors_of(theta0).items()}
        base, delta = aligned({k: v for k, v in theta0.items() if is_real(v)}, self.delta)
        return warn_of_negative_variances(theta0 | {k: (v.to(delta[k]) + delta[k]).to(v) for k, v in base.items()})


def recalibrate_batchnorm(model, data, index, *, only=None, batch_size=64):
    """Estimate BatchNorm's running statistics anew, on training examples: mixed weights invalidate them.

    μ = (1/B) Σ_b μ_b and σ² = (1/B) Σ_b σ_b² over B batches of nearly equal size, layers below normalised by
    batch.

    Args:
        model: nn.Module; only its BatchNorm statistics change, frozen layers included unless ``only`` leaves
            them out. Meanwhile all else (dropout) is in eval mode; modes and momentum are then restored. Without
            BatchNorm, nothing happens. If it has a method ``prepare``, its batches come from
            ``model.prepare([input, …])``, otherwise inputs are stacked.
        data: data[i] -> (input, label); labels are not used.
        index: positions in ``data``, integers.
        only: a regular expression; BatchNorm layers whose whole name does not match it keep their statistics.
            Leave out what training held frozen: the layers above were trained on what it makes with the old ones.
        batch_size: the largest number of examples in a batch.

    Raises:
        TypeError: ``index`` is not integers. ValueError: ``only`` matches no BatchNorm layer, or the new
            statistics are not finite. After any error, the statistics are as they were.

    >>> model = nn.BatchNorm1d(1)
    >>> recalibrate_batchnorm(model, [(torch.tensor([x]), 0) for x in (1.0, 3.0)], [0, 1])
    >>> model.running_mean, model.running_var
    (tensor([2.]), tensor([2.]))

    Lesson 05; Izmailov et al. (2018) do so after averaging weights.
    """
    index = np.asarray(index)
    if index.dtype.kind not in "iu" or index.ndim != 1 or not len(index):
        raise TypeError(f"index must hold integer positions, at least one; got {index.dtype} {index.shape}")
    norms = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    }
    if only is not None and not any(re.fullmatch(only, name) for name in norms):
        raise ValueError(f"only: {only!r} matches the whole name of no BatchNorm layer; there are {', '.join(norms)}")
    norms = [m for name, m in norms.items() if only is None or re.fullmatch(only, name)]
    before = [(m, m.momentum, [b.clone() for b in m.buffers()]) for m in norms]
    modes = [(m, m.training) for m in model.modules()]
    prepare = getattr(model, "prepare", lambda inputs: torch.stack([torch.as_tensor(x) for x in inputs]))
    side = getattr(model, "side", None)
    data = data if side is None else seen_at(data, side)
    try:
        for m, _ in modes:
            m.training = m in norms
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # the cumulative mean over batches
        with torch.no_grad():
            for batch in np.array_split(index, math.ceil(len(index) / batch_size)) if norms else ():
                model(prepare([data[int(i)][0] for i in batch]).to(norms[0].running_mean.device))
        if not all(b.isfinite().all() for m in norms for b in m.buffers()):
            raise ValueError("the new BatchNorm statistics are not finite: look for NaN in the weights or the inputs")
    except BaseException:
        for m, _, buffers in before:
            for buffer, old in zip(m.buffers(), buffers, strict=True):
                buffer.copy_(old)
        raise
    finally:
        for m, momentum, _ in before:
            m.momentum = momentum
        for m, training in modes:
            m.training = training
