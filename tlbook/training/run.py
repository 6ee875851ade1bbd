"""One run of fine-tuning: its settings, how far it has come, and what learns in it now."""

import copy
import gc
import math
import signal
import threading
import time
import warnings
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import nn

from tlbook import processes, progress
from tlbook.arguments import positive_number, whole_number
from tlbook.data import Split
from tlbook.device import inference_dtype
from tlbook.evaluation import evaluate
from tlbook.feature_extraction import extract
from tlbook.forward import gathered, in_eval_mode, is_recordable
from tlbook.loading import eval_batch_size, read_input
from tlbook.probes import linear_probe
from tlbook.training import checkpoints
from tlbook.training.batches import (
    AUGMENTATIONS,
    Batches,
    as_they_are,
    parts_of,
    shares_of_epoch,
    worth_storing,
)
from tlbook.training.recipes import plan_of
from tlbook.training.recorded import WORTH_RECORDING, Recorded
from tlbook.training.trainable import (
    BatchNorm,
    audit,
    freeze_stages,
    frozen_prefix,
    is_frozen,
    keep_in_eval,
    parameter_groups,
    unfreeze,
)

CHECKPOINT_SECONDS = 60  # between checkpoints within an epoch
CHECK_EVERY = 16  # steps on a GPU between looks at the losses: to look at a number waits for the GPU


@dataclass(frozen=True)
class Settings:
    """The arguments of `tlbook.finetune` that are numbers and choices; wrong ones are a ValueError."""

    epochs: int
    lr: float
    batch_size: int
    accumulate: int
    clip: float
    augment: str | None
    store_prefix: bool
    seed: int

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        object.__setattr__(self, "seed", whole_number("seed", self.seed, 0))
        object.__setattr__(self, "lr", positive_number("lr", self.lr))
        clip = math.inf if self.clip is None or self.clip == math.inf else positive_number("clip", self.clip)
        object.__setattr__(self, "clip", clip)
        if not isinstance(self.augment, str | None) or self.augment not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {list(AUGMENTATIONS)}, got {self.augment!r}")


@dataclass
class Progress:
    """How far a run has come; checkpoints hold it as JSON.

    Attributes:
        step: steps taken. history: a row for each epoch.
        epoch, lowest: the epoch whose weights are the best so far, and their validation loss.
        loss: Σ of the losses of this epoch's examples. smooth: a running mean of the steps' losses.
        limit: what ``smooth`` must stay below.
    """

    step: int = 0
    history: list = field(default_factory=list)
    epoch: int = 0
    lowest: float = math.inf
    loss: float = 0.0
    smooth: float | None = None
    limit: float | None = None

    @classmethod
    def from_json(cls, facts):
        """The progress that went through ``asdict`` and JSON, where null stands for what is not finite."""
        history = [{k: math.nan if v is None else v for k, v in row.items()} for row in facts["history"]]
        lowest = math.inf if facts["lowest"] is None else facts["lowest"]
        return cls(**facts | {"history": history, "lowest": lowest})


class SuffixOf(nn.Module):
    """The network from where the frozen prefix ends, as one module: what a step calls, and what learns."""

    def __init__(self, model, until):
        super().__init__()
        self.model, self.until = model, until

    def forward(self, z):
        return self.model(z) if self.until is None else self.model.suffix(self.until)(z)


def mean_and_error(x, weight, groups):
    """(mean, standard error) of x (N,), weighted; whole groups vary where there are several, examples where not."""
    w = weight / weight.sum()
    mean = (w * x).sum()
    unit = np.arange(len(x)) if groups is None else np.unique(groups, return_inverse=True)[1]
    unit = unit if unit.any() else np.arange(len(x))  # one group says nothing of how groups differ
    n = unit.max() + 1
    return mean, math.sqrt(n / max(n - 1, 1) * (np.bincount(unit, w * (x - mean)) ** 2).sum())


