"""Your own files as a data set: a folder for each class, or a table of texts."""

import warnings
from pathlib import Path

import numpy as np

from tlbook import images
from tlbook.data.dataset import Dataset
from tlbook.kinds import KINDS, kind_of

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
        on_error: "raise", or "skip": go on without broken images, files that are no images, images that stand byte for
            byte in folders of two classes, and classes of fewer than `FEWEST` images, with a warning that counts them.

    Returns:
        Dataset; ``columns``: path (below the folder), bits, the `tlbook.images.difference_hash`, and part where the
        folder holds the parts of a split.

    Raises:
        FileNotFoundError: no such folder. ValueError: fewer than two classes, parts of a split with other classes or
            beside other folders, or what "skip" would skip, listed.

    >>> data = image_folder("photographs")  # doctest: +SKIP
    """
    return _class_folder(path, KINDS["images"], groups, on_error)


def folder(path, *, groups=None, labels=None, on_error="raise"):
    """Take a folder that holds a folder for each class, of images, .txt or .wav files; or a table of examples.

    Of a folder everything is as `image_folder` says, whatever the kind of the files, which is that of most of them.
    Texts are UTF-8; inputs are strings, or `tlbook.speech.Sound`.

    A CSV file begins with a line that names its columns, among them ``label``, and ``text`` or ``path`` (of a file,
    relative to the CSV file). There may be ``group``, ``split`` ("train", "val", "test"; ``part`` is the same) and
    ``weight`` (numbers of at least 0, for ``Objective(sample_weight=data.columns["weight"])``); every column is kept in
    ``columns``. Empty lines are passed over; \\ in a path is read as / where that names a file. What is wrong with a
    row is said with its number.

    An .npz file (``np.savez``) holds images X, (N, H, W) or (N, H, W, 3) uint8, and y, N integers or strings; of the
    same length group, split and weight may be there, and class_names, what the integers mean: classes keep the order of
    these, and of integers. Images are prepared as files of them would be. Nothing in it is unpickled.

    Args:
        path: the folder, the CSV file or the .npz file.
        labels: a CSV file with the columns path and label for the files of the folder, to which its paths are relative.
        groups, on_error: as of `image_folder`.

    Returns:
        Dataset

    Raises:
        FileNotFoundError, ValueError: as of `image_folder`.

    >>> data = folder("reviews.csv")  # doctest: +SKIP

    Lesson 09.
    """
    from tlbook.data import tables

    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    suffix = "" if Path(path).is_dir() else Path(path).suffix.lower()
    if groups is not None and (labels is not None or suffix in (".csv", ".npz")):
        raise ValueError(
            f"groups of a CSV or .npz file stand in its column 'group', and groups={str(groups)!r} was given too: put "
            "them there, and leave groups (--groups) out"
        )
    if labels is not None:
        if not Path(path).is_dir():
            raise FileNotFoundError(f"{path} is not a folder: paths in {labels} are relative to one")
        return tables.table(Path(labels), path, on_error)
    if suffix == ".csv":
        return tables.table(Path(path), None, on_error)
    if suffix in (".npz", ".npy"):
        return tables.arrays(Path(path), on_error)
    if Path(path).is_file():
        raise ValueError(
            f"{path} is none of what is taken: a folder that holds a folder of files for each class; a .csv file, with "
            "commas, of path,label or text,label; an .npz file of images X and labels y"
        )
    return _class_folder(path, kind_of(path), groups, on_error)


def _class_folder(path, kind, groups, on_error):
    """The Dataset of a folder that holds a folder of files of one kind for each class."""
    root = Path(path)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give one that holds a folder of {kind.name} for each class")

    part_of = _parts_of_a_split(root)
    of_class, bits, problems = _files_of_classes(root, part_of, kind)
    raise_or_warn(root, problems, on_error)
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
    if found and not classes:
        raise ValueError(
            f"{root} holds {len(found)} {kind.name} and no folder in it: make a folder for each class, and move the "
            f"{kind.name} of the class there"
        )
    place = {f: f.relative_to(root).parts for f in found}
    bits, problems = images.check([f for f in found if len(place[f]) >= level + 2], kind.bits, kind.name)
    copies, files = set(), list(bits)
    for rows in images.copies_of_two_classes(files, [place[f][level] for f in files], bits):
        copies.update(files[i] for i in rows)
        several = " and ".join(str(files[i]) for i in rows)
        problems.append(f"{several} are the same, and of two classes: remove the wrong one")
    of_class = {folder.name: [] for folder in classes}
    for f in (f for f in files if f not in copies):
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


def listed(problems):
    """One a line, of at most twenty."""
    return "\n  ".join([*problems[:20], *([f"… and {len(problems) - 20} more"] if len(problems) > 20 else [])])


def raise_or_warn(root, problems, on_error):
    """An error that lists what is wrong in a folder or file, or a warning where ``on_error`` is "skip"."""
    if not problems:
        return
    if on_error == "raise":
        raise ValueError(
            f"{len(problems)} problems in {root}:\n  {listed(problems)}\nMend or remove them, or pass "
            "on_error='skip' (--skip)"
        )
    warnings.warn(f"{len(problems)} problems in {root} passed over:\n  {listed(problems)}", stacklevel=3)
