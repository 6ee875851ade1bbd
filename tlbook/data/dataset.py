"""Examples, their labels, and which of them belong together; splits and folds; any data set of torch."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real

import numpy as np

from tlbook import images
from tlbook.kinds import KINDS
from tlbook.splits import Split, check_share, generator, stratified_parts
from tlbook.table import Table


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

    @property
    def kind(self):
        """The `tlbook.kinds.Kind` of the inputs: of texts and sounds where the first input is one, else of images."""
        first = self.inputs[0] if len(self) else None
        return KINDS["texts" if isinstance(first, str) else "sounds" if hasattr(first, "samples") else "images"]

    def __post_init__(self):
        if not len(self.inputs) and not len(self.labels):
            object.__setattr__(self, "labels", np.zeros(0, np.int64))
        object.__setattr__(self, "labels", _as_labels(self.labels))
        if isinstance(self.class_names, str):
            raise TypeError(
                f"class_names must be a sequence of K names, got the string {self.class_names!r}: "
                f"write ({self.class_names!r}, …), or tuple({self.class_names!r}) for its letters"
            )
        object.__setattr__(self, "class_names", tuple(self.class_names))
        (name, times), *_ = Counter(map(str, self.class_names)).most_common(1) or [("", 1)]
        if times > 1:
            raise ValueError(f"class_names holds {name!r} {times} times: give each class its own name")
        if self.groups is not None:
            object.__setattr__(self, "groups", _as_groups(self.groups))
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

    def place(self, i):
        """The position of example ``i`` in the data set that this is a part of: what an error names it by."""
        inputs = self.inputs
        while isinstance(inputs, _Picked):
            i, inputs = int(inputs.index[i]), inputs.inputs
        return i

    @property
    def reads_in_parallel(self):
        """Whether several threads may call ``data[i]``, and use what it returns, at once.

        True for files read by their paths, for arrays, tensors, strings and images that lie in memory, and for
        torchvision's ImageFolder as it is. False for every other data set (it may seek in one open file) and for images
        that were opened and not yet read: these are for one thread at a time.
        """
        return _reads_in_parallel(self.inputs)

    def subset(self, index):
        """Return the examples at ``index`` (integers, a slice, or a mask of N booleans), in that order.

        Raises:
            TypeError: an index of another kind. IndexError: an example that is not there, a mask of another length.
        """
        index = self._positions(index)
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
            by: "group" keeps groups whole, stratified as well as that allows; "random" is stratified exactly; "given"
                takes the parts that ``columns["part"]`` names ("train", "val", "test"; see `image_folder`), and draws
                ``val`` from the training part where none is given.
            test_groups: the groups to test on, instead of a random share.
            seed: of everything random.

        Returns:
            Split(train, val, test) of sorted index arrays.

        Raises:
            ValueError: no groups to split by, too few of them, a share that leaves a part empty, an unknown group, no
                given split, or one without training or test part.

        Warns of a class that a part has no example of, and of groups that a given split separates.
        """
        check_share("test", test)
        check_share("val", val, least=0)
        rng = generator(seed)
        if by == "given":
            if test_groups is not None:
                raise ValueError(
                    f"test_groups is {test_groups!r}, but by='given' names the test: leave one of them out"
                )
            split = self._given(val, rng)
            self._warn_of_separated_groups(split)
        else:
            groups = self._groups(by)
            if test_groups is None:
                is_test = stratified_parts(self.labels, groups, [1 - test, test], rng) == 1
            else:
                is_test = self._is_among(groups, test_groups)
            split = self._train_val_test(is_test, groups, val, rng)
        self._warn_of_absent_classes(split)
        return split

    def folds(self, k=4, by="group", repeats=1, val=0.0, seed=0):
        """Return k × repeats splits in which every example is in ``test`` once per repeat.

        The arguments and errors are those of `split`; ``val`` is 0 unless asked for.
        """
        groups = self._groups(by)
        check_share("val", val, least=0)
        if not isinstance(k, Real) or int(k) != k or k < 2:
            raise ValueError(f"k must be a whole number of at least 2 folds, got {k!r}")
        if not isinstance(repeats, Integral) or repeats < 1:
            raise ValueError(f"repeats must be a whole number of at least 1, got {repeats!r}")
        rng = generator(seed)
        parts = [stratified_parts(self.labels, groups, [1 / k] * int(k), rng) for _ in range(repeats)]
        return [self._train_val_test(part == fold, groups, val, rng) for part in parts for fold in range(int(k))]

    def _positions(self, index):
        """The index as integers 0 … N − 1, from all that `subset` takes."""
        everything = np.arange(len(self))
        if isinstance(index, slice):
            return everything[index]
        index = np.asarray(index)
        index = index.astype(np.int64) if not index.size and index.dtype != bool else np.atleast_1d(index)
        if index.ndim != 1 or index.dtype.kind not in "iub":
            raise TypeError(
                f"index must be integers, a slice or a mask of {len(self)} booleans, got {index.dtype} of shape "
                f"{index.shape}: a part of a split is split.train, split.val or split.test"
            )
        if index.dtype == bool and len(index) != len(self):
            raise IndexError(
                f"index is a mask of {len(index)} booleans for {len(self)} examples: one for each is needed"
            )
        outside = index[(index < -len(self)) | (index >= len(self))] if index.dtype != bool else index[:0]
        if len(outside):
            raise IndexError(f"index holds {outside[0]}, and there are {len(self)} examples: 0 … {len(self) - 1}")
        return everything[index]

    def _groups(self, by):
        if by not in ("group", "random"):
            raise ValueError(f"by must be 'group' or 'random', or in split 'given', got {by!r}")
        if by == "group" and self.groups is None:
            raise ValueError(f"{self.name!r} has no groups to split by: give it groups, or use by='random'")
        return self.groups if by == "group" else None

    def _is_among(self, groups, test_groups):
        if groups is None:
            raise ValueError("test_groups names groups, so the split must be by='group'")
        test_groups, names = np.atleast_1d(np.asarray(test_groups)), np.unique(groups)
        unknown = set(test_groups.tolist()) - set(names.tolist())
        if unknown:
            raise ValueError(f"test_groups: {sorted(unknown, key=str)} not among the groups {names.tolist()}")
        if not 0 < len(set(test_groups.tolist())) < len(names):
            raise ValueError(
                f"test_groups names {len(test_groups)} of {len(names)} groups: test on some, and train on others"
            )
        return np.isin(groups, test_groups)

    def _given(self, val, rng):
        """The split that ``columns["part"]`` names, with a share ``val`` of train where it names no val."""
        part = self.columns.get("part")
        if part is None:
            raise ValueError(f"{self.name!r} comes without a split: use by='random' or 'group'")
        other = sorted(set(part.tolist()) - {"train", "val", "test"}, key=str)
        if other:
            raise ValueError(f"columns['part'] must be 'train', 'val' or 'test', got {other}")
        for name, remedy in (
            ("train", ""),
            ("test", ", or rename 'val' to 'test': a val part is then drawn from train"),
        ):
            if name not in part:
                raise ValueError(
                    f"the given split of {self.name!r} has no {name} part, only {np.unique(part).tolist()}: add one, "
                    f"leave out the split (of a table the column split; data.split(by='random') draws another)"
                    f"{remedy if 'val' in part else ''}"
                )
        train, given_val, test = (np.flatnonzero(part == name) for name in Split._fields)
        if len(given_val) or val == 0:
            return Split(train, given_val, test)
        is_val = (
            stratified_parts(
                self.labels[train], None if self.groups is None else self.groups[train], [1 - val, val], rng
            )
            == 1
        )
        return Split(train[~is_val], train[is_val], test)

    def _train_val_test(self, is_test, groups, val, rng):
        rest, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        if val == 0:
            return Split(rest, rest[:0], test)
        if groups is not None and len(np.unique(groups[rest])) < 2:
            raise ValueError(
                f"{self.name!r} has {len(np.unique(groups))} groups, of which the test leaves one: train, val and test "
                "need 3, and 10 or more to tell how groups differ. Or pass val=0"
            )
        is_val = stratified_parts(self.labels[rest], None if groups is None else groups[rest], [1 - val, val], rng) == 1
        return Split(rest[~is_val], rest[is_val], test)

    def _warn_of_separated_groups(self, split):
        if self.groups is None:
            return
        seen, tested = (np.unique(self.groups[rows]) for rows in (np.concatenate([split.train, split.val]), split.test))
        both = np.intersect1d(seen, tested).tolist()
        if both:
            warnings.warn(
                f"the given split separates groups ({len(both)}, such as {both[0]!r}): what is tested was partly seen. "
                "Without the split (of a table the column split; data.split(by='group')) they are kept whole",
                stacklevel=3,
            )

    def _warn_of_absent_classes(self, split):
        for name, rows in zip(Split._fields, split, strict=True):
            absent = (np.bincount(self.labels[rows], minlength=len(self.class_names)) == 0) & (self.class_counts > 0)
            if len(rows) and absent.any():
                names = ", ".join(str(self.class_names[k]) for k in np.flatnonzero(absent))
                warnings.warn(
                    f"the {name} part has no example of {names}: what is not seen there is not "
                    f"{'learnt' if name == 'train' else 'judged'}. Try another seed, a larger share, or more groups",
                    stacklevel=3,
                )