class Run:
    """A run of `tlbook.finetune`, which explains the arguments.

    Attributes:
        model, theta0: the copy that is trained, and θ⁰ = {name: tensor} of what was transferred.
        start, start_losses: {name: tensor}, all of the model before the first step, and its loss on each val example.
        s, y: (N,) weights and what the objective compares with, of all examples, on the device.
        network, learners, optimizer, batches: what learns in this epoch, its parameters, and what it sees.
        progress: how far it has come. best: the weights of ``progress.epoch``.
        stopped: why it ended before its last epoch: "", "Ctrl-C", or what diverged and what to try.
    """

    def __init__(self, backbone, data, split, recipe, objective, settings, *, precision, checkpoint, resume):
        # What is given
        check_split(data, split)
        if settings.augment not in backbone.augmentations:
            raise ValueError(
                f"augment must be one of {list(backbone.augmentations)} for the inputs of {backbone.name}, got "
                f"{settings.augment!r}"
            )
        self.backbone, self.data, self.split = backbone, data, split
        self.recipe, self.objective, self.settings, self.checkpoint = recipe, objective, settings, checkpoint
        self.device, self.dtype = backbone.device, training_dtype(backbone.device, precision)
        self.processes = processes.join(self.device)
        weight = objective.weights(data, split.train)
        check_weights(data, split.train, weight[split.train], objective)
        self.s = torch.from_numpy(weight).to(self.device)
        self.y = torch.from_numpy(objective.targets(data)).to(self.device)

        # Where it starts, and what may ever learn
        self.model, self.theta0 = start_of(backbone, data, split.train, recipe, objective, settings.seed)
        self.start = state_of(self.model, self.theta0)
        self.may_learn = {name for name, p in self.model.named_parameters() if p.requires_grad}
        self.kept_frozen = {name for name, module in backbone.named_modules() if is_frozen(module)}

        # The plan: what learns when, and each epoch's batches
        self.plan, self.learning = plan_of(self.model, recipe, settings.epochs), None
        if any(self.plan) and not self.may_learn & self.theta0.keys():
            raise ValueError(
                "the recipe lets stages learn, but no parameter of the backbone requires a gradient: "
                "backbone.requires_grad_(True) first, or recipe='head'"
            )
        train, n = split.train, math.ceil(len(split.train) / settings.batch_size)
        if len(train) // n < self.processes.size * settings.accumulate:
            raise ValueError(
                f"{len(train)} training examples in {n} batches are too few for {self.processes.size} processes with "
                f"{settings.accumulate} parts each: take a larger batch_size"
            )
        self.batches_an_epoch, self.steps = n, n * settings.epochs
        epochs = range(settings.epochs)
        self.shares = [shares_of_epoch(train, epoch, n, settings, self.processes) for epoch in epochs]

        # How far it has come
        self.key = checkpoints.key_of(self) if checkpoint is not None else None
        self.progress, self.best, self.saved, self.start_losses, self.stopped = Progress(), None, None, None, ""
        self.resume(checkpoints.load(checkpoint, resume, self.key))
        self.factor, self.interrupts, self.unchecked, self.last_save = 0.0, [], [], time.monotonic()

    def resume(self, found):
        """Go on from what `checkpoints.load` found, if anything."""
        if found is not None:
            model, best, self.saved, start, progress = found
            self.start_losses = start["losses"].numpy() if start else None
            self.model.load_state_dict(model)
            self.best = {name: tensor.to(self.device) for name, tensor in best.items()}
            self.progress = Progress.from_json(progress)

    def progress_bar(self):
        hidden = not self.processes.is_first
        return progress.bar(self.steps, "fine-tuning", " steps", initial=self.progress.step, hidden=hidden)

    def epochs_left(self):
        return range(self.progress.step // self.batches_an_epoch, self.settings.epochs)

    def begin(self, epoch):
        """Freeze what does not learn in this epoch, and make the optimizer and the batches for what does.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed while a prefix was stored.
        """
        self.clock = time.monotonic()
        if self.plan[epoch] != self.learning:
            self.learning = self.plan[epoch]
            self._freeze_the_others()
            self._make_optimizer()
            self._make_batches()
        if not self.progress.history:
            self.validate(0)
        self.model.train()

    def _freeze_the_others(self):
        unfreeze(self.model)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name in self.may_learn)
        freeze_stages(self.model, set(self.model.stages) - set(self.learning), self.recipe.freeze_batchnorm)
        for name, module in self.model.named_modules():
            if name in self.kept_frozen:  # by the caller
                keep_in_eval(module)
        moving = [m for m in self.model.modules() if isinstance(m, BatchNorm) and not is_frozen(m)]
        if self.processes.size > 1 and moving:
            raise ValueError(
                f"{len(moving)} BatchNorm layers would see only their own process's share of a batch: use a "
                "recipe with freeze_batchnorm=True"
            )

    def _make_optimizer(self):
        groups = groups_of(self.model, self.settings.lr, self.objective, self.recipe)
        self.optimizer = torch.optim.AdamW(groups, fused=self.device.type == "cuda")
        self.learners = [p for p in self.model.parameters() if p.requires_grad]
        problems = audit(self.model, self.optimizer).problems
        if problems:
            raise ValueError(f"what should learn and what would do not agree; see tl.audit:\n{problems}")
        if self.saved is not None:  # of the same phase, or of none
            last = (self.progress.step - 1) // self.batches_an_epoch
            if self.plan[last] == self.learning:
                checkpoints.load_optimizer_state(self.optimizer, self.saved)
            self.saved = None

    def _make_batches(self):
        until = frozen_prefix(self.model, self.learning)
        self.suffix = SuffixOf(self.model, until)
        self.network = processes.parallel(self.suffix, self.device, self.processes)
        alone = self.processes.size == self.settings.accumulate == 1
        steps = self.batches_an_epoch * self.plan.count(self.learning)
        if self.device.type == "cuda" and alone and steps >= WORTH_RECORDING and is_recordable(self.suffix):
            gc.collect()  # recordings of an earlier phase lie in cycles of references, and hold their memory
            self.network = Recorded(self.suffix)
        self.batches = Batches(self.model, self.data, until, self.dtype)
        if until is not None and self.settings.store_prefix:
            phase = [self.shares[e] for e, learning in enumerate(self.plan) if learning == self.learning]
            pairs = worth_storing(phase, self.processes.share(self.split.val))
            self.batches.store(pairs, self.interrupts, hidden=not self.processes.is_first)

    def batches_of(self, epoch):
        """Yield each batch still to come: (rows, inputs) of the parts of this process's share, and the whole size."""
        shares = self.shares[epoch][self.progress.step % self.batches_an_epoch :]
        jobs = [parts_of(share, self.settings.accumulate) for share in shares]
        with closing(self.batches([job for parts in jobs for job in parts])) as inputs:
            for parts, (_, _, size) in zip(jobs, shares, strict=True):
                # Dropout is a function of seed, step and process, so that a resumed run is the run never interrupted
                torch.manual_seed(seed_of(self.settings.seed, self.progress.step, self.processes.rank))
                yield ((rows, next(inputs)) for rows, _ in parts), size

    def set_rates(self, factor):
        """Multiply every group's learning rate by the schedule's ``factor``."""
        self.factor = factor
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def forward(self, inputs):
        """Logits of a batch, float32."""
        low = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, low, cache_enabled=False):  # a recording has no such cache
            return self.network(inputs).float()

    def note(self, loss, norm, size):
        """Count a step and look at its numbers; may set ``stopped``, and saves a checkpoint about once a minute."""
        self.unchecked.append((torch.stack([loss, norm]), size))
        self.progress.step += 1
        epoch_ends = self.progress.step % self.batches_an_epoch == 0
        if self.device.type == "cpu" or len(self.unchecked) == CHECK_EVERY or epoch_ends:
            self._check_losses()
            if not (epoch_ends or self.stopped):  # at an epoch's end validation comes first
                self._stop_if_pressed()
                if self.stopped or time.monotonic() - self.last_save >= CHECKPOINT_SECONDS:
                    self.save()

    def end_epoch(self, epoch):
        """Validate and save; may set ``stopped``."""
        self.validate(epoch + 1)
        if not self.stopped:
            self.save()
            if self.progress.step < self.steps:
                self._stop_if_pressed()

    def _stop_if_pressed(self):
        if self.processes.sum(torch.tensor(len(self.interrupts))) > 0:  # Ctrl-C, in any of the processes
            self.stopped = "Ctrl-C"

    def _check_losses(self):
        """Add up the losses since the last look, and stop what diverges."""
        values = torch.stack([value for value, _ in self.unchecked]).cpu().double()
        values, now = self.processes.sum(values) / self.processes.size, self.progress
        first = now.step - len(self.unchecked) + 1
        for step, ((loss, norm), (_, size)) in enumerate(zip(values.tolist(), self.unchecked, strict=True), first):
            now.loss += loss * size
            now.smooth = loss if now.smooth is None else 0.9 * now.smooth + 0.1 * loss
            now.limit = now.limit or 10 * max(loss, math.log(len(self.data.class_names)))
            if not math.isfinite(loss):
                return self._diverge("the loss is not finite", step)
            if not math.isfinite(norm):
                return self._diverge("the gradient is not finite", step)
            if now.smooth >= now.limit:
                return self._diverge(f"the loss diverges (about {now.smooth:.3g})", step)
        self.unchecked = []

    def _diverge(self, problem, step):
        """Stop with the best weights so far; an error where there are none that anything has trained."""
        lr = self.settings.lr * (self.factor or 1.0)
        advice = f"try lr={lr / 10:.1g}" + (", precision='float32'" if self.dtype != torch.float32 else "")
        self.stopped = (
            f"{problem} at step {step}, with the learning rate {lr:.3g}: {advice}, clip=1.0, and look at the inputs, "
            "the weights of the backbone and of the examples, and the objective's coefficients"
        )
        if self.best is None or self.progress.epoch == 0 and not self.recipe.from_probe:  # a head at random
            raise RuntimeError(f"{self.stopped}. No weights were kept from it")

    def validate(self, epoch):
        """Add a row to the history, and keep the weights if they are the best so far."""
        val, now = self.split.val, self.progress
        p = self._probabilities(val)
        if not np.isfinite(p).all():
            return self._diverge("the output for a validation example is not finite", now.step)
        row = {
            "epoch": epoch,
            "stages": len(self.plan[max(0, epoch - 1)]),
            "lr": self.settings.lr * self.factor if epoch else 0.0,
            "train loss": now.loss / len(self.split.train) if epoch else math.nan,
            "val loss": math.nan,
            "val AUC": math.nan,
            "seconds": time.monotonic() - self.clock,
        }
        losses = None
        if len(val):
            labels = self.data.labels[val]
            losses = -np.log(p[np.arange(len(labels)), labels].clip(1e-12))
            row["val loss"] = float(np.average(losses, weights=self.val_weights()))
            row["val AUC"] = evaluate(p, labels, resamples=1).auc
        now.history.append(row)
        now.loss = 0.0
        self._keep_if_best(epoch, row["val loss"], losses)

    def val_weights(self):
        """(n_val,) the weights of the validation examples; all 1 where they are all 0."""
        weight = self.s[self.split.val].cpu().double().numpy()
        return weight if weight.any() else np.ones(len(weight))

    def _keep_if_best(self, epoch, loss, losses):
        """Keep the weights if their validation loss is the lowest so far.

        A head at random is never kept, and a start at the probe is only given up for weights whose loss is lower by
        more than a standard error of the paired difference (the one-standard-error rule, Breiman et al., 1984), over
        groups where there are groups: their examples are alike, and many of one group are not many witnesses.
        """
        now = self.progress
        if epoch == 0:
            self.start_losses = losses
            loss = loss if self.recipe.from_probe else math.inf
        elif losses is not None and self.recipe.from_probe:
            groups = None if self.data.groups is None else self.data.groups[self.split.val]
            gain, error = mean_and_error(self.start_losses - losses, self.val_weights(), groups)
            if now.epoch == 0 and not gain > error:
                return
        if self.best is None or not loss >= now.lowest:
            now.lowest, now.epoch, self.best = loss, epoch, state_of(self.model, self.start)

    def _probabilities(self, rows):
        """(n, K) of these examples, each process computing its share."""
        jobs = as_they_are(self.processes.share(rows), eval_batch_size(self.device))
        p = probabilities(self.suffix, self.batches(jobs), len(self.data.class_names), len(rows))
        return np.concatenate(self.processes.gather(p))

    def save(self):
        """Write a checkpoint, if there is a folder for it."""
        self.last_save = time.monotonic()
        if self.checkpoint is not None and self.processes.is_first:
            state = checkpoints.optimizer_state(self.optimizer)
            losses = {} if self.start_losses is None else {"losses": torch.from_numpy(self.start_losses)}
            parts = checkpoints.pack(model=self.model.state_dict(), best=self.best, optimizer=state, start=losses)
            facts = {"key": self.key, "progress": asdict(self.progress)}
            checkpoints.write(checkpoints.file_of(self.checkpoint), parts, facts)

    def say_why_it_stopped(self):
        kept = f"the weights are those of epoch {self.progress.epoch}"
        if self.stopped == "Ctrl-C":
            where = ": tl.fine_tuning.interrupted holds them" if progress.in_notebook() else ""
            print(f"stopped at step {self.progress.step} of {self.steps}; {kept}{where}")
        elif self.stopped:
            warnings.warn(f"{self.stopped}. Training stopped there; {kept}, the best so far", stacklevel=3)

    def best_model(self):
        """The model with the best weights, in eval mode; what requires a gradient is what did when it was given."""
        self.model.load_state_dict(self.best)
        unfreeze(self.model)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name in self.may_learn)
        return self.model.eval()


