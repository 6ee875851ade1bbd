"""What is frozen stays so: through pickles, copies and torch.compile."""

import abc
import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import tlbook as tl
from tlbook import lora
from tlbook.training.trainable import is_frozen, keep_in_eval


@pytest.fixture
def backbone():
    return tl.load_backbone("test_resnet", weights=None)


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "send", [lambda m: pickle.loads(pickle.dumps(m)), through_torch_save, copy.deepcopy], ids=["pickle", "save", "copy"]
)
def test_a_frozen_backbone_can_be_sent_and_is_still_frozen(backbone, send):
    tl.freeze(backbone, until="layer2")
    again = send(backbone).train()
    for name, module in backbone.train().named_modules():
        assert is_frozen(again.get_submodule(name)) == is_frozen(module), name
        assert again.get_submodule(name).training == module.training, name
    assert not again.model.layer2[0].bn1.training and again.model.layer3[0].bn1.training
    assert again.fingerprint == backbone.fingerprint
    tl.unfreeze(again)
    assert type(again.model.bn1) is nn.BatchNorm2d and again.train().model.bn1.training


def test_a_frozen_layer_with_lora_can_be_sent(backbone):
    lora.inject(backbone, 2, 4, r"model\.layer1\..*conv1")
    tl.freeze(backbone, until="layer1")
    again = pickle.loads(pickle.dumps(backbone))
    layer = again.model.layer1[0].conv1
    assert type(layer) is type(backbone.model.layer1[0].conv1) and is_frozen(layer)
    assert layer.lora_A.shape == backbone.model.layer1[0].conv1.lora_A.shape
    tl.unfreeze(again)
    lora.merge(again)
    assert type(again.model.layer1[0].conv1) is nn.Conv2d


def test_another_process_can_be_given_a_frozen_model():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    keep_in_eval(model[0])
    program = "import pickle, sys; m = pickle.load(sys.stdin.buffer).train(); print(m[0].training, m[1].training)"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(model), capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"True"]


class Abstract(nn.Module, abc.ABC):
    """A module whose class has a metaclass of its own, and a state of its own in pickles."""

    def __getstate__(self):
        return vars(self) | {"sent": True}


def test_a_module_with_its_own_metaclass_and_state_can_be_frozen_and_sent():
    module = Abstract()
    keep_in_eval(module)
    again = pickle.loads(pickle.dumps(module)).train()
    assert again.sent and isinstance(again, Abstract) and not again.training


def test_of_a_compiled_backbone_the_original_is_frozen(backbone):
    compiled = torch.compile(backbone, backend="eager")
    tl.freeze(compiled, until="layer2")
    compiled.train()
    assert not backbone.model.layer2[0].bn1.training and backbone.model.layer3[0].bn1.training
    assert not backbone.model.layer2[0].conv1.weight.requires_grad and backbone.head.weight.requires_grad
    before = backbone.model.layer2[0].bn1.running_mean.clone()
    compiled(torch.randn(4, 3, 32, 32, device=backbone.device))
    assert torch.equal(backbone.model.layer2[0].bn1.running_mean, before)
    tl.unfreeze(compiled)
    assert all(p.requires_grad for p in backbone.parameters()) and backbone.model.layer2[0].bn1.training


def test_a_backbone_with_a_compiled_part_is_refused_and_unchanged(backbone):
    backbone.model = torch.compile(backbone.model, backend="eager")
    with pytest.raises(ValueError, match="model is compiled: change the model first"):
        tl.freeze(backbone, until="layer2")
    assert all(p.requires_grad for p in backbone.parameters()) and not any(map(is_frozen, backbone.modules()))
