"""Examples, their labels, and which of them belong together."""

import hashlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlbook import cache, images
from tlbook.table import Table

# The order of the files is the order of the panels. All cells of a panel are of one type, which fixes the 72 and the
# 48; the places of the 54 and the 50 are the best fit to visible changes of appearance. Lesson 01 shows the evidence.
SOLAR_PANELS = [60] * 20 + [54] + [60] * 9 + [50] + [60] * 5 + [72] + [60] * 3 + [48] + [60] * 3

FEWEST = 5  # images of a class: training, validation and test want some each


class Split(NamedTuple):
    """Three disjoint index arrays (int64): fit on ``train``, choose on ``val``, report on ``test``."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """N inputs with a class each; ``data[i]`` is the pair (input, label).

    Attributes:
        inputs: ``inputs[i]`` is an input (a uint8 tensor, a PIL image, a string, …), made when it is asked for.
        labels: (N,) int64, each in 0 … K − 1.
        class_names: the K names.
        groups: (N,) what belongs together and must not be separated by an honest split (panels, patients), or None.
        columns: {name: (N,) array}, anything else that is known of each example.
    """

    inputs: Sequence
    labels: np.ndarray
    class_names: tuple
    groups: np.ndarray | None = None
    columns: dict = field(default_factory=dict)
    name: str = "data"

    def __post_init__(self):
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"labels must be N integers, got shape {labels.shape} of {labels.dtype}")
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if self.groups is not None:
            object.__setattr__(self, "groups", np.asarray(self.groups))
        object.__setattr__(self, "columns", {k: np.asarray(v) for k, v in self.columns.items()})
        for what, values in {"labels": self.labels, "groups": self.groups, **self.columns}.items():
            if values is not None and len(values) != len(self.inputs):
                raise ValueError(f"{what}: {len(values)} values for {len(self.inputs)} inputs; one for each is needed")
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(outside):
            raise ValueError(
                f"label {self.labels[outside[0]]} of example {outside[0]} is outside the {len(self.class_names)} "
                f"classes {self.class_names} ({len(outside)} such): labels run from 0 to {len(self.class_names) - 1}"
            )

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return self.inputs[i], int(self.labels[i])

    def __repr__(self):
        counts = ", ".join(f"{c} {n}" for c, n in zip(self.class_names, self.class_counts, strict=True))
        groups = "" if self.groups is None else f" in {len(np.unique(self.groups))} groups"
        return f"Dataset {self.name!r}: {len(self):,} examples{groups} ({counts})"

    @property
    def class_counts(self):
        """(K,) examples of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    @property
    def fingerprint(self):
        """SHA-256 over the inputs (not the labels), in hexadecimal: what cached features are keyed by.

        It is computed anew each time, so that a changed pixel never meets a stale cache.
        """
        if hasattr(self.inputs, "fingerprint"):
            return self.inputs.fingerprint()
        digest = hashlib.sha256()
        for x in self.inputs:
            digest.update(_content(x))
        return digest.hexdigest()

    def subset(self, index):
        """Return the examples at ``index`` (integers or a mask of N booleans), in that order."""
        index = np.arange(len(self))[index]
        picked = self.inputs.subset(index) if hasattr(self.inputs, "subset") else _Picked(self.inputs, index)
        return replace(
            self,
            inputs=picked,
            labels=self.labels[index],
            groups=None if self.groups is None else self.groups[index],
            columns={name: values[index] for name, values in self.columns.items()},
        )

    def split(self, test=0.25, val=0.2, by="group", test_groups=None, seed=0):
        """Divide the examples in three; no group stands on two sides when ``by="group"``.

        Args:
            test: share of all examples that is held out to report on.
            val: share of the *remaining* examples that is held out to choose by; 0 for none.
            by: "group" keeps groups whole, stratified as well as that allows; "random" is stratified exactly.
            test_groups: the groups to test on, instead of a random share.

        Returns:
            Split(train, val, test) of sorted index arrays.

        Raises:
            ValueError: no groups to split by, too few of them, a share that leaves a part empty, an unknown group.
        """
        groups = self._groups(by)
        rng = np.random.default_rng(seed)
        if test_groups is None:
            is_test = _deal(self.labels, groups, [1 - test, test], rng) == 1
        else:
            if groups is None:
                raise ValueError("test_groups names groups, so the split must be by='group'")
            unknown = set(np.asarray(test_groups).tolist()) - set(groups.tolist())
            if unknown:
                raise ValueError(f"test_groups: {sorted(unknown)} not among the groups {np.unique(groups).tolist()}")
            is_test = np.isin(groups, test_groups)
        return self._three(is_test, groups, val, rng)

    def folds(self, k=4, by="group", repeats=1, val=0.0, seed=0):
        """Return k × repeats splits in which every example is in ``test`` once per repeat.

        The arguments and errors are those of `split`; ``val`` is 0 unless asked for.
        """
        groups = self._groups(by)
        if int(k) != k or k < 2:
            raise ValueError(f"k must be a whole number of at least 2 folds, got {k!r}")
        rng = np.random.default_rng(seed)
        parts = [_deal(self.labels, groups, [1 / k] * int(k), rng) for _ in range(repeats)]
        return [self._three(part == fold, groups, val, rng) for part in parts for fold in range(int(k))]

    def _groups(self, by):
        if by not in ("group", "random"):
            raise ValueError(f"by must be 'group' or 'random', got {by!r}")
        if by == "group" and self.groups is None:
            raise ValueError(f"{self.name!r} has no groups to split by: give it groups, or use by='random'")
        return self.groups if by == "group" else None

    def _three(self, is_test, groups, val, rng):
        rest, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        if val == 0:
            return Split(rest, rest[:0], test)
        is_val = _deal(self.labels[rest], None if groups is None else groups[rest], [1 - val, val], rng) == 1
        return Split(rest[~is_val], rest[is_val], test)


