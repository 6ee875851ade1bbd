"""Image files as people have them: found in folders, decoded to RGB one at a time, or named as broken."""

import functools
import hashlib
import math
import os
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tlbook import progress

# The format of each suffix. Pillow decodes all of them itself: no other program is started for it.
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    ".gif": "GIF",
    ".bmp": "BMP",
    ".dib": "DIB",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".webp": "WEBP",
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),  # Pillow 11.3 and later
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),  # with the plug-in pillow-heif
}
_PLUGIN = "is a HEIC or AVIF image: pip install pillow-heif, or convert it to JPEG"
_NOT_READ = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".avif", ".avifs"), _PLUGIN),
    **dict.fromkeys(
        (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw"),
        "is a camera's raw file: develop it to JPEG or TIFF first",
    ),
    **dict.fromkeys(
        (
            ".dcm",
            ".exr",
            ".ico",
            ".j2k",
            ".jp2",
            ".jxl",
            ".nii",
            ".pbm",
            ".pgm",
            ".pnm",
            ".ppm",
            ".psd",
            ".svg",
            ".tga",
        ),
        "is of a format that is not read here: convert it to PNG or TIFF",
    ),
}
# So many times the side that is asked for is enough: what is resized from that can hardly be told from what is resized
# from the whole. Pillow's manual says so of its ``reducing_gap``.
ENOUGH = 3
# What file managers, archives and network drives leave, beside names that begin with a dot.
_CLUTTER = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    *("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
}


def to_rgb(image):
    """Turn a PIL image of any mode into 8-bit RGB, upright by its EXIF orientation; what is transparent becomes white.

    Grey values of more than 8 bits (modes I;16, I and F: electroluminescence, X-ray, CT) do not say which range the
    camera used. It is taken from the smallest and the largest value of the image alone, by steps so wide that most
    images of one camera are scaled alike:

    - Floats within −.25 … 1.25 count as 0 … 1, and are cut there.
    - Otherwise the range begins at 0, or below it at the power of two −2ᵃ that holds the smallest value. It is 2ᵇ wide,
      where b is the smallest *even* number of bits that holds the largest: 8, 10, 12, 14, 16, … (floats: 0, 2, 4, …).
      12 bits begin to be used at 1024. Computed tomography, −1000 … 3000, gets the range −1024 … 3071.

    So 8 bits in a 16-bit file stay as they are, and full 16 bits lose their low byte. What cannot be known: that an
    image is dark which uses less than a quarter of its camera's range. It is shown 4 or 16 times as bright as its
    neighbours. Where darkness means something, scale all images of the camera by one factor yourself, to 8 bits. Colour
    of 16 bits a channel has already lost its low byte when Pillow hands it over.
    """
    from PIL import Image

    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.info = {key: value for key, value in image.info.items() if not _tells_orientation(key)}
    return image


def _upright(image):
    """Turn a PIL image as its EXIF orientation says; EXIF that cannot be read says nothing.

    ``PIL.ImageOps.exif_transpose`` also writes the EXIF anew, and fails where any other entry in it is damaged.
    """
    from PIL.Image import Transpose

    image.load()  # turns a TIFF by itself, and takes the orientation out
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged in any way
        return image
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)


def _tells_orientation(key):
    """Whether an entry of this key in ``image.info`` is EXIF or XMP."""
    return any(word in str(key).lower() for word in ("exif", "xmp"))


def _to_8_bits(values):
    """Integers or floats of any range -> uint8 of the same shape, by the rule in `to_rgb`."""
    is_float = values.dtype.kind == "f"
    known = values[np.isfinite(values)] if is_float else values
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)

    # The usual floats, and what resampling them with overshoot makes
    if is_float and low >= -0.25 and high <= 1.25:
        return (255 * np.nan_to_num(values).clip(0, 1)).round().astype(np.uint8)

    # Where the range begins, and how many bits hold it
    offset = 2.0 ** math.ceil(math.log2(-low)) if low < 0 else 0.0
    bits = math.frexp(high + offset)[1]
    bits = max(bits + bits % 2, 0 if is_float else 8)

    if not is_float:
        values = values.astype(np.int64) + int(offset) if offset else values
        return (values >> (bits - 8)).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.floor((values + offset) * 2.0 ** (8 - bits)).astype(np.uint8)


def may_be_shared(image):
    """Whether several threads may use this PIL image at once: it is in memory whole, and use changes nothing in it.

    Threads share the place in a file that was opened and not yet read; first use unpacks palettes and EXIF data.
    """
    from PIL import ImageFile

    late = any(map(_tells_orientation, image.info))
    return not isinstance(image, ImageFile.ImageFile) and image.palette is None and not late


