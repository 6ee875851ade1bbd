"""Kinds of inputs that come in files (images, texts, sounds): how they are found, checked and read.

Everything about a kind of file that `tlbook.data`, predictions and the command line need stands here, once.
"""

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlbook import images


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name, one: "images", "image".
        read: the input that a path's file holds; a ValueError that names the path where it holds none.
        bits: the 64 bits (uint64) that nearly equal files share; None is `tlbook.images.difference_hash`.
        why_not: why a path's file is not taken for one of this kind, a predicate such as "is not an image", or None.
        formats: the suffixes, in words.
        backbone: what reads it, unless another is named.
        is_one: whether something is one input of this kind.
        paths: types of what is taken for a path.
    """

    name: str
    one: str
    read: callable
    bits: object
    why_not: callable
    formats: str
    backbone: str
    is_one: callable
    paths: tuple = (str, os.PathLike)

    @property
    def a(self):
        """One of them, with its article."""
        return f"an {self.one}" if self.one[0] in "aeiou" else f"a {self.one}"

    def is_path(self, x):
        return isinstance(x, self.paths)


def read_text(path):
    """Read a file of text in UTF-8, with or without a mark at its beginning.

    Raises:
        FileNotFoundError: no such file. ValueError: it is not UTF-8, empty, or nothing but spaces.
    """
    raw = _bytes_of(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}): save it as such") from None
    if "\0" in text:
        raise ValueError(f"{path} is not text: it holds zero bytes")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def _bytes_of(path):
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None


def text_bits(text):
    """64 bits of the first hundred letters after the title (or of the text, where it is one line)."""
    title, _, body = text.strip().partition("\n")
    begin = " ".join((body or title).lower().split())[:100]
    return _bits(begin.encode("utf-8", "surrogatepass"))


def _sound_bits(path):
    from tlbook.speech import read_wav

    return _bits(read_wav(path).samples.tobytes())


def _bits(raw):
    return np.uint64(int.from_bytes(hashlib.sha256(raw).digest()[:8], "big"))


def _read_wav(path):
    from tlbook.speech import read_wav

    return read_wav(path)


def _why_not(suffix, words):
    def why_not(path):
        if not path.is_file():
            return "is a link to nothing" if path.is_symlink() else "is not a file"
        return None if path.suffix.lower() == suffix else words

    return why_not


KINDS = {
    "images": Kind(
        "images",
        "image",
        images.read,
        None,
        images.why_not,
        ", ".join(sorted(images.FORMATS)),
        "efficientnet_lite0",
        lambda x: hasattr(x, "convert") or getattr(x, "ndim", None) == 3,
    ),
    "texts": Kind(
        "texts",
        "text",
        read_text,
        lambda path: text_bits(read_text(path)),
        _why_not(".txt", "is not a .txt file"),
        ".txt",
        "minilm",
        lambda x: isinstance(x, str),
        (os.PathLike,),
    ),
    "sounds": Kind(
        "sounds",
        "sound",
        _read_wav,
        _sound_bits,
        _why_not(".wav", "is not a .wav file"),
        ".wav",
        "efficientnet_lite0",
        lambda x: hasattr(x, "samples"),
    ),
}


def kind_of(folder):
    """The kind of the files under ``folder``: that of most of them, images where there are none.

    Raises:
        ValueError: as many of one kind as of another.
    """
    paths = [p for p in Path(folder).rglob("*") if not images.is_clutter(p.name)]
    count = {kind.name: sum(kind.why_not(p) is None for p in paths) for kind in KINDS.values()}
    most = max(count.values())
    if most and list(count.values()).count(most) > 1:
        found = ", ".join(f"{n} {name}" for name, n in count.items() if n)
        raise ValueError(f"{folder} holds {found}: keep one kind in a folder")
    return KINDS[max(count, key=count.get)]


def load_encoder(kind, name=None):
    """The encoder of a kind of input: of sounds, the named backbone for images, shown spectrograms."""
    import tlbook
    from tlbook.speech import SpectrogramBackbone

    encoder = tlbook.load_backbone(name or kind.backbone)
    if kind.name == "sounds" and encoder.kind == "images":
        encoder = SpectrogramBackbone(encoder)
    if encoder.kind != kind.name:
        raise ValueError(
            f"{encoder.name} takes {encoder.kind}, and these are {kind.name}: try --backbone {kind.backbone}"
        )
    return encoder


def read_table(path):
    """Read a CSV file in UTF-8 whose first line names its columns; empty lines are passed over.

    Returns:
        {column: list of strings}, and the number of each row in the file, where the first line is 1.

    Raises:
        FileNotFoundError: no such file. ValueError: no such table, a row of another length, a column named twice.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = {i: row for i, row in enumerate(csv.reader(file, strict=True), 1) if any(map(str.strip, row))}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a CSV file ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8 ({error}): save it as such") from None
    header = [name.strip().lower() for name in rows.pop(min(rows))] if rows else []
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise ValueError(f"{path} separates its columns by {name}: save it with commas")
    if len(set(header)) < len(header) or not rows:
        raise ValueError(f"{path} must have a first line that names each column once, and rows below it, got {header}")
    for i, row in rows.items():
        if len(row) != len(header):
            raise ValueError(f"{path}, row {i}: {len(row)} values for {len(header)} columns")
    return {name: [row[k] for row in rows.values()] for k, name in enumerate(header)}, list(rows)
