"""One run of fine-tuning: the network, what of it learns now, the optimizer, and how far the run has come."""

import copy
import math
import time

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn

from tlbook import checkpoints, engine
from tlbook.batches import AUGMENTATIONS, Batches, at_once, jobs_of, mine_of, parts_of, share_of, worth_storing
from tlbook.data import Split
from tlbook.evaluation import evaluate
from tlbook.parameters import _BatchNorm, audit, freeze_stages, hold, is_frozen, parameter_groups, unfreeze
from tlbook.probes import linear_probe
from tlbook.recipes import RECIPES, Recipe, plan_of


class Run:
    """A run of `tlbook.finetune`, which explains the arguments.

    Attributes:
        model, theta0: the copy that is trained, and θ⁰ = {name: tensor} of what was transferred.
        start: {name: tensor}, all of the model before the first step.
        s, y: (N,) weights and labels of all examples, on the device.
        network, optimizer: what learns in this epoch, wrapped by the accelerator.
        now: {"step", "history", "epoch", "lowest", "loss", "smooth"}: progress, as it is saved in checkpoints.
        best: the weights of ``now["epoch"]``.
    """

    def __init__(self, backbone, data, split, recipe, objective, *, precision, checkpoint, resume, **numbers):
        _check(backbone, data, split, recipe, **{k: v for k, v in numbers.items() if k not in ("seed", "store_prefix")})
        vars(self).update(numbers)  # epochs, lr, batch_size, accumulate, clip, augment, store_prefix, seed
        self.data, self.split, self.recipe, self.objective = data, split, recipe, objective
        self.device, train = backbone.device, np.asarray(split.train)
        self.dtype = engine.training_dtype(self.device, precision)
        self.accelerator = engine.accelerator_for(self.device, self.dtype)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.s = torch.from_numpy(objective.weights(data, train)).to(self.device)
        self.y = torch.from_numpy(data.labels).to(self.device)
        self.model, self.theta0 = _start(backbone, data, train, recipe, objective, self.seed)
        self.start = engine.snapshot(self.model)
        self.wanted = {name for name, p in self.model.named_parameters() if p.requires_grad}
        self.held = {name for name, module in backbone.named_modules() if is_frozen(module)}
        self.plan, self.learning = plan_of(self.model, recipe, self.epochs), None
        if any(self.plan) and not self.wanted & self.theta0.keys():
            raise ValueError(
                "the recipe lets stages learn, but no parameter of the backbone requires a gradient: "
                "backbone.requires_grad_(True) first, or recipe='head'"
            )
        n = self.batches_an_epoch = math.ceil(len(train) / self.batch_size)
        self.steps = self.epochs * n
        if len(train) // n < self.world * self.accumulate:
            raise ValueError(
                f"{len(train)} training examples in {n} batches are too few for {self.world} processes with "
                f"{self.accumulate} parts each: take a larger batch_size"
            )
        self.shares = [
            share_of(train, self.seed, epoch, n, self.augment, self.rank, self.world) for epoch in range(self.epochs)
        ]
        self.checkpoint, same = checkpoint, numbers | {"dtype": self.dtype, "processes": self.world}
        self.key = engine.key_of(backbone, data, split, recipe, objective, same) if checkpoint else None
        self.now, self.best, self.saved = engine.resume_from(checkpoint, resume, self.key, self.model)
        if self.best is None:
            self.now = {"step": 0, "history": [], "epoch": 0, "lowest": math.inf, "loss": 0.0, "smooth": None}

    def begin(self, epoch, interrupts=()):
        """Freeze what does not learn in this epoch, and make the optimizer and the batches for what does.

        Raises:
            KeyboardInterrupt: ``interrupts`` is no longer empty, while a prefix is stored.
        """
        if self.plan[epoch] != self.learning:
            self.learning = self.plan[epoch]
            self._prepare(epoch, interrupts)
            if self.saved is not None and self.plan[(self.now["step"] - 1) // self.batches_an_epoch] == self.learning:
                checkpoints.load_optimizer_state(self.optimizer.optimizer, self.saved)
            self.saved = None
        if not self.now["history"]:
            self.validate(0, 0.0, time.monotonic())
        self.model.train()

    def _prepare(self, epoch, interrupts):
        model = self.model
        unfreeze(model)
        for name, p in model.named_parameters():
            p.requires_grad_(name in self.wanted)
        freeze_stages(model, set(model.stages) - set(self.learning), self.recipe.freeze_batchnorm)
        for name, module in model.named_modules():
            if name in self.held:  # frozen by the caller
                hold(module)
        rates = {k: getattr(self.recipe, k) for k in ("layer_decay", "head_multiplier", "weight_decay", "only")}
        optimizer = torch.optim.AdamW(_groups(model, self.lr, self.objective, rates))
        problems = audit(model, optimizer).problems
        moving = [m for m in model.modules() if isinstance(m, _BatchNorm) and not is_frozen(m)]
        if problems:
            raise ValueError(f"what should learn and what would do not agree; see tl.audit:\n{problems}")
        if self.world > 1 and moving:
            raise ValueError(
                f"{len(moving)} BatchNorm layers would see only their own process's share of a batch: use a "
                "recipe with freeze_batchnorm=True"
            )
        until = engine.frozen_until(model, self.learning)
        self.plain = engine.Trained(model, until)
        self.network, self.optimizer = self.accelerator.prepare(self.plain, optimizer)
        self.batches = Batches(model, self.data, engine.prefix_of(model, until), self.dtype)
        if until is not None and self.store_prefix:
            phase = [e for e in range(self.epochs) if self.plan[e] == self.learning]
            val = mine_of(self.split.val, self.rank, self.world)
            self.batches.store(worth_storing([self.shares[e] for e in phase], val), interrupts, hidden=self.rank > 0)

    def batches_of(self, epoch):
        """Yield this process's share of each batch still to come, (rows, views, size), and an iterator of its parts."""
        shares = self.shares[epoch][self.now["step"] % self.batches_an_epoch :]
        parts = self.batches([part for share in shares for part in parts_of(share, self.accumulate)])
        try:
            for share in shares:
                yield share, parts
        finally:
            parts.close()

    def look(self, pending, interrupts, lr):
        """Add up the losses since the last look, stop what diverges, and tell whether Ctrl-C was pressed anywhere."""
        return engine.look(pending, self.now, self.accelerator, interrupts, lr, self.dtype, len(self.data.class_names))

    def validate(self, epoch, lr, clock):
        """Add a row to the history, keep the weights if they are the best so far; ``clock``: when the epoch began."""
        val, now = self.split.val, self.now
        jobs = jobs_of(mine_of(val, self.rank, self.world), at_once(self.device))
        p = engine.softmax(self.plain, self.batches, jobs, len(self.data.class_names))
        p = np.concatenate(gather_object([p])) if self.world > 1 else p
        if not np.isfinite(p).all():
            what = "the output for a validation example is not finite"
            raise engine.trouble(what, now["step"], self.lr, self.dtype)
        train_loss = now["loss"] / len(self.split.train) if epoch else math.nan
        row = {"epoch": epoch, "stages": len(self.plan[max(0, epoch - 1)]), "lr": lr, "train loss": train_loss}
        row |= {"val loss": math.nan, "val AUC": math.nan, "seconds": time.monotonic() - clock}
        if len(val):
            weight, labels = self.s[val].cpu().double().numpy(), self.data.labels[val]
            losses = -np.log(p[np.arange(len(labels)), labels].clip(1e-12))
            row["val loss"] = float(np.average(losses, weights=weight if weight.any() else None))
            row["val AUC"] = evaluate(p, labels, resamples=1).auc
        now["history"].append(row)
        now["loss"] = 0.0
        loss = row["val loss"] if epoch or self.recipe.from_probe else math.inf  # never keep a head at random
        if self.best is None or not loss >= now["lowest"]:
            now["lowest"], now["epoch"], self.best = loss, epoch, engine.snapshot(self.model)

    def save(self):
        """Write a checkpoint, if there is a folder for it."""
        if self.checkpoint is not None and self.accelerator.is_main_process:
            state = checkpoints.optimizer_state(self.optimizer.optimizer)
            parts = checkpoints.pack(model=self.model.state_dict(), best=self.best, optimizer=state)
            checkpoints.write(engine.file_of(self.checkpoint), parts, self.now | {"key": self.key})

    def best_model(self):
        """The model with the best weights, in eval mode; what requires a gradient is what did when it was given."""
        self.model.load_state_dict(self.best)
        unfreeze(self.model)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name in self.wanted)
        self.accelerator.free_memory()
        return self.model.eval()