def _deal(labels, groups, shares, rng, draws=100):
    """(N,) the part 0 … P − 1 of each example; part p gets about ``shares[p]`` of every class, groups stay whole.

    Groups are dealt at random ``draws`` times and the deal closest to the wanted class counts is kept. scikit-learn's
    StratifiedGroupKFold places groups of extreme class balance first whatever the seed, so that some panels would
    be tested together in every repeat.
    """
    if min(shares) <= 0:
        raise ValueError(f"a share of the examples must be above 0 and below 1, got {min(shares):g}")
    edges = np.cumsum(shares)[:-1]
    part = np.empty(len(labels), dtype=np.int64)
    if groups is None:
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            part[rows] = np.searchsorted(edges, (np.arange(len(rows)) + 0.5) / len(rows))
    else:
        names, group = np.unique(groups, return_inverse=True)
        if len(names) < len(shares):
            raise ValueError(f"{len(names)} groups cannot be dealt to {len(shares)} parts: at least one each is needed")
        counts = np.zeros((len(names), labels.max() + 1))  # of each class in each group
        np.add.at(counts, (group, labels), 1)
        wanted = np.outer(shares, counts.sum(0))
        best = np.inf
        for _ in range(draws):
            order = rng.permutation(len(names))
            size = counts[order].sum(1)
            part_of = np.empty(len(names), dtype=np.int64)
            part_of[order] = np.searchsorted(edges, (np.cumsum(size) - size / 2) / size.sum())
            dealt = np.zeros_like(wanted)
            np.add.at(dealt, part_of, counts)
            miss = np.abs(dealt - wanted).sum()
            if miss < best and len(np.unique(part_of)) == len(shares):
                best, part = miss, part_of[group]
        if best == np.inf:
            raise ValueError(
                f"no deal of {len(names)} groups to shares {shares} gives every part a group; ask for fewer parts"
            )
    if len(np.unique(part)) < len(shares):
        raise ValueError(f"{len(labels)} examples are too few for shares {shares}: a part is left empty")
    return part


