"""Data: examples stay with their labels, groups stay whole, and nothing is silently wrong."""

import os

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import FakeData, FashionMNIST

import tlbook as tl
from tlbook.data import Dataset, from_dataset, solar_cells


def numbers(labels, groups=None, **columns):
    K = max(labels) + 1 if len(labels) else 1
    return Dataset(list(range(len(labels))), np.asarray(labels), [str(k) for k in range(K)], groups, columns)


@pytest.fixture(scope="module")
def cells():
    return solar_cells(64)


@pytest.fixture
def thirty():
    return numbers([0, 0, 1] * 10, np.repeat(np.arange(10), 3))


def test_the_solar_cells_are_2624_of_44_panels(cells):
    assert len(cells) == len(cells.labels) == 2624
    assert cells.class_names == ("healthy", "defective")
    assert cells.class_counts.tolist() == [1803, 821]
    x, label = cells[0]
    assert x.shape == (1, 64, 64) and x.dtype == torch.uint8 and label in (0, 1)
    assert np.unique(cells.groups).tolist() == list(range(44))


def test_each_panel_is_of_one_kind_and_18_are_mono(cells):
    kinds = [set(cells.columns["kind"][cells.groups == panel]) for panel in range(44)]
    assert all(len(kind) == 1 for kind in kinds)
    assert sum(kind == {"mono"} for kind in kinds) == 18


def test_the_label_says_which_side_of_one_half_the_experts_votes_lie(cells):
    probability, certainty = cells.columns["probability"], cells.columns["certainty"]
    assert np.array_equal(cells.labels == 1, probability > 0.5)
    assert set(np.round(certainty, 2)) == {0.67, 1.0}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_group_is_on_two_sides_and_every_example_is_on_one(draw):
    n = draw.draw(st.integers(40, 120))
    groups = np.array(draw.draw(st.lists(st.integers(0, 11), min_size=n, max_size=n)))
    groups[:12] = np.arange(12)
    labels = np.array(draw.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    data = numbers(labels, groups)
    seed = draw.draw(st.integers(0, 5))
    try:
        splits = [data.split(seed=seed), *data.folds(3, val=0.3, seed=seed)]
    except ValueError as error:
        assert "no deal of" in str(error) or "cannot be dealt" in str(error)
        return
    for split in splits:
        assert sorted(np.concatenate(split)) == list(range(n))
        sides = [set(groups[part]) for part in split]
        assert sum(map(len, sides)) == len(set(groups))


@pytest.mark.parametrize("by", ["group", "random"])
def test_folds_hold_out_every_example_once_per_repeat(thirty, by):
    folds = thirty.folds(k=3, by=by, repeats=2)
    assert len(folds) == 6
    for repeat in (folds[:3], folds[3:]):
        assert sorted(np.concatenate([fold.test for fold in repeat])) == list(range(30))
    assert not np.array_equal(folds[0].test, folds[3].test)


def test_a_random_split_has_exactly_the_class_shares_asked_for():
    data = numbers([0] * 80 + [1] * 40)
    split = data.split(test=0.25, val=0.2, by="random")
    assert [np.bincount(data.labels[part]).tolist() for part in split] == [[48, 24], [12, 6], [20, 10]]
    for fold in data.folds(4, by="random"):
        assert np.bincount(data.labels[fold.test]).tolist() == [20, 10]


def test_a_grouped_split_is_near_the_shares_asked_for(cells):
    split = cells.split(test=0.25, val=0.2)
    shares = np.array([len(part) for part in split]) / len(cells)
    assert np.allclose(shares, [0.6, 0.15, 0.25], atol=0.04)
    for part in split:
        assert abs(cells.labels[part].mean() - cells.labels.mean()) < 0.06


@pytest.mark.parametrize("by", ["group", "random"])
def test_a_seed_fixes_the_split_and_another_gives_another(cells, by):
    first, again, other = (cells.split(by=by, seed=seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first.test, other.test)


def test_the_groups_to_test_on_can_be_named(thirty):
    split = thirty.split(test_groups=[2, 5])
    assert set(thirty.groups[split.test]) == {2, 5}
    assert not set(thirty.groups[np.concatenate([split.train, split.val])]) & {2, 5}


def test_a_share_of_zero_for_validation_leaves_it_empty(thirty):
    split = thirty.split(val=0)
    assert len(split.val) == 0 and len(split.train) + len(split.test) == 30


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda d: d.split(by="panel"), "by must be 'group' or 'random'"),
        (lambda d: d.split(test=0), "above 0 and below 1"),
        (lambda d: d.split(test=1), "above 0 and below 1"),
        (lambda d: d.split(test=0.2, val=1.0), "above 0 and below 1"),
        (lambda d: d.split(test_groups=[2, 77]), r"\[77\] not among"),
        (lambda d: d.split(test_groups=[2], by="random"), "by='group'"),
        (lambda d: d.folds(11), "10 groups cannot be dealt to 11 parts"),
        (lambda d: d.folds(1), "at least 2 folds"),
        (lambda d: d.folds(2.5), "whole number"),
        (lambda d: d.subset(range(3)).split(by="random"), "too few"),
        (lambda d: solar_cells(0), "above 0"),
    ],
)
def test_a_division_that_cannot_be_made_is_an_error(thirty, wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong(thirty)


def test_without_groups_a_grouped_split_is_an_error():
    with pytest.raises(ValueError, match="no groups to split by"):
        numbers([0, 1] * 10).split()


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_outside_the_classes_names_the_example(label):
    labels = np.array([0, 1, 0, label])
    with pytest.raises(ValueError, match=f"label {label} of example 3 is outside the 2 classes"):
        Dataset(list("abcd"), labels, ("no", "yes"))


@pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array(["a", "b"]), np.zeros((2, 1), int)])
def test_labels_that_are_not_n_integers_are_an_error(labels):
    with pytest.raises(ValueError, match="labels must be N integers"):
        Dataset(list("ab"), labels, ("no", "yes"))


