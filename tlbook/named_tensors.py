"""Named tensors, which parameter transfer works on: read them, compare them, and explain what does not fit."""

import argparse
import difflib
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tlbook.table import Table


class TransferError(ValueError):
    """A tensor is unexplained, does not fit or is damaged; nothing was loaded."""


class Move(NamedTuple):
    """Where one tensor came from, its shape there and in the target, and which adapter made it fit."""

    source: str | None
    source_shape: tuple | None
    target_shape: tuple | None
    how: str = ""


@dataclass(repr=False)
class TransferReport:
    """Account for every tensor of a transfer; it prints as a table, and folds one out in a notebook.

    ``copied``, ``reshaped`` (printed as "adapted": what an adapter made fit, by a sum or a resampling as well) and
    ``initialised`` divide the target's names between them; ``unused`` has the source's names that went nowhere.
    Each is a dict {name: Move(source, source_shape, target_shape, how)}.
    """

    copied: dict = field(default_factory=dict)
    reshaped: dict = field(default_factory=dict)
    initialised: dict = field(default_factory=dict)
    unused: dict = field(default_factory=dict)

    def _rows(self, *kinds):
        moves = [(kind, name, move) for kind in kinds for name, move in getattr(self, kind).items()]
        words = {"reshaped": "adapted"}
        return Table(
            {"": words.get(kind, kind), "target": "" if kind == "unused" else name, "← source": move.source or ""}
            | {"shape": " → ".join(dict.fromkeys(size(s) for s in move[1:3] if s is not None)), "how": move.how}
            for kind, name, move in moves
        )

    def __str__(self):
        return (
            f"{len(self.copied)} tensors copied, {len(self.reshaped)} adapted, "
            f"{len(self.initialised)} initialised; {len(self.unused)} of the source unused"
        )

    def __repr__(self):
        copied, rest = self._rows("copied"), self._rows("reshaped", "initialised", "unused")
        if len(copied) > 6:
            copied[3:-2] = [dict.fromkeys(copied[0], "…") | {"": f"{len(copied) - 5} more"}]
        return f"{self}\n{Table(copied + rest)}"

    def _repr_html_(self):
        rest = self._rows("reshaped", "initialised", "unused")
        fold = f"<details><summary>copied</summary>{self._rows('copied')._repr_html_()}</details>"
        return f"<p>{self}</p>{rest._repr_html_() if rest else ''}{fold}"


def tensors_of(source):
    """Return θ = {name: tensor} of a module, a fine-tuned model, a state dict, a checkpoint or a file.

    Memory is shared. A checkpoint is a dict with other things beside its state dict: if there is one, it is taken.

    Raises:
        TransferError: there is none or several; a tensor has no values, or not one for each of its positions.
        OSError: no such file.
    """
    # What holds the tensors
    if class_names_of(source) is not None:
        source = source.model
    if isinstance(source, nn.Module):
        source = unwrapped(source).state_dict()
    elif isinstance(source, (str, os.PathLike)):
        source = _read(Path(source))
    if not isinstance(source, Mapping):
        raise TransferError(f"a module, a state dict or a path is needed, got {type(source).__name__}")
    theta = _state_dict(source)

    # The tensors: plain ones alone can be copied and mixed
    for key, value in theta.items():
        if value.is_meta:
            raise TransferError(f"{key!r} is on the meta device and has no values: use to_empty() first")
        if is_lazy(value):
            raise TransferError(f"{key!r} has no shape yet: run the model on one batch first")
        if value.is_quantized:
            raise TransferError(f"{key!r} is quantised: use the original weights, or dequantize() first")
        if value.layout != torch.strided:
            raise TransferError(f"{key!r} is {str(value.layout).removeprefix('torch.')}: use to_dense() first")
    return {key: value.detach() for key, value in theta.items()}


def class_names_of(source):
    """The class names of a fine-tuned model; None of anything else."""
    return getattr(source, "class_names", None) if isinstance(getattr(source, "model", None), nn.Module) else None


