"""Batches to train on: read ahead, turned on the device, and what a frozen prefix makes of them computed once."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from tlbook import cache

AUGMENTATIONS = {None: (0,), "flips": (0, 2, 4, 6), "dihedral": tuple(range(8))}  # the views that each draws from
IN_MEMORY = 256 * 2**20  # bytes of stored prefix; beyond it they go to disk


def at_once(device):
    """Examples in a forward pass on ``device``: on a CPU more of them take memory, and no less time."""
    return 32 if device.type == "cpu" else 64


def turn(batch, views):
    """Show each image in its view: v mod 4 quarter turns, then mirrored from 4 on. (B, C, H, W), (B,) -> (B, C, H, W).

    Views 0, 2, 4, 6 are the four flips; 0 … 7 are all symmetries of the square.

    Raises:
        ValueError: a quarter turn of images that are not square.
    """
    if (views % 2).any() and batch.shape[-1] != batch.shape[-2]:
        raise ValueError(
            f"quarter turns need square images, got {tuple(batch.shape[-2:])}: use augment='flips', or crop them"
        )
    turned = batch.clone() if views.any() else batch
    for v in set(views.tolist()) - {0}:
        rows = torch.from_numpy(np.flatnonzero(views == v)).to(batch.device)
        x = batch[rows].rot90(v % 4, (-2, -1))
        turned[rows] = x.flip(-1) if v >= 4 else x
    return turned


class Batches:
    """Batches of a Dataset as a Backbone's ``prefix`` leaves them: (rows, views) -> tensor on the device.

    Args:
        model, data: a Backbone and a Dataset.
        prefix: the frozen function from a prepared batch to where training begins, or None.
        dtype: of the prefix's forward pass.
    """

    def __init__(self, model, data, prefix=None, dtype=torch.float32):
        self.model, self.data, self.prefix, self.dtype = model, data, prefix, dtype
        self.place = np.full((8, len(data)), -1, dtype=np.int64)  # of (view, row) in the store
        self.stored = None

    def store(self, pairs, interrupts=(), hidden=False):
        """Compute the prefix of these (row, view) pairs (P, 2) once: in memory, or beyond `IN_MEMORY` on disk.

        The file has no name, so that it goes when it is no longer used, or when the process is killed.

        Raises:
            KeyboardInterrupt: ``interrupts``, the list of those caught, is no longer empty.
        """
        if not len(pairs):
            return
        size = at_once(self.model.device)
        blocks = [tuple(block.T) for block in np.split(pairs, range(size, len(pairs), size))]
        stored, hidden = None, {"disable": True} if hidden else {}
        with tqdm(total=len(pairs), desc="frozen part, once", unit=" images", leave=False, delay=1, **hidden) as bar:
            for i, z in enumerate(self(blocks)):
                if interrupts:
                    raise KeyboardInterrupt
                if stored is None:
                    stored = _room((len(pairs), *z.shape[1:]))
                stored[i * size : i * size + len(z)] = z.float().cpu().numpy()
                bar.update(len(z))
        self.stored = stored
        self.place[pairs[:, 1], pairs[:, 0]] = np.arange(len(pairs))

    def __call__(self, jobs):
        """Yield a batch for each (rows, views) of ``jobs``; the next one is read while this one is in use."""
        with ThreadPoolExecutor(os.cpu_count()) as readers:
            ahead = None
            for job, following in zip(jobs, [*jobs, None][1:], strict=True):
                reading = ahead or self._read(readers, *job)
                ahead = self._read(readers, *following) if following is not None else None
                yield self._ready([r.result() for r in reading], *job)

    def _read(self, readers, rows, views):
        if self._has(rows, views):
            return [readers.submit(lambda: torch.from_numpy(self.stored[self.place[views, rows]]))]
        return [readers.submit(self._example, int(i)) for i in rows]

    def _ready(self, read, rows, views):
        if self._has(rows, views):
            z = read[0].to(self.model.device)
            return z.contiguous(memory_format=torch.channels_last) if z.ndim == 4 else z
        x = turn(self.model.prepare(read), np.asarray(views))
        if self.prefix is None:
            return x
        with torch.no_grad(), torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.prefix(x).float()

    def _has(self, rows, views):
        return self.stored is not None and bool((self.place[views, rows] >= 0).all())

    def _example(self, i):
        try:
            return self.model.as_tensor(self.data[i][0])
        except Exception as error:
            raise ValueError(f"example {i} cannot be read: {error}") from error


def _room(shape):
    """An array of float32 to fill, in memory or in a file without a name."""
    if 4 * np.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.float32)
    folder = cache.folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def share_of(train, seed, epoch, batches, augment, rank, world):
    """This process's (rows, views, size of the whole batch) of each batch of an epoch.

    The batches are as equal as can be: a last batch of one example would be noise, and an error for BatchNorm.
    """
    order = np.random.default_rng([seed, 1 + epoch]).permutation(len(train))
    views = np.array(AUGMENTATIONS[augment])
    ranks = (
        np.random.default_rng([seed, 0]).random((len(train), len(views))).argsort(1)
    )  # each row's own order of views
    view = views[ranks[:, epoch % len(views)]]
    batches = np.array_split(order, batches)
    mine = [np.array_split(batch, world)[rank] for batch in batches]
    return [(train[rows], view[rows], len(batch)) for rows, batch in zip(mine, batches, strict=True)]


def parts_of(share, accumulate):
    rows, views, _ = share
    return list(zip(np.array_split(rows, accumulate), np.array_split(views, accumulate), strict=True))


def mine_of(rows, rank, world):
    return np.array_split(np.asarray(rows), world)[rank]


def jobs_of(rows, size):
    """(rows, views) to look at ``rows`` as they are."""
    return [(rows[i : i + size], np.zeros(len(rows[i : i + size]), np.int64)) for i in range(0, len(rows), size)]


def worth_storing(shares, val):
    """(P, 2) the (row, view) pairs that will be used more than once: those of validation, and of training if so."""
    pairs = np.concatenate([np.stack([rows, views], 1) for share in shares for rows, views, _ in share])
    once = np.unique(pairs, axis=0)
    val = np.stack([val, np.zeros_like(val)], 1)
    return np.unique(np.concatenate([once, val]), axis=0) if len(once) < len(pairs) else val
