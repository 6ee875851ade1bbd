"""What the pictures say, read back from what was drawn, and counted without them."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from small import SPLIT, spots, tiny

import tlbook as tl
from tlbook import diagrams, plots
from tlbook.data import Dataset, Split
from tlbook.evaluation import Comparison
from tlbook.feature_extraction import Features
from tlbook.training.classifier import FineTuned


@pytest.fixture(autouse=True)
def closed():
    yield
    plots.plt.close("all")


def labelled(figure, label):
    return [patch for patch in figure.axes[0].patches if patch.get_label() == label]


def rows(figure):
    """{part: what is written beside its bar}, from the top down."""
    texts = [t for t in figure.axes[0].texts if t.get_text()[:1].isdigit() and t.get_position()[0] > 1.9]
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    return dict(zip(names, (t.get_text() for t in texts), strict=True))


def counted(backbone):
    """{part: parameters}, by the modules that run in it."""
    found = {s: sum(p.numel() for m in parts for p in backbone.model.get_submodule(m).parameters())
             for s, parts in backbone.parts.items()}  # fmt: skip
    return found | {"head": sum(p.numel() for p in backbone.head.parameters())}


@pytest.fixture
def frozen():
    """A network with two classes whose first stages are frozen, and its optimizer."""
    backbone = tiny()
    backbone.model.reset_classifier(2)
    tl.freeze(backbone, "layer2")
    groups = tl.parameter_groups(backbone, 1e-3, layer_decay=0.5, head_multiplier=10)
    return backbone, torch.optim.SGD(groups)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "resnet18"])
def test_the_anatomy_tells_every_stage_with_its_width_and_its_parameters(name):
    backbone = tl.load_backbone(name, weights=None)
    figure, alt = plots.anatomy_figure(backbone)
    counts = counted(backbone)
    assert rows(figure) == {part: f"{n:,}" for part, n in counts.items()}, "nothing is frozen, and nothing is said"
    assert list(counts) == [*backbone.stages, "head"]
    assert f"{sum(p.numel() for p in backbone.parameters()):,} parameters" in alt
    widths = {t.get_text() for t in figure.axes[0].texts}
    assert all(f"{width:,}" in widths for width in backbone.stages.values())
    bars = [bar.get_width() for bar in labelled(figure, "parameters")]
    assert np.allclose(np.array(bars) / max(bars), np.array(list(counts.values())) / max(counts.values()))


def test_frozen_learning_and_new_differ_in_colour_and_in_hatching_and_have_their_rates(frozen):
    backbone, optimizer = frozen
    figure, alt = plots.anatomy_figure(backbone, optimizer, cut="layer2")
    look = {part: labelled(figure, part)[0] for part in rows(figure)}
    kinds = {part: (box.get_facecolor(), box.get_hatch() or "") for part, box in look.items()}
    assert kinds["stem"] == kinds["layer2"] != kinds["layer3"] == kinds["layer4"] != kinds["head"]
    three = {kinds[part] for part in ("stem", "layer3", "head")}
    assert len({colour for colour, _ in three}) == len({hatch for _, hatch in three}) == 3
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["frozen", "learning", "new"]
    said = rows(figure)
    assert said["layer4"].endswith("learning, lr 0.001") and said["layer3"].endswith("learning, lr 0.0005")
    assert said["head"].endswith("new, lr 0.01") and said["stem"].endswith("frozen") and "cut after layer2" in alt


def test_the_cut_lies_between_its_stage_and_the_next(frozen):
    figure, _ = plots.anatomy_figure(frozen[0], cut="layer2")
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "cut"]
    above, below = (labelled(figure, part)[0] for part in ("layer2", "layer3"))
    assert above.get_y() + above.get_height() < line.get_ydata()[0] < below.get_y()


def test_a_head_that_the_optimizer_was_not_given_is_said_to_be_forgotten(frozen):
    backbone, optimizer = frozen
    optimizer.param_groups = [g for g in optimizer.param_groups if g["stage"] != "head"]
    figure, alt = plots.anatomy_figure(backbone, optimizer)
    assert rows(figure)["head"].endswith("forgotten by the optimizer") and alt.count("forgotten") == 1


def test_a_stage_of_which_only_some_parameters_learn_says_how_many(frozen):
    backbone, _ = frozen
    tl.unfreeze(backbone)
    tl.parameter_groups(backbone, 1e-3, only=r".*layer4.*bias")
    few = sum(p.numel() for n, p in backbone.named_parameters() if "layer4" in n and n.endswith("bias"))
    assert rows(plots.anatomy_figure(backbone)[0])["layer4"].endswith(f"trainable: {few:,} of them")


def test_of_a_fine_tuned_model_the_weights_tell_which_parts_moved():
    model = tiny()
    start = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    with torch.no_grad():
        model.model.layer4[0].conv1.weight += 0.1
    found = FineTuned(model, [], 0, tuple("ab"), start=start)
    said = rows(plots.anatomy_figure(found)[0])
    assert [part for part, words in said.items() if "moved" in words] == ["layer4"]


def test_what_is_new_is_told_by_a_transfers_report():
    source, target = tiny(seed=1), tiny()
    theta = {k: v for k, v in source.model.state_dict().items() if not k.startswith("layer4")}
    report = tl.transfer(theta, target.model, allow_missing=("layer4.*",))
    said = rows(plots.anatomy_figure(target, new=report.initialised)[0])
    assert [part for part, words in said.items() if "new" in words] == ["layer4"]
    figure, alt = plots.anatomy_figure(target, new=report)  # the report knows as well what was copied
    assert {part for part, words in rows(figure).items() if "copied" in words} == set(said) - {"layer4", "final"}
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == [
        "copied",
        "new",
    ] and "trainable" not in alt
    head = tl.transfer(source.model, target.model, adapt={"conv1.6.weight": lambda source, target: 2 * source})
    assert "copied or adapted" in plots.anatomy_figure(target, new=head)[1]
    optimizer = torch.optim.SGD(target.parameters(), lr=0.1)
    assert "copied" not in plots.anatomy_figure(target, optimizer, new=report)[1]


def test_the_anatomy_refuses_what_it_cannot_draw(frozen):
    backbone, _ = frozen
    with pytest.raises(ValueError, match="no stage 'layer9'"):
        plots.anatomy_figure(backbone, cut="layer9")
    with pytest.raises(ValueError, match="no stage or parameter 'nose'"):
        plots.anatomy_figure(backbone, new=["nose"])
    with pytest.raises(TypeError, match="optimizer must be a torch optimizer"):
        plots.anatomy_figure(backbone, optimizer=3e-4)
    with pytest.raises(TypeError, match="a Backbone is needed"):
        plots.anatomy_figure(torch.nn.Linear(2, 2))


def cells(axis):
    """{part: {(row, column)}} of the cells that are drawn."""
    found = {}
    for collection in axis.collections:
        corners = [path.vertices.min(0) for path in collection.get_paths()]
        found[collection.get_label()] = {(int(y), int(x)) for x, y in corners}
    return found


@pytest.fixture
def grouped():
    """Five groups of 3 to 7 examples, not in order."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(list("abcde"), [3, 4, 5, 6, 7]))
    return Dataset(list(range(25)), np.arange(25) % 2, ("x", "y"), groups)


