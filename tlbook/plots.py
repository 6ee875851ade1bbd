"""Figures of the course; every one is shown with a text that says what is in it."""

import numpy as np

from tlbook.diagrams import anatomy as anatomy
from tlbook.diagrams import anatomy_figure as anatomy_figure
from tlbook.diagrams import differences as differences
from tlbook.diagrams import differences_figure as differences_figure
from tlbook.diagrams import holdout as holdout
from tlbook.diagrams import holdout_figure as holdout_figure
from tlbook.diagrams import scores as scores
from tlbook.diagrams import scores_figure as scores_figure
from tlbook.diagrams import sum_and_concat as sum_and_concat
from tlbook.diagrams import sum_and_concat_figure as sum_and_concat_figure
from tlbook.figures import BLUE, GREY, ORANGE, class_labels, pixels, plt, show
from tlbook.figures import picture as picture
from tlbook.responses import exciting_patches as exciting_patches
from tlbook.responses import exciting_patches_figure as exciting_patches_figure
from tlbook.responses import receptive_fields as receptive_fields
from tlbook.responses import receptive_fields_figure as receptive_fields_figure


def image_grid(data, index, titles=None, columns=6, marks=None):
    """Show the images at ``index``, each with its class (or its title) above it.

    Args:
        data: a Dataset of images: uint8 tensors (1 or 3, H, W) or PIL images.
        index: the examples. titles: a string each, or None.
        marks: {example: [(x, y, width, height), …]}, boxes to draw around what is meant, in pixels.
    """
    index, marks = np.asarray(index), marks or {}
    rows, side = -(-len(index) // columns), min(2.4, 7.2 / columns)  # as wide as a page
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns, (side + 0.25) * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for k, (axis, i) in enumerate(zip(axes.flat, index, strict=False)):
        image, label = data[i]
        axis.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
        name = titles[k] if titles is not None else data.class_names[label]
        axis.set_title(name, fontsize=10, parse_math=False)  # a "$" is a dollar
        for x, y, width, height in marks.get(int(i), ()):
            box = {"fill": False, "linewidth": 2, "linestyle": "--"}
            axis.add_patch(
                plt.Rectangle((x, y), width, height, color="white", **box | {"linestyle": "-", "linewidth": 3.5})
            )
            axis.add_patch(plt.Rectangle((x, y), width, height, color=ORANGE, **box))
    figure.tight_layout(pad=0.3)
    names = ", ".join(titles if titles is not None else [data.class_names[label] for label in data.labels[index]])
    boxes = sum(len(marks.get(int(i), ())) for i in index)
    said = f"{len(index)} images of {data.name}: {names}" + (f"; {boxes} places marked by boxes" if boxes else "")
    show(figure, said.replace("\n", " "), photographs=True)


def intervals(evaluations, metric="auc", baselines=()):
    """Show a score and its 95 % interval for each of several methods, one below the other.

    Args:
        evaluations: {legend: Evaluation}. metric: of `Evaluation`. baselines: {legend: float}, dotted lines.
    """
    show(*intervals_figure(evaluations, metric, baselines))


def intervals_figure(evaluations, metric="auc", baselines=()):
    """Draw `intervals`: (figure, alt)."""
    figure, axis = plt.subplots(figsize=(7, 1.0 + 0.5 * len(evaluations)))
    name, told = metric.replace("_", " ").replace("auc", "AUC"), []
    for y, (legend, found) in enumerate(evaluations.items()):
        score, (low, high) = getattr(found, metric), found.interval[metric]
        color, marker = ((BLUE, "o"), (ORANGE, "s"), (GREY, "^"), ("black", "D"))[y % 4]
        axis.errorbar(score, y, xerr=[[score - low], [high - score]], fmt=marker, color=color, capsize=4, markersize=8)
        axis.annotate(f"{score:.3f}", (score, y), (0, 8), textcoords="offset points", ha="center")
        told.append(f"{legend} {score:.3f} ({low:.3f} to {high:.3f})")
    for legend, value in dict(baselines).items():
        axis.axvline(value, color=GREY, linestyle=":", label=legend)
        told.append(f"{legend} {value:.3f}")
    axis.set_yticks(range(len(evaluations)), list(evaluations))
    axis.set(xlabel=f"{name}, with 95 % interval", ylim=(len(evaluations) - 0.4, -0.7))
    if dict(baselines):
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    figure.tight_layout()
    return figure, f"{name} of {len(evaluations)} methods: {'; '.join(told)}."


def tokens(encoder, text, stage="blocks.5", dimensions=24):
    """Draw how a text becomes one vector: its tokens, the first numbers of each one's vector, and their mean.

    Args:
        encoder: `tlbook.text.TextEncoder`. text: a short one. stage: where the vectors are read.
        dimensions: how many of a vector's numbers are drawn.
    """
    import torch

    with torch.inference_mode():
        z = encoder.prefix(stage)(encoder.prepare([text]))[0].float().cpu().numpy()
    names = ["[CLS]", *encoder.tokens(text), "[SEP]"][: encoder.max_tokens]
    z = z[: len(names)]
    most = np.abs(z[:, :dimensions]).max()
    colours = {"cmap": "PuOr", "vmin": -most, "vmax": most, "aspect": "auto"}
    figure, (of_each, of_all) = plt.subplots(
        2, 1, figsize=(7, 0.3 * len(names) + 1), height_ratios=(len(names), 1), layout="constrained"
    )
    of_each.imshow(z[:, :dimensions], **colours)
    of_each.set_yticks(range(len(names)), names)
    of_each.set_title(f"after {stage}: {len(names)} tokens × {z.shape[1]} numbers, of which {dimensions}", fontsize=10)
    of_all.imshow(z[:, :dimensions].mean(0)[None], **colours)
    of_all.set_yticks([0], ["their mean"])
    for axis in (of_each, of_all):
        axis.set_xticks([])
    show(
        figure,
        f"The {len(names)} tokens of a text ({', '.join(names)}), a row each, with the first {dimensions} of "
        f"{z.shape[1]} numbers of its vector as colours, and below them the mean of the rows: the text's features.",
    )


def spectrograms(sounds, titles, columns=3, **options):
    """Show the log-mel spectrograms of recordings: time to the right, pitch upwards, loud places bright.

    Args:
        sounds: `tlbook.speech.Sound` each. titles: a string each. options: of `tlbook.speech.log_mel`.
    """
    from tlbook.speech import log_mel

    rows = -(-len(sounds) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.4 * columns, 1.8 * rows),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for axis, sound, title in zip(axes.flat, sounds, titles, strict=False):
        axis.imshow(log_mel(sound, **options), origin="lower", cmap="magma", aspect="auto", extent=(0, 1, 0, 64))
        axis.set_title(title, fontsize=10)
        axis.set_yticks([])
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=10)
    axes[0, 0].set_ylabel("pitch", fontsize=10)
    show(figure, f"Spectrograms of {len(sounds)} recordings, of one second each: {', '.join(titles)}.")


