"""A fingerprint knows all that decides the features, and hooks are said to be beyond it."""

import copy
import functools
import types

import pytest
import torch
from torch import nn

import tlbook as tl
from tlbook import fingerprint


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return tl.load_backbone("test_resnet", weights=None)


def features(backbone):
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        return backbone.forward_stages(torch.randn(2, 3, 96, 96, generator=generator).to(backbone.device))["final"]


def max_pooling(backbone):
    backbone.model.global_pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(1))


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x.mean((2, 3))


def own_pooling(backbone):
    backbone.model.global_pool = Doubled()


def other_activation(backbone):
    backbone.model.layer4[0].act2 = nn.GELU()


def other_epsilon(backbone):
    backbone.model.bn1.eps = 0.5


def negative_slope(backbone):
    backbone.model.layer4[0].act2 = nn.LeakyReLU(0.1)
    before = backbone.fingerprint
    backbone.model.layer4[0].act2.negative_slope = 0.5
    assert backbone.fingerprint != before


def buffer_that_is_not_saved(backbone):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor([3.0]), persistent=False)

        def forward(self, x):
            return self.scale * x

    backbone.model.act1 = Scaled().to(backbone.device)
    before = fingerprint.fingerprint(backbone)
    backbone.model.act1.scale += 1
    assert fingerprint.fingerprint(backbone) != before


def drop_rate(backbone):
    backbone.model.drop_rate = 0.5


def head_bias(backbone):
    backbone.head.bias.data[0] += 1


def running_mean(backbone):
    backbone.model.bn1.running_mean[0] += 1


def mean(backbone):
    backbone.mean = (0.1, 0.2, 0.3)


def interpolation(backbone):
    backbone.interpolation = "nearest"


ONLY_IN_TRAINING_OR_PREPARATION = (drop_rate, head_bias, mean, interpolation)
CHANGES = (max_pooling, own_pooling, other_activation, other_epsilon, negative_slope, buffer_that_is_not_saved)


@pytest.mark.parametrize("change", [*CHANGES, running_mean, *ONLY_IN_TRAINING_OR_PREPARATION])
def test_what_changes_the_features_changes_the_fingerprint(backbone, change):
    z, before = features(backbone), backbone.fingerprint
    assert copy.deepcopy(backbone).fingerprint == before and not backbone.has_hooks
    change(backbone)
    assert torch.equal(features(backbone), z) == (change in ONLY_IN_TRAINING_OR_PREPARATION)
    assert backbone.fingerprint != before


def test_two_classes_of_one_name_are_told_apart_by_their_source(backbone):
    prints = set()
    for k in (2, 3):
        if k == 2:

            class Pool(nn.Module):
                def forward(self, x):
                    return 2 * x.mean((2, 3))
        else:

            class Pool(nn.Module):
                def forward(self, x):
                    return 3 * x.mean((2, 3))

        backbone.model.global_pool = Pool()
        prints.add(backbone.fingerprint)
    assert len(prints) == 2 and not backbone.has_hooks


def test_versions_of_the_libraries_that_decide_features_are_part_of_it(backbone, monkeypatch):
    before = backbone.fingerprint
    version = fingerprint.importlib.metadata.version
    for library in ("timm", "torchvision", "pillow"):
        monkeypatch.setattr(
            fingerprint.importlib.metadata, "version", lambda name, new=library: "99" if name == new else version(name)
        )
        assert backbone.fingerprint != before, library
    monkeypatch.setattr(fingerprint.importlib.metadata, "version", version)
    assert backbone.fingerprint == before


def test_mode_and_freezing_are_no_part_of_it(backbone):
    before = backbone.fingerprint
    backbone.train()
    tl.freeze(backbone, until="layer2")
    assert backbone.fingerprint == before and not backbone.has_hooks


def hook(backbone):
    return backbone.model.layer1.register_forward_hook(lambda module, inputs, z: 2 * z).remove


def pre_hook(backbone):
    return backbone.model.layer1[0].conv1.register_forward_pre_hook(lambda module, x: None).remove


def global_hook(backbone):
    return nn.modules.module.register_module_forward_hook(lambda module, inputs, z: None).remove


def replaced_forward(backbone):
    backbone.model.layer1.forward = lambda x: 2 * x
    return functools.partial(delattr, backbone.model.layer1, "forward")


def replaced_head(backbone):
    backbone.model.forward_head = types.MethodType(lambda self, x, pre_logits: x.amax((2, 3)), backbone.model)
    return functools.partial(delattr, backbone.model, "forward_head")


def closure(backbone):
    scale = 2
    backbone.model.layer1.own = lambda x: scale * x
    return functools.partial(delattr, backbone.model.layer1, "own")


@pytest.mark.parametrize("change", [hook, pre_hook, global_hook, replaced_forward, replaced_head, closure])
def test_what_no_fingerprint_knows_is_said_while_it_is_there(backbone, change):
    assert not backbone.has_hooks
    undo = change(backbone)
    try:
        assert backbone.has_hooks
        assert len(backbone.fingerprint) == 64
    finally:
        undo()
    assert not backbone.has_hooks


@pytest.mark.parametrize(
    "name", ["test_vit", "test_convnext", "test_efficientnet", "fasternet_t0", "mobilenetv3_small_100"]
)
def test_the_usual_models_have_no_hooks_and_one_fingerprint(name):
    one = tl.load_backbone(name, weights=None)
    two = tl.load_backbone(name, weights=one.model.state_dict())
    assert not one.has_hooks and one.fingerprint == two.fingerprint
