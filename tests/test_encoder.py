"""An encoder of one's own: one method, and the operators take it as they take any other."""

import ast
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tlbook as tl
from tlbook.data import Dataset, Split

ROOT = Path(tl.__file__).parent


class Letters(tl.Encoder):
    """Counts of letters."""

    def as_tensor(self, text):
        return torch.tensor([text.count(letter) for letter in "abcd"], dtype=torch.float32)


def letters(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(OrderedDict(one=nn.Linear(4, 8), act=nn.ReLU(), two=nn.Linear(8, 6)))
    return Letters(model, "letters", {"first": ("one", "act"), "final": ("two",)}, "abc")


@pytest.fixture
def data():
    y = np.arange(40) % 2
    return Dataset([("ab" if k else "cd") * (2 + i % 3) for i, k in enumerate(y)], y, ("cd", "ab"))


def test_an_encoder_of_ones_own_is_cut_without_a_seam(data):
    encoder = letters()
    assert encoder.stages == {"first": 8, "final": 6} and encoder.num_features == 6
    encoder.reset_head(3)
    x = encoder.prepare(data.inputs[:5])
    for stage in encoder.stages:
        assert torch.allclose(encoder.suffix(stage)(encoder.prefix(stage)(x)), encoder(x), atol=1e-6)
    assert torch.allclose(encoder.forward_head(encoder.forward_features(x)), encoder(x))


@pytest.mark.parametrize("recipe", ["head", "full", "lp_ft", "gradual", "surgical"])
def test_extract_probe_and_finetune_take_an_encoder_of_ones_own(data, recipe, one_thread_and_own_cache):
    encoder, split = letters(), Split(np.arange(20), np.arange(20, 30), np.arange(30, 40))
    features = tl.extract(encoder, data, stages=("first", "final"), precision="float32")
    expected = encoder.forward_stages(encoder.prepare(data.inputs), ("first", "final"))
    assert np.allclose(features.X, torch.cat(list(expected.values()), 1).detach(), atol=1e-6)
    assert tl.linear_probe(features, split).evaluate(features, split.test).accuracy == 1
    found = tl.finetune(encoder, data, split, recipe=recipe, epochs=12, lr=0.05, batch_size=8)
    assert found.evaluate(data, split.test).accuracy == 1
    assert found.predict(["ababab", "cdcdcd"]).argmax(1).tolist() == [1, 0]


def test_the_features_of_an_encoder_of_ones_own_are_cached_by_what_it_holds(data, one_thread_and_own_cache):
    first, again, other = letters(), letters(), letters(seed=1)
    assert not first.has_hooks and first.fingerprint == again.fingerprint != other.fingerprint
    assert np.array_equal(tl.extract(first, data).X, tl.extract(again, data).X)
    assert not np.array_equal(tl.extract(first, data).X, tl.extract(other, data).X)


def test_freeze_and_audit_know_the_stages_of_an_encoder_of_ones_own():
    encoder = letters()
    encoder.reset_head(2)
    tl.freeze(encoder, until="first")
    assert {n for n, p in encoder.named_parameters() if p.requires_grad} == {
        *("model.two.weight", "model.two.bias", "model.head.weight", "model.head.bias")
    }
    optimizer = torch.optim.AdamW(tl.parameter_groups(encoder, 1e-3))
    assert not tl.audit(encoder, optimizer).problems


def test_what_an_encoder_lacks_is_said():
    with pytest.raises(ValueError, match="the last stage must be called 'final'"):
        Letters(nn.Sequential(nn.Linear(4, 2)), "letters", {"last": ("0",)}, "a")
    with pytest.raises(NotImplementedError, match="as_tensor"):
        tl.Encoder(nn.Sequential(nn.Linear(4, 2)), "none", {"final": ("0",)}, "a")
    with pytest.raises(ValueError, match="letters has no stage 'middle'"):
        letters().prefix("middle")


def test_what_only_images_have_is_refused_with_a_reason(data, tmp_path):
    split = Split(np.arange(20), np.arange(20, 30), np.arange(30, 40))
    with pytest.raises(ValueError, match="unknown view 'hflip': views are identity"):
        tl.extract(letters(), data, views=("hflip",))
    with pytest.raises(ValueError, match=r"augment must be one of \[None\] for the inputs of letters, got 'flips'"):
        tl.finetune(letters(), data, split, augment="flips")
    found = tl.finetune(letters(), data, split, recipe="head", epochs=1)
    with pytest.raises(ValueError, match="an encoder of your own, which tlbook cannot rebuild"):
        found.save(tmp_path / "model")
    with pytest.raises(ValueError, match="only classifiers of images are exported"):
        found.export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


OPERATORS = ("feature_extraction.py", "fine_tuning.py", "parameter_transfer.py")


def kinds_in(source):
    """Names in a module's code (not in its strings) that tell one kind of input from another."""
    words = {"image", "images", "text", "texts", "sound", "sounds", "speech", "TextEncoder", "Backbone", "PIL"}
    words |= {"is_floating_point", "tokens", "Sound", "Bert", "SpectrogramBackbone", "str_"}
    tree = ast.walk(ast.parse(source))
    found = {getattr(node, key, None) for node in tree for key in ("id", "attr", "arg", "name", "module")}
    return found & words


@pytest.mark.parametrize("name", OPERATORS)
def test_the_operators_do_not_ask_what_kind_of_input_they_are_shown(name):
    assert kinds_in((ROOT / name).read_text(encoding="utf-8")) == set()


def test_a_branch_on_the_kind_of_input_would_be_found():
    assert kinds_in("def f(x):\n    if x.kind == 'texts':\n        return x.tokens") == {"tokens"}
