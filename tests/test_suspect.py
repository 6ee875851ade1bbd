"""Suspicions: planted leaks are found, clean sets are accused of nothing, and each reading is what it says."""

import dataclasses
import os
import re

import leaky
import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import tlbook as tl
from tlbook.cli import app
from tlbook.data import Dataset
from tlbook.feature_extraction import Features
from tlbook.leaks import doubts, look_alikes, readings
from tlbook.leaks.facts import Fact, facts_of


@pytest.fixture(scope="module")
def backbone():
    backbone = tl.load_backbone()
    backbone.set_input_size(96, 96)
    return backbone


def found_in(path, backbone, groups=None):
    return tl.suspect(tl.data.folder(path, groups=groups), backbone=backbone)


# The leaks that are planted


@pytest.mark.parametrize(
    "plant, check, words",
    [
        (leaky.same_scene, "scenes", "look-alike on both sides of the split"),
        (leaky.file_size, "facts", "The file size predicts the label"),
        (leaky.date_order, "facts", "The session of the modification dates predicts the label"),
        (leaky.border, "border", "The outermost pixels alone predict the label"),
        (leaky.camera, "facts", "The camera in the EXIF data predicts the label"),
        (leaky.recoded_copies, "copies", "nearly one picture on both sides of the split"),
        (leaky.one_group_a_class, "classes", "class 0 and class 1"),
        (leaky.swapped_neighbours, "exchanged", "Labels of neighbours in the order of the file names look exchanged"),
    ],
)
def test_a_planted_leak_is_found(plant, check, words, backbone, tmp_path):
    groups = (lambda path: path.split("/")[0]) if plant is leaky.one_group_a_class else None
    found = found_in(plant(tmp_path), backbone, groups)
    assert any(f.check == check and words in f.title for f in found.serious), found


@pytest.mark.parametrize("make", [leaky.faces, leaky.digits, leaky.stones])
def test_a_clean_folder_is_accused_of_nothing(make, backbone, tmp_path):
    found = found_in(leaky.write(tmp_path, *make()), backbone)
    assert not found.serious and {f.check for f in found.findings} <= {"labels"}, found


def test_clean_solar_cells_with_their_panels_are_accused_of_nothing(backbone):
    found = tl.suspect(leaky.solar(), backbone=backbone)
    assert not found.serious and {f.check for f in found.findings} <= {"labels"}, found


def test_of_solar_cells_without_groups_it_says_that_the_order_of_the_files_predicts_the_label(solar_features):
    data = dataclasses.replace(tl.data.solar_cells(96), groups=None)
    found = tl.suspect(data, features=solar_features.select("blocks.4"))
    checks = {f.check: f for f in found.serious}
    assert checks["order"].title == "The order of the examples predicts the label" and checks["order"].worth > 0.75
    assert "neighbours in the order of the examples look alike and share labels" in checks["series"].title


def test_of_solar_cells_with_groups_it_finds_the_panel_that_was_photographed_twice(solar_features):
    data = tl.data.solar_cells(96)
    rows = np.flatnonzero(np.isin(data.groups, (27, 28, 29, 30, 31, 32, 38, 40)))
    data, X = data.subset(rows), solar_features.select("blocks.4").X[rows]
    found = tl.suspect(data, features=Features(X, data.labels, data.groups, {"X": slice(0, 112)}))
    twice = next(f for f in found.serious if f.check == "copies")
    panels = [tuple(data.groups[list(pair)].tolist()) for pair in twice.examples]
    assert 0.8 * len(panels) < sum(pair == (29, 38) for pair in panels) > 14


# Copies and scenes


def pictures_of(images):
    return look_alikes.small_pictures(Dataset(images, np.zeros(len(images), int), ("a",))).grey


def test_copies_are_found_however_they_were_turned_and_each_once():
    images, _ = leaky.stones(12)
    changed = [images[3], ImageOps.mirror(images[8]), images[20].rotate(180), images[30].resize((200, 200))]
    pairs = look_alikes.copies(pictures_of([*images, *changed]))
    assert {(p.i, p.j, p.how) for p in pairs} == {
        (3, 36, "as it is"),
        (8, 37, "mirrored"),
        (20, 38, "upside down"),
        (30, 39, "as it is"),
    }


