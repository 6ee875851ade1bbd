"""A classifier's `tlbook.decisions.Decider`: fitted when it is saved, measured on its test, kept in its folder."""

import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tlbook import decisions
from tlbook.splits import stratified_parts
from tlbook.training import checkpoints

FILE = "decisions.safetensors"
STRANGE = 0.05  # "none of these" below this share of validation examples that are as far


class Both(nn.Module):
    """A batch -> (B, K + D): logits, and the features that "none of these" is told by."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch):
        reads = self.encoder.reads
        pooled = self.encoder.forward_stages(batch, tuple(dict.fromkeys((*reads, "final"))))
        return torch.cat([self.encoder.head(torch.cat([pooled[s] for s in reads], 1)), pooled["final"]], 1)


def fit_decider(found, data, split):
    """The Decider of a `FineTuned`, from examples that it was not trained on; None where there are too few.

    Those are the ones of ``found.held_out``, or else of ``split.val``. A classifier that was chosen among several and
    fitted anew has seen those of val.
    """
    if found.held_out is None and (found.tried or len(split.val) < decisions.FEWEST):
        return None
    rows = split.val if found.held_out is None else np.asarray(found.held_out[0])
    if len(rows) < decisions.FEWEST:
        return None
    labels = data.labels[rows]
    if found.held_out is not None and not np.array_equal(labels, found.held_out[3]):
        warnings.warn("nothing to decide by is saved: data is not that of the training", stacklevel=4)
        return None
    groups = unseen_groups(data, rows, split.train if found.held_out is None else ())  # folds keep groups whole
    if found.held_out is None:
        p, X = found.probabilities_and_features(data.subset(rows))
        _, bank = found.probabilities_and_features(data.subset(some(split.train)))
        return decisions.fit(p, labels, X, bank, groups)
    _, p, far, _ = found.held_out
    kept = some(np.arange(len(rows)))
    _, bank = found.probabilities_and_features(data.subset(rows[kept]))
    if far is None:  # of a frozen network
        far = _far(bank, labels[kept], None if groups is None else groups[kept])
    return replace(decisions.fit(p, labels, bank, bank, groups, far=far), by_folds=True)


def unseen_groups(data, rows, trained_on):
    """The groups at ``rows``, or None: without groups, and where some of these were trained on, which tells of none."""
    if data.groups is None:
        return None
    groups = np.asarray(data.groups)
    is_torn = np.isin(groups[rows], groups[np.asarray(trained_on, dtype=np.int64)]).any()
    return None if is_torn else groups[rows]


def some(rows):
    """As many of the rows as a Decider keeps features of."""
    return np.sort(np.random.default_rng(0).permutation(rows)[: decisions.BANK])


def _far(X, labels, groups):
    """(n,) the distance of each example to those of other parts, groups whole."""
    parts = 4 if groups is None else min(4, len(np.unique(groups)))
    part = stratified_parts(labels, groups, [1 / parts] * parts, np.random.default_rng(0))
    far = np.zeros(len(X))
    for k in range(parts):
        far[part == k] = decisions.distances(X[part == k], X[part != k])
    return far


def measured(decider, p, X, labels, groups=None):
    """What the promises come to on a test: {what: number}, by the average group where there are groups."""
    calibrated, rows = decider.probabilities(p), np.arange(len(labels))
    members, strange = decider.sets(calibrated), decider.known(X) < STRANGE
    names, of = np.unique(rows if groups is None else groups, return_inverse=True)

    def mean_over_groups(hit):
        return float((np.bincount(of, hit) / np.bincount(of)).mean())

    return {
        "log loss": {"raw": _log_loss(p, labels), "calibrated": _log_loss(calibrated, labels)},
        "calibration error": {
            "raw": decisions.calibration_error(p, labels),
            "calibrated": decisions.calibration_error(calibrated, labels),
        },
        "reliability": list(decisions.reliability(calibrated, labels)),
        "coverage": mean_over_groups(members[rows, labels]),
        "classes in a set": float(members.sum(1).mean()),
        "strange": mean_over_groups(strange),
        "groups": None if groups is None else len(names),
    }


def _log_loss(p, labels):
    return float(-np.log(p[np.arange(len(labels)), labels].clip(1e-12, 1)).mean()) + 0.0  # no minus zero


def facts_of(decider):
    """The numbers of a Decider, as JSON has them: null is an infinite limit."""
    return {
        "temperature": decider.T,
        "limit": decider.limit if np.isfinite(decider.limit) else None,
        "coverage": decider.coverage,
        "by_group": decider.by_group,
        "examples": decider.examples,
        "groups": decider.groups,
        "by_folds": decider.by_folds,
    }


def write(decider, folder):
    """Write a Decider to a folder."""
    tensors = {"bank": torch.from_numpy(decider.bank), "far": torch.from_numpy(decider.far)}
    checkpoints.write(folder / FILE, tensors, facts_of(decider))


def read(folder):
    """The Decider of a folder, None without one.

    Raises:
        ValueError: a damaged file, or one that was not written by `write`.
    """
    path = folder / FILE
    if not path.is_file() or path.is_symlink():
        return None
    tensors, facts = checkpoints.read(path)
    try:
        bank, far = tensors["bank"].numpy(), tensors["far"].numpy()
        T, limit, coverage = facts["temperature"], facts["limit"], facts["coverage"]
        if bank.ndim != 2 or far.ndim != 1 or not (0 < T < 100 and 0 < coverage < 1):
            raise ValueError(f"shapes {bank.shape} and {far.shape}, temperature {T}, coverage {coverage}")
        limit = np.inf if limit is None else float(limit)
        examples, by_folds = int(facts["examples"]), bool(facts.get("by_folds"))
        return decisions.Decider(
            T, limit, coverage, bool(facts["by_group"]), bank, far, examples, facts["groups"], by_folds
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not as tlbook writes it ({error}): save the model again") from None


def card(about, kind, class_names):
    """Lines of the card: what is promised, and what the test reached."""
    if not about:
        missing = "Calibrated probabilities, sets, `known` and `--cost` are missing"
        return [f"{missing}: they need {decisions.FEWEST} {kind.name} or more that it was not trained on.", ""]
    on = f"{about['examples']} {kind.name} that it was not trained on"
    if about["by_folds"]:
        on = f"the predictions of {about['examples']} {kind.name} in held-out folds, by fits that did not see them"
    on += f", of {about['groups']} groups" if about["groups"] else ""
    lines = ["## Decisions", "", f"Fitted on {on}. The probabilities that `tlbook predict` writes are"]
    lines[-1] += f" {_in_words(about['temperature'])}."
    if about["limit"] is None:
        what = "groups" if about["by_group"] else kind.name
        lines += ["", f"Too few {what} for sets that hold the true class: every set has all classes."]
    found = about.get("measured")
    if not found:
        return [*lines, ""]
    of = f"mean over {found['groups']} unseen groups" if found["groups"] else "on the test part"
    lines += ["", "| | promised | reached |", "| --- | ---: | ---: |"]
    lines += [f"| the set holds the true class ({of}) | {about['coverage']:.2f} | {found['coverage']:.2f} |"]
    lines += [f"| it is one of these, and `known` is below {STRANGE} ({of}) | {STRANGE:.2f} | {found['strange']:.2f} |"]
    lines += ["", f"A set has {found['classes in a set']:.1f} of {len(class_names)} classes on average."]
    changed = [_change(what, **found[what]) for what in ("log loss", "calibration error")]
    if any(changed):
        lines += [f"The temperature takes the {', and the '.join(filter(None, changed))}."]
    lines += ["", f"| {kind.name} | probability of the answer | share that is right |", "| ---: | ---: | ---: |"]
    lines += [f"| {r['examples']} | {r['said']:.2f} | {r['right']:.2f} |" for r in found["reliability"]]
    return [*lines, ""]


def _change(what, raw, calibrated):
    """From what to what, or "" where three digits do not show a change."""
    before, after = f"{raw:.3f}", f"{calibrated:.3f}"
    return "" if before == after else f"{what} from {before} to {after}"


def _in_words(T):
    if T == 1:
        return "left as they are: no temperature was shown to help"
    return f"calibrated (temperature {T:.2f}: as trained it was {'too sure' if T > 1 else 'too timid'})"