def few_labels(curves, score="accuracy"):
    """Show a score against the number of labelled examples, on a logarithmic axis: the mean and the range of draws.

    Args:
        curves: {legend: {number of labels: [score of each draw]}}. score: its name.
    """
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    told = []
    for (legend, by_n), (colour, style) in zip(
        curves.items(), [(BLUE, "o-"), (ORANGE, "s--"), (GREY, "^:")], strict=False
    ):
        n, draws = list(by_n), [np.asarray(values) for values in by_n.values()]
        mean, low, high = ([f(values) for values in draws] for f in (np.mean, np.min, np.max))
        axis.plot(n, mean, style, color=colour, label=legend)
        axis.fill_between(n, low, high, color=colour, alpha=0.15)
        told.append(f"{legend}: " + ", ".join(f"{m:.3f} with {k}" for k, m in zip(n, mean, strict=True)))
    axis.set_xscale("log", base=2)
    axis.set_xticks(n, [str(k) for k in n])
    axis.tick_params(labelsize=10)
    axis.set_xlabel("labelled examples", fontsize=10)
    axis.set_ylabel(f"{score} (mean and range of draws)", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=10)
    show(figure, f"{score.capitalize()} by number of labelled examples, the mean of several draws. {'; '.join(told)}.")


def probe_path(probe):
    """Show the out-of-fold log loss of a linear probe along its regularisation path, and the C that was chosen."""
    C, loss = ([row[key] for row in probe.path] for key in ("C", "log loss"))
    figure, axis = plt.subplots(figsize=(5, 3))
    axis.semilogx(C, loss, "o-", color=BLUE)
    axis.axvline(probe.C, color=GREY, linestyle=":")
    axis.set(xlabel="C (weak penalty to the right)", ylabel="log loss, held-out panels\nof the training part")
    show(
        figure,
        f"Log loss against C: lowest, {min(loss):.3f}, at C = {probe.C:.0e}; {loss[0]:.3f} at C = {C[0]:.0e}.",
    )


