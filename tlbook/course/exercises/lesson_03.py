"""Exercises of lesson 03."""

import numpy as np
import torch

from tlbook.course.exercises import Exercise


def _pool_quarters(answer):
    z = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    got = answer(z)
    assert isinstance(got, torch.Tensor), f"It should return a tensor, it returned {type(got).__name__}."
    assert tuple(got.shape) != (3, 5), "That is one mean a channel, over the whole map: take one for each quarter."
    assert not (got.ndim == 4 and got.numel() == 60), (
        f"The numbers may be right, the shape is {tuple(got.shape)}: flatten it, (3, 20)."
    )
    assert tuple(got.shape) == (3, 20), f"(3, 5, 4, 6) should become (3, 20), it became {tuple(got.shape)}."
    upper, lower = z[:, :, :2], z[:, :, 2:]
    quarters = [half[..., columns] for half in (upper, lower) for columns in (slice(0, 3), slice(3, 6))]

    def alike(parts):
        return torch.allclose(got.float(), torch.cat(parts, 1), atol=1e-5)

    means = [q.mean((2, 3)) for q in quarters]
    assert not alike([torch.stack(means, 2).flatten(1)]), (
        "The means are right, their order is not: you have the four of the first channel, then the four of the second. "
        "All channels of the upper left quarter come first. Move the channels to the end before you flatten."
    )
    assert not alike([means[i] for i in (0, 2, 1, 3)]), (
        "The means are right, their order is not: go along the rows, so upper *right* comes second."
    )
    assert not alike([z.mean((2, 3))] * 4), "That is the mean of the whole map, four times."
    assert not alike([z[:, :, i::2, j::2].mean((2, 3)) for i in (0, 1) for j in (0, 1)]), (
        "z[:, :, ::2, ::2] takes every second position. A quarter is a connected part: z[:, :, :H // 2]."
    )
    assert not alike([q.amax((2, 3)) for q in quarters]), "That is the maximum of each quarter. We want the mean."
    assert not alike([q.sum((2, 3)) for q in quarters]), (
        "That is the sum: it grows with the size of the image, so features of two sizes could not be compared."
    )
    assert alike(means), (
        "Upper left, upper right, lower left, lower right: C means of each, every one over H/2 × W/2 positions."
    )
    other = answer(torch.arange(8.0).view(1, 2, 2, 2))
    assert other.flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7], (
        "It must hold for other sizes too: take H and W from z.shape."
    )


def _standardise(answer):
    rng = np.random.default_rng(0)
    train, test = rng.normal(3, 5, (50, 4)), rng.normal(1, 2, (20, 4))
    a, b = (np.asarray(part) for part in answer(train.copy(), test.copy()))
    mean, deviation = train.mean(0), train.std(0)
    both = np.concatenate([train, test])
    assert a.shape == train.shape and b.shape == test.shape, "Return both, in the shapes they came in: (train, test)."
    assert not np.allclose(b, (test - both.mean(0)) / both.std(0)), (
        "The mean and deviation of train and test together: the test set has then taken part in the fit. "
        "What is learned, these two numbers too, is learned on the training rows."
    )
    assert not np.allclose(b, (test - test.mean(0)) / test.std(0)), (
        "The test rows were standardised by themselves: a difference between the panels is gone before it is judged. "
        "Use the training rows' mean and deviation for both."
    )
    assert not np.allclose(b, (test - train.mean()) / train.std()), (
        "One mean for all features. Each column has its own scale: take mean and deviation along axis 0."
    )
    assert not np.allclose(b, test - mean), "Centred, but not scaled: divide by the training rows' standard deviation."
    ddof = train.std(0, ddof=1)
    right = np.allclose(a, (train - mean) / deviation) and np.allclose(b, (test - mean) / deviation)
    assert right or (np.allclose(a, (train - mean) / ddof) and np.allclose(b, (test - mean) / ddof)), (
        "Subtract the training mean of each column and divide by its training deviation, in train and test alike."
    )


EXERCISES = {
    "03.1": Exercise(
        _pool_quarters,
        "Cut z into four by slices of the last two axes, average each, and put the four (B, C) side by side "
        "with torch.cat(…, 1).",
        "def answer(z):\n    h, w = z.shape[2] // 2, z.shape[3] // 2\n"
        "    rows, columns = (slice(0, h), slice(h, None)), (slice(0, w), slice(w, None))\n"
        "    return torch.cat([z[:, :, r, c].mean((2, 3)) for r in rows for c in columns], 1)",
    ),
    "03.2": Exercise(
        _standardise,
        "Compute mean and deviation once, from train and along axis 0, and use them twice.",
        "def answer(train, test):\n    mean, deviation = train.mean(0), train.std(0)\n"
        "    return (train - mean) / deviation, (test - mean) / deviation",
    ),
}
