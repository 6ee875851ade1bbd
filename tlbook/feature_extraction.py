"""Feature extraction: F(X; θ) = Σᵢ fᵢ(xᵢ; θᵢ).

fᵢ is an extractor (a stage of a pretrained backbone), θᵢ its frozen parameters, xᵢ what it is shown of X (a view), and
fᵢ(xᵢ; θᵢ) a vector for each example. Only the forward pass takes part: nothing is differentiated,
and nothing is updated.
Concatenation keeps the vectors side by side, and is the sum read with blocks: W [f₁; …; fₙ] = Σᵢ Wᵢ fᵢ.
"""

import hashlib
import json
from collections import deque
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np

from tlbook import __version__, processes, progress
from tlbook import cache as disk
from tlbook.arguments import names, whole_number
from tlbook.backbones import backbone_of
from tlbook.device import memory_kept
from tlbook.forward import AHEAD, IN_FULL, Forward, OnCPU, Stages, choose_engine, in_eval_mode
from tlbook.images import ENOUGH
from tlbook.loading import eval_batch_size, load


@dataclass(frozen=True)
class Features:
    """The matrix F(X; θ) of N examples, with their labels.

    Attributes:
        X: (N, D) float32, memory-mapped where it comes from the cache.
        y: (N,) int64 labels.
        groups: (N,) or None.
        blocks: {name: slice of the D columns that fᵢ wrote}.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    blocks: dict

    def __repr__(self):
        widths = ", ".join(f"{name} {block.stop - block.start}" for name, block in self.blocks.items())
        return f"Features {self.X.shape[0]:,} × {self.X.shape[1]:,} ({widths})"

    def select(self, *names):
        """Return the features of these blocks only."""
        missing = [name for name in names if name not in self.blocks]
        if missing or not names:
            raise ValueError(f"no block {missing}: the blocks are {list(self.blocks)}")
        X = [self.X[:, self.blocks[name]] for name in names]
        widths = {name: x.shape[1] for name, x in zip(names, X, strict=True)}
        return Features(X[0] if len(X) == 1 else np.concatenate(X, axis=1), self.y, self.groups, _slices(widths))

    def sum(self, projections=None):
        """Return Σᵢ fᵢ Pᵢ as one block, named "sum".

        Args:
            projections: {block: (Dᵢ, D) array Pᵢ}; without them the widths must be equal, and Pᵢ is the identity.

        Raises:
            ValueError: widths that differ, naming them.
        """
        X = {name: self.X[:, block] for name, block in self.blocks.items()}
        if projections is not None:
            if set(projections) != set(X):
                raise ValueError(f"projections are for {sorted(projections)}, the blocks are {sorted(X)}")
            X = {name: x @ np.asarray(projections[name], dtype=np.float32) for name, x in X.items()}
        widths = {name: x.shape[1] for name, x in X.items()}
        if len(set(widths.values())) != 1:
            raise ValueError(f"a sum needs equal widths, got {widths}: give projections, or combine='concat'")
        total = sum(X.values())
        return Features(total, self.y, self.groups, {"sum": slice(0, total.shape[1])})

    def save(self, path):
        """Write everything to one safetensors file; `load_features` reads it back.

        Raises:
            OSError: there is no room on the disk, or another of the system's reasons.
        """
        from safetensors.numpy import save_file

        arrays = {"X": np.ascontiguousarray(self.X), "y": self.y}
        blocks = {name: [block.start, block.stop] for name, block in self.blocks.items()}
        metadata = {"blocks": json.dumps(blocks)}
        if self.groups is not None:
            names, arrays["groups"] = np.unique(self.groups, return_inverse=True)
            metadata["groups"] = json.dumps(names.tolist())
        disk.save_tensors(path, save_file, arrays, metadata)


def load_features(path):
    """Read the `Features` that `Features.save` wrote.

    Raises:
        ValueError: not such a file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata()
        blocks = {name: slice(*ends) for name, ends in json.loads(metadata["blocks"]).items()}
        groups = np.array(json.loads(metadata["groups"]))[arrays["groups"]] if "groups" in arrays else None
        return Features(arrays["X"], arrays["y"], groups, blocks)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold features saved by tlbook ({error}): extract them again") from error


