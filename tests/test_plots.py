import io
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from small import spots, tiny

import tlbook as tl
from tlbook import figures, plots
from tlbook.course import widgets
from tlbook.data import Split
from tlbook.feature_extraction import Features
from tlbook.table import Table
from tlbook.training.classifier import FineTuned


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


def test_the_panel_draw_explorer_shows_the_score_of_the_panels_chosen():
    rng = np.random.default_rng(0)
    groups, y = np.repeat(np.arange(8), 20), rng.integers(0, 2, 160)
    y[groups == 0] = 0
    features = Features((rng.normal(size=(160, 4)) + y[:, None]).astype("f4"), y, groups, {"final": slice(0, 4)})
    split = Split(np.flatnonzero(groups < 6), np.arange(0), np.flatnonzero(groups >= 6))
    panels, picture, text = widgets.panel_draw_explorer(features, split, {4: [0.6, 0.7]}).children
    before = picture.value
    panels.value = (1, 3)
    probe = tl.linear_probe(features, split._replace(train=np.flatnonzero(np.isin(groups, (1, 3)))), C=1e-3)
    auc = probe.evaluate(features, split.test).auc
    assert f"AUC {auc:.3f}" in text.value and "2 panels, 40 cells" in text.value and picture.value != before
    panels.value = (0,)
    assert "one class only" in text.value


def test_the_figure_of_draws_says_every_mean_and_marks_the_readers_own():
    figure, alt = plots.draws_figure({"probe": {4: [0.6, 0.7], 8: [0.8]}}, own=(6, 0.75))
    assert "4 panels 0.650, 8 panels 0.800" in alt and "yours: 6 panels 0.750" in alt
    assert [line.get_marker() for line in figure.axes[0].lines].count("*") == 1
    plots.plt.close(figure)


def test_the_figure_of_intervals_says_every_score_with_its_interval(curves):
    found = {"pretrained": curves["pretrained"][32], "scratch": curves["scratch"][32]}
    figure, alt = plots.intervals_figure(found, baselines={"without a pixel": 0.5})
    for legend, e in found.items():
        assert "{} {:.3f} ({:.3f} to {:.3f})".format(legend, e.auc, *e.interval["auc"]) in alt
    assert "without a pixel 0.500" in alt
    plots.plt.close(figure)


def test_photographs_are_a_smaller_file_with_the_same_alternative_text():
    noise = np.random.default_rng(0).normal(size=(300, 300)).cumsum(0).cumsum(1)
    found = []
    for photographs in (False, True):
        figure, axis = plots.plt.subplots()
        axis.imshow(noise)
        found.append(plots.picture(figure, "a photograph", photographs))
    drawing, photograph = found
    assert len(photograph.png) < len(drawing.png)
    assert 'alt="a photograph"' in photograph._repr_html_() and "data:image/jpeg" in photograph._repr_html_()
    assert Image.open(io.BytesIO(photograph.png)).size == Image.open(io.BytesIO(drawing.png)).size


def test_a_grid_marks_what_is_meant_and_says_so(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "show", lambda figure, alt, **_: shown.append((figure, alt)))
    plots.image_grid(spots(), [0, 3], marks={3: [(1, 2, 4, 4)]})
    figure, alt = shown[0]
    assert [len(axis.patches) for axis in figure.axes[:2]] == [0, 2] and "1 places marked" in alt
    plots.plt.close(figure)