def _as_labels(labels):
    """(N,) int64 from integers or booleans in a sequence, an array or a tensor."""
    if hasattr(labels, "detach"):  # a tensor, on whatever device
        labels = labels.detach().cpu()
    try:
        array = np.asarray(labels)
    except ValueError:
        raise ValueError("labels must be N integers, got rows of several lengths: one class for each example") from None
    if array.ndim == 1 and array.dtype.kind in "iub":
        return array.astype(np.int64)
    remedy = "number the classes from 0"
    if array.ndim == 2:
        remedy = "take labels.argmax(1) of one-hot rows, labels.ravel() of a column"
    elif array.dtype.kind == "f":
        remedy = "labels.astype(int), if they are whole numbers"
    got = f", such as {array.flat[0]!r}" if array.size else ""
    raise ValueError(f"labels must be N integers, got shape {array.shape} of {array.dtype}{got}: {remedy}")


def _as_groups(groups):
    groups = np.asarray(groups)
    if groups.ndim != 1:
        raise ValueError(f"groups must be N values, got shape {groups.shape}: groups.ravel() of a column")
    unknown = [i for i, group in enumerate(groups.tolist()) if group is None or group != group]
    if unknown:
        raise ValueError(
            f"groups: example {unknown[0]} has {groups[unknown[0]]!r} ({len(unknown)} such): "
            "give each a group, one of its own where it belongs to no other"
        )
    return groups


