"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import math

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


def tried_one_by_one(share, forward, step):
    epochs = 1
    while share * forward + epochs * step * (1 - share) > epochs * step / 2:
        epochs += 1
    return epochs


RIGHT = {
    "08.1": [by_torch],
    "08.2": [tried_one_by_one],
    "08.3": [one_by_one],
}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "no square": ("08.1", loss(power=0), "Without τ²"),
    "a sharp teacher": ("08.1", loss(teacher=False), "softened too"),
    "a sharp student": ("08.1", loss(student=False), "same temperature"),
    "shares turned round": ("08.1", loss(turned=True), "share of the teacher"),
    "a sum": ("08.1", loss(total=True), "their mean"),
    "of each example": ("08.1", lambda z, y, q, tau, share: z[:, 0], "one number"),
    "not whole": ("08.2", lambda s, f, g: s * f / (g * (s - 0.5)), "Epochs are whole"),
    "rounded down": ("08.2", lambda s, f, g: int(s * f / (g * (s - 0.5))), "round up"),
    "a whole forward pass": ("08.2", lambda s, f, g: math.ceil(f / (g * (s - 0.5))), "only a share"),
    "back through the prefix": ("08.2", lambda s, f, g: math.ceil(s / (s - 0.5)), "Nothing flows back"),
    "prefix for nothing": ("08.2", lambda s, f, g: 0, "has to run once"),
    "any saving": ("08.2", lambda s, f, g: math.ceil(f / g), "save half"),
    "another rule": ("08.2", lambda s, f, g: 100, "it should be 4, not 100"),
    "one scale": ("08.3", lambda w: through(w, np.abs(w).max() / 127), "One step"),
    "integers": ("08.3", lambda w: np.rint(127 * w / np.abs(w).max((1, 2, 3), keepdims=True)), "Come back"),
    "nothing": ("08.3", lambda w: w, "as they were"),
    "input channels": ("08.3", lambda w: through(w, np.abs(w).max((0, 2, 3), keepdims=True) / 127), "half a step"),
}
