"""Pictures drawn from the object at hand: a network, a split, a head on several blocks, the scores of two classes.

Each takes what the code holds and draws that, so that none can say what is not so. ``x(…)`` shows the figure,
``x_figure(…)`` returns it with the text that says what is in it. Parts are told apart by colour and by hatching.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch, Rectangle

from tlbook.figures import BLUE, GREY, ORANGE, class_labels, plt, show

# What a part of a network does: (colour, hatching); light colours, for a text lies on them
_PARTS = {"frozen": ("#C9CDD2", ""), "learning": ("#9CCBEA", "///"), "new": ("#F6B78C", "xx"), "empty": ("white", "")}
_SIDES = {"train": ("#CFE6F5", ""), "val": ("#F3C29B", "////"), "test": ("#30393F", "")}
_BLOCKS = ((BLUE, "//"), (ORANGE, "\\\\"), (GREY, ".."), ("black", "xx"))


@dataclass(frozen=True)
class Part:
    """A stage or the head, as `anatomy` draws it: its width, its parameters, what it does, and how fast."""

    name: str
    width: int
    parameters: int
    learning: int  # of the parameters
    kind: str  # "frozen", "learning", "new"; "empty" where it has no parameters, as a pooling
    said: str  # the word for it
    rates: tuple
    forgotten: int = 0  # parameters that want a gradient, and that the optimizer was not given

    @property
    def words(self):
        """What is written beside it."""
        kind = self.said
        if self.learning and self.learning < self.parameters:
            kind = f"{kind}: {self.learning:,} of them"
        rates = f", lr {' and '.join(f'{rate:.2g}' for rate in self.rates)}" if self.rates else ""
        return f"{kind}{rates}{', forgotten by the optimizer' * bool(self.forgotten)}"


def anatomy(model, optimizer=None, cut=None, *, new=None):
    """Show a network as a strip of stages; the arguments of its figure."""
    show(*anatomy_figure(model, optimizer, cut, new=new))


def anatomy_figure(model, optimizer=None, cut=None, *, new=None):
    """Draw a network from its first stage down to its head: widths, parameters, what learns and how fast.

    The bars are as long as the parameters are many. What is *frozen* is read from ``requires_grad``; the rest is
    *learning* where an optimizer is given, and *trainable* where none is. Of a `FineTuned` that knows its start, the
    weights tell which parts *moved*.

    Args:
        model: Backbone or FineTuned.
        optimizer: any torch optimizer, or the groups of `tl.parameter_groups`: each part's learning rates are read from
            it, and what wants a gradient but was not given to it is named.
        cut: a stage, after which the network is cut in two.
        new: names of stages, "head", or of parameters that did not come from pretraining; unless given, the head if it
            has other classes than the pretrained one. Or a `TransferReport`: what it initialised is new, and the rest
            is called *copied* (*copied or adapted*) where no optimizer is given.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Raises:
        TypeError: no such model, or no optimizer. ValueError: an unknown stage or name.

    >>> import tlbook as tl
    >>> figure, alt = anatomy_figure(tl.load_backbone("resnet18", weights=None), cut="layer3")
    >>> alt.split("; ")[3]
    'layer3, 256 wide, 2,099,712 parameters, trainable'

    Lessons 02 and 04.
    """
    parts = _parts(model, optimizer, new)
    if cut is not None:
        _model_of(model)._position(cut)

    found = {part.kind: part.said for part in parts}
    kinds = {kind: found[kind] for kind in _PARTS if kind in found and kind != "empty"}

    figure, axis = plt.subplots(figsize=(7.2, 0.42 * len(parts) + 1.1))
    _strip(axis, parts, spoken=optimizer is not None or len(kinds) > 1)

    # Where it is cut
    if cut is not None:
        y = [part.name for part in parts].index(cut) + 0.5
        axis.plot([-1.3, 9.4], [y, y], color="black", linestyle="--", linewidth=1.5, label="cut")
        axis.text(9.4, y, "cut", ha="right", va="bottom", fontweight="bold")

    axis.set(xlim=(-0.1, 9.4), ylim=(len(parts) - 0.4, -1.1), xticks=[])
    axis.set_yticks(range(len(parts)), [part.name for part in parts])
    axis.text(0.75, -0.75, "width", ha="center", va="center")
    axis.text(1.9, -0.75, "parameters", va="center")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    handles = [Patch(facecolor=_PARTS[k][0], hatch=_PARTS[k][1], edgecolor="black", label=kinds[k]) for k in kinds]
    axis.legend(handles=handles, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False)
    name, total = _model_of(model).name, sum(part.parameters for part in parts)
    told = "; ".join(f"{p.name}, {p.width:,} wide, {p.parameters:,} parameters, {p.words}" for p in parts)
    where = "" if cut is None else f" It is cut after {cut}."
    return figure, f"{name} from its input to its head, {total:,} parameters: {told}.{where}"


def _strip(axis, parts, spoken):
    """Draw a row for each part, with a bar that is as long as its parameters are many; and its words if ``spoken``."""
    most = max(part.parameters for part in parts)
    for y, part in enumerate(parts):
        colour, hatch = _PARTS[part.kind]
        box = {"facecolor": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.8}
        axis.add_patch(Rectangle((0, y - 0.36), 1.5, 0.72, label=part.name, **box))
        axis.text(0.75, y, f"{part.width:,}", ha="center", va="center", bbox=_PLAIN)
        axis.add_patch(Rectangle((1.9, y - 0.2), 3 * part.parameters / most, 0.4, label="parameters", **box))
        words = f"{part.parameters:,}  {part.words}" if spoken else f"{part.parameters:,}"
        axis.text(2.0 + 3 * part.parameters / most, y, words, va="center", parse_math=False)
        if y:
            axis.annotate("", (0.75, y - 0.36), (0.75, y - 0.64), arrowprops={"arrowstyle": "-|>", "color": "black"})


_PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind a text on a hatched box


def _model_of(model):
    from tlbook.backbones import backbone_of

    return backbone_of(getattr(model, "model", model) if hasattr(model, "class_names") else model)


def _parts(model, optimizer=None, new=None):
    """The [Part] of each stage and the head."""
    from tlbook.training.trainable import stages_of

    backbone, start = _model_of(model), getattr(model, "start", None)
    of, named = stages_of(backbone), dict(backbone.named_parameters())
    rate = _rates(optimizer)
    report = new if hasattr(new, "initialised") else None
    fresh = _new_parts(backbone, of, new if report is None else report.initialised)
    start = start and {key.removeprefix("model."): value for key, value in start.items()}

    said = {"frozen": "frozen", "learning": "trainable" if optimizer is None else "learning"}
    if start is not None:
        said = {"frozen": "as it was", "learning": "moved"}
    if report is not None and optimizer is None:
        said = dict.fromkeys(said, "copied or adapted" if report.reshaped else "copied")
    said |= {"new": "new", "empty": "nothing to learn"}

    def learns(name, p):
        if start is None:
            return p.requires_grad
        before = start.get(name.removeprefix("model."))
        return before is None or before.shape != p.shape or bool((before.to(p.device) != p.detach()).any())

    parts = []
    for stage in [*backbone.stages, "head"]:
        own = {name: p for name, p in named.items() if of[name] == stage}
        if stage == "head" and not own:  # a model without a classifier
            continue
        learning = {name: p for name, p in own.items() if learns(name, p)}
        lost = {name for name, p in own.items() if optimizer is not None and p.requires_grad and id(p) not in rate}
        rates = sorted({rate[id(p)] for p in learning.values() if id(p) in rate})
        kind = "empty" if not own else "new" if stage in fresh else "learning" if learning else "frozen"
        width = backbone.stages.get(stage) or list(own.values())[-1].shape[0]
        counts = (sum(p.numel() for p in some.values()) for some in (own, learning))
        forgotten = sum(own[name].numel() for name in lost)
        parts.append(Part(stage, width, *counts, kind, said[kind], tuple(rates), forgotten))
    return parts


def _rates(optimizer):
    """{id of a parameter: its learning rate}, of an optimizer or its groups."""
    groups = [] if optimizer is None else getattr(optimizer, "param_groups", optimizer)
    try:
        return {id(p): group["lr"] for group in groups for p in group["params"]}
    except (TypeError, KeyError):
        raise TypeError(
            f"optimizer must be a torch optimizer or groups with 'params' and 'lr', got {type(optimizer).__name__}"
        ) from None


def _new_parts(backbone, of, new):
    """The stages, or "head", that did not come from pretraining."""
    if new is None:
        pretrained = getattr(backbone.model, "pretrained_cfg", {}).get("num_classes")
        return {"head"} if getattr(backbone.model, "num_classes", pretrained) != pretrained else set()
    stages, found = [*backbone.stages, "head"], set()
    for name in [new] if isinstance(new, str) else new:
        inside = "model." + name.removeprefix("model.")  # a buffer is where its module is
        place = name if name in stages else of.get(inside, of.get(inside.rpartition(".")[0]))
        if place is None:
            raise ValueError(f"new: {backbone.name} has no stage or parameter {name!r}; its stages are {stages}")
        found.add(place)
    return found


def holdout(data, split, *, most=60):
    """Show which examples are fitted on, chosen on and reported on; the arguments of its figure."""
    show(*holdout_figure(data, split, most=most))


def holdout_figure(data, split, *, most=60):
    """Draw the examples as cells, a row for each group, in the part of the split that holds them.

    Args:
        data: Dataset. Without groups the examples stand in rows in their own order.
        split: a `Split`, or {title: Split} to draw several beside each other.
        most: rows, and cells of a row, that are drawn at most; the text says what is left out.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Raises:
        ValueError: an example in two parts, or one that is not there. TypeError: no split.

    Lessons 01 and 03.
    """
    splits = split if isinstance(split, dict) else {"": split}
    if not splits:
        raise ValueError("split is empty: give a Split, or {title: Split}")
    sides = {title: _side_of(data, one) for title, one in splits.items()}
    row, column, names = _places(data)
    drawn = (row < most) & (column < most + 20)
    height = min(max(2.2, 0.1 * row[drawn].max()), 5.2)
    figure, axes = plt.subplots(1, len(splits), figsize=(7.2 if len(splits) > 1 else 4.6, height), squeeze=False)
    told = []
    for axis, (title, side) in zip(axes[0], sides.items(), strict=True):
        for k, (name, (colour, hatch)) in enumerate(_SIDES.items()):
            x, y = column[drawn & (side == k)], row[drawn & (side == k)]
            corners = np.stack([[x, y], [x + 0.9, y], [x + 0.9, y + 0.8], [x, y + 0.8]]).transpose(2, 0, 1)
            axis.add_collection(
                PolyCollection(corners, facecolors=colour, hatch=hatch, edgecolors="#666666", linewidths=0, label=name)
            )
        axis.set(xlim=(-0.5, column[drawn].max() + 1.5), ylim=(row[drawn].max() + 1, -0.3), title=title, xticks=[])
        axis.spines[:].set_visible(False)
        ticks = np.arange(0, row[drawn].max() + 1, 10)
        axis.set_yticks(ticks + 0.5, [str(names[t]) for t in ticks] if names is not None else [])
        told.append(f"{title}: " * bool(title) + _told(data, side))
        axis.set_xlabel(_below(data, side))
    axes[0, 0].set_ylabel("group" if names is not None else "examples, in their order")
    handles = [Patch(facecolor=c, hatch=h, edgecolor="#666666", label=name) for name, (c, h) in _SIDES.items()]
    figure.legend(handles=handles, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0.0), frameon=False)
    figure.tight_layout()
    left = int((~drawn).sum())
    note = f" {left:,} examples are not drawn." if left else ""
    return figure, f"The {len(data):,} examples of {data.name}, {_rows(names)}. {' '.join(told)}{note}"


def _rows(names):
    return "in rows in their own order" if names is None else f"a row for each of {len(names)} groups"


def _side_of(data, split):
    """(N,) 0 train, 1 val, 2 test, −1 none of them."""
    if not hasattr(split, "_fields") and not (isinstance(split, tuple) and len(split) == 3):
        raise TypeError(f"split must be a Split (data.split(…)), or (train, val, test), got {type(split).__name__}")
    side = np.full(len(data), -1)
    for k, (name, index) in enumerate(zip(_SIDES, split, strict=True)):
        index = data._positions(index)
        twice = index[side[index] >= 0]
        if len(twice):
            raise ValueError(
                f"example {twice[0]} is in {list(_SIDES)[side[twice[0]]]} and in {name}: parts are disjoint"
            )
        side[index] = k
    return side


def _places(data):
    """The row and column (N,) of each example, and the names of the rows or None."""
    if data.groups is None:
        position = np.arange(len(data))
        return position // 60, position % 60, None
    names, row = np.unique(data.groups, return_inverse=True)
    column = np.empty(len(data), dtype=int)
    for k in range(len(names)):
        column[row == k] = np.arange((row == k).sum())
    return row, column, names


def _shared(data, side):
    """How many groups of the test part have examples in train or val too, and how many it has."""
    tested = np.unique(data.groups[side == 2])
    return int(np.isin(tested, data.groups[(side == 0) | (side == 1)]).sum()), len(tested)


def _told(data, side):
    counts = [int((side == k).sum()) for k in range(3)]
    text = f"{counts[0]:,} train, {counts[1]:,} val, {counts[2]:,} test"
    if (side < 0).any():
        text += f", {int((side < 0).sum()):,} unused"
    if data.groups is None:
        return f"{text}."
    return f"{text}; {'{} of {} tested groups were seen in training'.format(*_shared(data, side))}."


def _below(data, side):
    if data.groups is None:
        return f"{int((side == 2).sum()):,} tested"
    return "{} of {} tested groups\nwere seen in training".format(*_shared(data, side))


def sum_and_concat(blocks, W=None):
    """Show several blocks of features under one linear layer; the arguments of its figure."""
    show(*sum_and_concat_figure(blocks, W))


def sum_and_concat_figure(blocks, W=None):
    """Draw W [f₁; …; fₙ] = Σᵢ Wᵢ fᵢ: concatenation is the sum in which every block has a matrix of its own.

    Below it stands the plain sum, in which all Wᵢ are one, where the widths allow it. Boxes are as long as the
    square root of their width, and not shorter than their name.

    Args:
        blocks: `Features` with two to four blocks, or {name: width}.
        W: (K, D) weights, or a `Probe`: K outputs on the D features side by side; 2 unless given.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Raises:
        ValueError: another number of blocks, widths that are not positive, a W of other columns.

    Lesson 03.
    """
    widths = {
        name: block.stop - block.start if isinstance(block, slice) else int(block)
        for name, block in getattr(blocks, "blocks", blocks).items()
    }
    D = sum(widths.values())
    if not 2 <= len(widths) <= 4 or min(widths.values()) < 1:
        raise ValueError(f"blocks must be two to four with widths above 0, got {widths}: choose by features.select")
    K = 2 if W is None else len(np.atleast_2d(getattr(W, "coef", W)))
    if W is not None and np.atleast_2d(getattr(W, "coef", W)).shape[1] != D:
        raise ValueError(f"W must have {D} columns, one for each feature, got {np.shape(getattr(W, 'coef', W))}")
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    scale = 3.2 / sum(np.sqrt(d) for d in widths.values())
    lengths = [max(scale * np.sqrt(d), 0.6) for d in widths.values()]
    top, x = sum(lengths), 0.0

    # Concatenation: one matrix of blocks, times the features stacked
    y = top
    for i, length in enumerate(lengths):
        _box(axis, i, x, top - 0.7, length, 0.7, f"W{_SUB[i]}")
        x += length
    axis.text(x + 0.25, top - 0.35, "·", ha="center", va="center", fontsize=16)
    for i, length in enumerate(lengths):
        y -= length
        _box(axis, i, x + 0.5, y, 0.7, length, f"f{_SUB[i]}")

    # … is a sum
    x += 2.1
    axis.text(x - 0.45, top - 0.35, "=", ha="center", va="center", fontsize=16)
    for i, length in enumerate(lengths):
        if i:
            axis.text(x + 0.2, top - 0.35, "+", ha="center", va="center", fontsize=16)
            x += 0.45
        _box(axis, i, x, top - 0.7, length, 0.7, f"W{_SUB[i]}")
        _box(axis, i, x + length + 0.12, top - length, 0.7, length, f"f{_SUB[i]}")
        x += length + 0.9

    # What they are, and the plain sum
    handles = [
        Patch(**_look(i), label=f"f{_SUB[i]}: {name}, {d:,} features; W{_SUB[i]} is {K} × {d:,}")
        for i, (name, d) in enumerate(widths.items())
    ]
    total = " + ".join(f"f{_SUB[i]}" for i in range(len(widths)))
    same = " = ".join(f"W{_SUB[i]}" for i in range(len(widths)))
    plain = f"Plain sum: {same} = W, so W ({total}), with {K} × {D // len(widths):,} weights in place of {K} × {D:,}"
    if len(set(widths.values())) > 1:
        plain = f"No plain sum of these: their widths are {', '.join(f'{d:,}' for d in widths.values())}"
    key = axis.legend(
        handles=handles, title=plain, loc="upper left", bbox_to_anchor=(0, 0), frameon=False, alignment="left"
    )
    for text in (key.get_title(), *key.get_texts()):
        text.set_parse_math(False)
    axis.set(xlim=(-0.1, x + 0.1), ylim=(-0.05, top + 0.05), aspect="equal")
    axis.axis("off")
    told = ", ".join(f"{name}, {d:,} wide" for name, d in widths.items())
    terms = " + ".join(f"W{_SUB[i]} f{_SUB[i]}" for i in range(len(widths)))
    alt = f"W, {K} by {D:,}, times the stacked features ({told}) is the sum {terms}. {plain}."
    return figure, alt


_SUB = "₁₂₃₄"


def _look(i):
    colour, hatch = _BLOCKS[i]
    return {"facecolor": "white", "hatch": hatch, "edgecolor": colour, "linewidth": 1.5}


def _box(axis, i, x, y, width, height, name):
    axis.add_patch(Rectangle((x, y), width, height, label=name, **_look(i)))
    axis.text(x + width / 2, y + height / 2, name, ha="center", va="center", bbox=_PLAIN)


def scores(evaluation, labels=None, *, threshold=0.5, class_names=None, bins=20):
    """Show the scores of two classes and a threshold; the arguments of its figure."""
    show(*scores_figure(evaluation, labels, threshold=threshold, class_names=class_names, bins=bins))


def scores_figure(evaluation, labels=None, *, threshold=0.5, class_names=None, bins=20):
    """Draw how often each probability of the second class was given, to examples of the first class and of the second.

    From the threshold on, an example is called the second class; the counts of right and wrong calls are written.

    Args:
        evaluation: an `Evaluation` of two classes, or (N, 2) probabilities, or (N,) of the second class.
        labels: (N,) 0 or 1, where probabilities are given.
        threshold: in 0 … 1.
        class_names: two names.
        bins: of the histogram.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Raises:
        ValueError: another number of classes, labels that do not fit, a threshold outside 0 … 1.

    >>> figure, alt = scores_figure([0.1, 0.7, 0.9], [0, 0, 1], class_names=("healthy", "defective"))
    >>> alt.split(". ")[1]
    'healthy: 1 called healthy, 1 called defective'

    Lessons 00 and 07.
    """
    p, y = _two_classes(evaluation, labels)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a probability, 0 … 1, got {threshold!r}")
    names, how = class_labels(("class 0", "class 1") if class_names is None else class_names)
    if len(names) != 2:
        raise ValueError(f"class_names must be two, got {names}")
    edges = np.linspace(0, 1, bins + 1)
    figure, axes = plt.subplots(2, 1, figsize=(6.4, 4.2), sharex=True)
    told = []
    for k, (axis, colour, hatch) in enumerate(zip(axes, (BLUE, ORANGE), ("//", "xx"), strict=True)):
        own = p[y == k]
        axis.hist(own, edges, facecolor="white", edgecolor=colour, hatch=hatch, label=names[k])
        axis.axvline(threshold, color="black", linestyle="--", label="threshold")
        called = int((own < threshold).sum()), int((own >= threshold).sum())
        axis.set_ylim(0, axis.get_ylim()[1] * 1.35)
        for side, count in enumerate(called):
            right = "right" if side == k else "wrong"
            where = {"x": 0.01 + 0.98 * side, "y": 0.95, "ha": ("left", "right")[side], "va": "top"}
            axis.text(
                **where, s=f"{count:,} called {names[side]}: {right}", transform=axis.transAxes, bbox=_PLAIN, **how
            )
        axis.set_ylabel(f"{names[k]}\nexamples", **how)
        axis.spines[["top", "right"]].set_visible(False)
        told.append(f"{names[k]}: {called[0]:,} called {names[0]}, {called[1]:,} called {names[1]}")
    axes[1].set_xlabel(f"probability of “{names[1]}”; threshold {threshold:g}", **how)
    axes[1].set_xlim(0, 1)
    figure.tight_layout()
    return figure, f"Scores of {len(y):,} examples, threshold {threshold:g}. {'. '.join(told)}."


def _two_classes(evaluation, labels):
    """The probability of the second class and the label, (N,) each."""
    given = hasattr(evaluation, "probabilities")
    if given == (labels is not None):
        raise ValueError("give an Evaluation alone, or probabilities and labels")
    p = np.asarray(evaluation.probabilities if given else evaluation, dtype=float)
    y = np.asarray(evaluation.labels if given else labels)
    if p.ndim == 2 and p.shape[1] != 2:
        raise ValueError(f"two classes are drawn, got probabilities of {p.shape[1]}")
    p = p[:, 1] if p.ndim == 2 else p
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(f"probabilities and labels must be as many, and one at least, got {p.shape} and {y.shape}")
    if not np.isin(y, (0, 1)).all() or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("labels must be 0 or 1, and probabilities 0 … 1: pass a softmax, not logits")
    return p, y


def differences(comparisons, words="difference"):
    """Show paired differences, each with its interval; the arguments of its figure."""
    show(*differences_figure(comparisons, words))


def differences_figure(comparisons, words="difference"):
    """Draw Comparisons (of `tl.compare`) as points with their 95 % intervals, and a line at 0: no difference.

    Points are full where the interval leaves 0 out.

    Args:
        comparisons: {name: Comparison}, from the top down. words: what the axis below is called.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Raises:
        ValueError: nothing to draw.

    Lesson 03.
    """
    if not comparisons:
        raise ValueError("comparisons is empty: give {name: tl.compare(a, b)}")
    figure, axis = plt.subplots(figsize=(7.2, 0.38 * len(comparisons) + 0.9), layout="constrained")
    values, told = [], []
    for y, (name, c) in enumerate(comparisons.items()):
        low, high = c.interval
        clear = low > 0 or high < 0
        axis.plot([low, high], [y, y], color=BLUE, linewidth=2, label=name)
        axis.plot(c.difference, y, "o", color=BLUE, markerfacecolor=BLUE if clear else "white", markersize=8)
        values.append(f"{c.difference:+.3f}".replace("-", "−"))
        told.append(f"{name}: {c.difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(comparisons)), list(comparisons))
    axis.set(ylim=(len(comparisons) - 0.5, -0.5), xlabel=words)
    right = axis.secondary_yaxis("right")  # the layout makes room for what stands at an axis
    right.set_yticks(range(len(comparisons)), values)
    for side in (axis, right):
        side.spines[["top", "right", "left"] if side is axis else ["right"]].set_visible(False)
        side.tick_params(axis="y", length=0)
    return figure, f"{words}, with 95 % intervals. {'; '.join(told)}."
