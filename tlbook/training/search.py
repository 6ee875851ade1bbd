"""Let the evidence choose: probes and fine-tunings are judged on the same folds, and the simplest good one wins.

What may be learned from, train and val together, is cut into folds, groups whole. Each candidate is fitted on the other
folds, and predicts the one that it has not seen: so every example is predicted once, and all candidates are compared on
the same examples. The test part takes no part in it.

Candidates are judged by the log loss. It is what all of them minimise; it is a mean over examples, so that two of them
can be compared pair by pair and an error be told over whole groups; it needs honest probabilities, not only a right
order; and it is defined on a fold that lacks a class, where an AUC is not. The AUC stands beside it, to be read.

Fine-tuning makes networks surer than they should be, and that is mended by one number: each candidate's logits are
divided by the temperature, at least 1, that makes its held-out loss the lowest (Guo et al., 2017, arXiv:1706.04599). It
is judged with it, and is kept with it in the weights of its head.

The candidate with the lowest loss is only taken if no simpler one comes within one standard error of the paired
difference (Breiman et al., Classification and Regression Trees, 1984). What is kept is fitted anew to all of train and
val, with the settings that were judged.
"""

import copy
import hashlib
import math
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from scipy.stats import t

from tlbook import processes, progress
from tlbook.data import Split
from tlbook.decisions import BANK, distances, scaled, temperature
from tlbook.evaluation import evaluate
from tlbook.feature_extraction import Features, extract
from tlbook.loading import read_input
from tlbook.probes import linear_probe
from tlbook.table import Table
from tlbook.training import checkpoints, deciding
from tlbook.training.classifier import FineTuned
from tlbook.training.recipes import LPFT
from tlbook.training.run import (
    check_parts,
    check_split,
    check_weights,
    mean_and_error,
    one_ctrl_c,
    set_head,
    state_of,
    training_dtype,
)
from tlbook.training.tried import Tried, width_in_words

NONE = np.zeros(0, np.int64)
PREDICTED = 0.35  # what a prediction costs of a step of training
MIDDLE = 0.6  # how far up the network the middle stage is: there it transfers best to new groups (lesson 03)


@dataclass(frozen=True)
class Probe:
    """The linear probe of pooled stages; ``mirrored``: fitted to the mirror images of the training examples, too."""

    stages: tuple = ("final",)
    mirrored: bool = False

    def __str__(self):
        of = "" if self.stages == ("final",) else f" of {' and '.join(self.stages)}"
        return f"probe{of}{', mirror images too' if self.mirrored else ''}"


@dataclass(frozen=True)
class FineTuning:
    """LP-FT at a learning rate."""

    lr: float
    photo: bool = False

    def __str__(self):
        rate = np.format_float_scientific(self.lr, trim="-", exp_digits=1)  # all digits: fits are kept by this name
        return f"LP-FT at {rate}{', photo' if self.photo else ''}"