def stage_curve(curves, metric="auc", baselines=()):
    """Show a metric against the stage, with 95 % intervals, a line for each kind of split.

    Args:
        curves: {legend: {stage: Evaluation}}.
        baselines: {legend: float}, dotted lines.
    """
    figure, axis = plt.subplots(figsize=(7, 3.6))
    styles = [(ORANGE, "s--"), (BLUE, "o-"), (GREY, "^:")]
    for k, (legend, found) in enumerate(curves.items()):
        x = np.arange(len(found)) + 0.08 * (k - (len(curves) - 1) / 2)
        y = np.array([getattr(e, metric) for e in found.values()])
        low, high = np.array([e.interval[metric] for e in found.values()]).T
        color, line = styles[k]
        axis.errorbar(x, y, [y - low, high - y], fmt=line, color=color, capsize=2, label=legend)
        axis.set_xticks(range(len(found)), list(found), rotation=30, ha="right")
    for legend, value in dict(baselines).items():
        axis.axhline(value, color=GREY, linestyle=":", label=legend)
    axis.set(ylabel=metric.replace("_", " ").replace("auc", "AUC"), xlabel="features from")
    axis.legend(fontsize=10)
    said = "; ".join(
        f"{legend}: " + ", ".join(f"{stage} {getattr(e, metric):.3f}" for stage, e in found.items())
        for legend, found in curves.items()
    )
    show(figure, f"{metric} by stage. {said}.")


def learning_curve(curves, metric="auc", baselines=()):
    """Show a metric against the number of labelled panels, with 95 % intervals; the arguments of its figure."""
    show(*learning_curve_figure(curves, metric, baselines))


def learning_curve_figure(curves, metric="auc", baselines=(), at=None):
    """Draw learning curves.

    Args:
        curves: {legend: {number of labelled panels: Evaluation}}.
        baselines: {legend: float}, dotted lines.
        at: a number of panels to mark by a vertical line.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.
    """
    figure, axis = plt.subplots(figsize=(7, 3.6))
    styles = [(BLUE, "o-"), (ORANGE, "s--"), (GREY, "^:"), ("black", "D-.")]
    for k, (legend, found) in enumerate(curves.items()):
        sizes = sorted(found)
        x = np.array(sizes) * 2 ** (0.06 * (k - (len(curves) - 1) / 2))
        y = np.array([getattr(found[n], metric) for n in sizes])
        low, high = np.array([found[n].interval[metric] for n in sizes]).T
        color, line = styles[k % len(styles)]
        axis.errorbar(x, y, [y - low, high - y], fmt=line, color=color, capsize=2, label=legend)
    for legend, value in dict(baselines).items():
        axis.axhline(value, color=GREY, linestyle=":", label=legend)
    if at is not None:
        axis.axvline(at, color="black", linewidth=0.8)
    sizes = sorted({n for found in curves.values() for n in found})
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(n) for n in sizes])
    name = metric.replace("_", " ").replace("auc", "AUC")
    axis.set(xlabel="labelled panels", ylabel=name)
    axis.legend(fontsize=10)
    said = "; ".join(
        f"{legend}: " + ", ".join(f"{n} panels {getattr(found[n], metric):.3f}" for n in sorted(found))
        for legend, found in curves.items()
    )
    return figure, f"{name} by number of labelled panels. {said}." + (f" Marked: {at} panels." if at else "")


def draws(curves):
    """Show each single score by the number of labelled panels, and the mean of the draws as a line.

    Args:
        curves: {legend: {number of labelled panels: scores, one of each draw of the panels}}.
    """
    show(*draws_figure(curves))


