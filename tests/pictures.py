"""Small folders of real photographs, whole and damaged, for the tests of files."""

import numpy as np
from PIL import Image

MODES = ("RGB", "L", "P", "CMYK", "RGBA", "I;16")


def photographs():
    """Real photographs of three kinds, which ship with scikit-image: {name: (H, W, 3) uint8}."""
    import skimage.data

    return {name: getattr(skimage.data, name)() for name in ("cat", "coffee", "rocket")}


def in_mode(image, mode):
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def write_folder(root, n=12):
    """``n`` pieces of each photograph, as JPEG and PNG files in mixed modes."""
    rng = np.random.default_rng(0)
    for name, pixels in photographs().items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            side = rng.integers(120, 250)
            y, x = (rng.integers(0, size - side) for size in pixels.shape[:2])
            mode = MODES[i % len(MODES)]
            image = in_mode(Image.fromarray(pixels[y : y + side, x : x + side]), mode)
            image.save(root / name / f"{i:02}.{'jpg' if mode in ('RGB', 'CMYK') else 'png'}")
    return root


def break_five(root):
    """Damage five files as disks and people do."""
    whole = (root / "cat" / "00.jpg").read_bytes()
    broken = {
        "cat/empty.jpg": b"",
        "cat/cut.jpg": whole[: len(whole) // 2],
        "coffee/text.png": b"this is no image",
        "coffee/notes.txt": b"remember the milk",
        "rocket/cut.png": (root / "rocket" / "01.png").read_bytes()[:200],
    }
    for name, content in broken.items():
        (root / name).write_bytes(content)
    return broken


def damaged(content, rng):
    """``content`` cut, with bytes changed, put in or taken out."""
    content = bytearray(content)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(content[: rng.integers(len(content))])
    for _ in range(rng.integers(1, 30)):
        at = int(rng.integers(len(content)))
        if kind == 1:
            content[at] = rng.integers(256)
        elif kind == 2:
            content[at:at] = rng.bytes(3)
        else:
            del content[at : at + int(rng.integers(1, 40))]
            content = content or bytearray(b"x")
    return bytes(content)
