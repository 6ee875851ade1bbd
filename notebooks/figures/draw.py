"""The two drawings that no code can compute: source and target domain, and the three operators.

    python notebooks/figures/draw.py     # writes source_target.png and three_operators.png beside this file

Black on white, large letters and few boxes: readable on a phone and in print.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Rectangle

HERE = Path(__file__).parent
SOURCE, TARGET, NEW = {"fc": "#D9DCE0"}, {"fc": "#BFE0F2", "hatch": "///"}, {"fc": "#F6C9A6", "hatch": "xx"}


def canvas(width, height):
    figure, axis = plt.subplots(figsize=(width, height))
    axis.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    return figure, axis


def box(axis, x, y, width, height, text, size=11, **look):
    axis.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.08", ec="black", lw=1.2, **look))
    words(axis, x + width / 2, y + height / 2, text, size, {"fc": "white", "ec": "none", "pad": 1.5})


def words(axis, x, y, text, size=11, background=None, **how):
    how = {"ha": "center", "va": "center"} | how
    axis.text(x, y, text, fontsize=size, linespacing=1.25, bbox=background, **how)


def arrow(axis, start, end, bend=0.0, **look):
    look = {"arrowstyle": "-|>", "lw": 1.8, "color": "black", "connectionstyle": f"arc3,rad={bend}"} | look
    axis.annotate("", end, start, arrowprops=look)


def source_target():
    """Two domains with a task each, and the parameters that go from one to the other."""
    figure, axis = canvas(6.6, 3.9)
    for x, title in ((0.1, "source"), (3.9, "target")):
        axis.add_patch(Rectangle((x, 0.1), 2.6, 3.7, fill=False, ec="black", lw=1.2, ls="--"))
        words(axis, x + 1.3, 3.55, title, 13, weight="bold")
    box(axis, 0.3, 2.3, 2.2, 0.95, "domain {X, P(X)}\nImageNet photographs", 10, **SOURCE)
    box(axis, 0.3, 0.3, 2.2, 0.95, "task {Y, P(Y|X)}\n1,000 classes", 10, **SOURCE)
    box(axis, 4.1, 2.3, 2.2, 0.95, "domain {X, P(X)}\n2,624 solar cells", 10, **TARGET)
    box(axis, 4.1, 0.3, 2.2, 0.95, "task {Y, P(Y|X)}\nhealthy or defective", 10, **TARGET)
    for x in (1.4, 5.2):
        arrow(axis, (x, 2.25), (x, 1.3))
    words(axis, 1.4, 1.78, "training", 10, {"fc": "white", "ec": "none", "pad": 1})
    words(axis, 5.2, 1.78, "few labels", 10, {"fc": "white", "ec": "none", "pad": 1})
    arrow(axis, (2.72, 1.78), (3.88, 1.78), lw=3)
    words(axis, 3.3, 2.15, "θ", 17)
    words(axis, 3.3, 1.35, "parameters", 10)
    return figure


def three_operators():
    """A row for each operator: run θ, move θ, carry θ over."""
    figure, axis = canvas(6.6, 5.0)
    rows = (
        (3.5, "run", "F(X; θ)", "feature extraction"),
        (1.85, "move", "θ* = argmin L(θ; D)", "fine-tuning"),
        (0.1, "carry", "θ′ = T(θ)", "parameter transfer"),
    )
    for y, verb, formula, name in rows:
        words(axis, 0.1, y + 0.95, verb, 17, ha="left", weight="bold")
        words(axis, 0.1, y + 0.55, name, 10.5, ha="left")
        words(axis, 0.1, y + 0.2, formula, 10.5, ha="left")
        if y > 1:
            axis.plot([0.1, 6.5], [y - 0.25] * 2, color="black", lw=0.6)
    y = 3.5
    box(axis, 2.2, y + 0.25, 1.0, 0.75, "image", **TARGET)
    box(axis, 3.75, y + 0.25, 1.0, 0.75, "θ", 15, **SOURCE)
    box(axis, 5.3, y + 0.25, 1.2, 0.75, "features", **TARGET)
    arrow(axis, (3.2, y + 0.62), (3.75, y + 0.62))
    arrow(axis, (4.75, y + 0.62), (5.3, y + 0.62))
    words(axis, 4.25, y + 0.05, "θ stays as it is", 10)
    y = 1.85
    box(axis, 2.7, y + 0.25, 1.0, 0.75, "θ⁰", 15, **SOURCE)
    box(axis, 5.2, y + 0.25, 1.0, 0.75, "θ*", 15, **TARGET)
    for x in (3.72, 4.2, 4.68):
        arrow(axis, (x, y + 0.62), (x + 0.48, y + 0.62), bend=-0.5)
    words(axis, 4.45, y + 0.12, "small steps that lower the loss", 10)
    y = 0.05
    for k in range(3):
        box(axis, 2.7, y + 0.1 + 0.38 * k, 1.0, 0.34, "θ" if k else "head", 10, **SOURCE)
        box(axis, 5.2, y + 0.1 + 0.38 * k, 1.0, 0.34, "θ" if k else "new head", 10, **(SOURCE if k else NEW))
        if k:
            arrow(axis, (3.72, y + 0.27 + 0.38 * k), (5.18, y + 0.27 + 0.38 * k))
    words(axis, 4.45, y + 0.2, "left behind", 10)
    axis.plot([3.76, 3.98], [y + 0.2] * 2, color="black", lw=1.5)
    axis.plot([3.98, 3.98], [y + 0.12, y + 0.28], color="black", lw=1.5)
    words(axis, 3.2, y + 1.32, "model", 10)
    words(axis, 5.7, y + 1.32, "new model", 10)
    return figure


if __name__ == "__main__":
    from PIL import Image

    for drawing in (source_target, three_operators):
        path = HERE / f"{drawing.__name__}.png"
        drawing().savefig(path, dpi=160)
        plt.close()
        Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True, dpi=(160, 160))
