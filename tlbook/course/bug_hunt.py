"""Runs with one planted fault each, for the appendix on the bug hunt. Hunt before you read on: the faults are below.

Every run trains a head on stored features and reports its probabilities for cells of unseen panels. A fault changes one
step of that. `SUSPECTS` are the names that may be handed in; `EVIDENCE` has a test for each of them, which convicts the
runs with that fault and no others.
"""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy

from tlbook.backbones import load_backbone
from tlbook.data import Dataset, Split, solar_cells
from tlbook.evaluation import evaluate
from tlbook.feature_extraction import extract
from tlbook.training.trainable import audit, freeze

SUSPECTS = {  # what each name means
    "moving statistics": "the body was to stay as it was, and BatchNorm's statistics moved",
    "wrong preparation": "the reported cells were normalised with the mean and std of another network",
    "torn panel": "cells of one panel stand in training and in the test",
    "forgotten head": "the optimizer does not hold the head",
    "chosen on the test": "the epoch that was kept is the best one of the test",
    "swapped classes": "in training, 1 stood for healthy and 0 for defective",
    "train mode": "the reported cells were answered in training mode, 32 at a time",
    "stale features": "the head was trained on features that other weights had computed",
}
OTHER_MEAN, OTHER_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of most networks for ImageNet
_BATCH, _EPOCHS = 32, 8


@dataclass(frozen=True)
class Run:
    """What a training left behind. Nothing in it says what went wrong.

    Attributes:
        data: Dataset of 960 cells in 17 panels, 64 pixels a side. split: whole panels to train on, to choose by, to
            report on.
        model: the Backbone with the two-class head of the epoch that was kept. start: its state before training.
        optimizer: as it was used. It was to hold the head; nothing else was to change.
        features: (N, D), what the head was trained on.
        history: [{"epoch", "train loss", "val loss", "test AUC"}], taken after each epoch over all cells of the part.
            kept: the epoch of the model.
        probabilities: (n, 2), reported for the cells ``split.test``, in this order.
    """

    data: Dataset
    split: Split
    model: torch.nn.Module
    start: dict
    optimizer: torch.optim.Optimizer
    features: np.ndarray
    history: list
    kept: int
    probabilities: np.ndarray

    @property
    def score(self):
        """The Evaluation that was reported."""
        test = self.split.test
        return evaluate(self.probabilities, self.data.labels[test], groups=self.data.groups[test])


def sound(seed=0):
    """Return a run without a fault."""
    return _run(None, seed)


def example(seed=0):
    """Return the run of the worked example: its loss was given probabilities where it wants logits."""
    return _run("double softmax", seed)


def suspects():
    """Return {"A": Run, …, "H": Run}: each of the eight `SUSPECTS` did one of them."""
    return {letter: _run(fault, 0) for letter, fault in _FAULT_OF.items()}


def answer(run, cells, *, mean=None, std=None, train=False):
    """Return (n, 2) probabilities of a copy of a run's network for ``cells``, 32 at a time.

    Args:
        run: Run. cells: (n,) indices into its data. mean, std: three numbers each, in place of the network's own.
        train: in training mode, in which BatchNorm takes the statistics of the batch.
    """
    model = copy.deepcopy(run.model)
    model.mean, model.std = mean or model.mean, std or model.std
    model.train(train)
    batches = [cells[i : i + _BATCH] for i in range(0, len(cells), _BATCH)]
    with torch.inference_mode():
        logits = [model(model.prepare([run.data[i][0] for i in batch])) for batch in batches]
    return torch.cat(logits).softmax(1).double().cpu().numpy()


_FAULT_OF = dict(zip("ABCDEFGH", np.random.default_rng(3).permutation(list(SUSPECTS)).tolist(), strict=True))


@lru_cache
def _run(fault, seed):
    """A run with this fault; None for none."""
    data, body = solar_cells(64).subset(range(228, 1188)), load_backbone()
    split = data.split(test=0.25, val=0.25, seed=seed)
    if fault == "torn panel":
        split = _torn(split, data.groups)
    start = {name: tensor.clone() for name, tensor in body.state_dict().items()}

    # The body is frozen, and its features are stored
    if fault in ("moving statistics", "train mode"):
        body.requires_grad_(False)  # by the flag alone
    else:
        freeze(body, until="final")
    if fault == "moving statistics":
        _pass_in_train_mode(body, data, split.train[::4])
    features = extract(_noisy(body) if fault == "stale features" else body, data, precision="float32").X

    # A new head, and an optimizer for it
    torch.manual_seed(seed)
    forgotten = torch.optim.AdamW(body.head.parameters(), lr=3e-3) if fault == "forgotten head" else None
    body.model.reset_classifier(2)
    optimizer = forgotten or torch.optim.AdamW(body.head.to(body.device).parameters(), lr=3e-3)
    start |= {name: tensor.clone() for name, tensor in body.state_dict().items() if start[name].shape != tensor.shape}

    labels = 1 - data.labels if fault == "swapped classes" else data.labels
    history, heads = _train(body.head, optimizer, features, labels, data, split, seed, fault == "double softmax")
    best = [row["test AUC"] if fault == "chosen on the test" else -row["val loss"] for row in history]
    kept = int(np.argmax(best))
    body.head.load_state_dict(heads[kept])
    run = Run(data, split, body.eval(), start, optimizer, features, history, kept + 1, np.empty((0, 2)))
    return replace(run, probabilities=_reported(run, fault))


