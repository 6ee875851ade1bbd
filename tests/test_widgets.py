import html
import io
from datetime import datetime, timezone

import numpy as np
import pytest
import torch
from IPython import display
from PIL import Image

import tlbook as tl
from tlbook.course import widgets

STAGES = ("stem", "blocks.1")


@pytest.fixture(scope="module")
def small():
    """A few cells of a dozen panels, both classes in each fold, with the features of two early stages."""
    everything = tl.data.solar_cells(size=32)
    rng = np.random.default_rng(0)
    data = everything.subset(np.sort(rng.choice(len(everything), 240, replace=False)))
    torch.manual_seed(0)
    backbone = tl.load_backbone(weights=None)
    return backbone, data, tl.extract(backbone, data, stages=STAGES, cache=False)


def test_the_stage_explorer_changes_its_picture_when_a_value_changes(small):
    cell, stage, picture, text = widgets.stage_explorer(*small).children
    seen = [picture.value]
    stage.value = "blocks.1"
    seen.append(picture.value)
    cell.value = 7
    seen.append(picture.value)
    assert len(set(seen)) == 3
    assert all('<img alt="Cells and their' in value for value in seen)
    assert "cell 0 (" in seen[0] and "at stem" in seen[0]
    assert "cell 7 (" in seen[2] and "at blocks.1" in seen[2]
    assert "cell 7 (" in text.value and "at blocks.1" in text.value  # read aloud
    cell.value, stage.value = 0, "stem"
    assert picture.value == seen[0]