def start_of(backbone, data, train, recipe, objective, seed):
    """A copy of the backbone with a new head, and θ⁰ = {name: tensor} of what was transferred."""
    model = copy.deepcopy(backbone)
    torch.manual_seed(seed_of(seed, 0, 0))
    required_grad = {name: p.requires_grad for name, p in model.named_parameters()}
    model.reset_head(len(data.class_names))
    model.fit_to(read_input(data, int(train[0])))

    # The head always learns; of the rest, what the caller let learn
    head = {id(p) for p in model.head.parameters()}
    theta0 = {name: p.detach().clone() for name, p in model.named_parameters() if id(p) not in head}
    unfreeze(model)
    for name, p in model.named_parameters():
        p.requires_grad_(id(p) in head or required_grad[name])
    if recipe.from_probe:
        start_at_probe(model, backbone, data, train, objective, seed)
    return model, theta0


def start_at_probe(model, backbone, data, train, objective, seed):
    """Give the head the weights of the exact linear probe on the training part."""
    if not isinstance(model.head, nn.Linear):
        raise ValueError(f"the head of {model.name} is a {type(model.head).__name__}: a probe needs a Linear one")
    features = extract(backbone, data.subset(train), precision="float32")
    rows = np.arange(len(train))
    weight = objective.weights(data, train)[train]
    probe = linear_probe(features, Split(rows, rows[:0], rows[:0]), sample_weight=weight, seed=seed)
    set_head(model, probe)


