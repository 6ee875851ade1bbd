"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import numpy as np
import torch
from scipy import stats


def by_weights(z, is_word):
    weights = is_word.float() / is_word.sum(1, keepdim=True)
    return torch.einsum("btd,bt->bd", z, weights)


def student(scores):
    return stats.t.interval(0.95, len(scores) - 1, loc=np.mean(scores), scale=stats.sem(scores))


def around(factor, ddof=1, root=True):
    def answer(scores):
        half = factor * np.std(scores, ddof=ddof) / (len(scores) ** 0.5 if root else 1)
        return np.mean(scores) - half, np.mean(scores) + half

    return answer


def codes(text, length, fill=0, modulo=256, cut=True, dtype=torch.int64):
    numbers = [ord(letter) % modulo for letter in (text[:length] if cut else text)]
    return torch.tensor(numbers + [fill] * (length - len(numbers)), dtype=dtype)


def padded(text, length):
    x = torch.zeros(length, dtype=torch.long)
    x[: min(length, len(text))] = torch.tensor([ord(c) % 256 for c in text[:length]], dtype=torch.long)
    return x


RIGHT = {"09.1": [by_weights], "09.2": [student], "09.3": [padded]}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "filling counts": ("09.1", lambda z, w: z.mean(1), "as if they were words"),
    "sum": ("09.1", lambda z, w: (z * w[..., None]).sum(1), "Divide by its words"),
    "divided by places": ("09.1", lambda z, w: (z * w[..., None]).mean(1), "not the 5 places"),
    "features": ("09.1", lambda z, w: z.mean(2), "average over the tokens"),
    "first": ("09.1", lambda z, w: z[:, 0], "the first token"),
    "numpy": ("09.1", lambda z, w: z.mean(1).numpy(), "return a tensor"),
    "normal": ("09.2", around(1.96), "1.96 is for many"),
    "population": ("09.2", around(2.5706, ddof=0), "ddof=1"),
    "one speaker": ("09.2", around(2.5706, root=False), "single"),
    "six degrees": ("09.2", around(2.4469), "5 degrees of freedom, not 6"),
    "six alone": ("09.2", around(2.5706), "For other scores"),
    "turned round": ("09.2", lambda s: student(s)[::-1], "lower end first"),
    "not filled": ("09.3", lambda t, n: torch.tensor([ord(c) % 256 for c in t[:n]]), "fill up what is short"),
    "not cut": ("09.3", lambda t, n: codes(t, n, cut=False), "must be cut"),
    "spaces": ("09.3", lambda t, n: codes(t, n, fill=32), "Filled up with spaces"),
    "no modulo": ("09.3", lambda t, n: codes(t, n, modulo=10**7), "% 256"),
    "floats": ("09.3", lambda t, n: codes(t, n, dtype=torch.float32), "integers"),
}
