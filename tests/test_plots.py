import numpy as np
import pytest

import tlbook as tl
from tlbook import plots, widgets


@pytest.fixture(scope="module")
def curves():
    """Two contenders at 2, 8 and 32 panels; one gets better, the other does not."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(10), 12), rng.integers(0, 2, 120)

    def scored(signal):
        p = 1 / (1 + np.exp(-(signal * (labels - 0.5) + rng.normal(size=120))))
        return tl.evaluate(np.stack([1 - p, p], 1), labels, groups=groups, resamples=200)

    return {
        "pretrained": {n: scored(s) for n, s in ((2, 1), (8, 2), (32, 4))},
        "scratch": {n: scored(0) for n in (2, 8, 32)},
    }


def test_the_learning_curve_says_every_score_and_marks_the_chosen_size(curves):
    figure, alt = plots.learning_curve_figure(curves, at=8)
    assert figure.axes[0].get_xscale() == "log" and "Marked: 8 panels" in alt
    for found in curves.values():
        assert all(f"{n} panels {e.auc:.3f}" in alt for n, e in found.items())
    plots.plt.close(figure)


def test_the_slider_tells_scores_and_the_paired_difference_at_its_size(curves):
    size, picture, text = widgets.data_size_slider(curves).children
    before = picture.value, text.value
    size.value = 32
    assert picture.value != before[0] and text.value != before[1]
    best = curves["pretrained"][32]
    difference = tl.compare(best, curves["scratch"][32]).difference
    assert f"{best.auc:.3f}" in text.value and f"{difference:+.3f}" in text.value
