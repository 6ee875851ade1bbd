"""Which images show one thing? Copies of a file, and pictures of one scene."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import binom

from tlbook import images
from tlbook.loading import read_input, seen_at

SIDE, LARGE = 32, 64  # pixels of the small picture that copies are compared by, and of the larger one in colour
COPY, LIKELY = 0.85, 0.6  # correlation from which on one picture is a copy of another; see `copies`
LEAST_DETAIL = 1.0  # grey levels of deviation, below which a picture shows nothing to compare
TURNED = {"as it is": lambda a: a, "mirrored": lambda a: a[..., ::-1], "upside down": lambda a: a[..., ::-1, ::-1]}
NEIGHBOURS = 20  # the k of `scenes`
LEAST_FEATURES = 16  # fewer cannot fill seven dimensions


class Pair(NamedTuple):
    """Two examples that look alike, and how: ``value`` is a correlation for copies, a ratio of distances for scenes."""

    i: int
    j: int
    value: float
    how: str


class Pictures(NamedTuple):
    """What is kept of N images: ``grey`` (N, 32, 32), and of some of them ``colour`` (n, 64, 64, 3); both uint8."""

    grey: np.ndarray
    colour: np.ndarray


def small_pictures(data, rows=()):
    """Read every image once, and keep it small (squeezed to a square); those at ``rows`` in colour, too."""
    from PIL import Image

    from tlbook.data.dataset import _as_picture

    grey = np.empty((len(data), SIDE, SIDE), np.uint8)
    colour, data = {int(i): None for i in rows}, seen_at(data, LARGE)

    def keep(i):
        image = images.to_rgb(_as_picture(read_input(data, i)))
        grey[i] = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        if i in colour:
            colour[i] = np.asarray(image.resize((LARGE, LARGE), Image.Resampling.BOX))

    with ThreadPoolExecutor(os.cpu_count() if data.reads_in_parallel else 1) as readers:
        list(readers.map(keep, range(len(data))))
    return Pictures(grey, np.stack(list(colour.values())) if colour else None)


def copies(grey, near=(), at_once=2048):
    """List pairs of images that are one picture: saved again, resized, mirrored or turned upside down.

    Each small picture is freed of its slow changes (minus its local mean, 5 × 5), so that only detail is compared, and
    then of what the whole data set shares, such as the wires of every solar cell: z = (C + m I)^(−½) (v − mean), C the
    covariance of all pictures and m its mean eigenvalue. Copies correlate in z at `COPY` and more; after strong
    compression, or in pictures of few pixels, at `LIKELY`. The most alike two images that are no copies reached .25
    (insects), .35 (stone), .50 (hands), .54 (faces) and .81 (digits of 8 × 8 pixels). So between `LIKELY` and `COPY`
    the features have to agree. Images without detail are copies of nothing.

    Args:
        grey: (N, 32, 32) uint8. near: pairs (i, j), i < j, that are near each other in the features.

    Returns:
        [Pair], each pair once, the most alike first.
    """
    detail = grey.astype(np.float32)
    detail -= uniform_filter(detail, (0, 5, 5))
    shown = np.flatnonzero(detail.std((1, 2)) >= LEAST_DETAIL)
    if len(shown) < 2:
        return []
    detail = detail[shown]
    whiten, near, best = _whitening(_unit(detail)), set(near), {}
    z = whiten(_unit(detail))
    for how, turn in TURNED.items():
        turned = whiten(_unit(turn(detail)))
        for start in range(0, len(z), at_once):
            alike = z[start : start + at_once] @ turned.T
            for a, b in np.argwhere(alike >= LIKELY):
                i, j, value = int(shown[start + a]), int(shown[b]), float(alike[a, b])
                if i < j and (value >= COPY or (i, j) in near) and value > best.get((i, j), (0,))[0]:
                    best[i, j] = value, how
    return sorted((Pair(i, j, *found) for (i, j), found in best.items()), key=lambda pair: -pair.value)


def same_bits(bits):
    """List pairs of examples whose bits are equal: texts that begin alike, recordings of the same samples."""
    order = np.argsort(bits, kind="stable")
    same = np.flatnonzero(bits[order][1:] == bits[order][:-1])
    return [Pair(int(order[i]), int(order[i + 1]), 1.0, "as it is") for i in same]


def _unit(x):
    """(N, …) -> (N, D) float32 rows of mean 0 and length 1."""
    x = x.reshape(len(x), -1)
    x = x - x.mean(1, keepdims=True)
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _whitening(v):
    """The map v -> z of `copies`, its rows of length 1."""
    mean = v.mean(0)
    values, axes = np.linalg.eigh(np.cov(v.T, bias=True))
    root = ((axes / np.sqrt(values.clip(0) + values.clip(0).mean() + 1e-12)) @ axes.T).astype(np.float32)
    return lambda x: _unit_rows((x - mean) @ root)


def _unit_rows(z):
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def centred(X, labels):
    """(N, D) float32 features minus the mean of their class, with length 1: what tells images of a class apart."""
    X = np.asarray(X, dtype=np.float32)
    means = np.stack([X[labels == k].mean(0) if (labels == k).any() else X[0] * 0 for k in range(labels.max() + 1)])
    return _unit_rows(X - means[labels])


class Scenes(NamedTuple):
    """What `scenes` found.

    Attributes:
        pairs: [Pair], each once, the nearest first.
        rows: the examples that have a look-alike.
        k: that was taken; 0 where there are too few examples, or features, to tell.
        chance: the share of examples that would have one if all were independent.
    """

    pairs: list
    rows: np.ndarray
    k: int
    chance: float

    def more_than_chance(self, N, of_a_pair=2):
        """(share of the N examples asked, p that as many independent ones have one); a pair counts once.

        of_a_pair: how many members of a pair were asked, 1 where only one side was.
        """
        share = len(self.rows) / N
        return share, float(binom.sf(round(len(self.rows) / of_a_pair) - 1, N // of_a_pair, self.chance))


def scenes(z, apart, asked, k=NEIGHBOURS):
    """List examples that have a look-alike on the other side: half as far as the k-th nearest there, or nearer.

    Where examples are independent, their features fill a space of d dimensions, and near each example evenly. Then the
    nearest is within half the distance of the k-th with probability 1 − (1 − 2^(−d))^(k − 1): with k = 20, 14 % for
    d = 7. Six data sets had d = 7 to 21, and 0 to 12 % of such examples; pictures of one scene had over 90 %.

    Args:
        z: (N, D) from `centred`. apart: (N,) parts or groups; only examples of another are looked at. None: all others.
        asked: rows of those to look for. Of a small part only its own: to the others its k-th nearest is far away.
        k: at most; a hundred examples have at most 12.

    Returns:
        Scenes

    Levina & Bickel, Maximum likelihood estimation of intrinsic dimension, NeurIPS 2004: the model.
    """
    N, k = len(z), min(k, len(z) // 8)
    if k < 4 or z.shape[1] < LEAST_FEATURES:
        return Scenes([], np.zeros(0, int), 0, 1.0)
    found, flagged = {}, []
    for start in range(0, len(asked), 512):
        rows = asked[start : start + 512]
        distance = np.sqrt((2 - 2 * (z[rows] @ z.T)).clip(1e-12))
        same = rows[:, None] == np.arange(N) if apart is None else apart[rows][:, None] == apart
        distance[same] = np.inf
        kth = np.partition(distance, k - 1, axis=1)[:, k - 1]
        nearest, least = distance.argmin(1), distance.min(1)
        for i in np.flatnonzero(np.isfinite(kth) & (least <= 0.5 * kth)):
            flagged.append(int(rows[i]))
            found[tuple(sorted((int(rows[i]), int(nearest[i]))))] = float(least[i] / kth[i])
    pairs = sorted((Pair(i, j, ratio, "") for (i, j), ratio in found.items()), key=lambda pair: pair.value)
    return Scenes(pairs, np.array(flagged, dtype=int), k, 1 - (1 - 2.0**-7) ** (k - 1))


def clusters(N, pairs):
    """(N,) a number for each example; those joined by pairs, directly or through others, share theirs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
    return connected_components(coo_matrix((np.ones(len(i)), (i, j)), (N, N)), directed=False)[1]
