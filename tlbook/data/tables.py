"""Your own examples as a table: a CSV file of texts or of paths, an .npz file of images; what is wrong names its row.

Rows of a CSV file are counted from the line with the names of the columns, which is row 1; those of an array from 0.
"""

import os
import warnings
import zipfile
from pathlib import Path

import numpy as np

from tlbook import images
from tlbook.data.dataset import Dataset, Tensors
from tlbook.data.folders import FEWEST, PARTS, raise_or_warn
from tlbook.kinds import KINDS, read_table, text_bits

ONE_LABEL = (
    "One label for each example is learned here: of several labels an image, make one data set for each (yes or no); "
    "of votes take the class of most, and give their shares to tl.Objective(soft_targets=…)"
)


def table(path, root=None, on_error="raise"):
    """The Dataset of a CSV file with the columns label, and text or path; `tlbook.data.folder` says more."""
    columns, rows = read_table(path)
    folder = Path(path).parent if root is None else Path(root)
    what = _input_column(path, columns, folder, root is not None)
    given, labels = columns.pop(what), np.array([label.strip() for label in columns.pop("label")])
    problems = _Problems(path, "row", rows)
    for i, (x, label) in enumerate(zip(given, labels, strict=True)):
        if not x.strip() or not label:
            problems.note(i, f"no {what}, or no label: fill it in, or remove the row")
    columns = _known_columns(columns, problems)

    # The inputs, and the 64 bits that nearly equal ones share
    if what == "text":
        kind, inputs = KINDS["texts"], given
        bits, paths = [text_bits(x) if x.strip() else 0 for x in given], [f"row {row}" for row in rows]
    else:
        kind = _kind_of_paths(given)
        paths = [_as_this_system_writes(folder, x.strip()) for x in given]
        inputs = [folder / x for x in paths]
        bits = _check_files(inputs, paths, labels, folder, kind, problems)
    if root is not None:
        _warn_of_unlisted(path, folder, kind, inputs)
    columns = {"path": np.array(paths)} | columns | {"bits": np.array(bits, np.uint64)}
    return _dataset(path, problems, on_error, kind, inputs, labels, columns)


def _input_column(path, columns, folder, is_of_files):
    """ "path" or "text": the column that the inputs come from, where there is it, and a column of labels."""
    what = "path" if is_of_files or ("path" in columns and "text" not in columns) else "text"
    for name in (what, "label"):
        if name not in columns:
            wanted = "'text' or 'path'" if name == "text" else repr(name)
            usual = "path,label or text,label" if name == "text" else f"{what},label"
            votes = f". {ONE_LABEL}" if name == "label" and len(columns) > 2 else ""
            raise ValueError(
                f"{path} has no column {wanted}, only {', '.join(columns)}: the first line names the columns, such as "
                f"{usual}. Rename the one that is meant, or add that line{votes}"
            )
    if what == "text" and any(x.strip() and _is_file(folder / x.strip()) for x in columns.get("path", [])):
        raise ValueError(
            f"{path} has the columns text and path, and there are files of these paths: which of the two is learned "
            "from? Remove or rename the other"
        )
    return what


def _as_this_system_writes(folder, name):
    r"""``name`` with / for \ where that names a file and it as it stands does not: tables come from other systems."""
    other = name.replace("\\", "/")
    return other if other != name and not _is_file(folder / name) and _is_file(folder / other) else name


def _warn_of_unlisted(path, folder, kind, listed):
    """Warn of files of the folder that its table does not name."""
    found, listed = images.find(folder, kind.why_not)[0], set(map(_real, listed))
    left = [file for file in found if _real(file) not in listed]
    if left:
        warnings.warn(
            f"{path} does not name {len(left)} of the {len(found)} {kind.name} in {folder}, such as {left[0]}: they "
            "are left out",
            stacklevel=4,
        )


def _real(file):
    """The file that a path leads to, whichever way it is written."""
    try:
        return os.path.realpath(file)
    except (OSError, ValueError):  # no name of a file
        return str(file)


