"""What can be turned by hand, each with a static twin that a page without a kernel shows as well."""

import io
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tlbook.evaluation import compare
from tlbook.figures import BLUE, GREY, ORANGE, Picture
from tlbook.images import read
from tlbook.plots import draws_figure, interpolation, interpolation_figure, pixels, plt, show
from tlbook.probes import linear_probe
from tlbook.responses import maps


def stage_explorer(backbone, data, features):
    """Show a widget: choose a cell and a stage, see what the stage responds to and what a probe on it says.

    The probe that judges a cell was fitted on folds without the cell's panel; it is fitted when it is first needed and
    kept. What is drawn is `stage_figure`; the static twin is `stage_explorer_static`.

    Args:
        backbone: a Backbone that can be cut, such as an EfficientNet or a ResNet.
        data: a Dataset of images with groups.
        features: `Features` of ``data`` with a block for each stage to choose from, named as the stages are.

    Returns:
        `controls.Explorer`; its children are the cell's number, the stage, the picture, and the text.

    Raises:
        ValueError: data without groups; features of other examples; a stage whose output is no feature map.

    Lesson 02.
    """
    from tlbook.course.controls import Choice, Slider

    says, stages = _probes(data, features), list(features.blocks)
    cell = Slider(label="cell", max=len(data) - 1)
    stage = Choice(label="stage", options=stages, value=stages[0])

    @cache
    def drawn(i, where):
        figure, alt = stage_figure(backbone, data, features, [i], [where], says)
        return _html(figure, alt), alt

    return _explorer([cell, stage], lambda: drawn(int(cell.value), stage.value))


def stage_explorer_static(backbone, data, features, cells, stages):
    """Show what `stage_explorer` shows, for several cells and stages at once, as a figure."""
    show(*stage_figure(backbone, data, features, cells, stages), photographs=True)


def stage_figure(backbone, data, features, cells, stages, says=None, strongest=4):
    """Draw each cell beside its strongest feature maps, a row for each cell and stage.

    Strongest are the maps of the highest mean over positions, in deviations of that feature over all examples above
    its mean: many maps are large on every image, and these are large on this one. ("final" is drawn before pooling.)

    Args:
        cells: indices into ``data``. stages: names of blocks of ``features``.
        says: (cell, stage) -> probability of class 1, by a probe that never saw the cell's group; made if not given.
        strongest: how many maps.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.
    """
    says = says or _probes(data, features)
    rows = [(int(i), stage) for i in cells for stage in stages]
    figure, axes = plt.subplots(
        len(rows), 1 + strongest, figsize=(7.2, (7.2 / (1 + strongest) + 0.3) * len(rows)), squeeze=False
    )
    told = []
    for row, (i, stage) in zip(axes, rows, strict=True):
        image, label = data[i]
        own = _maps(backbone, image, stage)  # (C, h, w)
        X = np.asarray(features.select(stage).X)
        top = np.argsort(-(X[i] - X.mean(0)) / (X.std(0) + 1e-9))[:strongest]
        row[0].imshow(image.squeeze().numpy(), cmap="gray", vmin=0, vmax=255)
        p = says(i, stage)
        row[0].set_title(f"{i}: {data.class_names[label]}", fontsize=10)
        row[0].set_ylabel(f"{stage}\nprobe: {p:.2f}")
        for axis, channel in zip(row[1:], top, strict=True):
            axis.imshow(own[channel], cmap="viridis")
            axis.set_title(f"map {channel}, {own.shape[1]}×{own.shape[2]}", fontsize=10)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        told.append(
            f"cell {i} ({data.class_names[label]}) at {stage}: maps {', '.join(map(str, top))}; "
            f"the probe says {data.class_names[1]} with probability {p:.2f}"
        )
    figure.tight_layout()
    return figure, "Cells and their strongest feature maps. " + "; ".join(told) + "."


def panel_draw_explorer(features, split, draws, C=1e-3):
    """Show a widget: choose *which* panels are labelled, see the score of a probe on them among those of random draws.

    Args:
        features: Features, with groups. split: a `Split` of them; panels are chosen from ``split.train`` and judged on
            ``split.test``. draws: {number of panels: AUCs of random draws}. C: of the probe, fixed.

    Returns:
        `controls.Explorer`; its children are the choice of panels, the picture, and the text.

    Lesson 01. Its static twin is `panel_draw_explorer_static`.
    """
    from tlbook.course.controls import Several

    groups, labels = features.groups[split.train], features.y[split.train]
    known = [int(g) for g in np.unique(groups)]
    texts = [f"panel {g}: {labels[groups == g].mean():.0%} defective" for g in known]
    panels = Several(label="labelled panels", values=known, texts=texts, value=known[:4])
    drawn = ""

    def shown():
        nonlocal drawn
        rows = split.train[np.isin(groups, panels.value)]
        if len(np.unique(features.y[rows])) < 2:
            return drawn, "These panels have cells of one class only: choose another one too."
        auc = linear_probe(features, split._replace(train=rows), C=C).evaluate(features, split.test).auc
        drawn = _html(*draws_figure({"random draws": draws}, own=(len(panels.value), auc)))
        return drawn, f"{len(panels.value)} panels, {len(rows)} cells: AUC {auc:.3f} on the panels that judge"

    return _explorer([panels], shown)