def test_images_that_show_nothing_are_copies_of_nothing():
    constant = [Image.new("RGB", (64, 64), (shade,) * 3) for shade in (20, 20, 20, 200, 201)]
    rng = np.random.default_rng(0)
    noisy = [Image.fromarray((100 + rng.normal(0, 3, (200, 200))).astype(np.uint8)) for _ in range(5)]
    assert look_alikes.copies(pictures_of(constant + noisy)) == []
    assert look_alikes.copies(pictures_of(constant)) == []


def test_scenes_are_looked_for_on_the_other_side_only():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(100, 20))
    z = np.repeat(z, 2, axis=0) + 0.05 * rng.normal(size=(200, 20))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = look_alikes.scenes(z, None, np.arange(len(z)))
    assert {p[:2] for p in found.pairs} == {(2 * i, 2 * i + 1) for i in range(100)} and found.k == 20
    assert found.more_than_chance(200)[0] == 1
    together = look_alikes.scenes(z, np.arange(200) // 2, np.arange(200))  # each pair is one group
    assert len(together.rows) < 6
    assert len(np.unique(look_alikes.clusters(200, found.pairs))) == 100


def test_independent_examples_have_as_many_look_alikes_as_is_said():
    z = np.random.default_rng(0).normal(size=(2000, 8))  # directions in eight dimensions: a sphere of seven
    z = np.c_[z / np.linalg.norm(z, axis=1, keepdims=True), np.zeros((2000, 8))]
    found = look_alikes.scenes(z, None, np.arange(len(z)))
    share, _ = found.more_than_chance(2000)
    assert found.chance == pytest.approx(1 - (1 - 0.5**7) ** 19) and share == pytest.approx(found.chance, abs=0.04)


@pytest.mark.parametrize("tested", [20, 60, 100])
@pytest.mark.parametrize("leaks", [True, False])
def test_a_small_test_part_is_asked_for_its_own_look_alikes_alone(tested, leaks):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 64)).astype(np.float32)
    if leaks:  # each has a twin in training
        z[:tested] = z[tested : 2 * tested] + 0.02 * rng.normal(size=(tested, 64))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = look_alikes.scenes(z, np.arange(600) < tested, np.arange(tested))
    share, p = found.more_than_chance(tested, of_a_pair=1)
    assert share == leaks and (p < 1e-6) == leaks


def test_labels_of_common_classes_are_not_doubted_for_a_rare_one():
    rng, y = np.random.default_rng(0), np.array([0, 1] * 300 + [2, 2])
    X = rng.normal(size=(602, 8)).astype(np.float32)
    X[:, 0] += 2 * y

    def doubted(n, names):
        features = Features(X[:n], y[:n], None, {"X": slice(0, 8)})
        report = tl.suspect(Dataset(list("x" * n), y[:n], names), features=features)
        return sum(len(f.examples) for f in report.findings if f.check == "labels")

    assert 0 < doubted(602, ("a", "b", "c")) < 1.5 * doubted(600, ("a", "b"))


# Labels


def brute_force_confident_learning(p, labels):
    K = p.shape[1]
    threshold = [np.mean([p[i, k] for i in range(len(p)) if labels[i] == k]) for k in range(K)]
    found = []
    for i in range(len(p)):
        above = [k for k in range(K) if p[i, k] >= threshold[k]]
        if above and max(above, key=lambda k: p[i, k]) != labels[i]:
            found.append(i)
    return found


def made_probabilities(seed, K=4, N=300):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, N)
    logits = rng.normal(size=(N, K)) + 2 * np.eye(K)[np.where(rng.random(N) < 0.1, rng.integers(0, K, N), labels)]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(5))
