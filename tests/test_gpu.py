"""On a CUDA GPU: what is recorded and replayed is what would have been computed."""

import copy

import numpy as np
import pytest
import torch
from small import DATA, SPLIT, tiny
from torch import nn

import tlbook as tl
from tlbook.data import Dataset
from tlbook.device import full_float32
from tlbook.training import run as training
from tlbook.training.recipes import Full, Gradual
from tlbook.training.recorded import Recorded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: none is visible")


class Looks(nn.Module):
    """A network in which Python waits for a number from the GPU."""

    def forward(self, x):
        return x * 2 if x.sum().item() > 1e9 else x


def images(n, side):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 256, (n, 3, side, side), dtype=np.uint8))
    return Dataset(list(x), np.arange(n) % 2, ("no", "yes"))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_float32_features_are_those_of_the_cpu(name):
    torch.manual_seed(0)
    backbone, data = tl.load_backbone(name, weights=None), images(40, 224 if "vit" in name else 64)
    how = {"stages": list(backbone.stages)[-2:], "precision": "float32", "batch_size": 8, "cache": False}
    gpu = tl.extract(backbone.to("cuda"), data, **how).X  # the first batch launched, four replayed
    cpu = tl.extract(backbone.to("cpu"), data, **how).X
    assert np.linalg.norm(gpu - cpu, axis=1).max() < 1e-4 * np.linalg.norm(cpu, axis=1).min()


def test_bfloat16_replayed_is_bfloat16_launched(monkeypatch):
    torch.manual_seed(0)
    backbone, data = tl.load_backbone("resnet18", weights=None).to("cuda"), images(40, 64)
    how = {"precision": "bfloat16", "batch_size": 8, "cache": False}
    replayed = tl.extract(backbone, data, **how).X
    monkeypatch.setattr(tl.forward.Forward, "is_recordable", False)
    launched = tl.extract(backbone, data, **how).X
    assert np.abs(replayed - launched).max() < 0.02 * np.abs(launched).max()
    assert len(np.unique(replayed, axis=0)) == 40  # no batch has the outputs of another


def test_a_shape_that_keeps_coming_is_recorded_once(monkeypatch):
    ran, run = [], tl.forward.Forward._run
    monkeypatch.setattr(tl.forward.Forward, "_run", lambda self, batch: ran.append(1) or run(self, batch))
    tl.extract(tl.load_backbone("resnet18", weights=None).to("cuda"), images(80, 64), batch_size=8, cache=False)
    assert len(ran) == 3 + 2  # three launched; one to warm up, and one recorded; then seven replayed


def test_a_hook_sees_every_batch():
    backbone, seen = tl.load_backbone("resnet18", weights=None).to("cuda"), []
    backbone.model.layer4.register_forward_hook(lambda module, x, z: seen.append(len(z)))
    tl.extract(backbone, images(40, 64), batch_size=8)
    assert seen == [8] * 5


@pytest.mark.filterwarnings("error:a step of this network")
def test_a_recorded_step_has_the_outputs_and_gradients_of_one_launched():
    plain, rng = tiny().to("cuda").train(), torch.Generator().manual_seed(0)
    recorded = Recorded(copy.deepcopy(plain))
    for n in (7, 8, 7, 8):
        x, seen = torch.randn(n, 3, 32, 32, generator=rng).to("cuda"), []
        for network in (plain, recorded):
            network.zero_grad()
            with full_float32():
                logits = network(x)
                nn.functional.cross_entropy(logits, torch.arange(n, device="cuda") % 2).backward()
            grads = {f"gradient {name}": p.grad for (name, p) in plain.named_parameters()}
            if network is recorded:
                grads = dict(zip(grads, (p.grad for p in recorded.parameters()), strict=True))
            buffers = dict(zip(dict(plain.named_buffers()), network.buffers(), strict=True))  # none is moved twice
            seen.append({"logits": logits.detach()} | grads | buffers)
        largest = max(g.norm() for name, g in seen[0].items() if "gradient" in name)
        for name, a in seen[0].items():
            floor = 1e-4 * largest if "gradient" in name else 0.0  # of gradients that are rounding alone
            assert (a.float() - seen[1][name].float()).norm() <= 1e-3 * a.float().norm() + floor, name
    assert len(recorded.recorded) == 2 and not recorded.fails


@pytest.mark.filterwarnings("error:a step of this network")
@pytest.mark.parametrize("recipe", [Full(), Full(freeze_batchnorm=True), Gradual()], ids=["full", "held", "gradual"])
def test_recorded_training_is_training_launched_step_by_step(recipe, monkeypatch):
    monkeypatch.setattr(training, "WORTH_RECORDING", 1)
    options = {"recipe": recipe, "epochs": 3, "lr": 1e-4, "batch_size": 8, "augment": None, "precision": "float32"}
    backbone = tiny().to("cuda")
    recorded = tl.finetune(backbone, DATA, SPLIT, **options)
    monkeypatch.setattr(training, "WORTH_RECORDING", 10**9)
    launched = tl.finetune(backbone, DATA, SPLIT, **options)
    for a, b in zip(recorded.history, launched.history, strict=True):
        assert a["val loss"] == pytest.approx(b["val loss"], rel=0.02)  # as far as runs of a CPU are moved by rounding


def test_dropout_differs_from_step_to_step_when_replayed():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1000, device="cuda"))

        def forward(self, x):
            return nn.functional.dropout(x * self.scale, 0.5)

    network, x, seen = Recorded(Drops()), torch.ones(1000, device="cuda"), []
    for step in (0, 1, 0):
        torch.manual_seed(step)
        seen.append(network(x).detach().clone())
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


def test_a_network_that_cannot_be_recorded_trains_all_the_same(monkeypatch):
    monkeypatch.setattr(training, "WORTH_RECORDING", 1)
    monkeypatch.setattr(training, "is_recordable", lambda network: True)  # which it would not be: its code is ours
    backbone = copy.deepcopy(tiny()).to("cuda")
    backbone.model.act1 = nn.Sequential(backbone.model.act1, Looks(), nn.Dropout(0.1))
    with pytest.warns(UserWarning, match="cannot be recorded"):
        found = tl.finetune(backbone, DATA, SPLIT, recipe=Full(), epochs=1, lr=1e-4, augment=None)
    assert np.isfinite(found.history[-1]["val loss"])
