"""Exercises of lesson 07 and of its appendices, on decisions and on the bug hunt."""

import numpy as np

from tlbook.course.exercises import Exercise, hunt

_VERDICTS = ("both", "domain shift", "negative transfer", "neither")


def _verdict(answer):
    def case(own, without, expected, why):
        got = answer(own, without)
        assert got in _VERDICTS, f"Return one of {', '.join(_VERDICTS)}; got {got!r}."
        assert got == expected, why

    case(
        (-0.20, -0.03), (-0.04, 0.09), "domain shift", "The source's probe is worse than the target's own, and that is "
        "decided; adding the source is not shown to harm. That is domain shift alone."
    )  # fmt: skip
    case(
        (-0.04, 0.05), (-0.24, -0.04), "negative transfer", "With the source the target is worse than without, and "
        "that is decided; that is negative transfer, whatever the shift."
    )  # fmt: skip
    case((-0.30, -0.10), (-0.20, -0.02), "both", "Both intervals lie below 0.")
    case(
        (-0.15, 0.01), (-0.12, 0.02), "neither", "Both intervals include 0, so nothing is decided: the middle of an "
        "interval is no verdict."
    )  # fmt: skip
    case(
        (0.01, 0.08), (0.02, 0.10), "neither", "Both intervals lie above 0: the source *helps*. Only differences below "
        "0 are a loss."
    )  # fmt: skip


def _nce(answer):
    rng = np.random.default_rng(0)
    z, y = rng.integers(0, 5, 300), rng.integers(0, 2, 300)
    z[y == 1] = np.where(rng.random((y == 1).sum()) < 0.6, 0, z[y == 1])
    joint = np.array([[((z == a) & (y == b)).mean() for b in (0, 1)] for a in range(5)])
    plogp = np.where(joint > 0, joint * np.log(joint / joint.sum(1, keepdims=True).clip(1e-12)).clip(-50), 0)
    right = plogp.sum()
    got = answer(z, y)
    assert np.ndim(got) == 0, f"Return one number, not something of shape {np.shape(got)}."
    got = float(got)
    other = (joint * np.log(joint / joint.sum(0)).clip(-50)).sum()
    whole = (joint * np.log(joint.clip(1e-12))).sum()
    assert not np.isclose(got, -right), "The sign: it is the *negative* conditional entropy, at most 0."
    assert not np.isclose(got, other), "That is −H(Z | Y): how well the label tells the source's class. Swap the roles."
    assert not np.isclose(got, whole), "That is the joint entropy: divide p(y, z) by p(z) inside the logarithm."
    assert not np.isclose(got, right / np.log(2)), "That is in bits: use the natural logarithm."
    each = (plogp.sum(1) / joint.sum(1)).mean()
    assert not np.isclose(got, each), "Classes of the source count by how often they occur: weight them by p(z)."
    assert np.isclose(got, right), f"For the test data it is {right:.4f}, not {got:.4f}."
    assert np.isclose(float(answer(np.arange(4), np.array([0, 0, 1, 1]))), 0), (
        "Where each class of the source has one label, the entropy is 0: a count of 0 contributes nothing."
    )


def _threshold(answer):
    rng = np.random.default_rng(1)
    y = (rng.random(400) < 0.3).astype(int)
    p = np.round(1 / (1 + np.exp(-(1.5 * (2 * y - 1) + 1.5 * rng.normal(size=400)) + 1)), 3)

    def cost(t, missed):
        return (missed * ((p < t) & (y == 1)) + ((p >= t) & (y == 0))).mean()

    got = answer(p, y, 10)
    assert np.ndim(got) == 0, f"Return one threshold, not something of shape {np.shape(got)}."
    best = min(cost(t, 10) for t in np.r_[p, 1.01])
    words = f"At {float(got):.2f} a cell costs {cost(got, 10):.3f}; the lowest there is is {best:.3f}."
    accurate = min(np.r_[p, 1.01], key=lambda t: cost(t, 1))
    assert cost(got, 10) <= best or not np.isclose(cost(got, 1), cost(accurate, 1)), (
        f"{words} That is the threshold with the fewest mistakes: a miss counts as much as a false alarm there."
    )
    turned = min(np.r_[p, 1.01], key=lambda t: (((p < t) & (y == 1)) + 10 * ((p >= t) & (y == 0))).mean())
    assert cost(got, 10) <= best or not np.isclose(got, turned), (
        f"{words} The price is on the wrong side: it is the *missed defect* that costs ten."
    )
    assert cost(got, 10) <= best + 1e-9, words
    assert cost(answer(p, y, 1), 1) <= min(cost(t, 1) for t in np.r_[p, 1.01]) + 1e-9, (
        "It must work for any price; for a price of 1 yours is not the cheapest."
    )


EXERCISES = {
    "07.1": Exercise(
        _verdict,
        hint="A loss is decided where the whole interval lies below 0. Which comparison belongs to which word?",
        solution="""
def answer(source_minus_own, with_minus_without):
    shift, harm = source_minus_own[1] < 0, with_minus_without[1] < 0
    return {(True, True): "both", (True, False): "domain shift",
            (False, True): "negative transfer", (False, False): "neither"}[shift, harm]
""",
    ),
    "07.2": Exercise(
        _nce,
        hint="The mean over examples of log p(y | z), where p(y | z) is the share of label y among the examples of z.",
        solution="""
def answer(z, y):
    return np.mean([np.log((y[z == a] == b).mean()) for a, b in zip(z, y)])
""",
    ),
    "07.3": Exercise(
        _threshold,
        hint="Try every probability that occurs as the threshold, and one above all; count what each would cost.",
        solution="""
def answer(p, y, missed):
    def cost(t):
        return (missed * ((p < t) & (y == 1)) + ((p >= t) & (y == 0))).mean()

    return min(np.r_[p, 1.01], key=cost)
""",
    ),
} | hunt.EXERCISES
