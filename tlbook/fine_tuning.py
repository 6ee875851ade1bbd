"""Fine-tuning: θ* = argmin over θ of L(θ; D), started at θ⁰.

    L(θ; D) = (1/N) Σᵢ sᵢ ℓ(f(xᵢ; θ), yᵢ) + Ω(θ; θ⁰)
    Ω(θ; θ⁰) = α/2 Σ_transferred ‖θ_k − θ⁰_k‖² + β/2 Σ_head ‖θ_k‖²

D is the training part only. The network is far from convex: what is found is a point near the start, not *the* argmin,
and so the start θ⁰ (pretrained), the parts that may move (the recipe), how fast (`parameter_groups`) and when to stop
(held-out groups) belong to the method as much as L does.

Lessons 04 and 08. Works cited below:
  Hinton, Vinyals & Dean (2015), Distilling the Knowledge in a Neural Network, arXiv:1503.02531
  Li, Grandvalet & Davoine (2018), Explicit Inductive Bias for Transfer Learning (L2-SP), arXiv:1802.01483
  Howard & Ruder (2018), Universal Language Model Fine-tuning (gradual unfreezing), arXiv:1801.06146
  Loshchilov & Hutter (2019), Decoupled Weight Decay Regularization (AdamW), arXiv:1711.05101
  Kumar et al. (2022), Fine-Tuning can Distort Pretrained Features (LP-FT), arXiv:2202.10054
  Lee et al. (2023), Surgical Fine-Tuning Improves Adaptation, arXiv:2210.11466
"""

import copy
import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from tlbook import progress
from tlbook.arguments import positive_number
from tlbook.device import memory_kept
from tlbook.evaluation import evaluate
from tlbook.probes import balanced
from tlbook.table import Table
from tlbook.training.classifier import FineTuned
from tlbook.training.recipes import Auto, recipe_of
from tlbook.training.run import Run, Settings, one_ctrl_c, state_of
from tlbook.training.search import Search
from tlbook.training.trainable import audit, freeze, parameter_groups, unfreeze

__all__ = ["Objective", "audit", "distill", "finetune", "freeze", "parameter_groups", "unfreeze"]

WARM_UP, LEAST_WARM_UP = 0.1, 10  # of all steps; and at least so many of them

interrupted = None  # the FineTuned of the training that was last stopped by hand in a notebook