def extract(
    backbone,
    data,
    *,
    stages=("final",),
    views=("identity",),
    combine="concat",
    precision="auto",
    batch_size=None,
    cache=True,
):
    """Compute F(X; θ) for every example.

    Each backbone and view takes one forward pass, no deeper than the last stage asked for. Finished batches are kept:
    an extraction that was interrupted goes on where it was.

    Under ``torchrun`` the batches are shared out among the processes, which must see the same cache folder; every
    process returns the same features as one process alone would.

    Args:
        backbone: an Encoder (of images, text or sound), or several; each prepares its own inputs, and runs where its
            parameters are.
        data: a `tlbook.data.Dataset` of N examples.
        stages: names out of ``backbone.stages``; every backbone must have them.
        views: what each extractor is shown, out of ``backbone.views``: "identity", and of images "hflip", "vflip",
            "rot90", "scale:0.5", "crop:0.5", …
        combine: "concat" puts the blocks side by side; "sum" adds them, which needs equal widths.
        precision: of the forward pass: "auto", "float32" or "bfloat16"; the result is float32. Where the hardware is
            fast at it "auto" is bfloat16, but for the first two convolutions. Beside float32 it moved the AUC of a
            probe by −.002 to +.012 in fifteen draws of folds of the solar cells at three sizes, +.001 in mean, and the
            accuracy on five small sets by −.002 at most in mean (``benchmarks/results/precision.json``).
        batch_size: examples at a time; 32 on a CPU and 256 on a GPU unless given.
        cache: keep the result on disk, under a key of the weights, the inputs, the engine and every argument that
            changes it. With a hook on a backbone nothing is kept, for it may do anything.

    Returns:
        Features, with a block for each (backbone, stage, view), named by what differs among them.

    Raises:
        ValueError: an unknown stage or view, no examples; an example whose shape differs from the first one's, that
            cannot be read, or whose features are not finite: the error names it.
        OSError: the disk has no room for the features, which is said before they are computed.

    Lesson 03. After Donahue et al., DeCAF, ICML 2014.
    """
    backbones = [backbone_of(b) for b in (backbone if isinstance(backbone, list | tuple) else [backbone])]
    stages, views = names("stages", stages), names("views", views)
    if combine not in ("concat", "sum"):
        raise ValueError(f"combine must be 'concat' or 'sum', got {combine!r}")
    if not len(data) or not backbones:
        raise ValueError("at least one example and one backbone are needed")
    widths = _block_widths(backbones, stages, views)
    default = eval_batch_size(backbones[0].device)
    size = default if batch_size is None else whole_number("batch_size", batch_size, 1)
    batches = [range(i, min(i + size, len(data))) for i in range(0, len(data), size)]
    shape = (len(data), sum(widths.values()))

    with in_eval_mode(*backbones):
        job = _Job(backbones, data, stages, views, precision)
        if cache and not any(b.has_hooks for b in backbones):
            X = _from_cache(job, batches, size, shape)
        else:
            X = np.empty(shape, dtype=np.float32)
            job.fill(X, batches)
    features = Features(X, data.labels, data.groups, _slices(widths))
    return features.sum() if combine == "sum" else features