def _start(backbone, data, train, recipe, objective, seed):
    """A copy of the backbone with a new head, and θ⁰ = {name: tensor} of what was transferred."""
    model = copy.deepcopy(backbone)
    torch.manual_seed(engine.number_of(seed, 0, 0))
    given = {name: p.requires_grad for name, p in model.named_parameters()}
    model.model.reset_classifier(len(data.class_names))
    model.to(backbone.device)
    head = {id(p) for p in model.head.parameters()}
    theta0 = {name: p.detach().clone() for name, p in model.named_parameters() if id(p) not in head}
    unfreeze(model)
    for name, p in model.named_parameters():
        p.requires_grad_(id(p) in head or given[name])
    if recipe.from_probe:
        from tlbook.feature_extraction import extract

        if not isinstance(model.head, nn.Linear):
            raise ValueError(f"the head of {model.name} is a {type(model.head).__name__}: a probe needs a Linear one")
        features = extract(backbone, data.subset(train), precision="float32")
        everything = np.arange(len(train))
        split = Split(everything, everything[:0], everything[:0])
        probe = linear_probe(features, split, sample_weight=objective.weights(data, train)[train], seed=seed)
        W, b = probe.coef, probe.intercept
        if len(W) == 1:  # of the second class against the first
            W, b = np.concatenate([-W, W]) / 2, np.concatenate([-b, b]) / 2
        with torch.no_grad():
            model.head.weight.copy_(torch.from_numpy(W))
            model.head.bias.copy_(torch.from_numpy(b))
    return model, theta0