def arrays(path, on_error="raise"):
    """The Dataset of an .npz file of images X and labels y; `tlbook.data.folder` says more. No pickle is opened."""
    found = _read_arrays(path)
    X, y = found.pop("X"), found.pop("y")
    remedy = _remedy_of(X)
    if remedy:
        raise ValueError(
            f"{path}: X must be uint8 images (N, H, W) or (N, H, W, 3), got {X.dtype} of {X.shape}: save {remedy}"
        )
    problems, names = _Problems(path, "y, row", range(len(X))), found.pop("class_names", None)
    if y.ndim == 2:
        several = np.flatnonzero((y != 0).sum(1) != 1)
        where = f"row {several[0]} of y has {(y[several[0]] != 0).sum()} labels. {ONE_LABEL}" if len(several) else ""
        remedy = "save y[:, 0]" if y.shape[1] == 1 else where or "save y.argmax(1)"
        raise ValueError(f"{path}: y must be N labels, got {y.shape}: {remedy}")
    if y.ndim != 1 or y.dtype.kind not in "iubU" or len(y) != len(X):
        raise ValueError(
            f"{path}: y must be N integers or strings, one for each of the {len(X)} images of X, got {y.dtype} of "
            f"{y.shape}"
        )
    labels, order = np.array([str(label).strip() for label in y]), [str(label) for label in np.unique(y)]
    if names is not None and names.ndim != 1:
        raise ValueError(f"{path}: class_names must be the K names, got an array of {names.shape}: save a list of them")
    if names is not None and y.dtype.kind in "iub":
        outside = np.flatnonzero((y < 0) | (y >= len(names)))
        if len(outside):
            raise ValueError(
                f"{path}: y is {y[outside[0]]} in row {outside[0]}, and there are {len(names)} class_names: labels run "
                f"from 0 to {len(names) - 1}"
            )
        order = [str(name) for name in names]
        twice = [name for name in order if order.count(name) > 1]
        if twice:
            raise ValueError(
                f"{path}: class_names holds {twice[0]!r} {order.count(twice[0])} times: give each class its own name"
            )
        labels = np.array(order)[y.astype(int)]
    for i in np.flatnonzero(labels == ""):
        problems.note(i, "no label: fill it in, or leave the image out")
    if "bits" in found:
        raise ValueError(f"{path}: 'bits' is what nearly equal images share in `Dataset.columns`: rename that array")
    wrong = [name for name, values in found.items() if values.shape != (len(X),)]
    if wrong:
        raise ValueError(
            f"{path}: {wrong[0]} must be {len(X)} values, one for each image, got {found[wrong[0]].shape}: leave it out"
        )
    columns = _known_columns({name: [str(v) for v in values] for name, values in found.items()}, problems)
    order = order if y.dtype.kind in "iub" else ()
    return _dataset(path, problems, on_error, KINDS["images"], X, labels, columns, order)


def _remedy_of(X):
    """What makes X uint8 images (N, H, W) or (N, H, W, 1 or 3), one step at a time; None where it is."""
    # Its shape
    if X.ndim not in (3, 4):
        return "np.stack of images of one size"
    if X.ndim == 4 and X.shape[3] not in (1, 3):
        if X.shape[1] in (1, 3, 4) and X.shape[3] != 4:
            return "X.transpose(0, 2, 3, 1)"
        return "X[..., :3]" if X.shape[3] > 3 else "X[..., :1]"

    # Its numbers
    if X.dtype == np.uint8:
        return None
    if X.dtype.kind not in "iufb" or not X.size:
        return "numbers from 0 to 255, as uint8"
    if X.dtype.kind == "b":
        return "255 * X.astype(np.uint8)"
    low, high = X.min(), X.max()
    if not np.isfinite([low, high]).all():
        return "np.nan_to_num(X), if what is no number may be black"
    if low < 0 or X.dtype.kind == "f" and high > 255:
        return "np.interp(X, (X.min(), X.max()), (0, 255)).round().astype(np.uint8)"
    if X.dtype.kind == "f":
        return f"{'(255 * X)' if high <= 1 else 'X'}.round().astype(np.uint8)"
    bits = int(high).bit_length()
    shift = bits + bits % 2 - 8  # as of files: see `tlbook.images.to_rgb`
    return "X.astype(np.uint8)" if bits <= 8 else f"(X >> {shift}).astype(np.uint8)"


def _read_arrays(path):
    """{name: array} of an .npz file."""
    if Path(path).suffix.lower() == ".npy":
        raise ValueError(f"{path} is one array, without labels: np.savez('images.npz', X=images, y=labels) holds both")
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is damaged, or no .npz file: np.savez(path, X=images, y=labels) writes one")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("X", "y") if name not in file.files]
            if missing:
                raise ValueError(
                    f"it holds no array {missing[0]!r}, only {', '.join(file.files) or 'nothing'}: save it with "
                    "np.savez(path, X=images, y=labels)"
                )
            return {name: file[name] for name in file.files}
    except Exception as error:  # zip files break in many ways
        why = str(error)
        if "Object arrays" in why or "allow_pickle" in why:
            why = (
                "it holds Python objects, which are not opened, as they may run code: save images of one size as "
                "np.stack(images), labels as np.array(labels, str); images of several sizes as files, and a CSV file "
                "of path,label"
            )
        raise ValueError(f"{path} cannot be read: {why}") from None


class _Problems:
    """What is wrong with the rows of a file: the first thing of each row."""

    def __init__(self, path, word, rows):
        """``rows``: the number of each row in the file."""
        self.path, self.word, self.rows, self.of = path, word, rows, {}

    def note(self, i, what):
        self.of.setdefault(int(i), what)

    def place(self, i):
        return f"{self.word} {self.rows[i]}"

    @property
    def good(self):
        """Mask of the rows with nothing wrong."""
        good = np.ones(len(self.rows), bool)
        good[list(self.of)] = False
        return good

    def listed(self):
        return [f"{self.path}, {self.place(i)}: {what}" for i, what in sorted(self.of.items())]


