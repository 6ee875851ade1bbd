"""Your own files as a data set: a folder for each class, or a table of texts."""

import warnings
from pathlib import Path

import numpy as np

from tlbook import images
from tlbook.data.dataset import Dataset
from tlbook.kinds import KINDS, kind_of, read_table, text_bits

FEWEST = 4  # images of a class: two to train on, as C is chosen on held-out ones of them, one to choose, one to test on
PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
PARTS |= {"test": "test", "testing": "test"}  # names of folders that hold the parts of a split


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