def panel_draw_explorer_static(draws):
    """Show the figure of `panel_draw_explorer`, without a choice of one's own."""
    show(*draws_figure({"random draws": draws}))


def interpolation_slider(curves, metric="auc"):
    """Show a widget: choose α, see the scores at θ(α) = (1 − α) θ⁰ + α θ* and their paired differences to both ends.

    Args:
        curves: {split: {treatment: {α: Evaluation}}}, computed before, with the ends 0 and 1; along a curve, all of
            the same examples. metric: of `Evaluation`.

    Returns:
        `controls.Explorer`; its children are α, the picture, and the text. All of them are computed before: a move only
        shows them.

    Raises:
        ValueError: a curve without an α that another has or without an end; evaluations of other examples.

    Lesson 05. Its static twin is `interpolation_slider_static`.
    """
    from tlbook.course.controls import Slider

    lines = {f"{split}, {treatment}": found for split, how in curves.items() for treatment, found in how.items()}
    alphas = sorted({alpha for found in lines.values() for alpha in found})
    for name, found in lines.items():
        absent = sorted({0, 1, *alphas} - set(found))
        if absent:
            raise ValueError(f"the curve {name!r} has no value at α = {', '.join(f'{alpha:g}' for alpha in absent)}")
    shown = {}
    for alpha in alphas:
        rows = [_against_ends(name, found, alpha, metric) for name, found in lines.items()]
        shown[alpha] = _html(*interpolation_figure(curves, metric, at=alpha)), "\n".join([f"α = {alpha:g}", *rows])

    alpha = Slider(label="α", values=alphas, texts=[f"{alpha:g}" for alpha in alphas], value=1)
    return _explorer([alpha], lambda: shown[alpha.value])


def interpolation_slider_static(curves, metric="auc"):
    """Show the whole figure of `interpolation_slider`."""
    interpolation(curves, metric)


def _against_ends(name, found, alpha, metric):
    """A line that says the score at α, and its paired differences to the two ends."""
    told = f"{name}: {getattr(found[alpha], metric):.3f}"
    for end, symbol in ((0, "θ⁰"), (1, "θ*")):
        c = compare(found[alpha], found[end], metric=metric)
        told += f"   − {symbol}: {c.difference:+.3f} [{c.interval[0]:+.3f}, {c.interval[1]:+.3f}]"
    return told


def threshold_slider(found, missed=10):
    """Show a widget: choose a threshold and what a missed defect costs, see the cost of each set of cells.

    Args:
        found: {legend: Evaluation} of two classes, the second of which raises the alarm; first the set to choose on.
        missed: the price of a missed defect in false alarms, to begin with.

    Returns:
        `controls.Explorer`; its children are the threshold, the price, the picture, and the text.

    Raises:
        ValueError: more than two classes, a price that is not above 0.

    Its static twin is `threshold_slider_static`.
    """
    from tlbook.course.controls import Slider

    prices = sorted({1, 2, 5, 10, 20, 50, missed})
    threshold = Slider(label="threshold", value=0.5, max=1, step=0.01)
    price = Slider(label="a miss costs", values=prices, texts=[f"{price:g}" for price in prices], value=missed)

    def show():
        drawn = _html(*threshold_figure(found, price.value, threshold.value))
        return drawn, "\n".join(_at_threshold(found, price.value, threshold.value))

    return _explorer([threshold, price], show)


def threshold_slider_static(found, missed=10):
    """Show the whole figure of `threshold_slider`, without a threshold chosen by hand."""
    show(*threshold_figure(found, missed))