def solar_cells(size=160):
    """Load 2,624 electroluminescence photographs of solar cells, cut out of 44 panels.

    Healthy is a defect probability below .5 (0 or ⅓, the mean of the experts' votes), defective one above. The panels
    are **inferred** from the order of the files (see `SOLAR_PANELS` and lesson 01). The images are resized once and
    kept in the cache. They are licensed CC BY-NC-SA 4.0, and so is every figure that shows them.

    Args:
        size: height and width in pixels; the originals have 300.

    Returns:
        Dataset of uint8 tensors (1, size, size); ``columns``: kind ("mono" or "poly"), probability (of a defect, by
        the experts) and certainty (of the label: 1 or ⅔).

    Raises:
        ModuleNotFoundError: the package ``elpv-dataset`` is not installed.

    Source: Deitsch et al., Automatic classification of defective photovoltaic module cells in electroluminescence
    images, Solar Energy 185, 2019.

    >>> solar_cells()
    Dataset 'solar_cells': 2,624 examples in 44 groups (healthy 1803, defective 821)
    """
    if size < 1 or int(size) != size:
        raise ValueError(f"size must be a whole number of pixels above 0, got {size!r}")
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None:
        raise ModuleNotFoundError("the solar cells come with a package of their own: pip install 'tlbook[course]'")
    home = Path(spec.origin).parent / "data"
    rows = [line.split() for line in (home / "labels.csv").read_text().splitlines()]
    stored = cache.folder() / f"solar_cells_{importlib.metadata.version('elpv-dataset')}_{int(size)}.npy"
    if not stored.exists():
        with cache.atomic(stored) as part:
            _store_images([home / path for path, _, _ in rows], int(size), part)
    probability = np.array([float(p) for _, p, _ in rows])
    return Dataset(
        inputs=_Tensors(np.load(stored, mmap_mode="r")),
        labels=(probability > 0.5).astype(np.int64),
        class_names=("healthy", "defective"),
        groups=np.repeat(np.arange(len(SOLAR_PANELS)), SOLAR_PANELS),
        columns={
            "kind": np.array([kind for _, _, kind in rows]),
            "probability": probability,
            "certainty": np.maximum(probability, 1 - probability),
        },
        name="solar_cells",
    )


def _store_images(paths, size, target):
    from PIL import Image
    from tqdm import tqdm

    with target.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), 1, size, size)}
        np.lib.format.write_array_header_1_0(file, header)
        for path in tqdm(paths, desc=f"solar cells at {size} px, once", leave=False):
            with Image.open(path) as image:
                file.write(image.convert("L").resize((size, size), Image.Resampling.BILINEAR).tobytes())


def image_folder(path, *, groups=None, on_error="raise"):
    """Take a folder that holds a folder of images for each class, however deep they lie in it.

    Every image is decoded once now, to find broken ones before anything is computed, and again whenever it is asked
    for: memory holds only the paths. Inputs are PIL images, RGB and upright (see `tlbook.images.to_rgb`).

    Args:
        path: the folder. Hidden files and what file managers leave are passed over.
        groups: what belongs together and must not be separated (patients, days, cameras): a function of an image's path
            below the folder, such as "cats/17/3.jpg", or a CSV file with the columns path and group.
        on_error: "raise", or "skip": go on without broken images, files that are no images and classes of fewer than
            `FEWEST` images, with a warning that counts them.

    Returns:
        Dataset; ``columns``: path (below the folder) and bits, the `tlbook.images.difference_hash`.

    Raises:
        FileNotFoundError: no such folder. ValueError: fewer than two classes, or what "skip" would skip, listed.

    >>> data = image_folder("photographs")  # doctest: +SKIP
    """
    root = Path(path)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give one that holds a folder of images for each class")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    found, strays = images.find(root)
    loose = [f for f in found if f.parent == root]
    bits, problems = images.check([f for f in found if f.parent != root])
    problems += [f"{f} is not an image" for f in strays] + [f"{f} is in no class's folder" for f in loose]
    of_class = {folder.name: [] for folder in folders}
    for f in bits:
        of_class[f.relative_to(root).parts[0]].append(f)
    problems += [
        f"{root / name} has {len(files)} usable images, fewer than {FEWEST}"
        for name, files in of_class.items()
        if len(files) < FEWEST
    ]
    if problems:
        listed = "\n  ".join([*problems[:20], *([f"… and {len(problems) - 20} more"] if len(problems) > 20 else [])])
        if on_error == "raise":
            raise ValueError(
                f"{len(problems)} problems in {root}:\n  {listed}\nMend or remove them, or pass on_error='skip'"
            )
        warnings.warn(f"{len(problems)} problems in {root} passed over:\n  {listed}", stacklevel=2)
    of_class = {name: files for name, files in of_class.items() if len(files) >= FEWEST}
    if len(of_class) < 2:
        raise ValueError(
            f"{root} has {len(of_class)} classes with images ({', '.join(of_class) or 'none'}), and a classifier needs "
            "at least two: put the images of each class in a folder of its own"
        )
    files = [f for of in of_class.values() for f in of]
    return Dataset(
        inputs=images.Files(files),
        labels=np.repeat(np.arange(len(of_class)), [len(of) for of in of_class.values()]),
        class_names=tuple(of_class),
        groups=None if groups is None else images.groups_of(files, root, groups),
        columns={
            "path": np.array([f.relative_to(root).as_posix() for f in files]),
            "bits": np.array([bits[f] for f in files]),
        },
        name=root.resolve().name,
    )


