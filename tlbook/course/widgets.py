"""What can be turned by hand, each with a static twin that a page without a kernel shows as well."""

import html
from itertools import combinations

import numpy as np
import torch

from tlbook.evaluation import compare
from tlbook.plots import interpolation, interpolation_figure, learning_curve, learning_curve_figure, picture, plt, show
from tlbook.probes import linear_probe


def stage_explorer(backbone, data, features):
    """Show a widget: choose a cell and a stage, see what the stage responds to and what a probe on it says.

    The probe that judges a cell was fitted on folds without the cell's panel; it is fitted when it is first needed and
    kept. What is drawn is `stage_figure`; the static twin is `stage_explorer_static`.

    Args:
        backbone: a Backbone that can be cut, such as an EfficientNet or a ResNet.
        data: a Dataset of images with groups.
        features: `Features` of ``data`` with a block for each stage to choose from, named as the stages are.

    Returns:
        ipywidgets.VBox; its children are the cell's number, the stage, and the picture.

    Raises:
        ValueError: data without groups; features of other examples; a stage whose output is no feature map.

    Lesson 02.
    """
    import ipywidgets

    says = _probes(data, features)
    cell = ipywidgets.IntSlider(value=0, max=len(data) - 1, description="cell", continuous_update=False)
    stage = ipywidgets.Dropdown(options=list(features.blocks), description="stage")
    picture = ipywidgets.HTML()

    def draw(_=None):
        picture.value = _html(*stage_figure(backbone, data, features, [cell.value], [stage.value], says))

    for control in (cell, stage):
        control.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([cell, stage, picture])


def stage_explorer_static(backbone, data, features, cells, stages):
    """Show what `stage_explorer` shows, for several cells and stages at once, as a figure."""
    show(*stage_figure(backbone, data, features, cells, stages))


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
        len(rows), 1 + strongest, figsize=(1.35 * (1 + strongest), 1.5 * len(rows)), squeeze=False
    )
    told = []
    for row, (i, stage) in zip(axes, rows, strict=True):
        image, label = data[i]
        maps = _maps(backbone, image, stage)  # (C, h, w)
        X = np.asarray(features.select(stage).X)
        top = np.argsort(-(X[i] - X.mean(0)) / (X.std(0) + 1e-9))[:strongest]
        row[0].imshow(image.squeeze().numpy(), cmap="gray", vmin=0, vmax=255)
        p = says(i, stage)
        row[0].set_title(f"cell {i}: {data.class_names[label]}", fontsize=7)
        row[0].set_ylabel(f"{stage}\nprobe: {p:.2f}", fontsize=7)
        for axis, channel in zip(row[1:], top, strict=True):
            axis.imshow(maps[channel], cmap="viridis")
            axis.set_title(f"map {channel}, {maps.shape[1]}×{maps.shape[2]}", fontsize=7)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        told.append(
            f"cell {i} ({data.class_names[label]}) at {stage}: maps {', '.join(map(str, top))}; "
            f"the probe says {data.class_names[1]} with probability {p:.2f}"
        )
    figure.tight_layout()
    return figure, "Cells and their strongest feature maps. " + "; ".join(told) + "."


def data_size_slider(curves):
    """Show a widget: choose a number of labelled panels, see the scores there and their paired difference.

    Args:
        curves: {legend: {number of labelled panels: Evaluation}}; at one number, all of the same examples.

    Returns:
        ipywidgets.VBox; its children are the number of panels, the picture, and the text.

    Raises:
        ValueError: evaluations of other examples at one number of panels.

    Lesson 01. Its static twin is `data_size_slider_static`.
    """
    import ipywidgets

    sizes = sorted({n for found in curves.values() for n in found})
    size = ipywidgets.SelectionSlider(options=sizes, description="panels", continuous_update=False)
    picture, text = ipywidgets.HTML(), ipywidgets.HTML()

    def draw(_=None):
        picture.value = _html(*learning_curve_figure(curves, at=size.value))
        text.value = "<pre>" + html.escape("\n".join(_at_size(curves, size.value))) + "</pre>"

    size.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([size, picture, text])


def data_size_slider_static(curves):
    """Show the whole figure of `data_size_slider`."""
    learning_curve(curves)


def _at_size(curves, n):
    """Lines that say the AUC of each curve at n panels, and the paired difference of each two."""
    found = {legend: curve[n] for legend, curve in curves.items() if n in curve}
    lines = [f"{a}: AUC {e.auc:.3f} [{e.interval['auc'][0]:.3f}, {e.interval['auc'][1]:.3f}]" for a, e in found.items()]
    for a, b in combinations(found, 2):
        c = compare(found[a], found[b])
        lines.append(f"{a} − {b}: {c.difference:+.3f} [{c.interval[0]:+.3f}, {c.interval[1]:+.3f}]")
    return lines


def interpolation_slider(curves, metric="auc"):
    """Show a widget: choose α, see the scores at θ(α) = (1 − α) θ⁰ + α θ* and their paired differences to both ends.

    Args:
        curves: {split: {treatment: {α: Evaluation}}}, computed before, with the ends 0 and 1; along a curve, all of
            the same examples. metric: of `Evaluation`.

    Returns:
        ipywidgets.VBox; its children are α, the picture, and the text.

    Raises:
        ValueError: a curve without an α that another has or without an end; evaluations of other examples.

    Lesson 05. Its static twin is `interpolation_slider_static`.
    """
    import ipywidgets

    lines = {f"{split}, {treatment}": found for split, how in curves.items() for treatment, found in how.items()}
    alphas = sorted({alpha for found in lines.values() for alpha in found})
    for name, found in lines.items():
        absent = sorted({0, 1, *alphas} - set(found))
        if absent:
            raise ValueError(f"the curve {name!r} has no value at α = {', '.join(f'{alpha:g}' for alpha in absent)}")
    options = [(f"{alpha:g}", alpha) for alpha in alphas]
    alpha = ipywidgets.SelectionSlider(options=options, value=1, description="α", continuous_update=False)
    picture, text = ipywidgets.HTML(), ipywidgets.HTML()

    def draw(_=None):
        picture.value = _html(*interpolation_figure(curves, metric, at=alpha.value))
        rows = [_against_ends(name, found, alpha.value, metric) for name, found in lines.items()]
        text.value = "<pre>" + html.escape("\n".join(rows)) + "</pre>"

    alpha.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([alpha, picture, text])


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


def _maps(backbone, image, stage):
    """(C, h, w) what the stage computes for one image."""
    run = backbone.forward_features if stage == "final" else backbone.prefix(stage)
    with torch.inference_mode():
        maps = run(backbone.prepare([image]))
    if maps.ndim != 4:
        raise ValueError(f"{backbone.name} has tokens, not feature maps, at {stage!r}: choose a convolutional one")
    return maps[0].float().cpu().numpy()


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


def _html(figure, alt):
    return picture(figure, alt)._repr_html_()