def threshold_figure(found, missed, at=None):
    """Draw the cost per cell against the threshold; the lowest of the first set is marked on all.

    Args:
        found: {legend: Evaluation}, up to three. missed: the price of a missed defect in false alarms.
        at: a threshold to mark by a vertical line.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.
    """
    thresholds = np.linspace(0, 1, 201)
    curves = {name: np.array([cost(e, t, missed).mean() for t in thresholds]) for name, e in found.items()}
    chosen = thresholds[next(iter(curves.values())).argmin()]
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for (name, curve), line, color in zip(curves.items(), ("-", "--", ":"), (BLUE, ORANGE, GREY), strict=False):
        axis.plot(thresholds, curve, line, color=color, label=name)
    axis.axvline(chosen, color=GREY, linestyle="-.", label=f"chosen: {chosen:.2f}")
    if at is not None:
        axis.axvline(at, color="black", linewidth=0.8)
    axis.set(
        xlabel="threshold: alarm at this probability or more", ylabel="false alarms' worth\na cell", ylim=(0, None)
    )
    axis.legend()
    told = "; ".join(
        f"{name}: {curve[0]:.2f} at 0, {curve[100]:.2f} at 0.5, {curve[thresholds == chosen][0]:.2f} at the chosen"
        for name, curve in curves.items()
    )
    return (
        figure,
        f"Cost per cell by threshold where a miss costs {missed}; lowest at {chosen:.2f} on the first. {told}.",
    )


def cost(e, threshold, missed):
    """(N,) the cost of each example: ``missed`` for a defect below the threshold, 1 for a false alarm, else 0."""
    if e.probabilities.shape[1] != 2:
        raise ValueError(f"a threshold needs two classes, got {e.probabilities.shape[1]}")
    if not missed > 0:
        raise ValueError(f"missed must be above 0, the price of a missed defect in false alarms; got {missed!r}")
    alarm = e.probabilities[:, 1] >= threshold
    return missed * (~alarm & (e.labels == 1)) + 1.0 * (alarm & (e.labels == 0))


def _at_threshold(found, missed, threshold):
    """Lines that say what is missed, what is a false alarm, and the cost of each set."""
    lines = []
    for name, e in found.items():
        alarm = e.probabilities[:, 1] >= threshold
        lines.append(
            f"{name}: {(~alarm)[e.labels == 1].mean():.0%} of the defects missed, {alarm[e.labels == 0].mean():.0%} of "
            f"the healthy cells alarmed, cost {cost(e, threshold, missed).mean():.2f} a cell"
        )
    return lines


def _maps(backbone, image, stage):
    """(C, h, w) what the stage computes for one image."""
    with torch.inference_mode():
        return maps(backbone, backbone.prepare([image]), stage)[0].float().cpu().numpy()


def _probes(data, features):
    """The function (cell, stage) -> probability of class 1, by a probe fitted on folds without the cell's group."""
    if data.groups is None:
        raise ValueError(f"{data.name!r} has no groups: a probe that never saw a cell's panel needs to know the panels")
    if not np.array_equal(features.y, data.labels):
        raise ValueError("features and data are not of the same examples: extract the features from this data")
    folds = data.folds(k=4, by="group", seed=0)
    fold_of = np.empty(len(data), dtype=int)
    for k, fold in enumerate(folds):
        fold_of[fold.test] = k
    fitted = {}

    def says(i, stage):
        key = (fold_of[i], stage)
        if key not in fitted:
            fitted[key] = linear_probe(features.select(stage), folds[fold_of[i]])
        return float(fitted[key].predict_proba(features.select(stage).X[[i]])[0, 1])

    return says


def embedding_explorer(features, data, index=None):
    """Show a widget: the examples as points of a plane; choose one, see its image and those nearest to it.

    The plane is that of the two directions of largest variance; nearest are the images of the most similar features,
    which a plane can only hint at.

    Args:
        features: `Features` of N examples. data: the Dataset they are of. index: the examples to draw, at most 1,000.

    Returns:
        `controls.Explorer`; its children are the points, the picture, and the text.

    Raises:
        ValueError: features of other examples; more than 1,000 points.

    Its static twin is `embedding_explorer_static`.
    """
    from sklearn.decomposition import PCA

    from tlbook.course.controls import Points

    Z, index = _standardised(features, data, index)
    if len(index) > 1000:
        raise ValueError(f"{len(index):,} points are too many to choose among: give at most 1,000 by index")
    plane = PCA(2, random_state=0).fit_transform(Z)
    plane = (plane - plane.min(0)) / np.ptp(plane, axis=0)
    labels = data.labels[index]
    points = Points(
        label="examples",
        points=[[*place, int(k)] for place, k in zip(plane.round(4).tolist(), labels, strict=True)],
        texts=[f"{i}: {data.class_names[k]}" for i, k in zip(index, labels, strict=True)],
    )

    @cache
    def drawn(at):
        figure, alt = _neighbours_figure(Z, data, index, [at])
        return _html(figure, alt), alt

    return _explorer([points], lambda: drawn(points.value))