def read(path, side=None):
    """Decode an image file, the first page or frame of it: a PIL image, RGB, upright.

    Args:
        path: of the file.
        side: in pixels, of what will be made of it; a JPEG is then decoded to an eighth, a quarter or half of its own
            side, where that leaves `ENOUGH` times ``side``. None: to the whole.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no image of one of `FORMATS`, is damaged, or has more pixels than ``PIL.Image`` takes to
            be honest (``MAX_IMAGE_PIXELS``; None is no limit).
    """

    def use(image):
        if side is not None:
            image.draft(None, (ENOUGH * side, ENOUGH * side))
        return to_rgb(image)

    return _open(path, use)


def _open(path, use):
    from PIL import Image

    try:
        with Image.open(path, formats=_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ValueError(f"{image.width} × {image.height} pixels could be a decompression bomb")
            return use(image)
    except Exception as error:  # decoders raise nearly every kind on damaged files
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path} does not exist") from None
        raise ValueError(f"{path} {_what_is_wrong(path, error)}") from None


def _what_is_wrong(path, error):
    if os.path.isdir(path):
        return "is a folder, where a file is needed"
    if os.path.getsize(path) == 0:
        return "is empty"
    try:
        with open(path, "rb") as file:
            brand = file.read(12)[4:]
    except OSError:
        brand = b""
    if "HEIF" not in _formats() and brand[:4] == b"ftyp" and brand[4:6] in (b"he", b"mi", b"ms"):  # whatever its suffix
        return _PLUGIN
    return f"is not readable as an image ({error})"


@functools.cache
def _formats():
    """The names of those of `FORMATS` that this Pillow reads, with its plug-in for HEIC where that is installed."""
    from PIL import Image

    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in dict.fromkeys(FORMATS.values()) if name in Image.OPEN)


def difference_hash(path):
    """Decode the file, and return the `bits_of` what it shows."""

    def bits(image):
        image.draft("RGB", (144, 144))  # JPEG alone: decodes every block, but to few pixels
        return bits_of(image)

    return _open(path, bits)