def unwrapped(model):
    """The module inside the wrappers of torch.compile, DataParallel and DistributedDataParallel."""
    while isinstance(model, nn.Module):
        if "_orig_mod" in model._modules:
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            break
    return model


def refuse_compiled(model):
    """Raise a ValueError if torch.compile wrapped a part of the model: names and stages do not reach into it."""
    compiled = [name or "it" for name, module in model.named_modules() if "_orig_mod" in module._modules]
    if compiled:
        raise ValueError(f"of the model, {compiled[0]} is compiled: change the model first, and compile it then")


def _state_dict(source):
    """The one dict of tensors that the source is or holds."""
    strange = [key for key, value in source.items() if not isinstance(value, torch.Tensor)]
    if not strange:
        return source
    found = dict(_state_dicts(source, ""))
    if len(found) == 1 and not any(isinstance(value, torch.Tensor) and value.ndim for value in source.values()):
        return next(iter(found.values()))
    kinds = f"{strange[0]!r} is of type {type(source[strange[0]]).__name__}, not a tensor"
    if not found:
        raise TransferError(f"{kinds}, and there is no state dict in it")
    inside = ", ".join(f"source{where} ({len(state)} tensors)" for where, state in found.items())
    raise TransferError(f"{kinds}. State dicts are inside: pass one, where source is what torch.load returns: {inside}")


def _state_dicts(source, where):
    """Yield (place, state dict) of each dict of tensors inside, under names: an optimizer's numbers are none."""
    for key, value in source.items():
        if isinstance(key, str) and isinstance(value, Mapping) and value:
            place = f"{where}[{key!r}]"
            if all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items()):
                yield place, value
            else:
                yield from _state_dicts(value, place)


def _read(path):
    # What no reader could open
    if path.is_dir():
        files = sorted(p.name for p in path.iterdir() if p.suffix in {".safetensors", ".pth", ".pt", ".bin", ".ckpt"})
        raise TransferError(f"{path} is a folder: give a file of tensors in it ({', '.join(files) or 'there is none'})")
    if path.stat().st_size == 0:
        raise TransferError(f"{path} is empty: download or save it again")

    # Tensors alone, never code
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file as load
    elif torch.__version__ < (2, 6):
        raise TransferError(
            f"{path} is a pickle, which torch {torch.__version__} cannot open safely: install torch >= 2.6, or ask for "
            "safetensors"
        )
    else:
        load = _load_pickle
    try:
        return load(path)
    except OSError:
        raise
    except Exception as error:  # torch's own message suggests weights_only=False: not repeated
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it asks for {wanted[1]}" if wanted else f"it cannot be read ({type(error).__name__})"
        raise TransferError(
            f"{path} is refused, and nothing in it was run: {why}. Only safetensors and pickles of tensors "
            "are loaded: ask for such a file, or make one where the original is trusted"
        ) from None


def _load_pickle(path):
    with torch.serialization.safe_globals([argparse.Namespace]):  # the options of a run, which timm keeps beside
        return torch.load(path, map_location="cpu", weights_only=True)


def renamed(theta, rename):
    """ρ⁻¹ as {target name: source name}; two sources for one name are an error."""
    names = {}
    for name in theta:
        key = name
        for step in (rename,) if callable(rename) else rename:
            if not callable(step) and (isinstance(step, str) or len(step) != 2):
                raise TransferError(f"rename takes (pattern, replacement) pairs and functions, got {step!r}")
            key = step(key) if callable(step) else re.sub(*step, key)
        if not isinstance(key, str) or key in names:
            other = f", as does {names[key]!r}" if key in names else ": to leave a tensor out, use allow_unused"
            raise TransferError(f"rename: {name!r} becomes {key!r}{other}")
        names[key] = name
    return names