def embedding_explorer_static(features, data, chosen, index=None):
    """Show what `embedding_explorer` shows of the ``chosen`` examples (positions in ``data``), a row for each."""
    Z, index = _standardised(features, data, index)
    rows = [int(np.flatnonzero(index == i)[0]) for i in chosen]
    show(*_neighbours_figure(Z, data, index, rows), photographs=True)


def _standardised(features, data, index):
    if not np.array_equal(features.y, data.labels):
        raise ValueError("features and data are not of the same examples: extract the features from this data")
    index = np.arange(len(data)) if index is None else np.asarray(index)
    X = np.asarray(features.X[index], dtype=np.float64)
    return (X - X.mean(0)) / (X.std(0) + 1e-9), index


def _neighbours_figure(Z, data, index, rows, nearest=4):
    """Draw an example in each row, and beside it the ``nearest`` others by the cosine of their features."""
    unit = Z / (np.linalg.norm(Z, axis=1, keepdims=True) + 1e-9)
    figure, axes = plt.subplots(len(rows), 1 + nearest, figsize=(7.2, 1.9 * len(rows)), squeeze=False)
    told = []
    for row, at in zip(axes, rows, strict=True):
        others = [j for j in np.argsort(-unit @ unit[at]) if j != at][:nearest]
        for axis, j in zip(row, [at, *others], strict=True):
            image, label = data[int(index[j])]
            axis.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"{index[j]}: {data.class_names[label]}", fontsize=10, parse_math=False)
            axis.set(xticks=[], yticks=[])
        names = [f"{index[j]} ({data.class_names[data.labels[index[j]]]})" for j in (at, *others)]
        told.append(f"{names[0]}; nearest: {', '.join(names[1:])}")
    figure.tight_layout()
    return figure, "Examples and those of the most similar features. " + ". ".join(told) + "."


def own_image(found):
    """Show a widget: give an image of your own, see which class a classifier takes it for.

    Args:
        found: `tlbook.training.classifier.FineTuned`, of images.

    Returns:
        `controls.Explorer`; its children are the button, the picture, and the text.

    Its static twin is `own_image_static`.
    """
    import ipywidgets

    upload = ipywidgets.FileUpload(accept="image/*", description="Choose an image", tooltip="Choose an image")

    def shown():
        if not upload.value:
            return "", "No image was given yet."
        given = upload.value[0]
        with tempfile.TemporaryDirectory() as folder:  # a file, so that the rules for files hold
            path = Path(folder) / "image"
            path.write_bytes(given["content"])
            try:
                image = read(path)
            except ValueError as error:
                return "", str(error).replace(str(path), given["name"])
        figure, alt = _answers_figure(found, [image], [given["name"]])
        return _html(figure, alt), alt

    return _explorer([upload], shown)


def own_image_static(found, images, names):
    """Show what `own_image` shows, for several images at once. images: PIL images or tensors. names: a text each."""
    show(*_answers_figure(found, images, names), photographs=True)


def _answers_figure(found, images, names, most=5):
    """Draw each image beside bars of its most probable classes."""
    figure, axes = plt.subplots(len(images), 2, figsize=(7.2, 2.2 * len(images)), squeeze=False)
    told = []
    for row, image, name, p in zip(axes, images, names, found.predict(list(images)), strict=True):
        top = np.argsort(-p)[:most]
        row[0].imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
        row[0].set_title(name, fontsize=10, parse_math=False)
        row[0].set(xticks=[], yticks=[])
        row[1].barh(range(len(top)), p[top], color=BLUE)
        row[1].set_yticks(range(len(top)), [f"{found.class_names[k]}: {p[k]:.2f}" for k in top], parse_math=False)
        row[1].set(xlim=(0, 1), xlabel="probability")
        row[1].invert_yaxis()
        told.append(f"{name}: " + ", ".join(f"{found.class_names[k]} {p[k]:.2f}" for k in top))
    figure.tight_layout()
    return figure, "; ".join(told) + "."


def _explorer(controls, show):
    """The box of ``controls``, of the picture that ``show()`` returns, and of the text that it returns, read aloud."""
    import ipywidgets

    from tlbook.course.controls import Explorer, Status

    picture, text = ipywidgets.HTML(tooltip=""), Status()

    def draw(_=None):
        picture.value, text.value = show()

    for control in controls:
        control.observe(draw, names="value")
    draw()
    return Explorer([*controls, picture, text])


def _html(figure, alt):
    """A figure for a widget: fewer pixels than on a page, so that a move answers at once."""
    drawn = io.BytesIO()
    figure.tight_layout()
    figure.savefig(drawn, format="png", dpi=110)
    plt.close(figure)
    return Picture(drawn.getvalue(), alt, round(96 * figure.get_figwidth()))._repr_html_()
