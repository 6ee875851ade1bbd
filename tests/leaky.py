"""Small folders of real pictures with a leak planted in each, and clean ones, for the tests of `tlbook.leaks`."""

import os
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps


def faces(n=120):
    """25 × 25 pictures of faces and of other things, which ship with scikit-image, enlarged: (pictures, labels).

    One of two that are mirrored copies in the original is left out.
    """
    import skimage

    pixels = np.load(f"{skimage.__path__[0]}/data/lfw_subset.npy")  # faces first
    rows = np.random.default_rng(0).permutation(200)
    rows = np.delete(rows, 48)[:n]
    pictures = [Image.fromarray((x * 255).astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC) for x in pixels]
    return [pictures[i].convert("RGB") for i in rows], (rows < 100).astype(int)


def digits(per_class=16):
    from sklearn.datasets import load_digits

    found, rng = load_digits(), np.random.default_rng(0)
    rows = rng.permutation(
        np.concatenate([rng.permutation(np.flatnonzero(found.target == k))[:per_class] for k in range(10)])
    )
    pictures = [Image.fromarray((found.images[i] * 15.9).astype(np.uint8)).resize((96, 96)) for i in rows]
    return pictures, found.target[rows]


def stones(per_class=32):
    """Tiles of three photographs of surfaces, none of which overlaps another."""
    import skimage.data

    rng, pictures, labels = np.random.default_rng(0), [], []
    for label, name in enumerate(("brick", "grass", "gravel")):
        pixels = getattr(skimage.data, name)()
        for at in rng.permutation(64)[:per_class]:
            y, x = 64 * (at // 8), 64 * (at % 8)
            pictures.append(Image.fromarray(pixels[y : y + 64, x : x + 64]))
            labels.append(label)
    order = rng.permutation(len(labels))
    return [pictures[i] for i in order], np.array(labels)[order]


def scenes(n=36, of_each=2):
    """Overlapping pieces of photographs, ``of_each`` of every place: (pictures, labels, place). The places are labelled
    at random."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
    photographs = [getattr(skimage.data, name)() for name in names] + list(load_sample_images().images)
    rng, pictures, places = np.random.default_rng(0), [], []
    for place in range(n):
        pixels = photographs[place % len(photographs)]
        side = int(rng.integers(90, 150))
        y, x = (int(rng.integers(0, length - side - 12)) for length in pixels.shape[:2])
        for _ in range(of_each):
            dy, dx = rng.integers(0, 12, 2)
            pictures.append(Image.fromarray(pixels[y + dy : y + dy + side, x + dx : x + dx + side]).resize((96, 96)))
            places.append(place)
    return pictures, rng.integers(0, 2, n)[places], np.array(places)


def solar(n=6):
    """Cells of every panel, with their panels: arrays, no files."""
    import tlbook as tl

    data, rng = tl.data.solar_cells(96), np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(np.flatnonzero(data.groups == g))[:n] for g in range(44) if g != 38])
    return data.subset(rng.permutation(rows))  # 38 is a second photograph of panel 29


def write(root, pictures, labels, parts=None, save=lambda picture, path, label: picture.save(path, quality=90)):
    """A folder for each class, the files numbered in the order given; ``parts`` puts a folder of the part above."""
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        folder = root / (parts[i] if parts is not None else "") / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        save(picture, folder / f"IMG_{i:04}.jpg", label)
    return root


def halves(n):
    return np.where(np.random.default_rng(1).permutation(n) < 0.7 * n, "train", "test")


# Eight leaks, each a function of an empty folder


def same_scene(root):
    pictures, labels, places = scenes()
    return write(root, pictures, labels, parts=np.tile(["train", "test"], len(labels) // 2))


def file_size(root):
    pictures, kind = stones(40)
    labels = np.random.default_rng(0).integers(0, 2, len(kind))  # nothing that the pictures show
    return write(root, pictures, labels, save=lambda x, path, label: x.save(path, quality=(75, 90)[label]))


def date_order(root):
    pictures, labels = faces()
    rng = np.random.default_rng(0)

    def save(picture, path, label):
        picture.save(path, quality=90)
        os.utime(path, (1.6e9 + 86400 * (rng.integers(0, 10) + 8 * label),) * 2)  # in days that overlap a little

    return write(root, pictures, labels, save=save)


def border(root):
    pictures, labels = stones()
    framed = [
        ImageOps.expand(x.crop((3, 3, 61, 61)), 3, (98, 68, 83)[y]) for x, y in zip(pictures, labels, strict=True)
    ]
    return write(root, framed, labels)


def camera(root):
    pictures, labels = faces()
    rng = np.random.default_rng(0)

    def save(picture, path, label):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Maker", "One" if rng.random() < (0.1, 0.9)[label] else "Two"
        picture.save(path, quality=90, exif=exif)

    return write(root, pictures, labels, save=save)


def recoded_copies(root):
    pictures, labels = faces()
    parts, rng = halves(len(labels)), np.random.default_rng(0)
    for n, i in enumerate(rng.permutation(np.flatnonzero(parts == "test"))[:8]):
        buffer = BytesIO()
        changed = ImageOps.mirror(pictures[i]) if n % 2 else pictures[i].resize((80, 80))
        changed.save(buffer, "JPEG", quality=60)
        pictures, labels = [*pictures, Image.open(buffer).convert("RGB")], np.append(labels, labels[i])
        parts = np.append(parts, "train")
    return write(root, pictures, labels, parts=parts)


def one_group_a_class(root):
    return write(root, *faces())


def swapped_neighbours(root):
    pictures, labels = faces()
    labels = labels.copy()
    places = [i for i in range(0, len(labels) - 1, 2) if labels[i] != labels[i + 1]]
    for i in np.random.default_rng(0).permutation(places)[:12]:
        labels[[i, i + 1]] = labels[[i + 1, i]]
    return write(root, pictures, labels)
