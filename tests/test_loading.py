"""The loader: what is read, by whom, and what is said of an example that cannot be."""

import numpy as np
import pytest
from PIL import Image
from small import DATA, FAST, SPLIT, tiny

import tlbook as tl
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