def _known_columns(columns, problems):
    """Columns as arrays: group and split (or part) checked, weight as numbers; the others as they are."""
    if "split" in columns and "part" in columns:
        raise ValueError(f"{problems.path} has the columns split and part, which say the same: remove one of the two")
    if "split" in columns:
        columns["part"] = columns.pop("split")
    if "group" in columns:
        columns["group"] = [group.strip() for group in columns["group"]]
    for i, group in enumerate(columns.get("group", [])):
        if group in ("", "nan"):  # what an array of numbers has where one is missing
            problems.note(i, "no group: give it one, of its own where it belongs with no other")
    parts = [PARTS.get(part.strip().lower(), "") for part in columns.get("part", [])]
    for i, part in enumerate(parts):
        if not part:
            problems.note(i, f"split is {columns['part'][i]!r}: write train, val or test")
    weights = [_weight(value) for value in columns.get("weight", [])]
    for i, weight in enumerate(weights):
        if np.isnan(weight):
            problems.note(i, f"weight is {columns['weight'][i]!r}: write a number of at least 0")
    found = {name: np.array(values) for name, values in columns.items()}
    return found | ({"part": np.array(parts)} if parts else {}) | ({"weight": np.array(weights)} if weights else {})


def _weight(value):
    try:
        weight = float(value)
    except ValueError:
        return np.nan
    return weight if 0 <= weight < np.inf else np.nan


def _kind_of_paths(given):
    """The kind of files that most of these paths name."""
    suffixes = [Path(x.strip()).suffix.lower() for x in given]
    count = {kind: suffixes.count(suffix) for kind, suffix in (("texts", ".txt"), ("sounds", ".wav"))}
    most = max(count, key=count.get)
    return KINDS[most if 2 * count[most] > len(suffixes) else "images"]


def _is_file(file):
    try:
        return file.is_file()
    except (OSError, ValueError):  # no name of a file: too long, or with a zero byte
        return False


def _check_files(files, given, labels, root, kind, problems):
    """The 64 bits of each file; what is missing, broken or named twice becomes a problem of its row."""
    first = {}
    for i, (file, name) in enumerate(zip(files, given, strict=True)):
        other = first.setdefault(_real(file), i) if name else i
        if other != i:
            written = f" as {given[other]}" if given[other] != name else ""
            differ = f" with the label {str(labels[other])!r}. {ONE_LABEL}" if labels[other] != labels[i] else ""
            problems.note(
                i, f"{name} stands in {problems.place(other)} too{written}{differ or ': remove one of the two'}"
            )
        elif not _is_file(file):
            problems.note(i, f"{file} does not exist: paths are relative to {root}")
    rows = {files[i]: i for i in np.flatnonzero(problems.good)}
    bits, bad = images.check(list(rows), kind.bits, kind.name)
    for file in rows.keys() - bits.keys():
        problems.note(rows[file], next((why for why in bad if why.startswith(f"{file} ")), f"{file} cannot be read"))
    read = list(rows.values())
    for several in images.copies_of_two_classes([files[i] for i in read], labels[read], bits):
        several = [read[k] for k in several]
        for i in several:
            j = next(j for j in several if labels[j] != labels[i])
            problems.note(
                i,
                f"{given[i]} is the same as {given[j]} in {problems.place(j)}, of the label {str(labels[j])!r}. "
                f"{ONE_LABEL}",
            )
    return [bits.get(file, 0) for file in files]


def _dataset(path, problems, on_error, kind, inputs, labels, columns, order=()):
    """The Dataset of the good rows, of the classes that have enough of them: in this order, or by their names."""
    good = problems.good
    found, counts = np.unique(labels[good], return_counts=True)
    of_classes = [
        f"{path}: {n} {kind.name} of {name!r}, fewer than {FEWEST}"
        for name, n in zip(found.tolist(), counts, strict=True)
        if n < FEWEST
    ]
    raise_or_warn(path, problems.listed() + of_classes, on_error)
    names = found[counts >= FEWEST].tolist()
    names = [name for name in dict.fromkeys(order) if name in names] if order else names
    if len(names) < 2:
        raise ValueError(
            f"{path} has {len(names)} labels with enough {kind.name} ({', '.join(names)}): at least two are needed"
        )
    rows = np.flatnonzero(good & np.isin(labels, names))
    columns = {name: values[rows] for name, values in columns.items()}
    return Dataset(
        inputs=_inputs(kind, inputs, rows),
        labels=[names.index(label) for label in labels[rows]],
        class_names=tuple(names),
        groups=columns.get("group"),
        columns=columns,
        name=Path(path).stem,
    )


def _inputs(kind, inputs, rows):
    if isinstance(inputs, np.ndarray):
        return Pictures(inputs[rows])
    picked = [inputs[i] for i in rows]
    return images.Files(picked, kind.read) if isinstance(picked[0], Path) else picked


class Pictures(Tensors):
    """Rows of a uint8 array (N, H, W) or (N, H, W, 1 or 3), as PIL images: prepared as files of them would be."""

    def __getitem__(self, i):
        from PIL import Image

        row = np.asarray(self.array[i])
        return Image.fromarray(row[..., 0] if row.ndim == 3 and row.shape[2] == 1 else row)