def adapters_of(adapt, own, by_name):
    """{pattern: function}, each pattern known to match a tensor of the target."""
    adapters = {pattern: by_name.get(a, a) if isinstance(a, str) else a for pattern, a in dict(adapt).items()}
    for pattern, adapter in adapters.items():
        if not callable(adapter):
            raise TransferError(f"adapt: there is no adapter {adapter!r}; by name there are {', '.join(by_name)}")
        if not any(re.fullmatch(pattern, key) for key in own):
            raise TransferError(f"adapt: {pattern!r} matches no tensor of the target{_near(pattern, own)}")
    return adapters


def twins_of(own):
    """{name: the other names of the same memory}: tensors that are tied."""
    where = {k: (v.untyped_storage().data_ptr(), v.storage_offset(), v.shape, v.stride()) for k, v in own.items()}
    groups = {}
    for key, place in where.items():
        groups.setdefault(place, []).append(key)
    return {key: [k for k in groups[where[key]] if k != key and own[k].numel()] for key in own}


def fit(tensor, value, infinite):
    """The tensor with the target's dtype and device; an error if its values do not survive that."""
    if tensor.shape != value.shape:
        raise TransferError(f"{size(tensor.shape)} does not fit {size(value.shape)}")
    new = tensor.to(value.device, value.dtype)
    if not (tensor.is_floating_point() and new.is_floating_point()) and not torch.equal(new.to(tensor), tensor):
        raise TransferError(f"its values do not survive from {tensor.dtype} to {value.dtype}")
    values = _wide(new)
    bad = ~values.isfinite() & (values != -math.inf) if infinite else ~values.isfinite()
    if bad.any():
        raise TransferError(f"{int(bad.sum())} of its values are not finite in {value.dtype}")
    return new


def aligned(*thetas):
    """The states as {name: tensor} each; an error unless names and shapes agree."""
    if not thetas:
        raise TransferError("no state is given")
    classes = {tuple(names) for names in map(class_names_of, thetas) if names is not None}
    if len(classes) > 1:
        lines = [", ".join(map(str, names[:9])) for names in classes]
        raise TransferError(
            f"the models' classes differ, or their order, and so what a row of a head means:{_listed(lines)}"
        )
    first, *others = thetas = [tensors_of(theta) for theta in thetas]
    for theta in others:
        shapes = [{k: size(v.shape) for k, v in t.items()} for t in (first, theta)]
        differ = sorted({k for k, _ in shapes[0].items() ^ shapes[1].items()})
        if differ:
            lines = [f"{k}: {' and '.join(s.get(k, 'absent') for s in shapes)}" for k in differ]
            raise TransferError(f"the states differ in the shapes of {len(differ)} tensors:{_listed(lines)}")
    return thetas


def is_real(tensor):
    """Tell whether averaging makes sense; counters and masks of integers are copied."""
    return tensor.is_floating_point() or tensor.is_complex()


def owned(tensor):
    """A copy in contiguous memory of its own, which safetensors can save."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _wide(tensor):
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def mix(a, b, weight):
    """(1 − w) a + w b, exactly a at w = 0, b at w = 1, and a where a = b (the −∞ of masks, too)."""
    a = _wide(a)
    b = b.to(a)
    return torch.where(a == b, a, torch.lerp(a, b, weight)).contiguous()


def step(a, b):
    """b − a, exactly 0 where they agree (the −∞ of masks, too)."""
    b = _wide(b)
    a = a.to(b)
    return torch.where(a == b, 0, b - a).contiguous()


def warn_of_negative_variances(theta):
    """Extrapolation can leave a running variance below 0: say so, and return θ."""
    negative = [k for k, v in theta.items() if k.endswith("running_var") and (v < 0).any()]
    if negative:
        warnings.warn(
            f"{len(negative)} BatchNorm variances became negative ({negative[0]}): outputs are NaN until "
            "recalibrate_batchnorm",
            stacklevel=3,
        )
    return theta


def exactness(source, target):
    """Whether RGB to grey is exact, by the normalisations that Backbones and timm's models state."""
    stated = set()
    for model in (source, target):
        config = getattr(model, "pretrained_cfg", None) or {}
        mean, std = (getattr(model, what, config.get(what)) for what in ("mean", "std"))
        if mean is None or std is None:
            return "input_channels; exact if all channels are normalised alike"
        stated |= set(zip(map(float, mean), map(float, std), strict=True))
    alike = "exact: all channels are" if len(stated) == 1 else "not exact: channels are not"
    return f"input_channels; {alike} normalised alike"


