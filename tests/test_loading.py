"""The loader: what is read, by whom, and what is said of an example that cannot be."""

import numpy as np
import pytest
from pictures import photographs
from PIL import Image
from small import DATA, FAST, SPLIT, tiny

import tlbook as tl
from tlbook import images
from tlbook.backbones import Backbone
from tlbook.data import Dataset
from tlbook.images import Files

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


def test_an_input_that_cannot_be_read_is_named():
    inputs = list(DATA.inputs)
    inputs[SPLIT.train[3]] = "not an image"
    data = Dataset(inputs, DATA.labels, DATA.class_names)
    with pytest.raises(ValueError, match=f"example {SPLIT.train[3]} cannot be read"):
        tl.finetune(tiny(), data, SPLIT, **FAST)
    part = data.subset([0, SPLIT.train[3]]).subset([1])
    with pytest.raises(ValueError, match=f"example {SPLIT.train[3]} cannot be read"):
        tl.extract(tiny(), part, cache=False)


def test_an_input_that_cannot_be_read_is_named_by_its_path_where_it_has_one(tmp_path):
    for i in range(4):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{i}.png")
    files = Dataset(Files([tmp_path / f"{i}.png" for i in range(4)]), np.arange(4) % 2, ("a", "b"))
    named = Dataset([None] * 4, np.arange(4) % 2, ("a", "b"), columns={"path": [f"a/{i}.png" for i in range(4)]})
    (tmp_path / "2.png").unlink()
    for data, words in ((files, rf"example \d \({tmp_path}/2.png\) cannot be read"), (named, r"\(a/2.png\) cannot be")):
        with pytest.raises(ValueError, match=words):
            tl.extract(tiny(), data.subset([2]), cache=False)


def test_a_large_jpeg_is_decoded_to_fewer_pixels_with_nearly_the_same_features(tmp_path, monkeypatch):
    backbone, paths = tl.load_backbone(), []
    backbone.set_input_size(64, 64)
    for name, pixels in photographs().items():
        paths.append(tmp_path / f"{name}.jpg")
        Image.fromarray(pixels).resize((1200, 900), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    labels, names = np.arange(3), ("a", "b", "c")
    seen, as_tensor = [], Backbone.as_tensor
    monkeypatch.setattr(Backbone, "as_tensor", lambda self, x: seen.append(x.size) or as_tensor(self, x))
    fewer = tl.extract(backbone, Dataset(Files(paths), labels, names), precision="float32", cache=False).X
    assert set(seen) == {(300, 225)}
    whole = [images.read(path) for path in paths]
    whole = tl.extract(backbone, Dataset(whole, labels, names), precision="float32", cache=False).X
    apart = np.linalg.norm(fewer - whole, axis=1) / np.linalg.norm(whole, axis=1)
    others = np.linalg.norm(whole[[1, 2, 0]] - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert (0 < apart).all() and (apart < 0.1).all() and (others > 0.5).all()


def test_who_reads_images_in_its_own_way_is_given_them_whole(tmp_path):
    class Tile(Backbone):
        def as_tensor(self, x):
            if isinstance(x, Image.Image):
                sizes.append(x.size)
                x = x.crop((0, 0, 64, 64))
            return super().as_tensor(x)

    whole, sizes = tl.load_backbone(weights=None), []
    whole.set_input_size(64, 64)
    settings = ("mean", "std", "input_size", "crop_pct", "interpolation")
    tile = Tile(whole.model, "tile", *(getattr(whole, name) for name in settings))
    Image.new("RGB", (1200, 900)).save(tmp_path / "a.jpg")
    data = Dataset(Files([tmp_path / "a.jpg"]), np.zeros(1, np.int64), ("a",))
    tl.extract(tile, data, cache=False)
    tl.extract([tile, whole], data, cache=False)
    assert set(sizes) == {(1200, 900)}
