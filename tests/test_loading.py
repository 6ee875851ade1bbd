"""The loader: what is read, by whom, and what is said of an example that cannot be."""

import pytest
from small import DATA, FAST, SPLIT, tiny

import tlbook as tl
from tlbook.data import Dataset

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
