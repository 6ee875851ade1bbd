"""A classifier in few bits answers nearly as the original."""

import numpy as np
import pytest
import torch
from small import DATA, FAST, SPLIT, tiny

import tlbook as tl
from tlbook.course import int8

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trained classifier, its ONNX file, and the images as pixels."""
    found = tl.finetune(tiny("test_efficientnet"), DATA, SPLIT, **FAST)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    found.export(path)
    return found, path, torch.stack([x for x, _ in DATA]).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_exported_classifier_answers_as_the_original(exported, engine):
    found, path, pixels = exported
    p, cost = int8.answer(path, pixels, engine)
    assert np.allclose(p, found.predict(DATA), atol=1e-3) and cost.seconds > 0


def test_int8_is_small_and_near_the_original(exported, tmp_path):
    found, path, pixels = exported
    int8.quantise(path, tmp_path / "int8.onnx", pixels[SPLIT.train])
    p, _ = int8.answer(tmp_path / "int8.onnx", pixels)
    assert (tmp_path / "int8.onnx").stat().st_size < path.stat().st_size
    assert not np.array_equal(p, found.predict(DATA)) and np.abs(p - found.predict(DATA)).mean() < 0.1


def test_weights_have_a_step_for_each_channel_or_one_for_the_tensor(exported, tmp_path):
    import onnx

    steps = {}
    for by_channel in (True, False):
        int8.quantise(exported[1], tmp_path / "int8.onnx", exported[2][SPLIT.train], by_channel=by_channel)
        graph = onnx.load(tmp_path / "int8.onnx").graph
        sizes = [int(np.prod(t.dims)) for t in graph.initializer if t.name.endswith("_scale")]
        steps[by_channel] = max(sizes)
    assert steps[True] > 1 and steps[False] == 1