@pytest.fixture(scope="module")
def line():
    """Two splits and two treatments along α; scores grow with α."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(10), 12), rng.integers(0, 2, 120)

    def scored(signal):
        p = 1 / (1 + np.exp(-(signal * (labels - 0.5) + rng.normal(size=120))))
        return tl.evaluate(np.stack([1 - p, p], 1), labels, groups=groups, resamples=200)

    treatments = ("mixed", "recalibrated")
    return {
        split: {how: {a: scored(2 * a + k) for a in (0, 0.5, 1)} for how in treatments}
        for k, split in enumerate(("unseen panels", "random split"))
    }


@pytest.mark.parametrize("metric, name", [("auc", "AUC"), ("log_loss", "log loss")])
def test_the_figure_of_the_interpolation_says_every_score_of_both_splits_and_marks_alpha(line, metric, name):
    figure, alt = plots.interpolation_figure(line, metric, at=0.5)
    assert alt.startswith(f"{name} along the line") and "Marked: α = 0.5" in alt
    assert len(figure.axes[0].get_legend().get_texts()) == 4
    for split, treatments in line.items():
        for how, found in treatments.items():
            values = ", ".join(f"{getattr(e, metric):.3f} at α = {a:g}" for a, e in found.items())
            assert f"{split}, {how}: {values}" in alt
    plots.plt.close(figure)


def test_the_interpolation_slider_tells_scores_and_the_paired_differences_to_both_ends(line):
    alpha, picture, text = widgets.interpolation_slider(line).children
    before = picture.value, text.value
    alpha.value = 0.5
    assert picture.value != before[0] and "Marked: α = 0.5" in picture.value
    for split, treatments in line.items():
        for how, found in treatments.items():
            c0, c1 = (tl.compare(found[0.5], found[end]).difference for end in (0, 1))
            (row,) = (row for row in text.value.splitlines() if f"{split}, {how}" in row)
            assert all(words in row for words in (f"{found[0.5].auc:.3f}", f"θ⁰: {c0:+.3f}", f"θ*: {c1:+.3f}"))
    alpha.value = 0
    assert text.value.count("θ⁰: +0.000 [+0.000, +0.000]") == 4


def test_the_interpolation_slider_refuses_a_curve_without_an_end(line):
    short = {"unseen panels": {"mixed": {a: e for a, e in line["unseen panels"]["mixed"].items() if a}}}
    with pytest.raises(ValueError, match="'unseen panels, mixed' has no value at α = 0"):
        widgets.interpolation_slider(short)


@pytest.fixture
def shown(monkeypatch):
    """The alternative texts of the figures that were shown."""
    texts = []
    monkeypatch.setattr(plots, "show", lambda figure, alt, **_: (texts.append(alt), plots.plt.close(figure)))
    return texts


def test_the_sliders_static_twin_shows_its_whole_figure(line, shown, monkeypatch):
    widgets.interpolation_slider_static(line, "log_loss")
    figure, alt = plots.interpolation_figure(line, "log_loss")
    plots.plt.close(figure)
    assert shown == [alt]


def test_a_page_shows_the_text_of_a_figure_as_the_alternative_of_its_image():
    from nbconvert import HTMLExporter
    from nbformat import v4

    figure, axis = plots.plt.subplots(figsize=(7, 3))
    axis.plot([0, 1])
    text = 'A line of "two" points <rising>: AUC & more.'
    shown = plots.picture(figure, text)
    data = {"text/html": shown._repr_html_(), "text/plain": repr(shown)}
    cell = v4.new_code_cell("draw()", outputs=[v4.new_output("display_data", data=data)])
    page, _ = HTMLExporter().from_notebook_node(v4.new_notebook(cells=[cell]))
    images = Images()
    images.feed(page)
    assert [image["alt"] for image in images.found] == [text]
    assert images.found[0]["src"].startswith("data:image/png;base64,") and "no description" not in page.lower()


class Images(HTMLParser):
    """The attributes of every image of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))


def test_figures_have_160_dots_in_an_inch_of_the_page_and_letters_of_11_points():
    figure, axis = plots.plt.subplots(figsize=(7, 3))
    letters = axis.set_title("x").get_fontsize(), axis.xaxis.get_ticklabels()[0].get_fontsize()
    shown = plots.picture(figure, "An empty figure.")
    image = Image.open(io.BytesIO(shown.png))
    inches = shown.width / 96  # of the page
    assert image.width / inches >= 159.5
    assert min(letters) * figures.DPI / 160 >= 11


def test_a_figure_without_words_is_refused():
    figure, _ = plots.plt.subplots()
    with pytest.raises(ValueError, match="alt must say"):
        plots.show(figure, " ")
    plots.plt.close(figure)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_an_embedding_tells_what_it_kept(method, shown):
    rng = np.random.default_rng(0)
    y, groups = np.repeat([0, 1], 60), np.tile(np.arange(6), 20)
    X = (rng.normal(size=(120, 8)) + 20 * y[:, None]).astype(np.float32)  # classes far apart, groups nowhere
    tl.plots.embedding(Features(X, y, groups, {"f": slice(0, 8)}), method)
    (alt,) = shown
    assert "100% share its class (in feature space 100%)" in alt
    assert int(alt.split("% share its group")[0].split()[-1]) < 40


def test_an_embedding_refuses_what_cannot_be_seen():
    X = np.zeros((3001, 2), dtype=np.float32)
    features = Features(X, np.zeros(3001, dtype=int), None, {"f": slice(0, 2)})
    with pytest.raises(ValueError, match="3,001 points are too many"):
        tl.plots.embedding(features)
    with pytest.raises(ValueError, match="method must be"):
        tl.plots.embedding(features, "umap", index=range(10))


def evaluated(K, n=60):
    """Predictions of K classes, a third of them wrong."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % K
    p = np.full((n, K), 0.1 / (K - 1))
    p[np.arange(n), np.where(rng.random(n) < 1 / 3, (y + 1) % K, y)] = 0.9
    return tl.evaluate(p, y, resamples=10)


def texts_of(figure):
    """Every text in a figure once it is drawn; a letter that the font lacks is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return [text.get_text() for axis in figure.axes for text in axis.findobj(plots.plt.Text) if text.get_text()]