class Search:
    """What `tlbook.finetune` does with the recipe "auto".

    Args:
        fit: ``fit(split, recipe=, lr=, checkpoint=, resume=)``: `tlbook.finetune`, with all else that it was given.
        backbone, data, split, objective, precision, checkpoint, resume: as of `tlbook.finetune`.
        recipe: `tlbook.recipes.Auto`. settings: `Settings`, for the cost of fine-tuning and the checkpoint's key.

    Attributes:
        pool: what may be learned from: positions in the data, train and val together.
        stages: that probes look at: one in the middle, and "final".
        folds: splits of ``range(len(pool))``. judged: which of these examples each candidate predicts.
        held_out: {candidate: (n, K) probabilities of the pool, each from a fit without it, with the temperature}.
        far: {candidate: (n,) how far features of the pool are from those that a fit without them saw; None of a probe}.
        tried: a `Tried` for each candidate.
    """

    def __init__(self, fit, backbone, data, split, recipe, objective, settings, precision, checkpoint, resume):
        self.started = time.monotonic()
        self.fit, self.backbone, self.data, self.split = fit, backbone, data, split
        self.recipe, self.settings, self.objective = recipe, settings, objective
        self.dtype = training_dtype(backbone.device, precision)
        self.processes = processes.join(backbone.device)
        check_parts(data, split)
        self.pool = np.sort(np.concatenate([split.train, split.val]).astype(np.int64))
        check_split(data, Split(self.pool, NONE, split.test))
        self.weight = objective.weights(data, self.pool)[self.pool].astype(np.float64)
        check_weights(data, self.pool, self.weight, objective)
        copy.deepcopy(backbone).fit_to(read_input(data, int(self.pool[0])))  # or an error, before anything is computed
        self.part = data.subset(self.pool)
        stages = list(backbone.stages)
        self.stages = tuple(dict.fromkeys([stages[round(MIDDLE * (len(stages) - 1))], "final"]))
        self.features, self.held_out, self.far, self.tried, self.step_seconds = {}, {}, {}, [], None
        self.folds, self.judged, self.why_not = self._folds()

        # What an earlier call has left
        self.checkpoint, self.resume = None if checkpoint is None else Path(checkpoint), resume
        self.key = None if checkpoint is None else self._key()
        found = checkpoints.load(checkpoint, resume, self.key)
        folds = [] if checkpoint is None or resume else list(self.checkpoint.glob("*"))
        if any(checkpoints.file_of(fold).exists() for fold in folds):  # it was stopped in the first of all
            raise ValueError(
                f"{checkpoint} holds a fold of a search: resume=True goes on with it; or take another folder"
            )
        self.done = {} if found is None else found[1]  # {"candidate, fold i": probabilities, and distances}

    def run(self):
        """Try, choose, and fit what was chosen: a `FineTuned`, whose ``tried`` says what was tried."""
        self._say(f"{'what was tried':<36} {'log loss':>8}  {'95 % interval':<16} {'AUC':>5} {'seconds':>8}")
        kept, stopped = Probe(), ""
        try:
            for candidate in self._probes():
                self._try(candidate)
            self._note_the_last_doubling()
            for candidate in self._fine_tunings():
                self._try(candidate)
            kept = self._simplest()
            self._say_what_is_kept(kept)
            found = self._fine_tune_all(kept) if isinstance(kept, FineTuning) else None
        except _Stopped:
            found, stopped = None, "Ctrl-C"
        if found is None:  # a probe, for whatever reason
            kept = self._simplest(Probe)
            found = self._fit_probe_to_all(kept)

        temperature = next((row.temperature for row in self.tried if row.name == str(kept)), 1.0)
        cool_head(found.model, temperature)
        self.tried = [replace(row, kept=row.name == str(kept)) for row in self.tried]
        held_out = None
        if kept in self.held_out:
            far = self.far[kept]
            held_out = (
                self.pool[self.judged],
                self.held_out[kept][self.judged],
                None if far is None else far[self.judged],
                self.part.labels[self.judged],
            )
        return replace(found, tried=tuple(self.tried), held_out=held_out, stopped=stopped or found.stopped)

    # What is compared, and how

    def _folds(self):
        """(splits of the pool, mask of the examples that can be judged, why nothing can)."""
        part = self.part
        units, what = (len(part), "examples") if part.groups is None else (len(np.unique(part.groups)), "groups")
        if units < 3:
            return [], np.zeros(len(part), bool), f"{units} {what} to learn from are too few to hold some out"
        by = "random" if part.groups is None else "group"
        folds = part.folds(min(self.recipe.folds, units), by=by, seed=self.settings.seed)
        judged = np.zeros(len(part), bool)
        for fold in folds:  # a class that no other fold has cannot be predicted by anything
            judged[fold.test] = self._weight_of_classes(fold.train)[part.labels[fold.test]] > 0
        alone = "" if judged.any() else f"each class is in one of the {what} alone: none can be held out"
        return folds, judged, alone

    def _weight_of_classes(self, rows):
        """(K,) how much each class weighs among these rows: 0 is a class that cannot be learned from them."""
        return np.bincount(self.part.labels[rows], self.weight[rows], len(self.data.class_names))

    def _probes(self):
        """The probes in the order in which they are tried: what costs least first."""
        yield Probe()
        if len(self.stages) > 1:
            yield Probe(self.stages[:1])
            yield Probe(self.stages)
        if self.backbone.kind == "images" and "hflip" in self.backbone.views:
            yield Probe(mirrored=True)

    def _fine_tunings(self):
        for lr in self.recipe.rates:
            yield FineTuning(lr)
        tuned = [c for c in self.held_out if isinstance(c, FineTuning)]
        if self.recipe.photo and tuned and self.settings.augment is None and "photo" in self.backbone.augmentations:
            yield replace(self._best(tuned), photo=True)

    def _try(self, candidate):
        """Add a row to what was tried; and to ``held_out``, if it could be judged."""
        why_not = self.why_not or self._out_of_reach(candidate)
        began, known, row = time.monotonic(), len(self.done), Tried(str(candidate), note=why_not)
        if not why_not:
            try:
                p = self._predict_held_out(candidate)
                row = replace(row, temperature=self._temperature_of(p))
                self.held_out[candidate] = scaled(p, row.temperature)
                row = self._score(row, candidate)
            except _CannotJudge as error:
                row = replace(row, note=str(error))
        seconds = time.monotonic() - began
        if self.folds and len(self.done) == known + len(self.folds):  # a fine-tuning, all of it in this call
            self.step_seconds = seconds / self._steps(self.folds)  # what it took tells more than three steps
        self.tried.append(replace(row, seconds=round(seconds, 1)))
        self._say(_line(self.tried[-1]))

    def _score(self, row, candidate):
        rows = self.judged
        mean, low, high = self._mean_and_interval(self._losses(candidate))
        p, y = self.held_out[candidate][rows], self.part.labels[rows]
        auc = evaluate(p, y, sample_weight=self.weight[rows], resamples=1).auc
        return replace(row, log_loss=mean, low=max(0.0, low), high=high, auc=auc)

    def _predict_held_out(self, candidate):
        """(n, K) float64: each fold of the pool predicted by a fit to the others."""
        p, far = np.full((len(self.pool), len(self.data.class_names)), 1 / len(self.data.class_names)), None
        if isinstance(candidate, FineTuning):
            far = np.zeros(len(self.pool))
        for i, fold in enumerate(self.folds):
            if far is None:
                p[fold.test] = self._probe_fold(candidate, fold)
            else:
                p[fold.test], far[fold.test] = self._predict_fold(candidate, fold, i)
        self.far[candidate] = far
        return p

    def _temperature_of(self, p):
        """The T of 1 or more at which the mean loss of the judged examples is lowest."""
        return max(1.0, temperature(p[self.judged], self.part.labels[self.judged], self.weight[self.judged]))

    def _simplest(self, kind=object):
        """The simplest candidate within one standard error of the best; the plain probe, where none was judged."""
        order = sorted((c for c in self.held_out if isinstance(c, kind)), key=_complexity)
        if not order:
            return Probe()
        best, least = self._best(order), math.inf  # the lowest loss of a simpler one
        for candidate in order:
            loss, _ = self._mean_and_error(self._losses(candidate))
            behind, error = self._mean_and_error(self._losses(candidate) - self._losses(best))
            if behind <= error and loss <= least:
                return candidate
            least = min(least, loss)

    def _best(self, candidates):
        return min(candidates, key=lambda c: self._mean_and_error(self._losses(c))[0])

    def _mean_and_error(self, losses):
        """The mean over the judged examples, and its standard error, over groups where there are any."""
        groups = None if self.part.groups is None else self.part.groups[self.judged]
        return mean_and_error(losses, self.weight[self.judged], groups)

    def _mean_and_interval(self, losses):
        """The mean over the judged examples, and its 95 % interval."""
        mean, error = self._mean_and_error(losses)
        units = losses if self.part.groups is None else np.unique(self.part.groups[self.judged])
        reach = error * t.ppf(0.975, max(1, len(units) - 1))
        return float(mean), float(mean - reach), float(mean + reach)

    def _losses(self, candidate):
        """−log p of the true class of each judged example, as it was held out."""
        return self._losses_of(self.held_out[candidate])

    def _losses_of(self, p):
        """The same of probabilities (n, K); n of them cannot tell a p of 1/n from 0, or from 1."""
        rows = np.flatnonzero(self.judged)
        p = p[rows, self.part.labels[rows]]
        return -np.log(p.clip(1 / (len(rows) + 1), len(rows) / (len(rows) + 1)))

    # Probes

    def _features_of(self, candidate):
        """`Features` of the pool, and below them, for a candidate that sees mirror images, those of these."""
        if candidate not in self.features:
            shown = self._extract(self.stages, "identity").select(*candidate.stages)  # one pass for all stages
            if candidate.mirrored:
                mirror = self._extract(candidate.stages, "hflip")
                groups = np.arange(len(self.pool)) if shown.groups is None else shown.groups  # an image, and its mirror
                X = np.concatenate([shown.X, mirror.X])
                shown = Features(X, np.tile(shown.y, 2), np.tile(groups, 2), shown.blocks)
            self.features = {candidate: shown}  # one at a time: the disk holds them all
        return self.features[candidate]

    def _extract(self, stages, view):
        return extract(self.backbone, self.part, stages=stages, views=(view,), precision="float32")

    def _fit_probe(self, candidate, rows):
        features = self._features_of(candidate)
        n, times = len(self.pool), 2 if candidate.mirrored else 1
        rows = np.concatenate([rows + i * n for i in range(times)])
        weight = np.tile(self.weight, times)
        return linear_probe(features, Split(rows, NONE, NONE), sample_weight=weight, seed=self.settings.seed)

    def _probe_fold(self, candidate, fold):
        X = self._features_of(candidate).X  # an input that cannot be read is no matter of the candidate
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a solution that is not reached is judged as it is
                return self._fit_probe(candidate, fold.train).predict_proba(X[fold.test])
        except ValueError as error:
            raise _CannotJudge(f"not judged: {error}") from None

    def _note_the_last_doubling(self):
        """Add to the best probe's row what it loses where each fold learns from half: would more examples help?

        It was the best of a few on these very examples, which flatters it, and so the gain, a little.
        """
        probes = [c for c in self.held_out if isinstance(c, Probe)]
        if not probes or self._seconds_left() < 0:
            return
        probe = self._best(probes)
        p, halves = np.zeros_like(self.held_out[probe]), [self._half(fold.train) for fold in self.folds]
        for fold, half in zip(self.folds, halves, strict=True):
            if ((self._weight_of_classes(half) == 0) & (self._weight_of_classes(fold.train) > 0)).any():
                return  # a class that stands in one group alone: without it the loss would tell of that
        try:
            for fold, half in zip(self.folds, halves, strict=True):
                p[fold.test] = self._probe_fold(probe, Split(half, NONE, fold.test))
        except _CannotJudge:
            return
        half = self._losses_of(scaled(p, self._temperature_of(p)))
        gained, low, high = self._mean_and_interval(half - self._losses(probe))
        mean, _ = self._mean_and_error(half)
        helps = "more of them promise to help" if low > 0 else "whether more of them would help is not shown"
        what = "examples" if self.part.groups is None else "groups"
        note = (
            f"from half the {what} its log loss was {mean:.3f}: the last doubling took off {gained:.3f} "
            f"[{low:.3f}, {high:.3f}], and {helps}"
        )
        self.tried = [replace(row, note=note) if row.name == str(probe) else row for row in self.tried]
        self._say(f"{probe}: {note}")

    def _half(self, rows):
        """Half of the rows: of each class every other example, or every other group, in a random order."""
        units = rows if self.part.groups is None else self.part.groups[rows]
        names, first = np.unique(units, return_index=True)
        order = np.random.default_rng(self.settings.seed).permutation(len(names))
        order = order[np.argsort(self.part.labels[rows[first[order]]], kind="stable")]
        return rows[np.isin(units, names[order[::2]])]

    def _fit_probe_to_all(self, candidate):
        """The probe of train and val, as the head of a copy of the backbone."""
        model = copy.deepcopy(self.backbone)
        model.reset_head(len(self.data.class_names), candidate.stages)
        model.fit_to(read_input(self.data, int(self.pool[0])))
        set_head(model, self._fit_probe(candidate, np.arange(len(self.pool))))
        history = Table([{"epoch": 0, "stages": 0, "lr": 0.0} | dict.fromkeys(_NOT_MEASURED, math.nan)])
        return FineTuned(model.eval(), history, 0, tuple(self.data.class_names), state_of(model))

    # Fine-tuning

    def _predict_fold(self, candidate, fold, i):
        """The held-out fold by a fine-tuning of the others, from an earlier call if it came so far.

        Returns its (m, K) probabilities, and (m,) how far its features are from those of the others: in a network that
        was trained on both they would be nearer than any new example is.
        """
        name = f"{candidate}, fold {i}"
        if name not in self.done:
            split = Split(self.pool[fold.train], NONE, NONE)
            found, pressed = self._fine_tune(candidate, split, name), []
            with one_ctrl_c(pressed):
                p, X = found.probabilities_and_features(self.data.subset(self.pool[fold.test]))
                _, bank = found.probabilities_and_features(self.data.subset(deciding.some(split.train)))
            self.done[name] = torch.from_numpy(np.column_stack([p, distances(X, bank)]))
            self._keep()
            if self._in_any(pressed):
                raise _Stopped
        done = self.done[name].numpy()
        return done[:, :-1], done[:, -1]

    def _fine_tune(self, candidate, split, name):
        folder, pressed = None if self.checkpoint is None else self.checkpoint / name, []
        try:
            with warnings.catch_warnings(), one_ctrl_c(pressed):
                warnings.simplefilter("ignore")  # of a loss that diverges: the row says it
                own = {"recipe": LPFT(), "lr": candidate.lr} | ({"augment": "photo"} if candidate.photo else {})
                found = self.fit(split, **own, checkpoint=folder, resume=self.resume and folder is not None)
        except RuntimeError as error:
            raise _CannotJudge(f"not judged: {error}") from None
        except KeyboardInterrupt:  # a notebook is told in no other way
            if not progress.in_notebook():
                raise
            raise _Stopped from None
        pressed = self._in_any(pressed)
        if found.stopped == "Ctrl-C" or pressed and not name.endswith("all"):
            raise _Stopped
        if found.stopped:
            raise _CannotJudge(f"not judged: {found.stopped}")
        if not np.isfinite(found.predict(self.data.subset(split.train[: self.settings.batch_size]))).all():
            raise _CannotJudge("not judged: its last step diverged, and its output is not finite")
        return found

    def _in_any(self, pressed):
        """Whether Ctrl-C was pressed in any of the processes."""
        return self.processes.sum(torch.tensor(len(pressed))) > 0

    def _fine_tune_all(self, candidate):
        """The fine-tuning of train and val; no part is left to choose an epoch by, as in the folds."""
        try:
            return self._fine_tune(candidate, Split(self.pool, NONE, self.split.test), f"{candidate}, all")
        except _CannotJudge as error:
            self._say(f"The fine-tuning of all of train and val failed, and the best probe is kept. {error}")
            return None

    def _out_of_reach(self, candidate):
        """Why a candidate is not tried, or "": the probes without mirror images always are."""
        if isinstance(candidate, Probe) and not candidate.mirrored:
            return ""
        why_not = self._cannot_gain() if isinstance(candidate, FineTuning) else ""
        if why_not:
            return why_not

        # The clock
        if isinstance(candidate, FineTuning) and self.step_seconds is None and self._seconds_left() <= 0:
            return "not tried: the clock has run out"
        so_far = time.monotonic() - self.started
        seconds = self._seconds_to_fine_tune(candidate) if isinstance(candidate, FineTuning) else so_far
        left, seconds = self._seconds_left(), self.processes.from_first(seconds)
        return f"not tried: {_duration(seconds)} more do not fit into the clock" if seconds > left else ""

    def _seconds_left(self):
        return self.processes.from_first(60 * self.recipe.minutes - (time.monotonic() - self.started))

    def _cannot_gain(self):
        """Why fine-tuning cannot be judged, or cannot win; "" where it can."""
        classes = np.arange(len(self.data.class_names))
        lacking = [k for fold in self.folds for k in classes[self._weight_of_classes(fold.train) == 0]]
        if lacking:
            return f"not tried: {self.data.class_names[lacking[0]]} is in one fold alone"
        if Probe() not in self.held_out:
            return "not tried: it begins with the plain probe, and that could not be fitted to every fold"
        if not any(p.requires_grad for p in self.backbone.parameters()):
            return "not tried: no parameter of the backbone requires a gradient"
        if any(np.allclose(self._losses(c), math.log1p(1 / self.judged.sum())) for c in self.held_out):
            return "not tried: a probe is sure of every held-out example, and right"
        return ""

    def _seconds_to_fine_tune(self, candidate):
        """About how long its folds take, and fitting it to all afterwards; of folds already done nothing is counted."""
        to_do = [fold for i, fold in enumerate(self.folds) if f"{candidate}, fold {i}" not in self.done]
        if self.step_seconds is None:
            self.step_seconds = self._measure_step()
        return self.step_seconds * self._steps(to_do, len(self.pool))

    def _steps(self, folds, more=0):
        """How many steps of training the folds cost, their predictions included, and ``more`` examples to fit to."""
        trained, predicted = sum(len(f.train) for f in folds), sum(len(f.test) + min(BANK, len(f.train)) for f in folds)
        return (self.settings.epochs * (trained + more) + PREDICTED * predicted) / self.settings.batch_size

    def _measure_step(self):
        """How long a step of fine-tuning takes: the median of three, of a copy, after one to warm up.

        It stops where the clock has run out: what is known by then is enough to say that no more fits.
        """
        share = self.settings.accumulate * self.processes.size  # a process takes in one forward pass what fits
        rows, seconds = self.pool[: math.ceil(self.settings.batch_size / share)], []
        model = copy.deepcopy(self.backbone).eval()
        model.reset_head(len(self.data.class_names))
        batch = model.prepare([read_input(self.data, int(i)) for i in rows])
        for _ in range(4):
            began = time.monotonic()
            with torch.autocast(self.backbone.device.type, self.dtype, enabled=self.dtype != torch.float32):
                z = model(batch)
            z.float().logsumexp(1).sum().backward()
            model.head.weight.grad.sum().item()  # waits for the device
            seconds.append(time.monotonic() - began)
            if self._seconds_left() <= 0:
                break
        return float(np.median(seconds[1:] or seconds)) * self.settings.batch_size / len(rows) / self.processes.size

    # What is kept on disk, and what is said

    def _key(self):
        """What a search is the same search by: {name: text}."""
        if self.backbone.has_hooks:
            raise ValueError(
                f"{self.backbone.name} has hooks or replaced methods, which a checkpoint cannot tell from others: "
                "remove them, or search without checkpoint="
            )
        arrays = [self.pool, self.part.labels, self.weight, *(fold.test for fold in self.folds)]
        if self.objective.soft_targets is not None:
            arrays += [self.objective.targets(self.data)[self.pool], np.array(self.objective.temperature)]
        key = {
            "backbone": self.backbone.fingerprint,
            "inputs": self.part.fingerprint,
            "labels, weights, split": hashlib.sha256(b"".join(np.ascontiguousarray(a) for a in arrays)).hexdigest(),
            "parameters that learn": [name for name, p in self.backbone.named_parameters() if p.requires_grad],
            "objective": checkpoints.terms_of(self.objective),
            "recipe": "auto",
            "precision": self.dtype,
        }
        settings = asdict(self.settings)
        settings.pop("lr")  # of each candidate
        return {name: str(value) for name, value in (key | settings).items()}

    def _keep(self):
        """Write what is done to the checkpoint, and remove those of the single fits."""
        if self.checkpoint is not None and self.processes.is_first:
            facts = {"key": self.key, "progress": {"lowest": 0.0}}
            checkpoints.write(checkpoints.file_of(self.checkpoint), checkpoints.pack(best=self.done), facts)
            for name in self.done:
                rmtree(self.checkpoint / name, ignore_errors=True)

    def _say(self, words):
        if self.processes.is_first:
            print(words, flush=True)

    def _say_what_is_kept(self, kept):
        self._say("")
        if kept not in self.held_out:
            return self._say(f"{kept} is kept, unjudged")
        tuned = [c for c in self.held_out if isinstance(c, FineTuning)]
        best = self._best(self.held_out)
        why = "the lowest log loss" if kept == best else f"the simplest within one standard error of the best, {best}"
        self._say(f"Kept: {kept}, {why}. It is now fitted to all of train and val")
        if not tuned:
            self._say("Whether fine-tuning is better was not measured: see the rows above")
        elif isinstance(kept, Probe):
            self._say("Fine-tuning is not shown to be better than the probe here")
        else:
            probe = self._best([c for c in self.held_out if isinstance(c, Probe)])
            of = {row.name: row.log_loss for row in self.tried}
            self._say(
                f"Fine-tuning is ahead: a log loss of {of[str(kept)]:.3f}, and {of[str(probe)]:.3f} of {probe}; no "
                "probe is within one standard error of the best"
            )


def cool_head(model, T):
    """Divide a model's logits by T, in the weights of its linear head."""
    if T != 1:
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.div_(T)


class _CannotJudge(Exception):
    """A candidate that the data or the learning rate do not allow; its words are for the row."""


class _Stopped(Exception):
    """Ctrl-C, in a fit."""


_NOT_MEASURED = ("train loss", "val loss", "val AUC", "seconds")


def _complexity(candidate):
    """What the candidates are sorted by: (fine-tuned?, what it looks at, how far it may go from the start)."""
    if isinstance(candidate, FineTuning):
        return 1, candidate.photo, candidate.lr
    return 0, len(candidate.stages) + candidate.mirrored, candidate.stages != ("final",)


def _line(row):
    if row.log_loss is None:
        return f"{row.name:<36} {row.note}"
    interval = width_in_words(row.low, row.high, " to ")
    return f"{row.name:<36} {row.log_loss:>8.3f}  {interval:<16} {row.auc:>5.3f} {row.seconds:>8.1f}"


def _duration(seconds):
    return f"about {seconds / 60:,.0f} minutes" if seconds >= 90 else f"about {seconds:.0f} seconds"