def _groups(model, lr, objective, rates):
    """Parameter groups whose weight decay leaves alone what the objective penalises."""
    groups = parameter_groups(model, lr, **rates)
    for group in groups:
        if objective.l2_head if group["stage"] == "head" else objective.l2_sp:
            group["weight_decay"] = 0.0
        group["initial_lr"] = group["lr"]
    return groups


def _check(backbone, data, split, recipe, epochs, lr, batch_size, accumulate, clip, augment):
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)} or a Recipe, got {recipe!r}")
    whole = {"epochs": epochs, "batch_size": batch_size, "accumulate": accumulate}
    for name, value in whole.items():
        if int(value) != value or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not (0 < lr < math.inf and clip > 0):
        raise ValueError(f"lr must be above 0 and clip above 0, got {lr!r} and {clip!r}")
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {list(AUGMENTATIONS)}, got {augment!r}")
    both = np.intersect1d(split.train, np.concatenate([split.val, split.test]))
    if len(both):
        raise ValueError(
            f"example {both[0]} is in train and in val or test ({len(both)} such): no honest choice is left"
        )
    counts = np.bincount(data.labels[split.train], minlength=len(data.class_names))
    if len(counts) < 2 or not counts.all():
        absent = [name for name, count in zip(data.class_names, counts, strict=True) if not count]
        raise ValueError(f"classes without a training example: {absent or 'a second one'}. Split so that each has some")
