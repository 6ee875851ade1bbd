"""Image files as people have them: found in folders, decoded to RGB one at a time, or named as broken."""

import csv
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")  # none of them starts another program to be decoded
EXTENSIONS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
_CLUTTER = {"thumbs.db", "desktop.ini"}  # what file managers leave, beside names that begin with a dot


def to_rgb(image):
    """Turn a PIL image of any mode into 8-bit RGB, upright by its EXIF orientation.

    What is transparent becomes white. 16-bit grey loses its low byte; floats count as 0 … 1.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16, and I as PNG files of 16 bits are opened by older versions of Pillow
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray((255 * np.nan_to_num(np.asarray(image)).clip(0, 1)).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read(path):
    """Decode an image file: a PIL image, RGB, upright.

    Raises:
        ValueError: the file is no image of one of `FORMATS`, is damaged, or has more pixels than Pillow takes to be
            honest.
    """
    return _open(path, to_rgb)


def _open(path, use):
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"{image.width} × {image.height} pixels could be a decompression bomb")
            return use(image)
    except Exception as error:  # decoders raise nearly every kind on damaged files
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path} does not exist") from None
        what = "empty" if os.path.getsize(path) == 0 else f"not readable as an image ({error})"
        raise ValueError(f"{path} is {what}") from None


def difference_hash(path):
    """Decode the file, and return 64 bits (uint64) that nearly equal images share: is a pixel darker than the next?

    The image is shrunk to 9 × 8 grey pixels. Krawetz, Kind of like that, 2013.
    """

    def bits(image):
        image.draft("RGB", (144, 144))  # JPEG alone: decodes every block, but to few pixels
        grey = np.asarray(to_rgb(image).convert("L").resize((9, 8)), dtype=np.int16)
        return np.packbits(grey[:, 1:] > grey[:, :-1]).view(">u8")[0].astype(np.uint64)

    return _open(path, bits)


class Files:
    """Image files by their paths, decoded when they are asked for; what is not a path stays as it is."""

    def __init__(self, paths):
        self.paths = list(paths)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        x = self.paths[i]
        return read(x) if isinstance(x, (str, os.PathLike)) else x

    def subset(self, index):
        return Files(self.paths[i] for i in index)

    def fingerprint(self):
        """SHA-256 over the contents of the files, which are not decoded for it."""
        with ThreadPoolExecutor(os.cpu_count()) as readers:
            digests = readers.map(lambda path: hashlib.sha256(Path(path).read_bytes()).digest(), self.paths)
            return hashlib.sha256(b"".join(digests)).hexdigest()


def inputs_of(given):
    """A path, a folder's path, one image, or several of these but folders: a sequence of inputs.

    Raises:
        FileNotFoundError: no such path. ValueError: a folder without images.
    """
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        found = find(path)[0] if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path} has no images in it ({', '.join(sorted(EXTENSIONS))})")
        return Files(found)
    if hasattr(given, "convert") or getattr(given, "ndim", None) == 3:
        return [given]
    return Files(given)


def find(folder):
    """([image files under ``folder``, in order of their paths], [other files]), without hidden ones and clutter."""
    files = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.is_file()
        and path.name.lower() not in _CLUTTER
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    is_image = [path.suffix.lower() in EXTENSIONS for path in files]
    images = [path for path, yes in zip(files, is_image, strict=True) if yes]
    return images, [path for path, yes in zip(files, is_image, strict=True) if not yes]


def check(paths):
    """Decode every file once: ({path: difference hash} of the good ones, [what is wrong with each of the others])."""
    from tqdm import tqdm

    def look(path):
        try:
            return path, difference_hash(path), None
        except (ValueError, FileNotFoundError) as error:
            return path, None, str(error)

    good, problems = {}, []
    with (
        ThreadPoolExecutor(os.cpu_count()) as readers,
        tqdm(total=len(paths), desc="looking at images", unit=" images", leave=False, delay=1) as bar,
    ):
        try:
            for path, bits, problem in readers.map(look, paths):
                if problem is None:
                    good[path] = bits
                else:
                    problems.append(problem)
                bar.update()
        except KeyboardInterrupt:
            readers.shutdown(wait=False, cancel_futures=True)  # or all the others would be looked at first
            raise
    return good, problems


def groups_of(paths, root, groups):
    """(N,) the group of each file, by a callable of its path relative to ``root``, or from a CSV of path,group."""
    names = [path.relative_to(root).as_posix() for path in paths]
    if callable(groups):
        return np.array([groups(name) for name in names])
    try:
        with Path(groups).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{groups} is not a CSV file ({error})") from None
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["path", "group"]:
        raise ValueError(f"{groups} must begin with the line path,group")
    known = {row[0].strip(): row[1].strip() for row in rows[1:] if len(row) == 2 and row[1].strip()}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"{groups} names no group for {len(missing)} of {len(names)} images, such as {', '.join(missing[:3])}: "
            "its paths are relative to the folder, with forward slashes"
        )
    return np.array([known[name] for name in names])
