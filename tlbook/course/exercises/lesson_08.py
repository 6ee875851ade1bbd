"""Exercises of lesson 08."""

from itertools import count

import numpy as np
from scipy.special import log_softmax, softmax

from tlbook.course.exercises import Exercise


def _loss(z, y, q, tau, share):
    hard = -log_softmax(z, axis=1)[np.arange(len(y)), y]
    softened = softmax(np.log(q) / tau, axis=1)
    soft = -(softened * log_softmax(z / tau, axis=1)).sum(1)
    return hard, soft, ((1 - share) * hard + share * tau**2 * soft).mean()


def _distillation(answer):
    rng = np.random.default_rng(0)
    z, y, q = 2 * rng.normal(size=(6, 3)), np.arange(6) % 3, softmax(3 * rng.normal(size=(6, 3)), axis=1)
    tau, share = 3.0, 0.3
    got = answer(z.copy(), y.copy(), q.copy(), tau, share)
    assert np.ndim(got) == 0, f"Return one number, the mean over the examples; this has shape {np.shape(got)}."
    hard, soft, expected = _loss(z, y, q, tau, share)
    sharp = -(q * log_softmax(z / tau, axis=1)).sum(1)
    plain = -(softmax(np.log(q) / tau, axis=1) * log_softmax(z, axis=1)).sum(1)

    def like(value):
        return np.isclose(float(got), value, rtol=1e-6)

    assert not like(((1 - share) * hard + share * soft).mean()), "Without τ² the teacher's gradient falls as 1/τ²."
    assert not like((share * hard + (1 - share) * tau**2 * soft).mean()), (
        "λ is the share of the teacher, not the label's."
    )
    assert not like(((1 - share) * hard + share * tau**2 * sharp).mean()), (
        "The teacher's probabilities are softened too: q_τ is proportional to q^(1/τ)."
    )
    assert not like(((1 - share) * hard + share * tau**2 * plain).mean()), (
        "Student and teacher are compared at the same temperature: divide the student's logits by τ."
    )
    assert not like(expected * len(y)), "That is the sum over the examples; the loss is their mean."
    assert like(expected), f"On a small example the loss is {expected:.4f}, yours {float(got):.4f}."
    assert np.isclose(float(answer(z, y, q, 1.0, 0.0)), hard.mean()), "With λ = 0 it should be the cross-entropy alone."


def _halves(answer):
    for costs in ((0.55, 10.0, 36.0), (0.52, 1.0, 4.0), (0.8, 0.01, 0.03)):
        _judge_epochs(float(answer(*costs)), *costs)


def _judge_epochs(got, share, forward, step):
    seconds = ((e, share * forward + e * step * (1 - share), e * step) for e in count(1))
    expected = next(e for e, stored, everything in seconds if stored <= everything / 2)
    exact = share * forward / (step * (share - 0.5))

    def like(value):
        return np.isclose(got, value) and value != expected

    assert not like(exact), "That is where half is reached exactly. Epochs are whole: take the next whole number."
    assert not like(np.floor(exact)), "One epoch less is not enough: round up, not down."
    assert not like(np.ceil(exact / share)), "The prefix is only a share of a forward pass."
    assert not like(np.ceil(exact * step / forward)), "Nothing flows back through the prefix: it costs a forward pass."
    assert not like(0), "The prefix has to run once, too, and its seconds have to be won back."
    assert not like(np.ceil(forward / step)), "There any second is saved: the prefix is to save half of all seconds."
    assert got == expected, (
        f"With share {share:g}, forward {forward:g} and step {step:g} it should be {expected}, not {got:g}."
    )


def _quantised(answer):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3, 2, 2)).astype(np.float32) * np.array([1, 0.1, 0.01, 3], np.float32)[:, None, None, None]
    got = np.asarray(answer(w.copy()))
    assert got.shape == w.shape, f"Return an array of the shape that came in, {w.shape}; this has {got.shape}."
    assert not np.array_equal(got, w), "These are the weights as they were: round them to whole multiples of a step."

    def through(scale):
        return np.clip(np.round(w / scale), -127, 127) * scale

    per_channel = np.abs(w).max((1, 2, 3), keepdims=True) / 127
    whole = np.abs(w).max() / 127
    assert got.dtype.kind == "f", f"Come back from the integers: multiply by the step again; this is {got.dtype}."
    assert not np.allclose(got, np.round(w / per_channel)), "Come back from the integers: multiply by the step again."
    assert not np.allclose(got, through(whole), atol=whole / 4), (
        "One step for the whole tensor is coarse for a filter of small weights. Give each output channel "
        "its own, the largest |w| of w[k] over 127."
    )
    worst = (np.abs(got - w).max((1, 2, 3)) / per_channel.ravel()).max()
    assert worst <= 0.51, f"Rounding errs by half a step at most; yours by {worst:.1f} steps of its channel."


EXERCISES = {
    "08.1": Exercise(
        _distillation,
        hint="log q / τ are logits of the softened teacher: scipy.special has softmax and log_softmax, with axis=1.",
        solution="""
from scipy.special import log_softmax, softmax

def answer(z, y, q, tau, share):
    hard = -log_softmax(z, axis=1)[np.arange(len(y)), y]
    softened = softmax(np.log(q) / tau, axis=1)
    soft = -(softened * log_softmax(z / tau, axis=1)).sum(1)
    return ((1 - share) * hard + share * tau**2 * soft).mean()
""",
    ),
    "08.2": Exercise(
        _halves,
        hint="For an image and E epochs: share · forward + E · step · (1 − share), and that is to be ≤ E · step / 2.",
        solution="""
import math

def answer(share, forward, step):
    return math.ceil(share * forward / (step * (share - 0.5)))
""",
    ),
    "08.3": Exercise(
        _quantised,
        hint="np.abs(w).max((1, 2, 3), keepdims=True) / 127 is a step for each output channel.",
        solution="""
def answer(w):
    step = np.abs(w).max((1, 2, 3), keepdims=True) / 127
    return np.round(w / step) * step
""",
    ),
}
