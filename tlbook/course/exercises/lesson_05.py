"""Exercises of lesson 05."""

import torch

from tlbook.course.exercises import Exercise
from tlbook.named_tensors import TransferError, renamed

_TARGET = ["stem.weight", "submodule.weight", "fc_norm.weight", "head.weight", "head.bias"]
_SOURCE = ["module." + name.replace("head.", "fc.") for name in _TARGET]


def _rename(answer):
    try:
        got = renamed(dict.fromkeys(_SOURCE), answer)
    except TransferError as error:
        raise AssertionError(f"tl.transfer would refuse it: {error}.") from None
    assert not any(name.startswith("module.module.") or name.startswith("module.head") for name in got), (
        "Each pair is (pattern, replacement), from the source's names to the target's; and each pattern meets what the "
        "steps before it left, so take the prefix off first."
    )
    assert not all(name.startswith("module.") for name in got), "Every name still begins with 'module.'."
    assert "subweight" not in got, (
        "'submodule.weight' became 'subweight': the pattern matches inside a name too. Tie it to the beginning by ^."
    )
    assert "head_norm.weight" not in got, (
        "'fc_norm.weight' became 'head_norm.weight': the pattern matches the start of a longer word. Include the dot."
    )
    assert "fc.weight" not in got, "The prefix is gone, but the classifier is still called 'fc'."
    absent = [name for name in _TARGET if name not in got]
    assert not absent, f"Nothing becomes {', '.join(absent)}; your names are {', '.join(got)}."


def _grey(answer):
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(4, 3, 5, 5, generator=generator)
    x = torch.randn(2, 1, 9, 9, generator=generator)
    got = answer(W.clone())
    assert isinstance(got, torch.Tensor), f"It should return a tensor, it returned {type(got).__name__}."
    assert tuple(got.shape) != (4, 5, 5), "The numbers may be right, but a Conv2d wants (4, 1, 5, 5): keep the axis."
    assert tuple(got.shape) == (4, 1, 5, 5), f"(4, 3, 5, 5) should become (4, 1, 5, 5), it became {tuple(got.shape)}."
    wanted = torch.nn.functional.conv2d(x.expand(-1, 3, -1, -1), W)
    response = torch.nn.functional.conv2d(x, got)
    assert not torch.allclose(3 * response, wanted, atol=1e-4), (
        "That is the mean: every response is a third of what the next layers were trained with. The three channels of "
        "a grey picture were added up."
    )
    assert not any(torch.allclose(got[:, 0], W[:, c]) for c in range(3)), (
        "That keeps one of the channels; what the other two contributed is lost."
    )
    luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert not torch.allclose(got, (luminance * W).sum(1, keepdim=True), atol=1e-4), (
        "Those are the weights that make a colour picture grey. Here the picture is grey already, and the question is "
        "what the three filters do with three equal channels."
    )
    assert torch.allclose(response, wanted, atol=1e-4), (
        "A grey picture, copied into three channels, should get the same response from the old filters as it gets from "
        "the new ones as it is."
    )


def _both(answer):
    def state(w, seen):
        return {"weight": torch.tensor(w), "num_batches_tracked": torch.tensor(seen)}

    theta0, one, two = state([1.0, 2.0], 5), state([1.5, 2.0], 8), state([1.0, 4.0], 9)
    before = {k: v.clone() for k, v in theta0.items()}
    got = answer(theta0, one, two)
    assert isinstance(got, dict) and set(got) == set(theta0), "Return a state dict with the same names."
    assert all(torch.equal(theta0[k], v) for k, v in before.items()), (
        "θ⁰ itself was changed: its tensors are shared with the model they came from. Make new ones."
    )
    w = got["weight"].tolist()
    assert w != [2.5, 6.0], "θ¹ + θ² holds θ⁰ twice: add what each expert *changed*, θᵏ − θ⁰."
    assert w != [1.25, 3.0], "That is the mean of the experts, a soup: each step is taken only half."
    assert w != [0.5, 2.0], "That is the sum of the two steps alone: add it to θ⁰."
    assert w == [1.5, 4.0], f"θ⁰ + (θ¹ − θ⁰) + (θ² − θ⁰) would be [1.5, 4.0] here, it was {w}."
    counter = got["num_batches_tracked"]
    assert not counter.is_floating_point() and counter.item() == 5, (
        "num_batches_tracked is a counter of type int64, not a parameter; there is no sense in adding it up. Keep θ⁰'s."
    )


EXERCISES = {
    "05.1": Exercise(
        _rename,
        "Two pairs, one for the prefix and one for the classifier. In these, ^ is the start and \\. a dot.",
        'answer = [(r"^module\\.", ""), (r"^fc\\.", "head.")]',
    ),
    "05.2": Exercise(
        _grey,
        "Write the convolution of three equal channels as a sum over c and factor x out.",
        "def answer(W):\n    return W.sum(1, keepdim=True)",
    ),
    "05.3": Exercise(
        _both,
        "Work name by name. tensor.is_floating_point() tells parameters and statistics from counters.",
        "def answer(theta0, theta1, theta2):\n"
        "    return {\n"
        "        k: v + (theta1[k] - v) + (theta2[k] - v) if v.is_floating_point() else v.clone()\n"
        "        for k, v in theta0.items()\n"
        "    }",
    ),
}
