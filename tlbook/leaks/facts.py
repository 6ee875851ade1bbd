"""What is known of an image file without looking at what it shows: size, date, camera, its place among the others."""

import re
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from tlbook import images

SESSION = 3600  # seconds without a file end a session; a copy of a folder writes faster


@dataclass(frozen=True)
class Fact:
    """One thing that is known of each of n examples.

    Attributes:
        name: in words, with its article: "the file size".
        values: (n,) float64; numbers, or codes 0, 1, … of names. What is missing is −∞.
        is_order: whether near values mean near in time or place (a file order, a date).
        names: of the codes; None for numbers.
    """

    name: str
    values: np.ndarray
    is_order: bool = False
    names: tuple | None = None

    @property
    def varies(self):
        return len(np.unique(self.values)) > 1


def facts_of(data, rows):
    """List the `Fact` s of the examples at ``rows``: of every data set its order, of image files all that they tell.

    Args:
        data: Dataset. rows: index array.

    Returns:
        [Fact], those that do not vary left out.
    """
    paths = getattr(data.inputs, "paths", None)
    if paths is None or data.kind.name != "images":
        order = Fact("the order of the examples", np.asarray(rows, dtype=float), is_order=True)
        return [order] if paths is None else [_order_of_names(data, rows)]

    paths = [Path(paths[i]) for i in rows]
    told = [_tell(path) for path in paths]

    def numbers(key):
        return np.array([-np.inf if one[key] is None else float(one[key]) for one in told])

    found = [
        _order_of_names(data, rows),
        Fact("the session of the modification dates", _sessions([p.stat().st_mtime for p in paths]), True),
        Fact("the date in the EXIF data", numbers("date"), True),
        _named("the camera in the EXIF data", [one["camera"] for one in told]),
        _named("the file format", [f"{one['format']} {one['mode']}" for one in told]),
        Fact("the JPEG quality", numbers("quality")),
        Fact("the number of pixels", numbers("pixels")),
        Fact("the shape (width over height)", numbers("shape")),
        Fact("the file size", numbers("bytes")),
    ]
    return [fact for fact in found if fact.varies]


def content_size(path):
    """Bytes that the picture in a file takes at one setting for all: what the content needs, however it was saved."""
    buffer = BytesIO()
    images.read(path).save(buffer, "JPEG", quality=75)
    return buffer.tell()


def _tell(path):
    """What the header of an image file says."""
    from PIL import Image

    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore")
        exif, table = image.getexif(), getattr(image, "quantization", None)
        date = exif.get_ifd(0x8769).get(0x9003) or exif.get(0x0132)  # taken, or else changed
        camera = " ".join(str(exif[tag]).strip("\0 ") for tag in (0x010F, 0x0110) if tag in exif)
        return {
            "date": _seconds(date),
            "camera": camera or "none given",
            "format": image.format,
            "mode": image.mode,
            "quality": -sum(table[0]) if table else None,  # finer steps are a higher quality
            "pixels": image.width * image.height,
            "shape": image.width / image.height,
            "bytes": path.stat().st_size,
        }


def _seconds(date):
    """Seconds of an EXIF date such as "2021:05:03 12:30:00", or None."""
    try:
        return float(np.datetime64("{}-{}-{}T{}:{}:{}".format(*re.findall(r"\d+", str(date))[:6]), "s").astype(int))
    except (IndexError, ValueError):
        return None


def _named(name, values):
    names, codes = np.unique([str(v) for v in values], return_inverse=True)
    return Fact(name, codes.astype(float), names=tuple(names.tolist()))


def _sessions(seconds):
    """(n,) the number of the session, in time, that each file was written in; a new one begins after `SESSION`."""
    seconds = np.asarray(seconds)
    order = np.argsort(seconds, kind="stable")
    session = np.empty(len(seconds))
    session[order] = np.r_[0, np.cumsum(np.diff(seconds[order]) > SESSION)]
    return session


def _order_of_names(data, rows):
    """The place of each file's name among all, by the numbers in it.

    The folder is left out, for it is the class; so are numbers that only say the class, being one in all its names.
    """
    stems = [Path(str(path)).stem for path in data.columns["path"][rows]]
    keys = [tuple(map(int, re.findall(r"\d+", stem))) for stem in stems]
    labels = data.labels[rows]
    for place in range(max(map(len, keys), default=0)):
        at = np.array([key[place] if len(key) > place else -1 for key in keys], dtype=object)
        of_class = [set(at[labels == k].tolist()) for k in np.unique(labels)]
        if all(len(values) == 1 for values in of_class) and len(set.union(*of_class)) > 1:
            keys = [key[:place] + (0,) + key[place + 1 :] for key in keys]
    place_of = {key: i for i, key in enumerate(sorted(set(keys)))}
    return Fact("the order of the file names", np.array([place_of[key] for key in keys], float), is_order=True)