def set_head(model, probe):
    """Give the linear head of a model the weights of a probe of what it reads."""
    W, b = probe.coef, probe.intercept
    if len(W) == 1:  # of the second class against the first
        W, b = np.concatenate([-W, W]) / 2, np.concatenate([-b, b]) / 2
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(W))
        model.head.bias.copy_(torch.from_numpy(b))


def groups_of(model, lr, objective, recipe):
    """Parameter groups whose weight decay leaves alone what the objective penalises."""
    numbers = {k: getattr(recipe, k) for k in ("layer_decay", "head_multiplier", "weight_decay", "only")}
    groups = parameter_groups(model, lr, **numbers)
    for group in groups:
        if objective.l2_head if group["stage"] == "head" else objective.l2_sp:
            group["weight_decay"] = 0.0
        group["initial_lr"] = group["lr"]
    return groups


def check_parts(data, split):
    """Refuse parts that overlap or lie outside the data."""
    parts = dict(zip(("train", "val", "test"), map(np.asarray, split), strict=True))
    for name, rows in parts.items():
        if len(rows) and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= len(data)):
            raise ValueError(f"split.{name} must hold integers from 0 to {len(data) - 1}, positions in the data")
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        both = np.intersect1d(parts[a], parts[b])
        if len(both):
            raise ValueError(f"example {both[0]} is in {a} and in {b} ({len(both)} such): no honest choice is left")