def matches(name, patterns):
    """Whether one of the patterns matches the whole name."""
    return any(re.fullmatch(pattern, name) for pattern in ([patterns] if isinstance(patterns, str) else patterns))


def called(adapter):
    """An adapter's name in the report."""
    return getattr(getattr(adapter, "func", adapter), "__name__", str(adapter)) if adapter else ""


def size(shape):
    """A shape in words: 32×3×3×3."""
    return "×".join(map(str, shape)) or "scalar"


def _listed(items, show=str, limit=5):
    more = [f"… and {len(items) - limit} more"] if len(items) > limit else []
    return "".join(f"\n  {line}" for line in [*map(show, items[:limit]), *more])


def _near(name, names):
    near = difflib.get_close_matches(name, names, 2)
    return f"; nearest: {', '.join(near)}" if near else ""


def remedy(key, a, b):
    """What to write where only the shape is in the way, from a in the source to b in the target."""
    if a == b or len(a) != len(b):
        return ""
    if len(a) == 4 and a[:1] + a[2:] == b[:1] + b[2:]:
        return f"; for other input channels: adapt={{{key!r}: 'input_channels'}}"
    if len(a) == 3 and a[::2] == b[::2]:
        return f"; for another grid of patches: adapt={{{key!r}: 'position_embedding'}}"
    return f"; for other classes: adapt={{{key!r}: 'new_head'}}, or keep_classes" if a[1:] == b[1:] else ""


def _prefix(absent, left):
    """The renaming of a prefix that would explain more than half of what is absent, if there is one."""
    guesses = Counter()
    for key in absent[:: len(absent) // 20 + 1]:
        for name in left.values():
            tail = ".".join(os.path.commonprefix([key.split(".")[::-1], name.split(".")[::-1]])[::-1])
            guesses[name.removesuffix(tail), key.removesuffix(tail)] += 1

    def explained(guess):
        theirs, ours = guess
        return len({ours + name.removeprefix(theirs) for name in left.values() if name.startswith(theirs)} & {*absent})

    theirs, ours = max((guess for guess, _ in guesses.most_common(20)), key=explained, default=("", ""))
    count = explained((theirs, ours))
    if count <= max(1, len(absent) / 2):
        return ""
    return (
        f"\nThe source's names begin with {theirs!r} where the target's begin with {ours!r}: add "
        f"(r'^{re.escape(theirs)}', {ours!r}) to rename, which explains {count} of {len(absent)}."
    )


def explain(missing, misfits, idle, absent, left, own, theta):
    """The message of a refusal: what is unexplained, the nearest names, and what to write."""
    hint = _prefix(absent, left)
    near = (lambda name, names: "") if hint else _near
    sections = (
        (
            "Without a source; rename one, or let the target keep its own by allow_missing:",
            missing,
            lambda key: f"{key} {size(own[key].shape)}{near(key, left.values())}",
        ),
        ("Do not fit:", misfits, str),
        (
            "Unused; rename them, or say so by allow_unused:",
            idle,
            lambda name: f"{name} {size(theta[name].shape)}{near(left[name], absent)}",
        ),
    )
    text = f"tensors without a source: {len(missing)}; that do not fit: {len(misfits)}; unused: {len(idle)}. "
    text += f"Nothing {'was' if missing or misfits or idle else 'would be'} loaded.{hint}"
    return text + "".join(f"\n{title}{_listed(items, show)}" for title, items, show in sections if items)
