"""A saved classifier is the one that was trained."""

import numpy as np
import pytest
from small import spots, tiny

import tlbook as tl
from tlbook.data import Dataset

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_saved_model_predicts_the_same(name, tmp_path):
    backbone = tiny(name)
    data = spots(24, side=backbone.input_size if name == "test_vit" else 32)
    found = tl.finetune(backbone, data, data.split(seed=0), recipe="head", epochs=1, batch_size=8)
    found.save(tmp_path)
    back = tl.load_finetuned(tmp_path)
    assert np.array_equal(back.predict(data), found.predict(data))
    assert repr(back.history) == repr(found.history)  # NaN is not equal to itself
    assert back.class_names == found.class_names and back.epoch == found.epoch
    assert np.allclose(found.predict(data).sum(1), 1) and np.array_equal(
        found.predict([data[i][0] for i in range(3)]), found.predict(data.subset(range(3)))
    )
    with pytest.raises(ValueError, match="classes are"):
        found.evaluate(Dataset(data.inputs, data.labels, ("x", "y")), [0, 1])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tl.load_finetuned(tmp_path / "nothing")
