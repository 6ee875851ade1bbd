"""Exercises of lesson 03."""

import numpy as np
import torch

from tlbook.course.exercises import Exercise


def _pool(answer):
    z = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    got = answer(z)
    assert isinstance(got, torch.Tensor), f"It should return a tensor, it returned {type(got).__name__}."
    assert tuple(got.shape) != (4, 5, 3), (
        "That averages over the channels. Keep the 6 channels, average over the positions."
    )
    assert tuple(got.shape) != (6, 5, 3), (
        "That averages over the images of the batch: each image must keep its own features."
    )
    assert tuple(got.shape) != (4, 6, 1, 1), (
        "The numbers may be right, the shape is (4, 6, 1, 1): drop the two empty axes."
    )
    assert tuple(got.shape) == (4, 6), f"(4, 6, 5, 3) should become (4, 6), it became {tuple(got.shape)}."
    assert not torch.allclose(got, z.amax((2, 3))), (
        "That is the maximum over positions. This backbone was trained with the mean: its head expects it."
    )
    assert not torch.allclose(got, z.sum((2, 3))), (
        "That is the sum: it grows with the size of the image, so features of two sizes could not be compared."
    )
    assert torch.allclose(got, z.mean((2, 3)), atol=1e-6), "Each of the 6 features is the mean of its 5 × 3 map."


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
        _pool,
        "z.mean takes a tuple of axes; (B, C, H, W) has its positions on the last two.",
        "def answer(z):\n    return z.mean((2, 3))",
    ),
    "03.2": Exercise(
        _standardise,
        "Compute mean and deviation once, from train and along axis 0, and use them twice.",
        "def answer(train, test):\n    mean, deviation = train.mean(0), train.std(0)\n"
        "    return (train - mean) / deviation, (test - mean) / deviation",
    ),
}