def test_doubtful_labels_are_those_of_confident_learning(seed):
    p, labels = made_probabilities(seed)
    found = doubts.doubtful(p, labels)
    assert sorted(found) == brute_force_confident_learning(p, labels)
    assert (np.diff(p[found, labels[found]]) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_doubtful_labels_are_those_of_cleanlab(seed):
    cleanlab = pytest.importorskip("cleanlab")
    p, labels = made_probabilities(seed)
    theirs = cleanlab.count.compute_confident_joint(labels, p, calibrate=False, return_indices_of_off_diagonals=True)[1]
    assert sorted(doubts.doubtful(p, labels)) == sorted(theirs)


def test_wrong_labels_that_stand_anywhere_are_not_called_exchanged():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)
    p = np.where(truth[:, None] == [0, 1], 0.95, 0.05)
    anywhere, slipped = truth.copy(), truth.copy()
    anywhere[rng.permutation(300)[:30]] ^= 1
    slipped[100:120] = truth[101:121]
    assert doubts.exchanged(p, anywhere, np.arange(300))[1] > 0.01
    assert doubts.exchanged(p, slipped, np.arange(300))[1] < 1e-4


# Readings


def test_the_auc_is_that_of_scikit_learn():
    p, labels = made_probabilities(0)
    assert readings.macro_auc(p, labels) == pytest.approx(roc_auc_score(labels, p, multi_class="ovr"))
    assert readings.macro_auc(p[:, :2], labels % 2) == pytest.approx(roc_auc_score(labels % 2, p[:, 1]))


@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_how_well_features_show_a_fact_is_what_counting_pairs_gives(names):
    rng = np.random.default_rng(0)
    labels, values = rng.integers(0, 3, 60), rng.integers(0, 3 if names else 12, 60).astype(float)
    nearest = readings.nearest_within(rng.normal(size=(60, 5)), labels)
    v, wins = values if names else rankdata(values), []
    for i in range(60):
        others = [j for j in range(60) if j != i and labels[j] == labels[i]]
        apart = (lambda a, b: float(v[a] != v[b])) if names else (lambda a, b: abs(v[a] - v[b]))
        wins.append(np.mean([np.sign(apart(i, j) - apart(i, nearest[i])) / 2 + 0.5 for j in others]))
    fact = Fact("it", values, names=names)
    assert readings.fact_from_features(fact, nearest, labels).auc == pytest.approx(np.mean(wins))


def test_a_fact_that_is_the_label_predicts_it_and_chance_does_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    assert readings.label_from(Fact("label", labels + rng.random(200)), labels)[1].auc == 1
    ps = [readings.label_from(Fact("chance", rng.random(200)), labels, seed=s)[1].p for s in range(20)]
    assert min(ps) > 0.005 and 0.2 < np.mean(ps) < 0.8


