"""Which parameters learn, and how fast: `freeze`, `parameter_groups`, and `audit`, which checks both.

All three speak of a Backbone's stages. Every parameter belongs to one stage or to the head. What a model holds outside
its stages counts as the first one if it is a parameter of its own (class token, position embedding), and else as
"final" (a norm after pooling).
"""

import functools
import re
from dataclasses import dataclass, field

from torch import nn

from tlbook.backbones import backbone_of
from tlbook.table import Table

BatchNorm = nn.modules.batchnorm._BatchNorm


def stages_of(model):
    """Return {name: stage or "head"} of every parameter and every module inside a stage of the Backbone ``model``.

    Modules that contain stages or the head are left out.
    """
    modules = dict(model.model.named_modules())
    head = next(name for name, module in modules.items() if module is model.head)
    parts = [(head, "head"), *((part, stage) for stage, parts in model.parts.items() for part in parts)]
    around = {part[:i] for part, _ in parts for i, letter in enumerate(part) if letter == "."} | {""}
    first, last = list(model.parts)[0], list(model.parts)[-1]

    def stage(name, otherwise):
        return next((s for part, s in parts if name == part or name.startswith(f"{part}.")), otherwise)

    found = {name: stage(name, last) for name in modules if name not in around}
    for name, _ in model.model.named_parameters(remove_duplicate=False):
        found[name] = stage(name, last if "." in name else first)
    return {f"model.{name}": s for name, s in found.items()}


def freeze(model, until):
    """Freeze the stages of a Backbone from the first to ``until``, which is included, in place.

    Their parameters require no gradient, and their modules stay in eval mode whatever ``.train()`` says: BatchNorm
    normalises with the statistics it came with and does not update them, dropout drops nothing. `unfreeze` undoes it.

    Args:
        model: Backbone.
        until: a name out of ``model.stages``; "final" leaves only the head to learn.

    Raises:
        ValueError: an unknown stage, or a model compiled inside. TypeError: no Backbone.

    >>> import tlbook as tl
    >>> backbone = tl.load_backbone("resnet18", weights=None)
    >>> freeze(backbone, until="layer3")
    >>> backbone.train().model.layer3[0].bn1.training, backbone.model.layer4[0].bn1.training
    (False, True)

    Lesson 04. That requires_grad=False leaves BatchNorm's statistics moving is the best known bug of fine-tuning.
    """
    model = backbone_of(model)
    stages = list(model.stages)
    freeze_stages(model, stages[: model._position(until) + 1])


def freeze_stages(model, stages, batchnorm=False):
    """Freeze these stages, which need not be the first ones; with ``batchnorm``, hold all BatchNorm statistics too."""
    of = stages_of(model)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if of[name] in stages:
            parameter.requires_grad_(False)
    for name, module in model.named_modules():
        if of.get(name) in stages or batchnorm and isinstance(module, BatchNorm):
            keep_in_eval(module)


def frozen_prefix(model, learning):
    """The last of the leading stages that are not among the ``learning`` ones, or None."""
    until = None
    for stage in model.stages:
        if stage in learning:
            break
        until = stage
    return until


def keep_in_eval(module):
    """Keep the module in eval mode, whatever ``.train()`` says."""
    if not is_frozen(module):
        module.__class__ = _frozen(type(module))
    module.eval()


def unfreeze(model):
    """Undo `freeze`: every parameter requires a gradient again, and every module follows ``.train()``, in place."""
    for module in model.modules():
        if is_frozen(module):
            module.__class__ = type(module)._thawed
            module.training = model.training
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def is_frozen(module):
    """Tell whether ``.train()`` has no effect on the module."""
    return hasattr(type(module), "_thawed")


@functools.cache
def _frozen(kind):
    """The module's class, except that it stays in eval mode; instances keep their tensors, names and hooks."""
    return derived(_frozen, kind, "Frozen", {"train": lambda m, mode=True: kind.train(m, False), "_thawed": kind})


def derived(maker, kind, prefix, members):
    """Make the subclass that ``maker(kind)`` returns; its instances pickle by the class they began with."""
    recipe = (*getattr(kind, "_recipe", (kind,)), maker)
    members |= {"_recipe": recipe, "__module__": kind.__module__, "__reduce_ex__": _reduce}
    return type(f"{prefix}{kind.__name__}", (kind,), members)


def _reduce(module, protocol):
    return _new, type(module)._recipe, object.__reduce_ex__(module, 2)[2]


def _new(kind, *makers):
    for maker in makers:
        kind = maker(kind)
    return kind.__new__(kind)