@pytest.mark.parametrize("by", ["group", "random"])
def test_each_example_is_one_cell_of_its_groups_row_in_the_colour_of_its_part(grouped, by):
    split = grouped.split(by=by, seed=0)
    figure, alt = plots.holdout_figure(grouped, split)
    found = cells(figure.axes[0])
    for part, index in zip(("train", "val", "test"), split, strict=True):
        assert len(found[part]) == len(index) and f"{len(index)} {part}" in alt
        in_rows = np.bincount([row for row, _ in found[part]], minlength=5)
        assert in_rows.tolist() == [int((grouped.groups[index] == g).sum()) for g in "abcde"]
    seen = set(grouped.groups[split.train]) | set(grouped.groups[split.val])
    tested = set(grouped.groups[split.test])
    assert f"{len(seen & tested)} of {len(tested)} tested groups were seen" in alt
    looks = {(tuple(c.get_facecolor()[0]), c.get_hatch()) for c in figure.axes[0].collections}
    lightness = sorted(np.mean(colour[:3]) for colour, _ in looks)
    assert len(looks) == 3 and min(np.diff(lightness)) > 0.05  # told apart in black and white


def test_two_splits_stand_beside_each_other_under_their_titles(grouped):
    both = {"random": grouped.split(by="random"), "groups": grouped.split()}
    figure, alt = plots.holdout_figure(grouped, both)
    assert [axis.get_title() for axis in figure.axes] == list(both)
    assert alt.index("random: ") < alt.index("groups: ") and "0 of" in alt