def bits_of(image):
    """Return 64 bits (uint64) that nearly equal images share: is a pixel darker than the next?

    The image is shrunk to 9 × 8 grey pixels. Krawetz, Kind of like that, 2013.
    """
    grey = np.asarray(to_rgb(image).convert("L").resize((9, 8)), dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(">u8")[0].astype(np.uint64)


class Files:
    """Files by their paths, images unless another ``read`` is given, decoded when they are asked for."""

    reads_in_parallel = True  # each thread opens a file of its own

    def __init__(self, paths, read=read):
        self.paths, self.read = list(paths), read

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return self.read(self.paths[i])

    def subset(self, index):
        return Files([self.paths[i] for i in index], self.read)

    def seen_at(self, side):
        """The same files for someone who will see ``side`` pixels of each: large JPEGs are decoded to fewer."""
        return Files(self.paths, functools.partial(read, side=side)) if self.read is read else self

    def fingerprint(self):
        """SHA-256 over the contents of the files, which are not decoded for it."""
        with ThreadPoolExecutor(os.cpu_count()) as readers:
            digests = readers.map(lambda path: hashlib.sha256(Path(path).read_bytes()).digest(), self.paths)
            return hashlib.sha256(b"".join(digests)).hexdigest()


def inputs_of(given, kind=None):
    """A path, a folder's path, one input, or several of these but folders: a sequence of inputs.

    What a folder's files are passed over for is told by `find`. ``kind`` is of images unless given; a text is a string,
    so that paths of texts are ``Path`` objects.

    Raises:
        FileNotFoundError: no such path. ValueError: a folder without images, nothing at all. TypeError: none of these.
    """
    from tlbook.kinds import KINDS

    kind = kind or KINDS["images"]
    if kind.is_path(given):
        path = Path(given)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        found, others = find(path, kind.why_not) if path.is_dir() else ([path], {})
        if not found:
            beside = "".join(f"\n  {other} {why}" for other, why in list(others.items())[:5])
            raise ValueError(f"{path} has no {kind.name} in it ({kind.formats}){beside}")
        return Files(found, kind.read)
    if kind.is_one(given):
        return [given]
    if isinstance(given, (bytes, dict)) or not hasattr(given, "__iter__"):
        raise TypeError(f"inputs must be a path, {kind.a} or a list of them, got {type(given).__name__}")
    inputs = list(given)
    if not inputs:
        raise ValueError(f"inputs is empty: give at least one {kind.one}")
    is_path = [kind.is_path(x) for x in inputs]
    if all(is_path):
        return Files(inputs, kind.read)
    return [kind.read(x) if path else x for x, path in zip(inputs, is_path, strict=True)]


def is_clutter(name):
    """Whether a file or folder of this name is hidden, or left by a file manager, an archive or a network drive."""
    name = name.lower()
    return name.startswith(".") or name in _CLUTTER or name.endswith(":zone.identifier")


def find(folder, reason=None):
    """List the image files under ``folder``, and what else lies there, without hidden files and clutter.

    ``reason`` takes the place of `why_not` for other kinds of files: see `tlbook.kinds`.

    Links are followed, but not one that leads back to a folder that holds it.

    Returns:
        [paths of images, sorted], and {path: why it is none, a predicate such as "is not an image"} of the others.
    """
    found, others = [], {}

    def leads_back(link):
        target, walked = Path(os.path.realpath(link)), link.parents
        chain = [p for p in walked if p == Path(folder) or Path(folder) in p.parents]
        return any(Path(os.path.realpath(p)).is_relative_to(target) for p in chain)

    def note(error):
        others[Path(error.filename)] = f"cannot be read ({error.strerror})"

    for here, folders, files in os.walk(folder, followlinks=True, onerror=note):
        inner = [Path(here, name) for name in folders if not is_clutter(name)]
        folders[:] = [path.name for path in inner if not (path.is_symlink() and leads_back(path))]
        for path in (Path(here, name) for name in files if not is_clutter(name)):
            why = (reason or why_not)(path)
            if why:
                others[path] = why
            else:
                found.append(path)
    return sorted(found), dict(sorted(others.items()))


def why_not(path):
    """Why the file at ``path`` is not taken for an image, or None."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return "is a link to nothing" if path.is_symlink() else "is not a file"
    if FORMATS.get(suffix) in _formats():
        return None
    return _NOT_READ.get(suffix, "is not an image")


def check(paths, bits=None, what="images"):
    """Decode every file once: ({path: difference hash} of the good ones, [what is wrong with each of the others]).

    ``bits`` takes the place of `difference_hash` for other kinds of files.

    Warns once of files with several pages or frames, of which the first is taken.
    """

    def check_one(path):
        try:
            return path, (bits or difference_hash)(path), None, bits is None and _has_several(path)
        except (ValueError, FileNotFoundError) as error:
            return path, None, str(error), False

    good, problems, several = {}, [], []
    with (
        ThreadPoolExecutor(os.cpu_count()) as readers,
        progress.bar(len(paths), f"checking {what}", f" {what}") as bar,
    ):
        try:
            for path, found, problem, has_several in readers.map(check_one, paths):
                if problem is None:
                    good[path] = found
                else:
                    problems.append(problem)
                several += [path] if has_several else []
                bar.update()
        except KeyboardInterrupt:
            readers.shutdown(wait=False, cancel_futures=True)  # or all the others would be checked first
            raise
    if several:
        warnings.warn(
            f"{len(several)} of {len(paths)} files hold several pages or frames, such as {several[0]}: the first of "
            "each is taken. Where the others matter, save each as a file of its own",
            stacklevel=2,
        )
    return good, problems


def copies_of_two_classes(files, labels, bits):
    """[[rows of files that are the same, byte for byte, and have two labels or more]].

    Only files are read whose ``bits``, from `check`, and sizes agree with those of a file with another label.
    """
    alike, same = {}, {}
    for i, file in enumerate(files):
        if file in bits:
            alike.setdefault((int(bits[file]), os.path.getsize(file)), []).append(i)
    for rows in alike.values():
        for i in rows if len({labels[i] for i in rows}) > 1 else ():
            same.setdefault(hashlib.sha256(Path(files[i]).read_bytes()).digest(), []).append(i)
    return [rows for rows in same.values() if len({labels[i] for i in rows}) > 1]


def _has_several(path):
    """Whether a file holds several pages or frames; a JPEG's other images are made from its first."""
    if FORMATS.get(Path(path).suffix.lower()) == "JPEG":
        return False
    return _open(path, lambda image: getattr(image, "is_animated", False))


def groups_of(paths, root, groups):
    """(N,) the group of each file, by a callable of its path relative to ``root``, or from a CSV of path,group."""
    names = [path.relative_to(root).as_posix() for path in paths]
    if callable(groups):
        return np.array([groups(name) for name in names])
    known = _read_groups(groups, set(map(_normal, names)))
    missing = [name for name in names if _normal(name) not in known]
    if missing:
        raise ValueError(
            f"{groups} names no group for {len(missing)} of {len(names)} images, such as {', '.join(missing[:3])}: "
            "its paths are relative to the folder, with forward slashes"
        )
    return np.array([known[_normal(name)] for name in names])


def _read_groups(table, names):
    """{path: group} from a CSV file of path,group; \\ is / in a path, unless it is one of ``names`` as it stands."""
    from tlbook.kinds import read_table

    columns, _ = read_table(table)
    if set(columns) != {"path", "group"}:
        raise ValueError(f"{table} must begin with the line path,group, and names {', '.join(columns)}")

    known = {}
    for path, group in zip(columns["path"], map(str.strip, columns["group"]), strict=True):
        path = _normal(path.strip())
        path = path if path in names else path.replace("\\", "/")
        if group and known.setdefault(path, group) != group:
            raise ValueError(f"{table} puts {path} in group {known[path]} and in group {group}: leave one of them")
    return known


def _normal(name):
    """One spelling of a name: é is one letter on one system, e and an accent on another."""
    return unicodedata.normalize("NFC", name)