def test_a_label_that_comes_in_runs_is_read_from_the_order():
    labels = (np.arange(400) // 40) % 2  # on both sides of every threshold
    assert readings.label_from(Fact("order", np.arange(400.0)), labels)[1].auc > 0.9


# Facts


def test_what_files_tell_is_read(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        exif[0x0132] = f"2021:05:{1 + i:02} 10:00:00"
        path = tmp_path / "ab"[i % 2] / f"{'ab'[i % 2]}_{11 - i}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (40, 40 + i, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=60 + i, exif=exif)
        os.utime(path, (1.6e9 + 7200 * (i // 4),) * 2)
    data = tl.data.image_folder(tmp_path)
    facts = {fact.name: fact.values for fact in facts_of(data, np.arange(12))}
    i = np.array([11 - int(path.split("_")[1].split(".")[0]) for path in data.columns["path"]])
    assert (rankdata(facts["the order of the file names"]) == rankdata(-i)).all()
    assert (facts["the session of the modification dates"] == i // 4).all()
    assert (np.diff(facts["the date in the EXIF data"][np.argsort(i)]) == 86400).all()
    assert (rankdata(facts["the JPEG quality"]) == rankdata(i)).all()
    assert (facts["the number of pixels"] == 40 * (40 + i)).all()
    assert "the camera in the EXIF data" not in facts and "the file format" not in facts  # one for all


def test_a_copy_of_a_folder_made_in_one_go_has_no_dates_to_tell(backbone, tmp_path):
    data = tl.data.folder(leaky.write(tmp_path, *leaky.stones(8)))
    assert not [fact for fact in facts_of(data, np.arange(len(data))) if "date" in fact.name]


def test_numbers_that_name_the_class_are_no_order(tmp_path):
    for k in (0, 1):
        for i in range(6):
            (tmp_path / f"n{k}").mkdir(exist_ok=True)
            Image.new("RGB", (20, 20), (i, k, 0)).save(tmp_path / f"n{k}" / f"n0200{k}_{i}.png")
    data = tl.data.image_folder(tmp_path)
    order = facts_of(data, np.arange(12))[0]
    assert order.values.tolist() == [*range(6), *range(6)]


# The report


def test_the_command_prints_the_worst_first_and_its_exit_status_says_whether_it_is_serious(tmp_path, monkeypatch):
    monkeypatch.setattr("tlbook.leaks._features_of", colours_of)
    leak, page = leaky.border(tmp_path / "leak"), tmp_path / "page.html"
    result = CliRunner().invoke(app, ["suspect", str(leak), "--out", str(page)])
    assert result.exit_code == 1 and "1. SERIOUS: The outermost pixels alone" in result.output, result.output
    html = page.read_text(encoding="utf-8")
    assert "Serious:" in html and html.count("data:image/jpeg;base64,") >= 12
    assert not re.findall(r"(?:src|href)=['\"](?!data:)", html)  # it needs no other file
    assert str(tmp_path) not in html
    clean = CliRunner().invoke(app, ["suspect", str(leaky.write(tmp_path / "clean", *leaky.stones(30)))])
    assert clean.exit_code == 0 and "SERIOUS" not in clean.output


def colours_of(data, backbone, stage):
    """Features that take no network: the mean and deviation of each colour."""
    pixels = [np.asarray(data[i][0], dtype=np.float32) for i in range(len(data))]
    return np.stack([np.r_[x.mean((0, 1)), x.std((0, 1))] for x in pixels])


def test_texts_get_the_checks_that_apply():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    X = rng.normal(size=(60, 8)).astype(np.float32) + labels[:, None]
    data = Dataset([f"text {i}" for i in range(60)], labels, ("a", "b"))
    found = tl.suspect(data, features=Features(X, labels, None, {"X": slice(0, 8)}))
    assert not found.serious and "the order of the examples" in repr(found)


def test_a_fact_that_so_few_cannot_settle_is_not_said_to_tell_nothing():
    """A size that tells the label in two groups of three, and half of it in the third."""
    rng = np.random.default_rng(0)
    labels, groups = np.tile(np.repeat([0, 1], 6), 3), np.repeat(["x", "y", "z"], 12)
    X = rng.normal(size=(36, 8)).astype(np.float32)
    features, texts = Features(X, labels, groups, {"X": slice(0, 8)}), [f"text {i}" for i in range(36)]
    told = np.where((groups == "z") & (np.arange(36) % 2 == 0), 1 - labels, labels)
    size, nothing = Fact("the size", told + rng.random(36)), Fact("chance", rng.random(36))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlbook.leaks.facts_of", lambda data, rows: [size, nothing])
        found = tl.suspect(Dataset(texts, labels, ("a", "b"), groups), features=features)
    told = [words for words in found.fine if "fact that is known" in words or "accused" in words]
    assert "no fact that is known without a pixel says the label: chance" in told
    (auc,) = (float(row["label from it"]) for row in found.facts if row["fact"] == "the size")
    assert 0.6 < auc < 0.95 and f"the size is not accused: 3 groups do not settle its AUC of {auc:.2f}" in told


def test_texts_that_begin_alike_are_found(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{'good' if i % 2 else 'bad'} film number {rng.integers(10**9)},{i % 2}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows, *rows[:5]]))
    data, X = tl.data.folder(tmp_path / "t.csv"), rng.normal(size=(65, 20)).astype(np.float32)
    found = tl.suspect(data, features=Features(X, data.labels, None, {"X": slice(0, 20)}))
    assert "5 pairs of texts begin alike and would be torn by a random split" in [f.title for f in found.serious]


def test_features_of_other_examples_are_refused():
    data = Dataset(["a", "b", "c", "d"], [0, 1, 0, 1], ("a", "b"))
    with pytest.raises(ValueError, match="features are of 3 examples, and data has 4"):
        tl.suspect(data, features=Features(np.zeros((3, 2)), np.zeros(3, int), None, {}))
    with pytest.raises(ValueError, match=r"two examples or more; too few: \['b'\]"):
        tl.suspect(data.subset([0, 1, 2]))