def _torn(split, groups):
    """The split with every second cell of a test panel in training."""
    moved = split.test[groups[split.test] == groups[split.test[0]]][::2]
    return Split(np.sort(np.r_[split.train, moved]), split.val, np.setdiff1d(split.test, moved))


def _pass_in_train_mode(body, data, cells):
    """Pass these cells forward in training mode, as a loop does that calls ``.train()``; no weight moves."""
    body.train()
    with torch.inference_mode():
        for batch in np.array_split(cells, len(cells) // _BATCH):
            body.forward_features(body.prepare([data[i][0] for i in batch]))
    body.eval()


def _noisy(body):
    """The body as another checkpoint has it: every weight a tenth of its tensor's spread away."""
    other, rng = copy.deepcopy(body), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in other.parameters():
            p += 0.1 * p.std() * torch.randn(p.shape, generator=rng).to(p.device) if p.ndim > 1 else 0
    return other


def _train(head, optimizer, features, labels, data, split, seed, twice):
    """The history of a head on stored features, and its state after each epoch."""
    X, y = (torch.from_numpy(np.array(a)).to(next(head.parameters()).device) for a in (features, labels))
    rng, history, heads = np.random.default_rng(seed), [], []

    def loss_of(cells):
        z = head(X[cells])
        return cross_entropy(z.softmax(1) if twice else z, y[cells])

    for epoch in range(1, _EPOCHS + 1):
        for batch in np.array_split(rng.permutation(split.train), len(split.train) // _BATCH):
            optimizer.zero_grad()
            loss_of(batch).backward()
            optimizer.step()
        with torch.no_grad():
            row = {"epoch": epoch, "train loss": loss_of(split.train).item(), "val loss": loss_of(split.val).item()}
            score = head(X[split.test]).softmax(1)[:, 1].cpu().numpy()
        history.append(row | {"test AUC": roc_auc_score(data.labels[split.test], score)})
        heads.append(copy.deepcopy(head.state_dict()))
    return history, heads


def _reported(run, fault):
    other = {"wrong preparation": {"mean": OTHER_MEAN, "std": OTHER_STD}, "train mode": {"train": True}}
    return answer(run, run.split.test, **other.get(fault, {}))


# Evidence: does the run have this fault?


def _moving_statistics(run):
    now = run.model.state_dict()
    return any(not torch.equal(now[k], tensor) for k, tensor in run.start.items() if "running" in k)


def _wrong_preparation(run):
    return _comes_out(run, mean=OTHER_MEAN, std=OTHER_STD)


def _torn_panel(run):
    train, _, test = (run.data.groups[part] for part in run.split)
    return bool(np.isin(test, train).any())


def _forgotten_head(run):
    return any("head forgotten" in problem["problem"] for problem in audit(run.model, run.optimizer).problems)


def _chosen_on_the_test(run):
    lowest = min(run.history, key=lambda row: row["val loss"])
    best = max(run.history, key=lambda row: row["test AUC"])
    return run.kept == best["epoch"] != lowest["epoch"]


def _swapped_classes(run):
    train = run.split.train
    return roc_auc_score(run.data.labels[train], _scores(run)[train]) < 0.25  # far below chance: not for luck


def _train_mode(run):
    return _comes_out(run, train=True)


def _stale_features(run):
    cells = run.split.train[:_BATCH]
    with torch.inference_mode():
        batch = run.model.prepare([run.data[i][0] for i in cells])
        anew = run.model.forward_stages(batch)["final"].cpu().numpy()
    return not np.allclose(anew, run.features[cells], atol=0.02)


def _comes_out(run, **how):
    """Whether the first 32 reported probabilities come out again in this way, and not in the right way."""
    reported = run.probabilities[:_BATCH]
    again = (answer(run, run.split.test[:_BATCH], **way) for way in (how, {}))
    in_this_way, in_the_right_way = (np.allclose(p, reported, atol=0.01) for p in again)
    return in_this_way and not in_the_right_way


def _scores(run):
    """(N,) logits of "defective", by the run's head on its stored features."""
    with torch.no_grad():
        z = run.model.head(torch.tensor(run.features).to(run.model.device))
    return (z[:, 1] - z[:, 0]).cpu().numpy()


EVIDENCE = {
    "moving statistics": _moving_statistics,
    "wrong preparation": _wrong_preparation,
    "torn panel": _torn_panel,
    "forgotten head": _forgotten_head,
    "chosen on the test": _chosen_on_the_test,
    "swapped classes": _swapped_classes,
    "train mode": _train_mode,
    "stale features": _stale_features,
}