def test_the_static_twin_shows_a_figure_that_says_what_is_in_it(small, monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", shown.append)
    widgets.stage_explorer_static(*small, cells=[3, 200], stages=STAGES)
    (image,) = shown
    alt = image.alt
    assert (
        html.escape(alt) in image._repr_html_()
        and all(f"cell {i} (" in alt for i in (3, 200))
        and all(s in alt for s in STAGES)
    )
    assert alt.count("with probability") == 4


def test_the_probe_that_judges_a_cell_was_fitted_without_its_panel(small, monkeypatch):
    _, data, features = small
    fitted = []
    linear_probe = widgets.linear_probe
    monkeypatch.setattr(widgets, "linear_probe", lambda f, split: fitted.append(split) or linear_probe(f, split))
    says = widgets._probes(data, features)
    for i in (3, 200):
        before = len(fitted)
        p = says(i, "stem")
        assert 0 <= p <= 1 and data.groups[i] not in data.groups[fitted[-1].train]
        assert says(i, "stem") == p and len(fitted) <= before + 1  # fitted once


def test_the_strongest_maps_are_those_that_stand_out_on_this_image(small):
    _, data, features = small
    X = features.select("stem").X
    strongest = int(np.argmax((X[3] - X.mean(0)) / (X.std(0) + 1e-9)))
    _, alt = widgets.stage_figure(*small, [3], ["stem"], says=lambda i, stage: 0.25)
    assert f"at stem: maps {strongest}, " in alt and "probability 0.25" in alt


def test_what_cannot_be_explored_is_named(small):
    backbone, data, features = small
    with pytest.raises(ValueError, match="not of the same examples"):
        widgets.stage_explorer(backbone, data.subset(range(20)), features)
    with pytest.raises(ValueError, match="no groups"):
        widgets.stage_explorer(backbone, tl.data.from_dataset([data[0], data[1]]), features)


# The threshold.


@pytest.fixture
def two_sets():
    p = np.array([0.9, 0.6, 0.4, 0.1])
    e = tl.evaluate(np.stack([1 - p, p], 1), np.array([1, 0, 1, 0]))
    return {"validation": e, "test": e}


def test_the_cost_counts_misses_at_their_price_and_false_alarms_once(two_sets):
    e = two_sets["test"]
    assert widgets.cost(e, 0.5, 10).tolist() == [0, 1, 10, 0]
    assert widgets.cost(e, 0.3, 10).tolist() == [0, 1, 0, 0]
    assert widgets.cost(e, 0.0, 10).mean() == 0.5  # every healthy cell a false alarm
    assert widgets.cost(e, 1.0, 3).tolist() == [3, 0, 3, 0]


def test_the_threshold_slider_shows_the_cost_at_the_threshold_and_the_price(two_sets):
    threshold, price, picture, text = widgets.threshold_slider(two_sets).children
    assert "test: 50% of the defects missed, 50% of the healthy cells alarmed, cost 2.75 a cell" in text.value
    seen = picture.value
    threshold.value = 0.3
    assert "test: 0% of the defects missed, 50% of the healthy cells alarmed, cost 0.25 a cell" in text.value
    price.value = 1
    threshold.value = 0.5
    assert "cost 0.50 a cell" in text.value and picture.value != seen


def test_the_static_twin_marks_the_threshold_that_the_first_set_chose(two_sets):
    _, alt = widgets.threshold_figure(two_sets, 10)
    assert "lowest at 0.1" in alt and "2.75 at 0.5" in alt  # just above the healthy cell at 0.1


@pytest.mark.parametrize("missed, K, says", [(0, 2, "missed must be above 0"), (10, 3, "two classes, got 3")])
def test_a_threshold_needs_two_classes_and_a_price(missed, K, says):
    e = tl.evaluate(np.full((4, K), 1 / K), np.arange(4) % K)
    with pytest.raises(ValueError, match=says):
        widgets.threshold_slider({"test": e}, missed)


# The embedding, and an image of one's own.


def test_a_point_of_the_embedding_shows_its_cell_and_those_most_like_it(small):
    _, data, features = small
    points, picture, text = widgets.embedding_explorer(features, data).children
    assert len(points.points) == len(data) and points.texts[5] == f"5: {data.class_names[data.labels[5]]}"
    x, y, k = np.array(points.points).T
    assert (k == data.labels).all() and (x.min(), x.max(), y.min(), y.max()) == (0, 1, 0, 1)
    before = picture.value
    points.value = 5
    Z = np.asarray(features.X, dtype=np.float64)
    Z = (Z - Z.mean(0)) / (Z.std(0) + 1e-9)
    likeness = Z @ Z[5] / np.linalg.norm(Z, axis=1) / np.linalg.norm(Z[5])
    likeness[5] = -1
    assert (
        picture.value != before
        and f"5 ({data.class_names[data.labels[5]]}); nearest: {likeness.argmax()} (" in text.value
    )


def test_the_static_twin_of_the_embedding_shows_the_chosen(small, monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", shown.append)
    _, data, features = small
    widgets.embedding_explorer_static(features, data, [30, 7], index=np.arange(0, 240)[::-1])
    assert ". 7 (" in shown[0].alt and "features. 30 (" in shown[0].alt


def test_an_embedding_of_other_examples_or_of_too_many_is_refused(small):
    _, data, features = small
    with pytest.raises(ValueError, match="not of the same examples"):
        widgets.embedding_explorer(features, data.subset(range(20)))
    with pytest.raises(ValueError, match="1,200 points are too many"):
        widgets.embedding_explorer(features, data, index=np.arange(1200) % 240)


class Answers:
    """A classifier that says what it is asked to."""

    class_names = ("cat", "dog")

    def predict(self, inputs):
        return np.array([[0.25, 0.75]] * len(inputs))


def test_an_image_of_ones_own_is_classified_or_said_to_be_none(monkeypatch):
    upload, picture, text = widgets.own_image(Answers()).children
    assert text.value == "No image was given yet." and picture.value == ""
    png = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(png, "PNG")
    given = {"name": "rex.png", "type": "image/png", "size": 100, "last_modified": datetime.now(timezone.utc)}
    upload.value = ({**given, "content": png.getvalue()},)
    assert text.value == "rex.png: dog 0.75, cat 0.25." and "<img" in picture.value
    upload.value = ({**given, "content": b"no image"},)
    assert "rex.png is not readable as an image" in text.value and picture.value == ""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    upload.value = ({**given, "content": png.getvalue()},)
    assert "rex.png" in text.value and "30 × 20 pixels could be a decompression bomb" in text.value


def test_the_static_twin_answers_for_several_images(monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", shown.append)
    widgets.own_image_static(Answers(), [Image.new("RGB", (9, 9))] * 2, ["a", "b"])
    assert shown[0].alt == "a: dog 0.75, cat 0.25; b: dog 0.75, cat 0.25."


def test_where_no_widget_can_be_shown_a_sentence_says_what_to_do(two_sets, monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", lambda thing, **how: shown.append(thing))
    explorer = widgets.threshold_slider(two_sets)
    explorer._ipython_display_()
    view, note = shown
    assert view["text/plain"] == "" and "application/vnd.jupyter.widget-view+json" in view
    assert "Run this cell again" in note.data and repr(explorer) in note.data
