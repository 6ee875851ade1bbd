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


@pytest.fixture
def shown(monkeypatch):
    """The alternative texts of the figures that were shown."""
    texts = []
    monkeypatch.setattr(plots, "show", lambda figure, alt: (texts.append(alt), plots.plt.close(figure)))
    return texts


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_an_embedding_tells_what_it_kept(method, shown):
    rng = np.random.default_rng(0)
    y, groups = np.repeat([0, 1], 60), np.tile(np.arange(6), 20)
    X = (rng.normal(size=(120, 8)) + 20 * y[:, None]).astype(np.float32)  # classes far apart, groups nowhere
    tl.plots.embedding(tl.feature_extraction.Features(X, y, groups, {"f": slice(0, 8)}), method)
    (alt,) = shown
    assert "100% share its class (in feature space 100%)" in alt
    assert int(alt.split("% share its group")[0].split()[-1]) < 40


def test_an_embedding_refuses_what_cannot_be_seen():
    X = np.zeros((3001, 2), dtype=np.float32)
    features = tl.feature_extraction.Features(X, np.zeros(3001, dtype=int), None, {"f": slice(0, 2)})
    with pytest.raises(ValueError, match="3,001 points are too many"):
        tl.plots.embedding(features)
    with pytest.raises(ValueError, match="method must be"):
        tl.plots.embedding(features, "umap", index=range(10))
