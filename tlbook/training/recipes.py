"""Recipes: which stages of a network learn in which epoch, and how fast. The head always learns."""

from dataclasses import dataclass

from tlbook.arguments import positive_number, whole_number
from tlbook.training.trainable import stages_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What moves, how fast, and from where; see `parameter_groups` for the numbers.

    ``freeze_batchnorm`` holds the statistics of all BatchNorm layers as they came, in the stages that learn, too.
    """

    head_multiplier: float = 10.0
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    freeze_batchnorm: bool = False
    only: str | None = None

    lr = 3e-4  # of the deepest stage, where `finetune` is given none
    from_probe = False  # start the head at the exact linear probe

    def plan(self, stages, epochs):
        """Return the stages that learn in each epoch, out of ``stages`` (those with parameters, in order)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Head(Recipe):
    """Train the head alone, on frozen features: the linear probe by gradient descent."""

    def plan(self, stages, epochs):
        return [()] * epochs


@dataclass(frozen=True, kw_only=True)
class Full(Recipe):
    """Train everything, or what comes after the stage ``until``."""

    until: str | None = None

    def plan(self, stages, epochs):
        first = 0 if self.until is None else list(stages).index(self.until) + 1
        return [tuple(stages[first:])] * epochs


@dataclass(frozen=True, kw_only=True)
class Bias(Full):
    """Train the biases alone, those of BatchNorm included, and hold its statistics (BitFit, Ben Zaken et al.)."""

    freeze_batchnorm: bool = True
    only: str | None = r".*bias"
    lr = 3e-3  # they are few: a larger step than where all weights move


@dataclass(frozen=True, kw_only=True)
class LPFT(Full):
    """Full, started at the exact linear probe, so that a random head does not distort the features (Kumar et al.).

    BatchNorm keeps its statistics: the probe was fitted to features normalised with them, not with a batch's own.
    """

    head_multiplier: float = 1.0
    freeze_batchnorm: bool = True
    lr = 1e-4  # a start that is already good is easily harmed
    from_probe = True


@dataclass(frozen=True, kw_only=True)
class Gradual(Recipe):
    """Train the head for an epoch, then with each epoch one stage more, the deepest first (Howard & Ruder)."""

    def plan(self, stages, epochs):
        return [tuple(stages[max(0, len(stages) - epoch) :]) for epoch in range(epochs)]


@dataclass(frozen=True, kw_only=True)
class Surgical(Recipe):
    """Train one stage and the head (Lee et al.); by default the stage after the stem, where inputs first differ."""

    stage: str | None = None

    def plan(self, stages, epochs):
        return [(self.stage or stages[min(1, len(stages) - 1)],)] * epochs


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Let the evidence choose: probes and LP-FT are compared on held-out folds; see `tlbook.training.search`.

    Attributes:
        minutes: the clock: what would not fit is not tried, and that is said. The plain probe always is.
        rates: the learning rates of LP-FT, in the order in which they are tried.
        photo: try LP-FT at the best of them with augment="photo", too, where the inputs are images and no other
            augmentation is asked for.
        folds: how many parts of train and val are held out in turn.
    """

    minutes: float = 10.0
    rates: tuple = (1e-4, 3e-4, 3e-5)
    photo: bool = True
    folds: int = 3

    from_probe = True

    def __post_init__(self):
        positive_number("minutes", self.minutes)
        whole_number("folds", self.folds, 2)
        if not isinstance(self.rates, tuple | list) or not self.rates:
            raise ValueError(f"rates must be one learning rate or more, such as (1e-4, 3e-4), got {self.rates!r}")
        object.__setattr__(self, "rates", tuple(positive_number("rates", rate) for rate in self.rates))

    @property
    def lr(self):
        return self.rates[0]


RECIPES = {"head": Head, "full": Full, "bias": Bias, "lp_ft": LPFT, "gradual": Gradual, "surgical": Surgical}
RECIPES |= {"auto": Auto}


def recipe_of(recipe):
    """The `Recipe` (or `Auto`) of a name, or the one that was given."""
    if isinstance(recipe, str) and recipe in RECIPES:
        return RECIPES[recipe]()
    if not isinstance(recipe, Recipe | Auto):
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)} or a Recipe, got {recipe!r}")
    return recipe


def plan_of(model, recipe, epochs):
    """The stages that learn in each epoch; a stage without parameters learns with the one before it."""
    of, stages = stages_of(model), list(model.stages)
    owners = [stage for stage in stages if any(of[name] == stage for name, _ in model.named_parameters())]
    for stage in (getattr(recipe, "until", None), getattr(recipe, "stage", None)):
        if stage is not None:
            model._position(stage)
            if stage not in owners:
                raise ValueError(f"stage {stage!r} of {model.name} has no parameters; those that have are {owners}")
    plan = recipe.plan(owners, epochs)
    empty = {stage: stages[i - 1] for i, stage in enumerate(stages) if stage not in owners and i}
    return [(*learning, *(stage for stage, before in empty.items() if before in learning)) for learning in plan]