class _Job:
    """F(X; θ) = [fᵢ(xᵢ; θᵢ) for each backbone and view], each fᵢ with the stages asked for, batch by batch."""

    def __init__(self, backbones, data, stages, views, precision):
        self.backbones, self.data = backbones, data
        self.views = [[b.view(view) for view in views] for b in backbones]  # of each backbone
        with closing(load(data, [range(1)], backbones)) as loaded:
            examples = next(loaded)
        networks = [Stages(b, stages) for b in backbones]
        passes = len(data) * len(views)
        engines = [choose_engine(f, x, passes, precision) for f, x in zip(networks, examples, strict=True)]
        self.fingerprints = [b.fingerprint for b in backbones]
        self.facts = [stages, views, list(map(str, engines)), IN_FULL, ENOUGH]
        keys = [None if b.has_hooks else [f, stages] for b, f in zip(backbones, self.fingerprints, strict=True)]
        self.f = [Forward(*each) for each in zip(networks, engines, keys, strict=True)]
        self.words = f"{', '.join(b.name for b in backbones)} by {engines[0]}"

    @property
    def key(self):
        """All that decides the features; to look at every input takes a while."""
        return [self.fingerprints, self.data.fingerprint, *self.facts, __version__]

    def fill(self, X, batches, note=lambda rows: None):
        """Write F(X; θ) of each batch to its rows of ``X``; the next ones are read while one is computed."""
        pending = deque()

        def write_first():
            rows, outputs = pending.popleft()
            X[rows.start : rows.stop] = _side_by_side(outputs, rows)
            note(rows)
            bar.update(len(rows))

        with (
            memory_kept(),
            closing(load(self.data, batches, self.backbones)) as loaded,
            progress.bar(sum(map(len, batches)), self.words, " examples") as bar,
        ):
            for rows, x in zip(batches, loaded, strict=True):
                shown = zip(self.f, x, self.views, strict=True)
                outputs = [OnCPU(f.submit(view(xᵢ))) for f, xᵢ, views in shown for view in views]
                pending.append((rows, outputs))
                if len(pending) > AHEAD:
                    write_first()
            while pending:
                write_first()


def _side_by_side(outputs, rows):
    """(B, D) float32: the pooled outputs of every backbone, view and stage, once they are there."""
    F = np.concatenate([z.cpu().numpy() for future in outputs for z in future.result()], axis=1)
    broken = np.flatnonzero(~np.isfinite(F).all(axis=1))
    if len(broken):
        raise ValueError(
            f"the features of example {rows[broken[0]]} are not finite: look at that input, or use float32"
        )
    return F


def _from_cache(job, batches, size, shape):
    """The features from the cache; what is not there yet is computed first, by one process or those of one group."""
    path = disk.folder() / "features" / f"{hashlib.sha256(json.dumps(job.key).encode()).hexdigest()[:32]}.npy"
    group = processes.join(job.backbones[0].device)
    if group.from_first(disk.stored_array(path, shape) is None):
        with disk.only_one(path) if group.is_first else nullcontext():
            if group.from_first(disk.stored_array(path, shape) is None):  # nobody else was at it meanwhile
                _compute(job, disk.Growing(path, shape, len(batches), f"batches of {size}", group), batches, size)
    return disk.stored_array(path, shape)


def _compute(job, growing, batches, size):
    try:
        own = [batches[i] for i in growing.own_parts]
        job.fill(growing.array, own, lambda rows: growing.note(rows.start // size))
        growing.finish()
    except ValueError:  # the input must change, and with it the key
        growing.discard()
        raise


def _block_widths(backbones, stages, views):
    """{block: width}; a block is named by its stage, and by its backbone and its view where there are several."""
    widths = {}
    for b in backbones:
        unknown = [stage for stage in stages if stage not in b.stages]
        if unknown:
            raise ValueError(f"{b.name} has no stage {unknown[0]!r}; its stages are {list(b.stages)}")
        for view in views:
            b.view(view)
            for stage in stages:
                name = "/".join([b.name] * (len(backbones) > 1) + [stage] + [view] * (len(views) > 1))
                if name in widths:
                    raise ValueError(
                        f"two backbones are called {b.name!r}: give one another .name, so that blocks can be told apart"
                    )
                widths[name] = b.stages[stage]
    return widths


def _slices(widths):
    ends = np.cumsum(list(widths.values())).tolist()
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}