def parameter_groups(model, lr, *, layer_decay=1.0, head_multiplier=1.0, weight_decay=0.0, only=None):
    """Give every stage its own learning rate, as groups that any torch optimizer takes.

    The deepest stage that has parameters learns at ``lr``, and each one below at λ times the rate of the one above:
    lr_s = lr · λ^(depth − s). The head learns at lr · head_multiplier. These are the groups' real rates: no scheduler
    has to apply them. Norms, biases, and what the model itself exempts (tokens, position embeddings) do not decay.

    Args:
        model: Backbone. Frozen parameters are left out.
        lr: the rate of the deepest stage, above 0.
        layer_decay: λ, above 0 and at most 1.
        head_multiplier: above 0; 10 is usual for a head that starts at random.
        weight_decay: of weights.
        only: a regular expression; transferred parameters whose whole name does not match it are frozen. The head
            always learns. r".*bias" is BitFit (Ben Zaken et al. 2022).

    Returns:
        A list of {"params", "names", "stage", "lr", "weight_decay"}, at most two for each stage.

    Raises:
        ValueError: a number out of range, or a pattern that matches nothing.

    Lesson 04. Layer-wise decay: Howard & Ruder, ULMFiT, ACL 2018; Clark et al., ELECTRA, ICLR 2020.
    """
    if not (lr > 0 and 0 < layer_decay <= 1 and head_multiplier > 0 and weight_decay >= 0):
        raise ValueError(
            "lr and head_multiplier must be above 0, layer_decay above 0 and at most 1, weight_decay at least 0; got "
            f"{lr}, {head_multiplier}, {layer_decay}, {weight_decay}"
        )
    of, named = stages_of(model), dict(model.named_parameters())
    if only is not None:
        chosen = [name for name in named if re.fullmatch(only, name) and of[name] != "head"]
        if not chosen:
            raise ValueError(f"only: {only!r} matches the whole name of no parameter; one is {next(iter(named))!r}")
        for name in named.keys() - set(chosen):
            named[name].requires_grad_(of[name] == "head")
    exempt = {f"model.{name}" for name in getattr(model.model, "no_weight_decay", set)()}
    depths = [stage for stage in model.stages if any(of[n] == stage for n in named)]
    rates = {stage: lr * layer_decay ** (len(depths) - 1 - i) for i, stage in enumerate(depths)}
    groups = {}
    for name, parameter in named.items():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in exempt
            group = groups.setdefault((of[name], decays), {"params": [], "names": []})
            group["params"].append(parameter)
            group["names"].append(name)
            group["stage"] = of[name]
            group["lr"] = rates.get(of[name], lr * head_multiplier)
            group["weight_decay"] = weight_decay if decays else 0.0
    return list(groups.values())


@dataclass(frozen=True, repr=False)
class AuditReport:
    """What `audit` found; it prints as a table.

    Attributes:
        problems: a row for each: parameter, problem, remedy. Empty when all is well.
        stages: a row for each stage: tensors that learn, that are frozen, and the learning rates given.
    """

    problems: list = field(default_factory=Table)
    stages: list = field(default_factory=Table)

    def __repr__(self):
        count = len(self.problems)
        found = f"{count} problem{'s' * (count != 1)}\n{self.problems}" if count else "no problems"
        return f"{self.stages}\n{found}"

    def _repr_html_(self):
        return self.stages._repr_html_() + (self.problems._repr_html_() if self.problems else "<p>no problems</p>")


def audit(model, optimizer):
    """Compare what a model wants to learn with what an optimizer was given, tensor by tensor, by identity.

    Found are: parameters that want a gradient and were not given (a new head forgotten), parameters given though they
    are frozen, given though they are not the model's (the head that was replaced), memory given twice, and frozen
    BatchNorm layers whose statistics would still move.

    Args:
        model: Backbone. optimizer: any torch optimizer.

    Returns:
        AuditReport

    Lesson 04. Two tensors of equal values are still two; comparing by value hides all five mistakes.
    """
    of, named = stages_of(model), dict(model.named_parameters())
    names = {id(p): name for name, p in named.items()}
    given = [(p, group["lr"]) for group in optimizer.param_groups for p in group["params"]]
    rate, report, seen = {id(p): lr for p, lr in given}, AuditReport(), {}

    def problem(parameter, what, remedy):
        report.problems.append({"parameter": parameter, "problem": what, "remedy": remedy})

    for name, p in named.items():
        if p.requires_grad and id(p) not in rate:
            what = "head forgotten" if of[name] == "head" else "forgotten"
            problem(name, f"{what}: wants a gradient, but the optimizer does not have it", "add it, or freeze it")
    for p, _ in given:
        name = names.get(id(p), f"a tensor of shape {tuple(p.shape)}")
        place = (p.untyped_storage().data_ptr(), p.storage_offset(), p.numel())
        if id(p) in names and not p.requires_grad:
            problem(name, "frozen, yet given to the optimizer", "give only what requires a gradient")
        if place in seen and p.numel():
            problem(name, f"given twice: the same memory as {seen[place]}", "give shared tensors once")
        elif id(p) not in names:
            problem(name, "not a parameter of the model", "build the optimizer after the model is complete")
        seen[place] = name
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, BatchNorm) and module.track_running_stats and not is_frozen(module):
            if own and not any(p.requires_grad for p in own):
                problem(name, "BatchNorm with frozen weights, but .train() would move its statistics", "tl.freeze it")
    for stage in [*model.stages, "head"]:
        inside = [p for name, p in named.items() if of[name] == stage]
        rates = sorted({rate[id(p)] for p in inside if id(p) in rate})
        learn = sum(p.requires_grad for p in inside)
        row = {"stage": stage, "learn": learn, "frozen": len(inside) - learn}
        report.stages.append(row | {"learning rate": ", ".join(f"{r:.2g}" for r in rates)})
    return report