@dataclass(frozen=True, eq=False)
class Objective:
    """L(θ; D), as a value: call it for the loss of a batch, or ask for its two terms.

    Args:
        l2_sp: α ≥ 0, the pull of transferred tensors towards θ⁰.
        l2_head: β ≥ 0, the pull of the head towards 0.
        label_smoothing: in [0, 1); the target is (1 − ε) the label + ε uniform.
        class_weight: None, "balanced" (every class has the same total weight in training), or K numbers.
        sample_weight: (N,) numbers of at least 0, one for each example of the Dataset, or None.
        soft_targets: q, (N, K) probabilities for the examples of the Dataset (a teacher's, or those of
            labels that are not sure), or None. The loss of example n is then
            ℓ = (1 − λₙ) CE(y, softmax(z)) + λₙ τ² CE(q_τ, softmax(z / τ)), with q_τ ∝ q^(1/τ).
        soft_share: λ in [0, 1], a number or one for each example; with 1 the label of the example is not looked at.
        temperature: τ > 0. τ² keeps the size of the gradient, which falls as 1/τ² (Hinton et al. 2015).

    Raises:
        ValueError: a number out of range.

    >>> objective = Objective(l2_head=2.0)
    >>> model = torch.nn.Linear(1, 2)
    >>> _ = [torch.nn.init.ones_(p) for p in model.parameters()]
    >>> objective(model, torch.zeros(3, 1), torch.tensor([0, 1, 1])).item()  # log 2 + 2/2 · 4
    4.693...

    Lesson 04; Li et al. (2018). Soft targets: lesson 08.
    """

    l2_sp: float = 0.0
    l2_head: float = 0.0
    label_smoothing: float = 0.0
    class_weight: object = None
    sample_weight: object = None
    soft_targets: object = None
    soft_share: object = 1.0
    temperature: float = 1.0

    def __post_init__(self):
        if not (self.l2_sp >= 0 and self.l2_head >= 0 and 0 <= self.label_smoothing < 1):
            raise ValueError(
                "l2_sp and l2_head must be at least 0 and label_smoothing in [0, 1), got "
                f"{self.l2_sp}, {self.l2_head}, {self.label_smoothing}"
            )
        positive_number("temperature", self.temperature)

    def __call__(self, model, batch, labels, weight=None, theta0=None):
        """L of a batch, a scalar: ``model(batch)`` gives logits (B, K); ``labels`` and ``weight`` (B,), which is s, are
        those of `data_term`.
        """
        return self.data_term(model(batch), labels, weight) + self.penalty(model, theta0)

    def data_term(self, logits, labels, weight=None):
        """(1/B) Σᵢ sᵢ ℓ(logitsᵢ, yᵢ), ℓ = cross-entropy. ``labels``: (B,) int64, or (B, 2, K) rows of `targets`.

        The weights have mean 1 over D, and a batch is divided by its size and not by its own weights: so the mean over
        batches is L, however the examples fall into batches and processes.
        """
        if labels.ndim == 1:
            losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        else:
            (hard, soft), tau = labels.to(logits).unbind(1), self.temperature
            losses = F.cross_entropy(logits, hard, reduction="none")
            losses = losses + tau**2 * F.cross_entropy(logits / tau, soft, reduction="none")
        return losses.mean() if weight is None else (weight * losses).mean()

    def penalty(self, model, theta0=None):
        """Ω(θ; θ⁰). ``theta0`` is {name: tensor} of the transferred parameters; the others are the head."""
        if self.l2_sp and not theta0:
            raise ValueError("l2_sp pulls towards θ⁰: give theta0, the transferred parameters {name: tensor}")
        omega = 0.0
        if not (self.l2_sp or self.l2_head):
            return omega
        for name, theta in model.named_parameters():
            if theta0 and name in theta0:
                omega += self.l2_sp / 2 * (theta - theta0[name]).square().sum() if self.l2_sp else 0.0
            elif self.l2_head:
                omega += self.l2_head / 2 * theta.square().sum()
        return omega

    def targets(self, data):
        """What the loss compares with: the labels (N,), or with soft targets (N, 2, K) float32: (1 − λₙ) y and λₙ q_τ.

        Here y is one-hot, and smoothed if asked for.
        """
        if self.soft_targets is None:
            return data.labels
        N, K = len(data), len(data.class_names)
        q, share = np.asarray(self.soft_targets, np.float64), np.asarray(self.soft_share, np.float64)
        if q.shape != (N, K) or not ((q >= 0).all() and np.allclose(q.sum(1), 1, atol=1e-3)):
            raise ValueError(f"soft_targets must be {N} rows of {K} probabilities that sum to 1, got shape {q.shape}")
        if share.shape not in ((), (N,)) or not ((share >= 0) & (share <= 1)).all():
            raise ValueError(f"soft_share must be in [0, 1], one number or {N}, got {self.soft_share!r}")
        share = np.broadcast_to(share, N)[:, None]
        y = (1 - self.label_smoothing) * np.eye(K)[data.labels] + self.label_smoothing / K
        q = (q / q.max(1, keepdims=True)) ** (1 / self.temperature)
        return np.stack([(1 - share) * y, share * q / q.sum(1, keepdims=True)], axis=1).astype(np.float32)

    def weights(self, data, train):
        """(N,) float32: s, with mean 1 over the rows ``train``; class weights are those of these rows."""
        K, y = len(data.class_names), data.labels
        s = np.ones(len(y)) if self.sample_weight is None else np.asarray(self.sample_weight, dtype=np.float64)
        if s.shape != y.shape or not (np.isfinite(s) & (s >= 0)).all():
            raise ValueError(f"sample_weight must be {len(y)} numbers of at least 0, got shape {s.shape}")
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            of_class = np.zeros(K)
            of_class[y[train]] = balanced(y[train], s[train])
        else:
            of_class = np.ones(K) if self.class_weight is None else np.asarray(self.class_weight)
            if of_class.shape != (K,) or of_class.dtype.kind not in "iuf" or not (of_class >= 0).all():
                raise ValueError(
                    f"class_weight must be None, 'balanced' or {K} numbers of at least 0, got {self.class_weight!r}"
                )
        s = s * of_class[y]
        if not s[train].sum() > 0:
            raise ValueError("the weights of the training examples are all 0: nothing is left to learn from")
        return (s / s[train].mean()).astype(np.float32)

    def weighting(self, train):
        """How the examples at ``train`` weigh, in words; "" where all weigh the same."""
        words = []
        if self.sample_weight is not None:
            s = np.asarray(self.sample_weight)[train]
            if (s != 1).any():
                other = f"{(s != 1).sum():,} of {len(s):,} examples have a weight other than 1"
                words = [f"{other} ({s.min():g} to {s.max():g})"]
        if self.class_weight is not None:
            balanced = isinstance(self.class_weight, str)
            words += ["all classes weigh the same" if balanced else "classes have weights of their own"]
        return f"In training {' and '.join(words)}." if words else ""