def near_duplicates(data, split, distance=4):
    """List images of ``split.test`` that look like one of its train or val: what is tested was seen before.

    Args:
        data: of images, from `image_folder` or another. distance: the most of 64 bits in which two images' difference
            hashes differ.

    Returns:
        Table of test, seen (paths, or positions where there are no files) and distance (bits), the nearest for each
        image of the test.
    """
    bits, path, rows = data.columns.get("bits"), data.columns.get("path", np.arange(len(data))), Table()
    if bits is None:
        bits = np.array([images.bits_of(_as_picture(data[i][0])) for i in range(len(data))])
    seen = np.concatenate([split.train, split.val])
    for i in split.test if len(seen) else ():
        differ = (bits[seen] ^ bits[i]).view(np.uint8).reshape(-1, 8)
        apart = np.unpackbits(differ, axis=1).sum(1)
        if apart.min() <= distance:
            rows.append({"test": path[i], "seen": path[seen[apart.argmin()]], "distance": int(apart.min())})
    return rows


def _as_picture(image):
    """A PIL image of a uint8 tensor (1 or 3, H, W); PIL images as they are."""
    if not hasattr(image, "permute"):
        return image
    from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).squeeze(-1).cpu().numpy())


def from_dataset(dataset, *, class_names=None, groups=None, name=None, fingerprint=None, columns=None):
    """Take any map-style dataset of (input, label) or of dicts: torchvision's, Hugging Face's, a list of pairs.

    torchvision's classes download what is not yet in their ``root``. Give them the folder that ``TLBOOK_MIRROR`` names,
    and without a network they find there what was put there before, in their own layout (``FashionMNIST/raw/…``).

    Args:
        dataset: has ``len()`` and ``dataset[i] -> (input, label)``, or a dict; labels are integers from 0, or strings
            in a dict.
        class_names: the K names; without them those of a ``ClassLabel``, ``dataset.classes`` (of a ``Subset``, the
            whole's), the strings themselves, or the numbers 0 … K − 1.
        groups: (N,) what belongs together; or the name of a column of dicts.
        fingerprint: a string that stands for the inputs; without it they are read through once to cache features.
        columns: (input, label), the names of the two in a dict, where they cannot be told.

    Raises:
        TypeError: no such data set. ValueError: an empty one, a label that is not an integer, or outside the classes;
            dicts in which input and label cannot be told.

    >>> from_dataset([("good", 1), ("bad", 0), ("fine", 1)], class_names=("negative", "positive"))
    Dataset 'list': 3 examples (negative 1, positive 2)
    >>> from_dataset([{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}])
    Dataset 'list': 2 examples (no 1, yes 1)
    >>> import os, torchvision
    >>> root = os.environ.get("TLBOOK_MIRROR", "data")
    >>> clothes = from_dataset(torchvision.datasets.FashionMNIST(root, download=True))  # doctest: +SKIP
    """
    pairs, names, rows = _checked_pairs(dataset, columns)
    labels = _labels_of(pairs)
    if isinstance(groups, str):
        groups = _no_columns(groups) if rows is None else rows.column(groups)
    if rows is not None and all(isinstance(label, str) for label in labels):
        names = list(map(str, class_names)) if class_names is not None else names or sorted(set(labels))
        labels = [_place(i, label, names) for i, label in enumerate(labels)]
    if class_names is None:
        class_names = names or [str(k) for k in range(int(_as_labels(labels).max()) + 1)]
    return Dataset(
        inputs=_Inputs(pairs, fingerprint),
        labels=labels,
        class_names=class_names,
        groups=groups,
        name=name or type(dataset).__name__,
    )