def test_the_confusion_matrix_counts_each_class_taken_for_each():
    e = evaluated(3)
    figure, alt = plots.confusion_matrix_figure(e, ("a", "b", "c"))
    counts = [[int(((e.labels == i) & (e.probabilities.argmax(1) == j)).sum()) for j in range(3)] for i in range(3)]
    said = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in figure.axes[0].texts}
    assert said == {(i, j): str(counts[i][j]) for i in range(3) for j in range(3)}
    assert alt.endswith(f"Right: a {counts[0][0]} of 20, b {counts[1][1]} of 20, c {counts[2][2]} of 20.")
    plots.plt.close(figure)


@pytest.mark.parametrize(
    "name, drawn",
    [
        ("$x_$", "$x_$"),  # no formula
        ("two\nlines", "two lines"),
        ("größer", "größer"),
        ("\U000e0041", "class 0"),  # a letter that no font has
        ("caf\udce9", "class 0"),  # half a letter, of a file name that is not UTF-8
        ("n" * 99, "n" * 29 + "…"),
        (7, "7"),
    ],
)
def test_figures_draw_every_name_of_a_class_and_their_texts_say_it_whole(name, drawn):
    data = spots(12, K=2)
    model = tiny()
    model.model.reset_classifier(2)
    found = FineTuned(model.eval(), Table(), 0, (name, "b"))
    e = tl.evaluate(np.eye(2)[1 - data.labels] * 0.8 + 0.1, data.labels, resamples=10)  # all wrong
    for figure, alt in (
        plots.confusion_matrix_figure(e, found.class_names),
        plots.worst_mistakes_figure(found, data, range(12), e),
    ):
        assert any(text in (drawn, f"{drawn} 0.10") for text in texts_of(figure))
        assert str(name) in alt
        plots.plt.close(figure)


def test_letters_that_matplotlibs_own_font_lacks_are_drawn_with_another_that_is_installed(monkeypatch):
    from matplotlib import font_manager

    monkeypatch.setattr(figures, "_MORE_FONTS", ("STIXGeneral", "not installed"))  # ships with matplotlib, and has 𝓐
    own = font_manager.get_font(font_manager.findfont("DejaVu Serif")).get_charmap()
    other = font_manager.get_font(font_manager.findfont("STIXGeneral")).get_charmap()
    monkeypatch.setitem(plots.plt.rcParams, "font.family", ["DejaVu Serif"])
    letter = chr(min(code for code in other if code > 255 and code not in own))
    figure, _ = plots.confusion_matrix_figure(evaluated(2), (letter, "b"))
    assert letter in texts_of(figure)
    plots.plt.close(figure)


def test_a_thousand_classes_are_drawn_without_names_at_a_size_that_can_be_saved():
    figure, _ = plots.confusion_matrix_figure(evaluated(1000, 2000), tuple(map(str, range(1000))))
    assert max(figure.get_size_inches()) <= 36 and not any("999" in text for text in texts_of(figure))
    plots.plt.close(figure)


def test_two_descents_are_drawn_to_scale_with_their_true_angle():
    start = {"a": torch.zeros(2), "b": torch.zeros(1)}
    ends = [
        {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([0.0])},
        {"a": torch.tensor([2.0, 0.0]), "b": start["b"] + 2},
    ]
    figure, alt = plots.descents_figure(start, ends)
    assert "3.00 and 2.83" in alt and "2.24 apart" in alt and "cosine is 0.71" in alt
    tips = [line.get_xydata()[0] for line in figure.axes[0].lines if line.get_marker() in ("o", "s")][:2]
    assert np.allclose(tips, [[3, 0], [2, 2]], atol=1e-6)
    plots.plt.close(figure)


def test_the_picture_of_a_transfer_counts_what_its_report_lists():
    old, new = (torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, k)) for k in (9, 2))
    report = tl.transfer(old, new, adapt={"1[.].*": "new_head", "0.weight": lambda source, target: source})
    figure, alt = plots.transfer_map_figure(report)
    assert (
        "1 tensors copied, 1 adapted, 2 initialised; 2 of the source unused" in alt and "New: 1.weight, 1.bias" in alt
    )
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == ["1 copied", "1 adapted", "2 initialised", "2 unused"]
    plots.plt.close(figure)


def test_the_worst_mistake_of_each_group_is_shown_with_its_note():
    data, found = spots(n=12), FineTuned(tiny(), Table(), 0, ("a", "b"))
    labels, groups = np.zeros(12, dtype=int), np.repeat([0, 1, 2], 4)
    score = np.linspace(0.99, 0.6, 12)
    e = tl.evaluate(np.stack([1 - score, score], 1), labels, groups=groups, resamples=10)
    notes = [f"note {i}" for i in range(12)]
    figure, alt = plots.worst_mistakes_figure(found, data, range(12), e, notes=notes, one_per_group=True)
    assert "3 worst" in alt and all(f"(note {i})" in alt for i in (0, 4, 8)) and "note 1)" not in alt
    plots.plt.close(figure)
