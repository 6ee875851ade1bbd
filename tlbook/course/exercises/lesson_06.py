"""Exercises of lesson 06."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from tlbook.course.exercises import Exercise


def _prepare(answer):
    draw = np.random.default_rng(0)
    colour = Image.fromarray(draw.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    got = answer(colour)
    assert isinstance(got, torch.Tensor) and got.is_floating_point(), "Return a float tensor."
    assert got.shape == (3, 96, 96), f"The shape should be (3, 96, 96), it is {tuple(got.shape)}."
    x = torch.from_numpy(np.array(colour)).permute(2, 0, 1) / 255
    assert not torch.allclose(got, x, atol=1e-3), "It is in 0 … 1 and not yet normalised."
    assert not torch.allclose(got, (255 * x - 0.5) / 0.25, atol=1), "Divide by 255 before the mean is taken off."
    assert not torch.allclose(got, x / 0.25 - 0.5, atol=1e-2), "First minus the mean, then divided by the deviation."
    assert torch.allclose(got, (x - 0.5) / 0.25, atol=1e-2), "(x − 0.5) / 0.25 with x in 0 … 1, channels first."
    for mode in ("L", "P", "RGBA", "CMYK"):
        try:
            shape = tuple(answer(colour.convert(mode)).shape)
        except Exception as error:
            raise AssertionError(f"An image of mode {mode} fails ({error}): convert it to RGB first.") from None
        assert shape == (3, 96, 96), f"An image of mode {mode} comes out as {shape}: convert it to RGB first."
    wide = Image.fromarray(draw.integers(0, 256, (50, 200, 3), dtype=np.uint8))
    assert answer(wide).shape == (3, 96, 96), "A wide image must come out square too: resize to (96, 96), not to 96."


def _mask(answer):
    groups = np.array(["b", "a", "c", "a", "b", "d", "c", "a"])
    got = np.asarray(answer(groups, 2))
    assert got.shape == groups.shape and got.dtype == bool, "Return a boolean mask with one entry for each example."
    torn = sorted(set(groups[got]) & set(groups[~got]))
    assert not torn, f"Group {torn[0]} stands on both sides: choose groups, not examples."
    assert got.any() and not got.all(), "Some groups are held out, and some are left."
    assert not set(groups[~got]) == {"a", "b"}, "It is the other way round: True is held out."
    assert set(groups[got]) == {"a", "b"}, f"Held out are {sorted(set(groups[got]))}; it should be ['a', 'b']."
    numbers = np.array([10, 9, 10, 2])
    assert np.asarray(answer(numbers, 1)).tolist() == [False, False, False, True], (
        "Groups may be numbers too: sort them."
    )


class _Small(nn.Module):
    """Answers with the class whose channel is brightest; dropout and BatchNorm make training mode a lottery."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.9)

    def forward(self, x):
        return self.drop(self.norm(x).mean((2, 3)))


def _predict(answer):
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(11, 3, 4, 4, generator=draw) + torch.eye(3)[torch.arange(11) % 3][:, :, None, None]
    want = (torch.arange(11) % 3).tolist()
    model = _Small().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    got = torch.as_tensor(answer(model, list(x.split(4))))
    assert got.numel() != 3, "Those are the classes of the last batch alone."
    assert got.ndim == 1 and len(got) == 11, f"One class for each of the 11 images; the shape is {tuple(got.shape)}."
    same = all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert same, "Predicting changed BatchNorm's statistics: the model is still in training mode."
    assert not got.requires_grad and not got.is_floating_point(), "Return classes (argmax), not logits."
    assert got.tolist() == want, "The classes are not those that the model gives in eval mode, in order."


EXERCISES = {
    "06.1": Exercise(
        _prepare,
        hint="image.convert('RGB'), then resize; transforms.ToTensor() gives 0 … 1 with channels first.",
        solution="""
from torchvision import transforms

steps = [transforms.Resize((96, 96)), transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]


def answer(image):
    return transforms.Compose(steps)(image.convert("RGB"))
""",
    ),
    "06.2": Exercise(
        _mask,
        hint="np.unique gives the groups, sorted; np.isin tells which examples belong to some of them.",
        solution="""
import numpy as np


def answer(groups, wanted):
    return np.isin(groups, np.unique(groups)[:wanted])
""",
    ),
    "06.3": Exercise(
        _predict,
        hint="model.eval(), torch.no_grad(), argmax(1) of each batch, and torch.cat at the end.",
        solution="""
import torch


def answer(model, batches):
    model.eval()
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) for x in batches])
""",
    ),
}
