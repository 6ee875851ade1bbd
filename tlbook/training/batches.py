"""The batches of a run: who takes which examples in which view, and what a frozen prefix makes of them, once."""

import tempfile
from contextlib import closing
from functools import partial

import numpy as np
import torch

from tlbook import cache, progress
from tlbook.forward import Prefix, autocast, outputs
from tlbook.loading import eval_batch_size, load, read_ahead

AUGMENTATIONS = {None: (0,), "flips": (0, 2, 4, 6), "dihedral": tuple(range(8)), "photo": None}  # views to draw from
VIEWS = 8  # views that can be named; one of "photo" is a random number from here on
LEAST = 0.5  # of the area of a photograph stays in its crop
IN_MEMORY = 256 * 2**20  # bytes of stored prefix; beyond it they go to disk


def apply_views(batch, views):
    """Show each image in its view: v mod 4 quarter turns, then mirrored from 4 on. (B, C, H, W), (B,) -> (B, C, H, W).

    Views 0, 2, 4, 6 are the four flips; 0 … 7 are all symmetries of the square. From 8 on a view is the number that a
    random crop, resized to the whole, and a random mirroring are drawn with (`photo_view`).

    Raises:
        ValueError: a quarter turn of images that are not square.
    """
    if (views[views < VIEWS] % 2).any() and batch.shape[-1] != batch.shape[-2]:
        raise ValueError(
            f"quarter turns need square images, got {tuple(batch.shape[-2:])}: use augment='flips', or crop them"
        )
    shown = batch.clone() if views.any() else batch
    for v in set(views.tolist()) - {0}:
        if v >= VIEWS:
            continue
        rows = torch.from_numpy(np.flatnonzero(views == v)).to(batch.device)
        x = batch[rows].rot90(v % 4, (-2, -1))
        shown[rows] = x.flip(-1) if v >= 4 else x
    for i in np.flatnonzero(views >= VIEWS):
        shown[i] = photo_view(batch[i], int(views[i]))
    return shown


def photo_view(image, number):
    """One of the photographs that could have been taken instead: a part of it, somewhat stretched, perhaps mirrored.

    It is never upside down. (C, H, W) -> (C, H, W), by torchvision; a function of the image and the number.
    """
    from torchvision.transforms import v2

    other = v2.Compose([v2.RandomResizedCrop(image.shape[-2:], scale=(LEAST, 1.0)), v2.RandomHorizontalFlip()])
    with torch.random.fork_rng([]):  # torchvision draws on the CPU
        torch.manual_seed(number)
        return other(image)