def test_data_without_groups_stand_in_rows_in_their_own_order():
    data = Dataset(list(range(130)), np.arange(130) % 2, ("x", "y"))
    split = Split(np.arange(60), np.arange(60, 100), np.arange(100, 125))
    figure, alt = plots.holdout_figure(data, split)
    found = cells(figure.axes[0])
    assert found["train"] == {(0, column) for column in range(60)}
    assert found["val"] == {(1, column) for column in range(40)}
    assert "25 test, 5 unused" in alt and "groups" not in alt


def test_large_data_are_drawn_in_part_and_the_text_says_so():
    data = Dataset(list(range(9000)), np.zeros(9000, int), ("x",), np.arange(9000) // 30)
    figure, alt = plots.holdout_figure(data, data.split(by="random"))
    assert sum(map(len, cells(figure.axes[0]).values())) == 60 * 30 and "7,200 examples are not drawn" in alt


def test_a_split_that_is_none_is_refused(grouped):
    with pytest.raises(ValueError, match="example 2 is in train and in test"):
        plots.holdout_figure(grouped, Split([1, 2], [3], [2]))
    with pytest.raises(IndexError, match="25 examples"):
        plots.holdout_figure(grouped, Split([1], [3], [99]))
    with pytest.raises(TypeError, match="split must be"):
        plots.holdout_figure(grouped, [1, 2, 3])
    with pytest.raises(ValueError, match="split is empty"):
        plots.holdout_figure(grouped, {})


def test_a_sum_of_blocks_shows_each_matrix_with_its_block_in_one_look():
    X = np.zeros((4, 10), dtype=np.float32)
    features = Features(X, np.zeros(4, int), None, {"a": slice(0, 4), "b": slice(4, 10)})
    figure, alt = plots.sum_and_concat_figure(features, np.zeros((3, 10)))
    for i in "₁₂":
        boxes = [*labelled(figure, f"W{i}"), *labelled(figure, f"f{i}")]
        assert len(boxes) == 4  # once in the concatenation, once in the sum
        assert len({(box.get_edgecolor(), box.get_hatch()) for box in boxes}) == 1
    keys = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert keys == ["f₁: a, 4 features; W₁ is 3 × 4", "f₂: b, 6 features; W₂ is 3 × 6"]
    assert "W, 3 by 10" in alt and "No plain sum of these: their widths are 4, 6" in alt


def test_the_plain_sum_counts_its_weights_where_widths_are_equal():
    _, alt = plots.sum_and_concat_figure({"identity": 8, "hflip": 8, "vflip": 8})
    assert alt.endswith("W₁ = W₂ = W₃ = W, so W (f₁ + f₂ + f₃), with 2 × 8 weights in place of 2 × 24.")


def test_blocks_that_make_no_sum_are_refused():
    with pytest.raises(ValueError, match="two to four"):
        plots.sum_and_concat_figure({"one": 3})
    with pytest.raises(ValueError, match="two to four"):
        plots.sum_and_concat_figure({"a": 3, "b": 0})
    with pytest.raises(ValueError, match="W must have 5 columns"):
        plots.sum_and_concat_figure({"a": 3, "b": 2}, np.zeros((2, 4)))


@pytest.mark.parametrize("threshold", [0, 0.25, 0.5, 1])
def test_the_scores_are_counted_on_both_sides_of_the_threshold(threshold):
    rng = np.random.default_rng(0)
    p, y = rng.integers(0, 101, 300) / 100, rng.integers(0, 2, 300)  # many lie on the threshold itself
    evaluation = tl.evaluate(np.stack([1 - p, p], 1), y, resamples=10)
    figure, alt = plots.scores_figure(evaluation, threshold=threshold, class_names=("good", "bad"))
    counts = confusion_matrix(y, evaluation.probabilities[:, 1] >= threshold, labels=[False, True])
    for k, (axis, name) in enumerate(zip(figure.axes, ("good", "bad"), strict=True)):
        assert sum(bar.get_height() for bar in axis.patches) == (y == k).sum()
        texts = {text.get_text() for text in axis.texts}
        words = [("right", "wrong")[k], ("wrong", "right")[k]]
        assert texts == {f"{n:,} called {c}: {w}" for n, c, w in zip(counts[k], ("good", "bad"), words, strict=True)}
        assert f"{name}: {counts[k, 0]:,} called good, {counts[k, 1]:,} called bad" in alt
        (line,) = axis.lines
        assert set(line.get_xdata()) == {threshold}
    looks = {(axis.patches[0].get_edgecolor(), axis.patches[0].get_hatch()) for axis in figure.axes}
    assert len({hatch for _, hatch in looks}) == len({colour for colour, _ in looks}) == 2


def test_scores_of_probabilities_with_labels_are_those_of_the_evaluation():
    p, y = np.array([0.1, 0.7, 0.9]), [0, 0, 1]
    both = np.stack([1 - p, p], 1)
    assert len({plots.scores_figure(*given)[1] for given in ((p, y), (both, y), (tl.evaluate(both, y),))}) == 1


@pytest.mark.parametrize(
    "given, options, words",
    [
        (([0.2, 0.4],), {}, "probabilities and labels"),
        (([0.2, 0.4], [0]), {}, "as many"),
        (([0.2, 1.4], [0, 1]), {}, "not logits"),
        (([0.2, 0.4], [0, 2]), {}, "0 or 1"),
        ((np.full((3, 3), 1 / 3), [0, 1, 2]), {}, "two classes"),
        (([0.2, 0.4], [0, 1]), {"threshold": 3}, "threshold must be"),
        (([0.2, 0.4], [0, 1]), {"class_names": "abc"}, "class_names must be two"),
    ],
)
def test_scores_that_cannot_be_drawn_are_refused(given, options, words):
    with pytest.raises(ValueError, match=words):
        plots.scores_figure(*given, **options)


def test_each_picture_is_shown_with_its_text(grouped, monkeypatch):
    shown = []
    monkeypatch.setattr(diagrams, "show", lambda figure, alt: shown.append(alt))
    calls = {
        "anatomy": (tiny(),),
        "holdout": (spots(), SPLIT),
        "sum_and_concat": ({"a": 3, "b": 3},),
        "scores": ([0.2, 0.4], [0, 1]),
    }
    for name, given in calls.items():
        getattr(plots, name)(*copy.copy(given))
        assert shown[-1] == getattr(plots, f"{name}_figure")(*given)[1]


def test_differences_stand_at_their_values_and_are_full_where_the_interval_leaves_zero_out():
    found = {"better": Comparison("auc", 0.02, (0.01, 0.03)), "unclear": Comparison("auc", -0.01, (-0.03, 0.02))}
    figure, alt = plots.differences_figure(found, "AUC − AUC")
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in points] == [0.02, -0.01]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True]
    bars = {line.get_label(): tuple(line.get_xdata()) for line in figure.axes[0].lines if line.get_label() in found}
    assert bars == {name: c.interval for name, c in found.items()}
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(found)
    assert "better: +0.020 [+0.010, +0.030]; unclear: -0.010 [-0.030, +0.020]" in alt
    with pytest.raises(ValueError, match="comparisons is empty"):
        plots.differences_figure({})