def near_duplicates(data, split, distance=4):
    """List images of ``split.test`` that look like one of its train or val: what is tested was seen before.

    Args:
        data: from `image_folder`. distance: the most of 64 bits in which two images' difference hashes differ.

    Returns:
        Table of test, seen (paths) and distance (bits), the nearest for each image of the test.
    """
    bits, path, rows = data.columns["bits"], data.columns["path"], Table()
    seen = np.concatenate([split.train, split.val])
    for i in split.test if len(seen) else ():
        differ = (bits[seen] ^ bits[i]).view(np.uint8).reshape(-1, 8)
        apart = np.unpackbits(differ, axis=1).sum(1)
        if apart.min() <= distance:
            rows.append({"test": path[i], "seen": path[seen[apart.argmin()]], "distance": int(apart.min())})
    return rows


def from_dataset(dataset, *, class_names=None, groups=None, name=None, fingerprint=None):
    """Take any map-style dataset of (input, label): torchvision's, a list of pairs, …

    torchvision's classes download what is not yet in their ``root``. Give them the folder that ``TLBOOK_MIRROR`` names,
    and without a network they find there what was put there before, in their own layout (``FashionMNIST/raw/…``).

    Args:
        dataset: has ``len()`` and ``dataset[i] -> (input, label)``; labels are integers from 0.
        class_names: the K names; without them ``dataset.classes``, or the numbers 0 … K − 1.
        groups: (N,) what belongs together.
        fingerprint: a string that stands for the inputs; without it they are read through once to cache features.

    Raises:
        ValueError: a label that is not an integer, or outside the classes.

    >>> from_dataset([("good", 1), ("bad", 0), ("fine", 1)], class_names=("negative", "positive"))
    Dataset 'list': 3 examples (negative 1, positive 2)
    >>> import os, torchvision
    >>> root = os.environ.get("TLBOOK_MIRROR", "data")
    >>> clothes = from_dataset(torchvision.datasets.FashionMNIST(root, download=True))  # doctest: +SKIP
    """
    targets = getattr(dataset, "targets", None)  # torchvision's name: labels without decoding the images
    if targets is None or getattr(dataset, "target_transform", None) is not None:
        targets = [dataset[i][1] for i in range(len(dataset))]
    labels = np.asarray(targets)
    if class_names is None and labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be N integers, got {labels.dtype}: number the classes from 0")
    if class_names is None:
        class_names = getattr(dataset, "classes", None) or [str(k) for k in range(int(labels.max(initial=0)) + 1)]
    return Dataset(
        inputs=_Inputs(dataset, fingerprint),
        labels=labels,
        class_names=class_names,
        groups=groups,
        name=name or type(dataset).__name__,
    )


class _Tensors:
    """Rows of a uint8 array, as tensors."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        import torch

        return torch.from_numpy(np.array(self.array[i]))

    def fingerprint(self):
        return hashlib.sha256(str(self.array.shape).encode() + np.ascontiguousarray(self.array).data).hexdigest()


class _Picked:
    """The inputs at an index."""

    def __init__(self, inputs, index):
        self.inputs, self.index = inputs, index

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        return self.inputs[int(self.index[i])]


class _Inputs:
    """The first of each pair of a map-style dataset."""

    def __init__(self, dataset, stands_for):
        self.dataset = dataset
        if stands_for is not None:
            self.fingerprint = lambda: hashlib.sha256(stands_for.encode()).hexdigest()

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        if i >= len(self):
            raise IndexError(i)
        return self.dataset[i][0]


def _content(x):
    """The bytes that make up an input, with its type and shape."""
    import torch

    if isinstance(x, str):
        return b"str" + x.encode() + b"\0"
    if isinstance(x, torch.Tensor):
        x = x.cpu().numpy()
    kind = getattr(x, "mode", "")  # PIL
    x = np.ascontiguousarray(x)
    return f"{kind}{x.dtype}{x.shape}".encode() + x.tobytes()