class Batches:
    """Batches of a Dataset as a Backbone's frozen prefix leaves them: [(rows, views), …] -> tensors on the device.

    Args:
        model, data: a Backbone and a Dataset.
        until: the last stage of the frozen prefix, or None where there is none.
        dtype: of the prefix's forward pass.
    """

    def __init__(self, model, data, until=None, dtype=torch.float32):
        self.model, self.data, self.dtype = model, data, dtype
        self.prefix = None if until is None else Prefix(model, until)
        self.place = np.full((VIEWS, len(data)), -1, dtype=np.int64)  # of (view, row) in the store
        self.stored = None

    def __call__(self, jobs):
        """Yield a batch for each (rows, views) of ``jobs``; the next ones are read while one is in use."""
        is_stored = self.stored is not None and all(self._has(*job) for job in jobs)
        yield from (self._look_up if is_stored else self._compute)(jobs)

    def store(self, pairs, interrupts=(), hidden=False):
        """Compute the prefix of these (row, view) pairs (P, 2) once: in memory, or beyond `IN_MEMORY` on disk.

        The file has no name, so that it goes when it is no longer used, or when the process is killed.

        Raises:
            KeyboardInterrupt: ``interrupts``, the list of those caught, is no longer empty.
            OSError: the disk has no room for it.
        """
        size = eval_batch_size(self.model.device)
        jobs = [tuple(block.T) for block in np.split(pairs, range(size, len(pairs), size)) if len(block)]
        stored = None
        with progress.bar(len(pairs), "frozen part, once", " examples", hidden=hidden) as bar:
            for i, z in enumerate(self(jobs)):
                if interrupts:
                    raise KeyboardInterrupt
                stored = _reserve((len(pairs), *z.shape[1:])) if stored is None else stored
                stored[i * size : i * size + len(z)] = z.float().cpu().numpy()
                bar.update(len(z))
        if len(pairs):
            self.stored = stored
            self.place[pairs[:, 1], pairs[:, 0]] = np.arange(len(pairs))

    def _has(self, rows, views):
        return (views < VIEWS).all() and (self.place[views, rows] >= 0).all()

    def _look_up(self, jobs):
        tasks = [[partial(self._stored_rows, *job)] for job in jobs]
        with closing(read_ahead(tasks, workers=1)) as found:
            for (z,) in found:
                z = z.to(self.model.device)
                yield z.contiguous(memory_format=torch.channels_last) if z.ndim == 4 else z

    def _stored_rows(self, rows, views):
        return torch.from_numpy(self.stored[self.place[views, rows]])

    def _compute(self, jobs):
        with closing(load(self.data, [rows for rows, _ in jobs], [self.model])) as loaded:
            shown = (apply_views(x, np.asarray(views)) for (x,), (_, views) in zip(loaded, jobs, strict=True))
            if self.prefix is None:
                yield from shown
            elif self.model.training:  # pooled features may pass a dropout, which no engine but PyTorch draws
                for x in shown:
                    with torch.no_grad(), autocast(x.device.type, self.dtype):
                        z = self.prefix(x)
                    yield z.float()
            else:
                precision = str(self.dtype).removeprefix("torch.")
                for z in outputs(self.prefix, shown, sum(len(rows) for rows, _ in jobs), precision):
                    yield z.clone()  # outside of inference mode: what learns may keep it for its gradient


def _reserve(shape):
    """An array of float32 to fill, in memory or in a file without a name."""
    size = 4 * int(np.prod(shape))
    if size <= IN_MEMORY:
        return np.empty(shape, np.float32)
    cache.folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache.folder()) as file:
        cache.reserve(file, size)
        return np.memmap(file, np.float32, "r+", shape=shape)


def as_they_are(rows, size):
    """(rows, views) that show ``rows`` in order as they are, ``size`` at a time."""
    return [(rows[i : i + size], np.zeros(len(rows[i : i + size]), np.int64)) for i in range(0, len(rows), size)]


def shares_of_epoch(train, epoch, batches, settings, processes):
    """This process's (rows, views, size of the whole batch) of each batch of an epoch.

    The batches are as equal as can be: a last batch of one example would be noise, and an error for BatchNorm.
    """
    seed, views = settings.seed, AUGMENTATIONS[settings.augment]
    rng = np.random.default_rng([seed, 1 + epoch])
    order = rng.permutation(len(train))
    if views is None:
        view = rng.integers(VIEWS, 2**31, len(train))
    else:
        ranks = np.random.default_rng([seed, 0]).random((len(train), len(views))).argsort(1)  # a row's order of views
        view = np.array(views)[ranks[:, epoch % len(views)]]
    batches = np.array_split(order, batches)
    return [(train[rows], view[rows], len(batch)) for batch in batches for rows in [processes.share(batch)]]


def parts_of(share, accumulate):
    """A share's (rows, views), cut in ``accumulate`` parts."""
    rows, views, _ = share
    return list(zip(np.array_split(rows, accumulate), np.array_split(views, accumulate), strict=True))


def worth_storing(shares, val):
    """(P, 2) the (row, view) pairs that will be used more than once: those of validation, and of training if so."""
    pairs = np.concatenate([np.stack([rows, views], 1) for share in shares for rows, views, _ in share])
    once = np.unique(pairs, axis=0)
    val = np.stack([val, np.zeros_like(val)], 1)
    return np.unique(np.concatenate([once, val]), axis=0) if len(once) < len(pairs) else val
