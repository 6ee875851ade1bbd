"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy


def by_torch(z, y, q, tau, share):
    z, y, q = torch.from_numpy(z), torch.from_numpy(y), torch.from_numpy(q)
    soft = cross_entropy(z / tau, (q.log() / tau).softmax(1))
    return float((1 - share) * cross_entropy(z, y) + share * tau**2 * soft)


def loss(power=2, teacher=True, student=True, turned=False, total=False):
    """The loss with a mistake."""

    def answer(z, y, q, tau, share):
        z, y, q = torch.from_numpy(z), torch.from_numpy(y), torch.from_numpy(q)
        soft = cross_entropy(z / tau if student else z, (q.log() / tau).softmax(1) if teacher else q)
        a, b = (share, 1 - share) if turned else (1 - share, share)
        return float(a * cross_entropy(z, y) + b * tau**power * soft) * (len(y) if total else 1)

    return answer


def through(w, scale):
    return np.clip(np.rint(w / scale), -127, 127).astype(np.int8).astype(np.float32) * scale


def one_by_one(w):
    return np.stack([through(filter_, np.abs(filter_).max() / 127) for filter_ in w])


RIGHT = {
    "08.1": [by_torch],
    "08.2": [lambda n, e, s, f, g: n * (f * s + e * g - e * g * s)],
    "08.3": [one_by_one],
}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "no square": ("08.1", loss(power=0), "Without τ²"),
    "a sharp teacher": ("08.1", loss(teacher=False), "softened too"),
    "a sharp student": ("08.1", loss(student=False), "same temperature"),
    "shares turned round": ("08.1", loss(turned=True), "share of the teacher"),
    "a sum": ("08.1", loss(total=True), "their mean"),
    "of each example": ("08.1", lambda z, y, q, tau, share: z[:, 0], "one number"),
    "prefix every epoch": ("08.2", lambda n, e, s, f, g: e * n * (f * s + g * (1 - s)), "runs once"),
    "prefix for nothing": ("08.2", lambda n, e, s, f, g: e * n * g * (1 - s), "has to run once"),
    "a whole forward pass": ("08.2", lambda n, e, s, f, g: n * f + e * n * g * (1 - s), "only a share"),
    "whole steps": ("08.2", lambda n, e, s, f, g: n * f * s + e * n * g, "the suffix alone"),
    "back through the prefix": ("08.2", lambda n, e, s, f, g: n * g * s + e * n * g * (1 - s), "Nothing flows back"),
    "one scale": ("08.3", lambda w: through(w, np.abs(w).max() / 127), "One scale"),
    "integers": ("08.3", lambda w: np.rint(127 * w / np.abs(w).max((1, 2, 3), keepdims=True)), "Come back"),
    "nothing": ("08.3", lambda w: w, "as they were"),
    "input channels": ("08.3", lambda w: through(w, np.abs(w).max((0, 2, 3), keepdims=True) / 127), "half a step"),
}