def _checked_pairs(dataset, columns):
    """(what gives (input, label) at i, the names of the classes or None, the `_Rows` where these are dicts)."""
    from torch.utils.data import DataLoader

    kind = type(dataset).__name__
    if isinstance(dataset, DataLoader):
        raise TypeError(f"dataset must give one example at a time, got a {kind} of batches: pass its .dataset")
    if isinstance(dataset, dict) and dataset and all(hasattr(part, "__getitem__") for part in dataset.values()):
        parts = ", ".join(map(repr, list(dataset)[:5]))
        raise TypeError(
            f"dataset must be one data set, got a {kind} of {parts}: dataset[{next(iter(dataset))!r}] is one"
        )
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"dataset must have len() and dataset[i], got a {kind}: pass list({kind}), if it fits in memory"
        )
    if not len(dataset):
        raise ValueError(f"dataset is empty: the {kind} has no examples")
    first = None if isinstance(dataset, (str, dict)) else dataset[0]
    if isinstance(first, dict):
        rows = _Rows(dataset, first, columns)
        return rows, rows.class_names, rows
    if not isinstance(first, (tuple, list)) or len(first) < 2:
        got = kind if isinstance(dataset, (str, dict)) else f"a {type(first).__name__}"
        raise TypeError(f"dataset[0] must be a pair (input, label), or a dict, got {got}: pass a list of such pairs")
    if columns is not None:
        _no_columns(columns)
    whole = dataset
    while not hasattr(whole, "classes") and hasattr(whole, "indices") and hasattr(whole, "dataset"):  # a Subset
        whole = whole.dataset
    return dataset, getattr(whole, "classes", None), None


def _no_columns(given):
    raise ValueError(f"columns and groups name columns of dicts, and dataset[i] is a pair: leave out {given!r}")


class _Rows:
    """A data set of dicts as one of pairs (input, label). Hugging Face's `datasets` gives such, with its features."""

    INPUTS, LABELS = ("image", "img", "text", "sentence", "audio"), ("label", "labels", "fine_label")

    def __init__(self, dataset, first, columns):
        self.dataset, features = dataset, getattr(dataset, "features", None) or {}
        named = [name for name, feature in features.items() if getattr(feature, "names", None)]  # ClassLabel
        if columns is None:
            inputs = [name for name in self.INPUTS if name in first]
            labels = [name for name in self.LABELS if name in first] or named
            if len(inputs) != 1 or len(labels) != 1:
                raise ValueError(
                    f"dataset[0] has {', '.join(map(repr, first))}, and which are input and label cannot be told: give "
                    "columns=(input, label)"
                )
            columns = inputs[0], labels[0]
        missing = [name for name in columns if name not in first]
        if len(columns) != 2 or missing:
            raise ValueError(
                f"columns must be the names of input and label out of {', '.join(map(repr, first))}, got {columns!r}"
            )
        self.input, self.label = columns
        self.class_names = list(features[self.label].names) if self.label in named else None
        if hasattr(dataset, "features"):  # a column at once, without decoding the images
            self.targets = list(dataset[self.label])
            self._check(self.targets)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        row = self.dataset[i]
        self._check([row[self.label]], i)
        return row[self.input], row[self.label]

    def column(self, name):
        if name not in (first := self.dataset[0]):
            raise ValueError(f"groups must be one of the columns {', '.join(map(repr, first))}, got {name!r}")
        at_once = hasattr(self.dataset, "features")
        return list(self.dataset[name]) if at_once else [self.dataset[i][name] for i in range(len(self))]

    def _check(self, labels, first=0):
        for i, label in enumerate(labels, first):
            if label is None or isinstance(label, (list, tuple)) or np.ndim(label):
                got = "no label" if label is None else f"the labels {label!r}"
                raise ValueError(
                    f"example {i} has {got}, and one is learned: leave it out, or make one data set for each label "
                    "(yes or no); shares of votes go to tl.Objective(soft_targets=…)"
                )