@pytest.mark.parametrize("what", ["labels", "groups", "kind"])
def test_a_column_of_another_length_is_named(what):
    columns = {"labels": [0, 1, 0], "groups": [0, 0, 1], "kind": ["a", "b", "c"]}
    columns[what] = columns[what][:2]
    with pytest.raises(ValueError, match=f"{what}: 2 values for 3 inputs"):
        Dataset(list("abc"), np.array(columns["labels"]), "ny", columns["groups"], {"kind": columns["kind"]})


def test_a_subset_keeps_what_belongs_to_each_example_together():
    data = numbers([0, 1, 0, 1], np.array(list("ppqq")), weight=np.arange(4.0))
    for index in ([3, 0], np.array([False, True, True, False])):
        part, rows = data.subset(index), np.arange(4)[index]
        assert [part[i] for i in range(len(part))] == [(int(r), int(data.labels[r])) for r in rows]
        assert part.groups.tolist() == data.groups[rows].tolist()
        assert part.columns["weight"].tolist() == rows.tolist()
    assert data.subset([3, 2, 0]).subset([2])[0] == (0, 0)
    with pytest.raises(IndexError):
        data.subset([True, False])


def test_one_changed_pixel_is_another_fingerprint_and_labels_are_no_part_of_it():
    images = list(torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    data = Dataset(images, [0, 1, 0], "ny")
    before = data.fingerprint
    assert before == Dataset([x.clone() for x in images], [1, 1, 1], "ny").fingerprint
    images[1][0, 2, 3] = 1
    assert data.fingerprint != before


def test_the_fingerprint_of_the_solar_cells_depends_on_their_pixels(cells):
    array = np.array(cells.inputs.array[:8])
    before = tl.data._Tensors(array).fingerprint()
    array[3, 0, 0, 0] ^= 1
    assert tl.data._Tensors(array).fingerprint() != before
    assert cells.fingerprint == solar_cells(64).fingerprint != before


def test_the_order_and_the_boundaries_of_texts_are_part_of_the_fingerprint():
    prints = {Dataset(texts, [0, 1], "ny").fingerprint for texts in (["ab", "c"], ["a", "bc"], ["c", "ab"])}
    assert len(prints) == 3


def test_a_list_of_texts_is_a_dataset():
    data = from_dataset([("good", 1), ("bad", 0)], class_names=("negative", "positive"), groups=["x", "y"])
    assert data[0] == ("good", 1) and list(data.inputs) == ["good", "bad"]
    assert data.subset([1]).fingerprint == from_dataset([("bad", 0)]).fingerprint


def test_torchvision_datasets_are_taken_as_they_are():
    fake = FakeData(6, (3, 8, 8), num_classes=3)
    data = from_dataset(fake, class_names="abc")
    image, label = data[4]
    assert isinstance(image, PIL.Image.Image) and label == int(fake[4][1])
    assert data.name == "FakeData" and data.fingerprint == from_dataset(fake, class_names="abc").fingerprint
    assert from_dataset(fake, fingerprint="fake 1").fingerprint != data.fingerprint


def test_torchvisions_own_data_are_taken_from_a_mirror_without_the_network(monkeypatch, tmp_path):
    folder, rng = tmp_path / "FashionMNIST" / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    pixels, labels = rng.integers(0, 256, (20, 28, 28), np.uint8), (np.arange(20) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        for what, array in (("images", pixels), ("labels", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{part}-{what}-idx{array.ndim}-ubyte").write_bytes(header + array.tobytes())
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setenv("TLBOOK_MIRROR", str(tmp_path))
    data = from_dataset(FashionMNIST(os.environ["TLBOOK_MIRROR"], download=True))
    assert data.class_names[9] == "Ankle boot" and np.array_equal(data.labels, labels)
    assert np.array_equal(np.asarray(data[3][0]), pixels[3])
    backbone = tl.load_backbone("test_resnet", weights=None)
    assert tl.extract(backbone, data, cache=False).X.shape == (20, backbone.num_features)


def test_targets_are_read_without_decoding_unless_they_are_transformed():
    class Folder(list):
        classes, targets, target_transform = ["no", "yes"], [0, 1], None

    folder = Folder([(None, 1), (None, 0)])
    assert from_dataset(folder).labels.tolist() == [0, 1]
    assert from_dataset(folder).class_names == ("no", "yes")
    folder.target_transform = lambda k: 1 - k
    assert from_dataset(folder).labels.tolist() == [1, 0]


def test_labels_of_a_dataset_that_are_words_are_an_error():
    with pytest.raises(ValueError, match="labels must be N integers"):
        from_dataset([("good", "yes"), ("bad", "no")])


def test_a_write_that_fails_leaves_no_cache_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path))
    opened, image_open = [], PIL.Image.open

    def open_some(path):
        opened.append(path)
        if len(opened) > 10:
            raise OSError("disk on fire")
        return image_open(path)

    monkeypatch.setattr(PIL.Image, "open", open_some)
    with pytest.raises(OSError, match="disk on fire"):
        solar_cells(16)
    assert len(opened) == 11 and list(tmp_path.iterdir()) == []


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    with tl.cache.atomic(path) as part:
        part.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), tl.cache.atomic(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_a_write_sweeps_away_its_own_old_leftovers_and_nothing_else(tmp_path):
    mine, others, folder = (tmp_path / name for name in (".out.csv.1.part", ".thesis.1.part", ".out.csv.2.part"))
    mine.touch(), others.touch(), folder.mkdir()
    for path in (mine, others, folder):
        os.utime(path, (0, 0))
    with tl.cache.atomic(tmp_path / "out.csv") as part:
        part.touch()
    assert not mine.exists() and others.exists() and folder.exists()