def draws_figure(curves, own=None):
    """Draw `draws`, and ``own``, a (number of panels, score), as a star: (figure, alt)."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    styles, told = [(BLUE, "o", "-"), (ORANGE, "s", "--"), (GREY, "^", ":"), ("black", "D", "-.")], []
    for k, (legend, found) in enumerate(curves.items()):
        color, marker, line = styles[k % len(styles)]
        shift = 2 ** (0.12 * (k - (len(curves) - 1) / 2))
        for n, aucs in found.items():
            axis.plot([n * shift] * len(aucs), aucs, marker, color=color, alpha=0.4, markersize=5)
        means = [np.mean(aucs) for aucs in found.values()]
        axis.plot([n * shift for n in found], means, marker + line, color=color, label=f"{legend}, mean")
        told.append(f"{legend}: " + ", ".join(f"{n} panels {m:.3f}" for n, m in zip(found, means, strict=True)))
    if own:
        axis.plot(*own, "*", color=ORANGE, markersize=18, markeredgecolor="black", label="your panels")
        told.append(f"yours: {own[0]} panels {own[1]:.3f}")
    sizes = sorted({n for found in curves.values() for n in found} | ({own[0]} if own else set()))
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(n) for n in sizes])
    axis.set(xlabel="labelled panels", ylabel="AUC on unseen panels")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return figure, f"AUC by number of labelled panels, a point for each draw. Means: {'; '.join(told)}."


def embedding(features, method="pca", index=None, class_names=None, seed=0):
    """Show the examples as points of a plane: coloured by class at the left, by group at the right.

    A drawing cannot keep all distances, so the text below it says what it kept: how many of a point's ten nearest
    neighbours are of its class and of its group, in the drawing and among the standardised features themselves. Where
    there are groups, it also says how many of the ten nearest *of other groups* share the class.

    Args:
        features: `Features` of N examples.
        method: "pca" (the two directions of largest variance) or "tsne" (on the first 50 of them; see van der Maaten
            and Hinton, 2008).
        index: the examples to draw, at most 3,000; all unless given.
        class_names: for the legend.
        seed: of t-SNE.

    Raises:
        ValueError: another method, or more than 3,000 examples.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    index = np.arange(len(features.y)) if index is None else np.asarray(index)
    if method not in ("pca", "tsne"):
        raise ValueError(f"method must be 'pca' or 'tsne', got {method!r}")
    if len(index) > 3000:
        raise ValueError(f"{len(index):,} points are too many for one drawing: choose at most 3,000 by index")
    X = StandardScaler().fit_transform(np.asarray(features.X[index], dtype=np.float64))
    pca = PCA(min(50, *X.shape), random_state=seed).fit(X)
    plane = pca.transform(X)[:, :2]
    if method == "tsne":
        plane = TSNE(random_state=seed).fit_transform(pca.transform(X))
    panels = {"class": features.y[index]}
    if features.groups is not None:
        panels["group"] = np.unique(features.groups[index], return_inverse=True)[1]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 4.2), squeeze=False)
    told = []
    for axis, (what, values) in zip(axes[0], panels.items(), strict=True):
        if what == "class" and values.max() < 3:
            for k, (color, mark) in enumerate(zip((BLUE, ORANGE, GREY), "o^s", strict=True)):
                label = str(k) if class_names is None else class_names[k] if k < len(class_names) else None
                if (values == k).any():
                    axis.scatter(*plane[values == k].T, s=6, color=color, marker=mark, label=label, alpha=0.6)
            axis.legend(fontsize=10)
        else:
            axis.scatter(*plane.T, s=6, c=values, cmap="turbo", alpha=0.6)
        kept = [_neighbours_alike(Z, values) for Z in (plane, X)]
        alike = f"10 neighbours alike: {kept[0]:.0%} here,\n{kept[1]:.0%} in feature space"
        told.append(
            f"of a point's ten nearest neighbours {kept[0]:.0%} share its {what} (in feature space {kept[1]:.0%})"
        )
        axis.set(xticks=[], yticks=[], title=f"by {what}")
        if what == "class" and "group" in panels:
            other = _neighbours_alike(X, values, apart=panels["group"])
            told[-1] += f"; of the ten nearest of other groups, {other:.0%} share its class (in feature space)"
            alike += f";\nof other groups alone {other:.0%}"
        axis.set_xlabel(alike)
    share = pca.explained_variance_ratio_[:2].sum()
    name = f"Two principal axes, {share:.0%} of the variance" if method == "pca" else "t-SNE"
    figure.suptitle(name)
    figure.tight_layout()
    show(figure, f"{name}, {len(index):,} examples: {'; '.join(told)}.")