def _place(i, label, names):
    if label not in names:
        raise ValueError(f"label {label!r} of example {i} is none of the classes {tuple(names)}: correct it")
    return list(names).index(label)


def _labels_of(dataset):
    """The label of each example: ``dataset.targets`` where some of them agree with ``dataset[i]``, or one by one."""

    def label(i):
        y = dataset[i][1]
        return y.item() if hasattr(y, "item") and np.ndim(y) == 0 else y  # of a tensor or array without dimensions

    if isinstance(dataset, _Rows):
        return getattr(dataset, "targets", None) or [label(i) for i in range(len(dataset))]
    targets = _targets_of(dataset)
    if targets is not None and getattr(dataset, "target_transform", None) is None and len(targets) == len(dataset):
        targets = _as_labels(targets)
        spread = np.linspace(0, len(targets) - 1, 8).astype(int)
        of_each_class = np.unique(targets, return_index=True)[1]
        if all(label(int(i)) == targets[i] for i in np.union1d(spread, of_each_class)):
            return targets
    return [label(i) for i in range(len(dataset))]


def _targets_of(dataset):
    """torchvision's name for labels that are known without decoding the images; of a Subset those of the whole."""
    if hasattr(dataset, "targets"):
        return dataset.targets
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        whole = _targets_of(dataset.dataset)
        return None if whole is None else _as_labels(whole)[np.asarray(dataset.indices)]
    return None


class Tensors:
    """Rows of a uint8 array, as tensors."""

    reads_in_parallel = True

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
        if hasattr(inputs, "fingerprint"):
            self.fingerprint = self._of_named_inputs

    def _of_named_inputs(self):
        return hashlib.sha256(self.inputs.fingerprint().encode() + self.index.astype(np.int64).tobytes()).hexdigest()

    @property
    def reads_in_parallel(self):
        return _reads_in_parallel(self.inputs)

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

    @property
    def reads_in_parallel(self):
        if type(self.dataset) in (list, tuple):
            return all(_is_in_memory(pair[0]) for pair in self.dataset)
        return _is_torchvisions_own(self.dataset)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        if i >= len(self):
            raise IndexError(i)
        return self.dataset[i][0]


def _reads_in_parallel(inputs):
    if type(inputs) in (list, tuple):
        return all(map(_is_in_memory, inputs))
    return _is_in_memory(inputs) or getattr(inputs, "reads_in_parallel", False) is True


def _is_in_memory(x):
    """Whether reading this does nothing to it: text, numbers, tensors, arrays, images that were read whole."""
    import torch
    from PIL import Image

    if isinstance(x, Image.Image):
        return images.may_be_shared(x)
    if isinstance(x, np.ndarray):
        return not x.dtype.hasobject
    return isinstance(x, (str, bytes, Real, np.generic, torch.Tensor))


def _is_torchvisions_own(dataset):
    """Whether this is an ImageFolder or DatasetFolder, or a part of one, with nothing of anybody else's in it."""
    from torch.utils.data import Subset
    from torchvision.datasets import DatasetFolder, ImageFolder
    from torchvision.datasets.folder import default_loader

    if type(dataset) is Subset:
        return _is_torchvisions_own(dataset.dataset)
    plain = type(dataset) in (ImageFolder, DatasetFolder) and dataset.loader is default_loader
    return plain and dataset.transforms is None


def _content(x):
    """The bytes that make up an input, with its type and shape; of an image also what decides its colours.

    Raises:
        TypeError: an input whose bytes are not known.
    """
    import torch
    from PIL import Image

    if isinstance(x, str):
        return b"str" + x.encode("utf-8", "surrogatepass") + b"\0"
    if isinstance(x, (list, tuple, dict)):
        parts = [part for item in x.items() for part in item] if isinstance(x, dict) else x
        return f"{type(x).__name__}{len(x)}".encode() + b"".join(map(_content, parts))
    if isinstance(x, Image.Image):  # palette, transparency and orientation are not among the pixels as they are stored
        return x.mode.encode() + _content(np.asarray(x)) + _content(np.asarray(images.to_rgb(x)))
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().contiguous()
        return f"{x.dtype}{tuple(x.shape)}".encode() + x.reshape(-1).view(torch.uint8).numpy().tobytes()
    array = np.ascontiguousarray(x)
    if array.dtype.hasobject:
        raise TypeError(
            f"inputs of type {type(x).__name__} have no bytes to tell a changed one by: pass from_dataset(…, "
            "fingerprint='a name for these inputs'), or extract with cache=False"
        )
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()