def check_split(data, split):
    """Refuse parts that overlap, lie outside the data, or leave a class without an example to learn from."""
    check_parts(data, split)
    counts = np.bincount(data.labels[split.train], minlength=len(data.class_names)) if len(split.train) else [0]
    if len(counts) < 2 or not np.all(counts):
        absent = [name for name, count in zip(data.class_names, counts, strict=False) if not count]
        raise ValueError(f"classes without a training example: {absent or 'a second one'}. Split so that each has some")


def check_weights(data, rows, weight, objective):
    """Refuse weights (n,) of the training examples at ``rows`` that leave a class nothing to learn from."""
    weight = np.bincount(data.labels[rows], weight, len(data.class_names))
    lost = [name for name, w in zip(data.class_names, weight, strict=True) if w == 0]
    if lost and objective.soft_targets is None:  # these teach classes through other examples too
        raise ValueError(
            f"classes whose training examples all have weight 0: {lost}. Give some of them a weight, or leave these "
            "classes out"
        )


def training_dtype(device, precision):
    """float32 unless asked otherwise: EfficientNet-Lite0 takes its steps more slowly in bfloat16, on a GPU too."""
    return torch.float32 if precision == "auto" else inference_dtype(device, precision)


def seed_of(*numbers):
    """A seed for torch that is a function of these numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def state_of(model, earlier=None):
    """{name: tensor}, a copy of the model's state; what is as in an ``earlier`` copy is that copy's own tensor.

    So weights that stay frozen are held once, however many copies are kept. No copy is ever changed in place.
    """
    earlier, state = earlier or {}, {name: tensor.detach() for name, tensor in model.state_dict().items()}
    same = {name for name, tensor in state.items() if name in earlier and torch.equal(tensor, earlier[name])}
    return {name: earlier[name] if name in same else tensor.clone() for name, tensor in state.items()}


def probabilities(network, batches, K, examples):
    """(N, K) float64, in eval mode; the modes of all modules are as before afterwards. N is at most ``examples``."""
    with in_eval_mode(network):
        logits = gathered(network, batches, examples, "float32")
    return logits.reshape(-1, K).double().softmax(1).numpy()


@contextmanager
def one_ctrl_c(caught):
    """Let the first Ctrl-C wait for the end of the step, but not a second one; ``caught`` lists them.

    A block around this one is told of them as well: what it does may end with this one's last step.
    """

    def note(number, frame):
        for listed in note.lists:
            listed.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    note.lists = [caught, *getattr(before, "lists", [])]
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