def _neighbours_alike(Z, values, k=10, apart=None):
    """The share of the k nearest neighbours, of other groups than ``apart`` says of the point, that have its value."""
    distance = ((Z**2).sum(1)[:, None] - 2 * Z @ Z.T + (Z**2).sum(1)).astype(np.float32)
    np.fill_diagonal(distance, np.inf)
    if apart is not None:
        distance[apart[:, None] == apart] = np.inf
    near = np.argpartition(distance, k, axis=1)[:, :k]
    return float((values[near] == values[:, None]).mean())


def history(found):
    """Show the losses of a fine-tuning run by epoch, and the epoch that validation chose; ``found``: a FineTuned."""
    rows = found.history
    epoch, train, val = ([row[key] for row in rows] for key in ("epoch", "train loss", "val loss"))
    figure, axis = plt.subplots(figsize=(5, 3.6))
    axis.plot(epoch, train, "s--", color=ORANGE, label="training part, as it was trained on")
    axis.plot(epoch, val, "o-", color=BLUE, label="validation part, after the epoch")
    axis.axvline(found.epoch, color=GREY, linestyle=":", label="kept")
    axis.set(
        xlabel="epoch (0 is the start)", ylabel="loss", xticks=epoch if len(epoch) < 12 else epoch[:: len(epoch) // 6]
    )
    axis.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    show(
        figure,
        f"Loss by epoch: training {train[-1]:.3f} in the last; validation {val[0]:.3f} at the start, "
        + (f"{val[found.epoch]:.3f} at epoch {found.epoch}, " if found.epoch else "")
        + f"which is kept, {val[-1]:.3f} at the end.",
    )


def transfer_map(report):
    """Show which tensor of the source went where; the arguments of its figure.

    ``report``: a `TransferReport`, as `tlbook.transfer` returns it.
    """
    show(*transfer_map_figure(report))


def transfer_map_figure(report):
    """Draw a `TransferReport`: the source's tensors above, the target's below, a line for each that was carried over.

    A tensor is a tick, in the order of the report; adapted ones are dashed, what the target had to initialise is a
    square, and what the source could not place is a cross.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Lesson 05.
    """
    figure, axis = plt.subplots(figsize=(8, 2.6))
    axis.vlines(np.linspace(0, 0.8, len(report.copied)), 0, 1, color=BLUE, linewidth=120 / (len(report.copied) + 60))
    few = len(report.reshaped), max(len(report.initialised), len(report.unused))
    x = np.linspace(0.84, 1, max(2, sum(few)))[: sum(few)]  # the few are drawn further apart than the many
    axis.vlines(x[: few[0]], 0, 1, color=ORANGE, linestyle="--", linewidth=2)
    axis.plot(x[few[0] :][: len(report.initialised)], [0] * len(report.initialised), "s", color=ORANGE, markersize=9)
    axis.plot(x[few[0] :][: len(report.unused)], [1] * len(report.unused), "x", color="black", markersize=9, mew=2)
    counts = {"copied": BLUE, "adapted": ORANGE, "initialised": ORANGE, "unused": "black"}
    marks = {"copied": "-", "adapted": "--", "initialised": "s", "unused": "x"}
    for (word, color), found in zip(
        counts.items(), (report.copied, report.reshaped, report.initialised, report.unused), strict=True
    ):
        axis.plot([], [], marks[word], color=color, label=f"{len(found)} {word}")
    axis.set(yticks=[0, 1], yticklabels=["target θ′", "source θ"], xticks=[], ylim=(-0.25, 1.25))
    axis.tick_params(labelsize=11)
    axis.legend(fontsize=11, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    told = ", ".join(f"{key} from {move.source}" for key, move in report.reshaped.items()) or "none"
    left, new = (", ".join(list(names)[:6]) or "none" for names in (report.unused, report.initialised))
    return (
        figure,
        f"Tensors of the source above, of the target below: {report}. Adapted: {told}. New: {new}. Left: {left}.",
    )


def descents(start, ends, names=None):
    """Show where several fine-tunings from one start ended; the arguments of its figure."""
    show(*descents_figure(start, ends, names))


def descents_figure(start, ends, names=None):
    """Draw θ⁰ and two ends in the plane through them, to scale: the angle between the two ways is the real one.

    Args:
        start: {name: tensor} of θ⁰; its names are the ones measured. ends: two such states. names: of the ends.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Lesson 04.
    """
    one, two = (np.concatenate([(end[n] - start[n]).double().cpu().numpy().ravel() for n in start]) for end in ends)
    lengths = np.linalg.norm(one), np.linalg.norm(two)
    cosine = float(one @ two / (lengths[0] * lengths[1]))
    apart = float(np.linalg.norm(one - two))
    points = np.array([[lengths[0], 0], [lengths[1] * cosine, lengths[1] * np.sqrt(max(0, 1 - cosine**2))]])
    names = ("θ*, one seed", "θ*, another seed") if names is None else names
    figure, axis = plt.subplots(figsize=(5.2, 4))
    for point, length, color, mark, name in zip(points, lengths, (BLUE, ORANGE), "os", names, strict=True):
        axis.annotate("", point, (0, 0), arrowprops={"arrowstyle": "->", "color": color, "linewidth": 2})
        axis.plot(*point, mark, color=color)
        axis.annotate(f"{name}\n{length:.2f} from θ⁰", point, (6, 8), textcoords="offset points", fontsize=11)
    axis.plot(*points.T, ":", color=GREY)
    axis.annotate(f"{apart:.2f} apart", points.mean(0), (6, 0), textcoords="offset points", fontsize=11, color=GREY)
    axis.plot(0, 0, "ko")
    axis.annotate("θ⁰", (0, 0), (-6, -16), textcoords="offset points", fontsize=12, ha="right")
    axis.set_aspect("equal")
    reach = max(lengths)
    axis.set(xlim=(-0.3 * reach, 1.75 * reach), ylim=(-0.3 * reach, 1.3 * reach), xticks=[], yticks=[])
    axis.set_title(f"cosine of the two ways: {cosine:.2f}", fontsize=11)
    return figure, (
        f"Drawn to scale: from θ⁰ two ways of length {lengths[0]:.2f} and {lengths[1]:.2f}, whose ends are {apart:.2f} "
        f"apart; their cosine is {cosine:.2f}."
    )


def inspection(evaluation, positive, shares=(0.1, 0.2, 0.3)):
    """Show how many defects are found when the highest scores are inspected first; the arguments of its figure."""
    show(*inspection_figure(evaluation, positive, shares))


def inspection_figure(evaluation, positive, shares=(0.1, 0.2, 0.3)):
    """Draw the share of the class ``positive`` that is found against the share of examples that are inspected.

    Examples are inspected in the order of their score. The band is a 95 % bootstrap over groups. The dotted line is
    inspection in a random order; the dashed one, an order that makes no mistake.

    Returns:
        (figure, alt): a matplotlib figure, and a text that gives the numbers at ``shares``.

    Lesson 06.
    """
    from tlbook.evaluation import found_by_inspection

    grid = np.linspace(0, 1, 51)
    found, low, high = found_by_inspection(evaluation, positive, grid).T
    rate = float((evaluation.labels == positive).mean())
    figure, axis = plt.subplots(figsize=(5.6, 4))
    axis.fill_between(grid, low, high, color=BLUE, alpha=0.2, linewidth=0, label="95 %, over panels")
    axis.plot(grid, found, color=BLUE, linewidth=2, label="highest score first")
    axis.plot([0, 1], [0, 1], ":", color=GREY, label="a random order")
    axis.plot([0, rate, 1], [0, 1, 1], "--", color="black", linewidth=1, label="no mistake")
    told = []
    for share, (value, lower, upper) in zip(shares, found_by_inspection(evaluation, positive, shares), strict=True):
        axis.plot(share, value, "o", color=BLUE)
        told.append(f"{share:.0%} inspected, {value:.0%} found ({lower:.0%} to {upper:.0%})")
    axis.set_xlabel("share of the cells inspected", fontsize=11)
    axis.set_ylabel("share of the defects found", fontsize=11)
    axis.legend(fontsize=11, frameon=False, loc="lower right")
    return figure, f"Defects found, highest score first: {'; '.join(told)}. A perfect order needs {rate:.0%}."


def loss_line(rows):
    """Show the loss at (1 − α) θ⁰ + α θ* against α; ``rows``: from `tlbook.fine_tuning.loss_along_line`."""
    alpha, loss = ([row[key] for row in rows] for key in ("alpha", "loss"))
    figure, axis = plt.subplots(figsize=(5, 3))
    axis.plot(alpha, loss, "o-", color=BLUE)
    for end, name in ((0, "θ⁰"), (1, "θ*")):
        axis.axvline(end, color=GREY, linestyle=":")
        axis.annotate(name, (end, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    axis.set(xlabel="α", ylabel="loss")
    said = ", ".join(f"{x:.3f} at α = {a:g}" for a, x in zip(alpha, loss, strict=True))
    show(figure, f"Loss along the line from θ⁰ (α = 0) to θ* (α = 1): {said}.")


def interpolation(curves, metric="auc"):
    """Show a metric along the line from θ⁰ to θ*; the arguments of its figure."""
    show(*interpolation_figure(curves, metric))


def interpolation_figure(curves, metric="auc", at=None):
    """Draw a metric at θ(α) = (1 − α) θ⁰ + α θ* against α, a line for each split and treatment.

    Of several splits each has a colour, and of one split each treatment.

    Args:
        curves: {split: {treatment: {α: Evaluation}}}, up to three splits and two treatments, such as BatchNorm's
            statistics "mixed" and "recalibrated".
        metric: of `Evaluation`.
        at: an α to mark by a vertical line.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.
    """
    figure, axis = plt.subplots(figsize=(7, 3.6))
    told, name = [], metric.replace("_", " ").replace("auc", "AUC")
    count, looks = sum(map(len, curves.values())), ((BLUE, "o"), (ORANGE, "s"), (GREY, "^"))
    for look, (split, treatments) in zip(looks, curves.items(), strict=False):
        of_treatment = (looks[1], looks[0]) if len(curves) == 1 else (look, look)
        for (color, mark), line, (treatment, found) in zip(of_treatment, ("--", "-"), treatments.items(), strict=False):
            alphas = sorted(found)
            values = [getattr(found[alpha], metric) for alpha in alphas]
            low, high = np.array([found[alpha].interval[metric] for alpha in alphas]).T
            bars, x = [values - low, high - np.array(values)], np.array(alphas) + 0.02 * (len(told) - (count - 1) / 2)
            label, style = f"{split}, {treatment}", {"color": color, "markersize": 4, "elinewidth": 1, "capsize": 2}
            axis.errorbar(x, values, bars, fmt=mark + line, label=label, **style)
            pairs = zip(alphas, values, strict=True)
            told.append(
                f"{split}, {treatment}: " + ", ".join(f"{value:.3f} at α = {alpha:g}" for alpha, value in pairs)
            )
    for end, symbol in ((0, "θ⁰"), (1, "θ*")):
        axis.annotate(symbol, (end, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    if at is not None:
        axis.axvline(at, color="black", linewidth=0.8)
    axis.set(xlabel="α", ylabel=name)
    axis.legend(fontsize=10)
    marked = "" if at is None else f" Marked: α = {at:g}."
    return figure, f"{name} along the line from θ⁰ (α = 0) to θ* (α = 1). {'; '.join(told)}.{marked}"


def confusion_matrix(evaluation, class_names):
    """Show which class is taken for which; the arguments of its figure."""
    show(*confusion_matrix_figure(evaluation, class_names))


def confusion_matrix_figure(evaluation, class_names):
    """Draw the counts of true class (rows) and most probable class (columns), coloured by their share of the row.

    Counts are written for up to 20 classes, and names for up to 60.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.
    """
    K, y, guess = len(class_names), evaluation.labels, evaluation.probabilities.argmax(1)
    counts = np.zeros((K, K), dtype=int)
    np.add.at(counts, (y, guess), 1)
    share = counts / counts.sum(1, keepdims=True).clip(1)
    side = min(max(3.2, 0.55 * K + 1.6), 36)  # inches: matplotlib draws no picture of 1,000 classes at full size
    figure, axis = plt.subplots(figsize=(side, side))
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if K <= 20:
        for i, j in np.ndindex(K, K):
            axis.text(j, i, counts[i, j], ha="center", va="center", color="white" if share[i, j] > 0.6 else "black")
    if K <= 60:
        labels, how = class_labels(class_names)
        axis.set_xticks(range(K), labels, rotation=45, ha="right", **how)
        axis.set_yticks(range(K), labels, **how)
    axis.set(xlabel="predicted", ylabel="true")
    right = ", ".join(f"{name} {counts[k, k]} of {counts[k].sum()}" for k, name in enumerate(class_names))
    return figure, f"Confusion matrix of {len(y)} examples. Right: {right}."


def worst_mistakes(found, data, index, evaluation, n=12, notes=None, one_per_group=False):
    """Show the examples whose true class was given the least probability; the arguments of its figure."""
    show(*worst_mistakes_figure(found, data, index, evaluation, n, notes, one_per_group))


def worst_mistakes_figure(found, data, index, evaluation, n=12, notes=None, one_per_group=False):
    """Draw the ``n`` examples of the largest loss, each beside its Grad-CAM: where the network looked for its answer.

    A transformer's final features are no map, and there is the image alone.

    Args:
        found: FineTuned. data, index: the examples that ``evaluation`` was made on, in that order.
        notes: (N,) strings, one for each of those examples, to stand under its picture; None for none.
        one_per_group: show the worst mistake of each group only.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.
    """
    from tlbook.explain import grad_cam, has_map

    p, y, names = evaluation.probabilities, evaluation.labels, found.class_names
    labels, how = class_labels(names)
    wrong = np.flatnonzero(p.argmax(1) != y)
    wrong = wrong[np.argsort(p[wrong, y[wrong]])]
    if one_per_group and evaluation.groups is not None:
        wrong = wrong[np.sort(np.unique(evaluation.groups[wrong], return_index=True)[1])]
    wrong = wrong[:n]
    if not len(wrong):
        figure, axis = plt.subplots(figsize=(4, 1))
        axis.text(0.5, 0.5, f"no mistakes in {len(y)} examples", ha="center", va="center")
        axis.axis("off")
        return figure, f"No mistakes in {len(y)} examples."
    rows = -(-len(wrong) // 2)  # two mistakes in a row, four pictures: as wide as a page
    figure, axes = plt.subplots(rows, 4, figsize=(7.2, 2.1 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    images = [found.model.as_tensor(data[int(np.asarray(index)[i])][0]) for i in wrong]
    mapped = has_map(found, images[:1])
    for k, (i, image) in enumerate(zip(wrong, images, strict=True)):
        pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
        plain, overlaid = axes[k // 2, 2 * (k % 2)], axes[k // 2, 2 * (k % 2) + 1]
        plain.imshow(pixels)
        plain.set_title(f"{labels[y[i]]} {p[i, y[i]]:.2f}", fontsize=10, **how)
        if notes is not None:
            plain.text(0.5, -0.04, str(notes[i]), transform=plain.transAxes, ha="center", va="top", fontsize=10)
        overlaid.imshow(pixels)
        if mapped:
            overlaid.imshow(grad_cam(found, [image], classes=[p[i].argmax()])[0], cmap="inferno", alpha=0.5)
        overlaid.set_title(f"taken for {labels[p[i].argmax()]}", fontsize=10, **how)
    figure.tight_layout(h_pad=None if notes is None else 1.5)  # room for the notes
    note = {i: "" if notes is None else f" ({notes[i]})" for i in wrong}
    told = ", ".join(f"{names[y[i]]} for {names[p[i].argmax()]}{note[i]}" for i in wrong)
    return figure, f"The {len(wrong)} worst mistakes of {len(y)} examples{', each with its Grad-CAM' * mapped}: {told}."
