"""Exercises of lesson 09."""

import numpy as np
import torch

from tlbook.course.exercises import Exercise


def _mean_over_words(answer):
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(3, 5, 4, generator=draw)
    is_word = torch.arange(5) < torch.tensor([[5], [2], [3]])
    got = answer(z.clone(), is_word.clone())
    assert isinstance(got, torch.Tensor), f"It should return a tensor, it returned {type(got).__name__}."
    assert tuple(got.shape) != (3, 5), "That averages over the 4 features. Keep them, average over the tokens."
    assert tuple(got.shape) == (3, 4), f"(3, 5, 4) should become (3, 4), it became {tuple(got.shape)}."
    assert not torch.allclose(got, z.mean(1)), (
        "The places that are only filled up take part, as if they were words: a text would get other features in "
        "a batch with a longer one."
    )
    total = (z * is_word[..., None]).sum(1)
    assert not torch.allclose(got, total), "That is the sum: a long text would get longer vectors. Divide by its words."
    assert not torch.allclose(got, total / 5), (
        "The sum is right, the divisor is not: each text has its own number of words, not the 5 places of the batch."
    )
    assert not torch.allclose(got, z[:, 0]), "That is the first token. All words of a text take part in the mean."
    assert torch.allclose(got, total / is_word.sum(1, keepdim=True), atol=1e-6), (
        "For each text: the sum of the vectors of its words, divided by how many words it has."
    )


def _interval(answer):
    scores = [0.91, 0.55, 0.72, 0.64, 0.83, 0.49]
    low, high = (float(end) for end in answer(list(scores)))
    n, mean, deviation = 6, np.mean(scores), np.std(scores, ddof=1)
    middle, half = (low + high) / 2, (high - low) / 2
    assert low < high, "Return (low, high), the lower end first."
    assert abs(middle - mean) < 1e-3, f"The middle should be the mean of the scores, {mean:.3f}; it is {middle:.3f}."
    t = 2.5706
    assert abs(half - t * deviation) > 2e-3, (
        "That says where a *single* new speaker may lie. For the mean, divide the deviation by the root of 6."
    )
    assert abs(half - 1.96 * deviation / n**0.5) > 2e-3, (
        "1.96 is for many scores. With six, whose deviation is itself a guess, take Student's t with 5 degrees of "
        "freedom: 2.57."
    )
    assert abs(half - t * np.std(scores) / n**0.5) > 2e-3, (
        "np.std divides by 6; from a sample one divides by 5: np.std(scores, ddof=1)."
    )
    assert abs(half - 2.4469 * deviation / n**0.5) > 2e-3, "Six scores leave 5 degrees of freedom, not 6."
    assert abs(half - t * deviation / n**0.5) < 2e-3, "mean ± 2.57 · deviation / √6."
    other = [float(end) for end in answer([0.2, 0.4, 0.3])]
    assert np.allclose(other, (0.3 - 0.2484, 0.3 + 0.2484), atol=2e-3), (
        "For other scores it should change: with three of them there are 2 degrees of freedom."
    )


def _letters(answer):
    got = answer("héllo", 8)
    assert isinstance(got, torch.Tensor), f"It should return a tensor, it returned {type(got).__name__}."
    assert got.dtype == torch.int64, f"Numbers of letters are integers (int64), these are {got.dtype}."
    assert got.shape == (8,), (
        f"All texts of a data set must have one shape, here (8,); it is {tuple(got.shape)}: fill up what is short."
    )
    assert answer("a longer text than that", 8).shape == (8,), "A text that is longer must be cut."
    want = [104, 233, 108, 108, 111]
    assert got[5:].tolist() != [32, 32, 32], "Filled up with spaces, which are letters of texts too: fill up with 0."
    assert got[5:].tolist() == [0, 0, 0], "Fill up with 0, after the text."
    assert got[:5].tolist() == want, f"ord() gives a letter's number: 'héllo' is {want}; it is {got[:5].tolist()}."
    low = answer("Ж中", 2)
    assert int(low.max()) < 256, "Letters beyond 255 must come to 0 … 255 too, or the table of 256 vectors ends: % 256."
    assert low.tolist() == [ord("Ж") % 256, ord("中") % 256], "The number of the letter modulo 256."
    assert answer("", 3).tolist() == [0, 0, 0], "An empty text is filled up as well."


EXERCISES = {
    "09.1": Exercise(
        _mean_over_words,
        hint="Multiply by is_word[..., None], sum over axis 1, and divide by is_word.sum(1, keepdim=True).",
        solution="""
def answer(z, is_word):
    return (z * is_word[..., None]).sum(1) / is_word.sum(1, keepdim=True)
""",
    ),
    "09.2": Exercise(
        _interval,
        hint="scipy.stats.t.ppf(0.975, n - 1) times np.std(scores, ddof=1) / np.sqrt(n), on both sides of the mean.",
        solution="""
import numpy as np
from scipy import stats


def answer(scores):
    n, mean = len(scores), np.mean(scores)
    half = stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1) / np.sqrt(n)
    return mean - half, mean + half
""",
    ),
    "09.3": Exercise(
        _letters,
        hint="ord(letter) % 256 for each letter of text[:length], then zeros up to length.",
        solution="""
import torch


def answer(text, length):
    numbers = [ord(letter) % 256 for letter in text[:length]]
    return torch.tensor(numbers + [0] * (length - len(numbers)), dtype=torch.int64)
""",
    ),
}
