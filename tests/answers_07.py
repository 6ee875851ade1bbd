"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import numpy as np

import tlbook as tl
from tlbook.course import bug_hunt


def verdict(is_loss):
    """An answer to 07.1 with another idea of what a decided loss is."""
    words = {(1, 1): "both", (1, 0): "domain shift", (0, 1): "negative transfer", (0, 0): "neither"}
    return lambda own, without: words[int(is_loss(*own)), int(is_loss(*without))]


def nce(z, y, reduce=np.mean, sign=1, log=np.log):
    return sign * reduce([log((y[z == a] == b).mean()) for a, b in zip(z, y, strict=True)])


def by_class(z, y):
    return np.mean([np.mean([np.log((y[z == a] == b).mean()) for b in y[z == a]]) for a in np.unique(z)])


def joint(z, y):
    return np.mean([np.log(((z == a) & (y == b)).mean()) for a, b in zip(z, y, strict=True)])


def cheapest(p, y, missed, alarm=1):
    return min(np.r_[p, 1.01], key=lambda t: (missed * ((p < t) & (y == 1)) + alarm * ((p >= t) & (y == 0))).mean())


RIGHT = {
    "07.1": [verdict(lambda low, high: high < 0)],
    "07.2": [lambda z, y: tl.ranking.nce(z, y), nce],
    "07.3": [cheapest, lambda p, y, missed: float(cheapest(p, y, missed))],
}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "middle of the interval": ("07.1", verdict(lambda low, high: low + high < 0), "no verdict"),
    "low end": ("07.1", verdict(lambda low, high: low < 0), "alone"),
    "gains taken for losses": ("07.1", verdict(lambda low, high: not low < 0 < high), "the source *helps*"),
    "roles swapped": ("07.1", lambda own, without: verdict(lambda low, high: high < 0)(without, own), "alone"),
    "a boolean": ("07.1", lambda own, without: own[1] < 0, "Return one of"),
    "sign": ("07.2", lambda z, y: nce(z, y, sign=-1), "The sign"),
    "arguments swapped": ("07.2", lambda z, y: nce(y, z), "Swap the roles"),
    "bits": ("07.2", lambda z, y: nce(z, y, log=np.log2), "in bits"),
    "joint": ("07.2", joint, "the joint entropy"),
    "unweighted": ("07.2", by_class, "weight them by p(z)"),
    "not a number": ("07.2", lambda z, y: z, "Return one number"),
    "fewest mistakes": ("07.3", lambda p, y, missed: cheapest(p, y, 1), "fewest mistakes"),
    "price on the wrong side": ("07.3", lambda p, y, missed: cheapest(p, y, 1, missed), "wrong side"),
    "a half": ("07.3", lambda p, y, missed: 0.5, "a cell costs"),
    "several": ("07.3", lambda p, y, missed: p, "Return one threshold"),
    "fixed price": ("07.3", lambda p, y, missed: cheapest(p, y, 10), "any price"),
}


def is_low(run):
    """A symptom, not evidence: several faults bring the AUC down."""
    return run.score.auc < 0.72


HUNT = {f"07.{k}": fault for k, fault in enumerate(bug_hunt._FAULT_OF.values(), 4)}
ANOTHER = dict(zip(HUNT, [*list(HUNT.values())[1:], *list(HUNT.values())[:1]], strict=True))
RIGHT |= {number: [(fault, bug_hunt.EVIDENCE[fault])] for number, fault in HUNT.items()}
for number, fault in HUNT.items():
    letter = "ABCDEFGH"[int(number[3:]) - 4]
    only_this = (fault, lambda run, letter=letter: run is bug_hunt.suspects()[letter])
    WRONG |= {
        f"{number} another name": (number, (ANOTHER[number], bug_hunt.EVIDENCE[fault]), f"Run {letter} is innocent"),
        f"{number} no pair": (number, fault, "Hand in a pair"),
        f"{number} a name of one's own": (number, ("gremlins", is_low), "The names are"),
        f"{number} evidence of another": (number, (fault, bug_hunt.EVIDENCE[ANOTHER[number]]), "does not convict run"),
        f"{number} convicts everyone": (number, (fault, lambda run: True), "the sound run as well"),
        f"{number} this run alone": (number, only_this, "is about this run alone"),
        f"{number} a number": (number, (fault, lambda run: 0.7), "must answer True or False"),
    }
    if fault in ("forgotten head", "swapped classes", "train mode", "stale features"):
        WRONG[f"{number} a symptom"] = (number, (fault, is_low), "a symptom that several faults share")