def schedule(step, steps):
    """The factor on every learning rate: a linear warm-up, then half a cosine down to 0.

    The warm-up takes a tenth of the steps and at least ten of them: AdamW's first steps have full size however small
    the gradient, and a start that is already good must not be lost to them.
    """
    warm = max(LEAST_WARM_UP, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def finetune(
    backbone,
    data,
    split,
    *,
    recipe="lp_ft",
    objective=None,
    epochs=5,
    lr=None,
    batch_size=32,
    accumulate=1,
    clip=1.0,
    augment=None,
    precision="auto",
    store_prefix=True,
    seed=0,
    checkpoint=None,
    resume=False,
):
    """Minimise L(θ; D) over what the recipe lets move, by AdamW from θ⁰; held-out groups choose the epoch.

    D is ``split.train``. After each epoch, and before the first, the loss on ``split.val`` is measured, and the weights
    with the lowest are returned (without ``val``, the last ones). A start at the probe is only given up for weights
    that are better by more than a standard error (over groups, where there are groups); a head at random is never
    returned (but for Ctrl-C in the first epoch). ``split.test`` is not looked at. While the first stages are frozen,
    what they make of each example and view is computed once and kept. No argument is changed.

    All that is random (order, views, dropout) is a function of the seed, the epoch and the step, so that a resumed run
    is the run that was never interrupted, and processes under ``torchrun``, which share each batch, agree on it.

    Args:
        backbone: Backbone; a copy of it is trained, with a new head of K classes, on the device where it is.
        data: Dataset. split: a `Split` of it, by groups if the question is about new groups.
        recipe: "head", "bias", "full", "lp_ft", "gradual", "surgical", or a `Recipe` such as
            ``Full(until="blocks.3")``. Or "auto", or an `Auto` such as ``Auto(minutes=30)``: probes of several stages
            and LP-FT are compared on held-out folds of train and val, which is printed row by row. The simplest that is
            as good as the best, within a standard error, is fitted to all of train and val; ``tried`` of the result
            holds the rows (`tlbook.training.search`).
        objective: `Objective`; None is cross-entropy alone. Where it penalises tensors, AdamW's weight decay, which
            pulls towards 0, is switched off for them.
        epochs: passes over the training part.
        lr: of the deepest stage, after the warm-up and before the cosine; None takes the recipe's own (on small data
            sets: ``benchmarks/results/small_data.json``); of "auto", the only one that is tried.
        batch_size: examples a step, over all processes.
        accumulate: parts in which each process takes its share of a batch, one after the other, to save memory.
        clip: the largest norm of a step's gradient; None for none.
        augment: None, "flips" (four views) or "dihedral" (eight: quarter turns and flips, of square images). An
            example comes in another view each epoch until it has been seen in all. "photo" is for photographs: a
            random crop, resized to the whole, and perhaps mirrored, but never upside down; another in each epoch.
        precision: "float32" (also "auto"; steps on CUDA use PyTorch's own default in convolutions, TF32) or "bfloat16",
            which a large network may gain by on a GPU; EfficientNet-Lite0 did not on an H200.
        store_prefix: False computes the frozen prefix anew in each epoch.
        seed: of everything random.
        checkpoint: a folder for checkpoints, one an epoch and about one a minute; None for none.
        resume: go on from the checkpoint, if there is one yet.

    Returns:
        FineTuned. Ctrl-C ends the training after the step and returns the best weights so far; where there are none
        yet, and a second time, it is Python's KeyboardInterrupt. In a notebook it always is, so that the code cells
        that wait do not go on with half a training; `interrupted` then holds what would have been returned. A loss that
        diverges ends it as well, with a warning that says where and what to try.

    Raises:
        ValueError: arguments that make no sense, a class without training examples or with all of them of weight 0, a
            checkpoint of another run.
        RuntimeError: the loss or the gradient is not finite, or diverges, before any weights are worth keeping.

    >>> import tlbook as tl
    >>> data = tl.data.solar_cells(64)
    >>> found = tl.finetune(tl.load_backbone(), data, data.split(test=.8), recipe="head", epochs=1, augment=None)
    >>> [row["epoch"] for row in found.history]
    [0, 1]

    Lesson 04.
    """
    recipe, objective = recipe_of(recipe), Objective() if objective is None else objective
    if not isinstance(objective, Objective):
        raise ValueError(f"objective must be a tl.Objective or None, got {objective!r}")
    if isinstance(recipe, Auto) and lr is not None:
        recipe = replace(recipe, rates=(lr,))
    lr = recipe.lr if lr is None else lr
    settings = Settings(epochs, lr, batch_size, accumulate, clip, augment, store_prefix, seed)
    with torch.random.fork_rng([backbone.device] if backbone.device.type == "cuda" else []):
        if isinstance(recipe, Auto):
            fit = partial(finetune, backbone, data, objective=objective, precision=precision, **asdict(settings))
            search = Search(fit, backbone, data, split, recipe, objective, settings, precision, checkpoint, resume)
            return _in_hand(replace(search.run(), weighting=objective.weighting(search.pool)))
        start = {"precision": precision, "checkpoint": checkpoint, "resume": resume}
        run = Run(backbone, data, split, recipe, objective, settings, **start)
        with memory_kept(), one_ctrl_c(run.interrupts):
            try:
                _minimise(run)
            except KeyboardInterrupt:  # while a prefix was stored, or the second
                if run.best is None or len(run.interrupts) > 1:
                    raise
                run.stopped = "Ctrl-C"
    run.say_why_it_stopped()
    history, epoch, names = Table(run.progress.history), run.progress.epoch, tuple(data.class_names)
    weighting = objective.weighting(split.train)
    return _in_hand(FineTuned(run.best_model(), history, epoch, names, run.start, run.stopped, weighting=weighting))


def _in_hand(found):
    """What `finetune` returns; in a notebook Ctrl-C is an error, and `interrupted` holds it."""
    if found.stopped == "Ctrl-C" and progress.in_notebook():
        global interrupted
        interrupted = found
        raise KeyboardInterrupt
    return found


def _minimise(run):
    """Go down the gradient until the last epoch, or until Ctrl-C or a loss that diverges."""
    with run.progress_bar() as bar:
        for epoch in run.epochs_left():
            run.begin(epoch)
            for parts, size in run.batches_of(epoch):
                run.set_rates(schedule(run.progress.step, run.steps))
                run.note(*_step(run, parts, size), size)
                bar.update()
                if run.stopped:
                    return
            run.end_epoch(epoch)
            if run.stopped:
                return


def _step(run, parts, size):
    """Take a step down the gradient of L on a batch of ``size``; return its loss and the gradient's norm.

    ``parts`` are this process's examples of the batch, (rows, inputs) of each part.
    """
    objective, total = run.objective, torch.zeros((), device=run.device)
    run.optimizer.zero_grad()
    for i, (rows, inputs) in enumerate(parts):
        last = i == run.settings.accumulate - 1
        with nullcontext() if last or run.processes.size == 1 else run.network.no_sync():
            mean = objective.data_term(run.forward(inputs), run.y[rows], run.s[rows])
            loss = mean * (len(rows) * run.processes.size / size)  # gradients are averaged over processes
            total += loss.detach()
            (loss + objective.penalty(run.model, run.theta0) if last else loss).backward()
    norm = torch.nn.utils.clip_grad_norm_(run.learners, run.settings.clip)
    run.optimizer.step()
    return total, norm


def distill(
    teacher, student, data, split, *, temperature=2.0, soft_share=0.5, labelled=None, objective=None, **options
):
    """Fine-tune a student on what a teacher says of the training examples, beside their labels.

    ℓ = (1 − λ) CE(y, softmax(z)) + λ τ² CE(q_τ, softmax(z / τ)), where q are the teacher's probabilities, q_τ ∝ q^(1/τ)
    their softened form, and z the student's logits. What is carried over are answers, not weights: the two
    networks may differ in everything but the classes. The teacher answers once, before the first step.

    Args:
        teacher: a `FineTuned`; or its (N, K) probabilities for the examples of ``data``, such as those it gives at
            another resolution, or the mean of several teachers'. Only those of ``split.train`` are used.
        student: Backbone. data: Dataset. split: as for `finetune`; ``val`` chooses the epoch by its labels.
        temperature: τ > 0; above 1 it shows what the teacher holds for second best.
        soft_share: λ in [0, 1], the share of the teacher.
        labelled: positions in ``data``; the labels of other training examples are not looked at (λ = 1). None for all.
        objective: `Objective` with the other terms, or None.
        options: those of `finetune`. As a student is often not pretrained, its recipe is "full" unless given.

    Returns:
        FineTuned

    Raises:
        ValueError: other classes; a recipe or an objective that would look at labels that are not there.

    >>> import tlbook as tl
    >>> data = tl.data.solar_cells(64)
    >>> split = data.split(test=.9, val=.5)
    >>> answers = np.full((len(data), 2), .5)
    >>> found = tl.distill(answers, tl.load_backbone(), data, split, recipe="head", epochs=1)
    >>> found.finished
    True

    Lesson 08; Hinton, Vinyals & Dean (2015).
    """
    # What the teacher says, of the training examples alone
    K, labels = len(data.class_names), np.isin(np.arange(len(data)), split.train if labelled is None else labelled)
    q = np.full((len(data), K), 1 / K)
    if isinstance(teacher, FineTuned):
        teacher._check_classes(data)
        q[split.train] = teacher.predict(data.subset(split.train))
    elif np.shape(teacher) != q.shape:
        raise ValueError(f"teacher must be a FineTuned or {len(data)} × {K} probabilities, got {np.shape(teacher)}")
    else:
        q[split.train] = np.asarray(teacher)[split.train]

    # Labels that are not there are not looked at
    recipe, objective = recipe_of(options.pop("recipe", "full")), Objective() if objective is None else objective
    if isinstance(recipe, Auto):
        raise ValueError("recipe 'auto' learns from val too, of which the teacher says nothing: give another recipe")
    if objective.soft_targets is not None:
        raise ValueError("objective has soft_targets of its own: those of tl.distill are the teacher's")
    if not labels[split.train].all() and (recipe.from_probe or objective.class_weight is not None):
        raise ValueError(
            "a start at the probe and class_weight need all labels of split.train: give another recipe, no "
            "class_weight, or labelled=None"
        )
    share = np.where(labels, soft_share, 1.0)
    objective = replace(objective, soft_targets=q, soft_share=share, temperature=temperature)
    return finetune(student, data, split, recipe=recipe, objective=objective, **options)


def loss_along_line(found, data, index, alphas=tuple(i / 8 for i in range(9))):
    """Return the loss and the AUC at θ(α) = (1 − α) θ⁰ + α θ*, as a Table: the landscape that training crossed.

    BatchNorm's statistics are mixed like the weights.

    Args:
        found: FineTuned, fresh from `finetune`. data, index: where the loss is measured.
        alphas: in [0, 1]; beyond the ends a mixed variance could be negative.
    """
    from tlbook.parameter_transfer import interpolate

    if not all(0 <= alpha <= 1 for alpha in alphas):
        raise ValueError(f"alphas must be in [0, 1], where BatchNorm's variances stay variances; got {alphas}")
    if found.start is None:
        raise ValueError("a model loaded from disk does not know its start: use the FineTuned that finetune returned")
    model, part, rows = copy.deepcopy(found.model), data.subset(index), Table()
    theta = state_of(found.model)
    for alpha in alphas:
        model.load_state_dict(interpolate(found.start, theta, float(alpha)))
        p = FineTuned(model, Table(), 0, found.class_names).predict(part)
        e = evaluate(p, part.labels, resamples=1)
        rows.append({"alpha": float(alpha), "loss": e.log_loss, "AUC": e.auc})
    return rows
