"""Data: examples stay with their labels, groups stay whole, and nothing is silently wrong."""

import os
import shutil
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import break_five
from PIL import Image
from torchvision.datasets import FakeData, FashionMNIST

import tlbook as tl
from tlbook import images, splits
from tlbook.data import Dataset, from_dataset, solar_cells


def numbers(labels, groups=None, **columns):
    K = max(labels) + 1 if len(labels) else 1
    return Dataset(list(range(len(labels))), np.asarray(labels), [str(k) for k in range(K)], groups, columns)


class Pairs:
    """A data set with ``targets`` beside, which counts what is read of it."""

    target_transform = None

    def __init__(self, labels, targets):
        self.labels, self.targets, self.read = labels, targets, 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        self.read += 1
        return "text", self.labels[i]


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


def test_the_label_says_on_which_side_of_one_half_the_probability_lies(cells):
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may be in one group only
        try:
            splits = [data.split(seed=seed), *data.folds(3, val=0.3, seed=seed)]
        except ValueError as error:
            assert "of which the test leaves one" in str(error)  # one group holds nearly all
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
        (lambda d: d.split(test=0.2, val=1.0), "val must be .* above 0 and below 1, got 1.0"),
        (lambda d: d.split(test=30), "test must be .* above 0 and below 1, got 30"),
        (lambda d: d.split(test=float("nan")), "above 0 and below 1"),
        (lambda d: d.folds(3, val=-1), "val must be .* above 0 and below 1, got -1"),
        (lambda d: d.split(seed=None), "seed must be a whole number of at least 0, got None"),
        (lambda d: d.folds(seed=-1), "seed must be a whole number of at least 0, got -1"),
        (lambda d: d.folds(repeats=0), "repeats must be a whole number of at least 1, got 0"),
        (lambda d: d.split(test_groups=[]), "test_groups names 0 of 10 groups"),
        (lambda d: d.split(test_groups=range(10)), "test_groups names 10 of 10 groups"),
        (lambda d: d.split(test_groups=["a", 2]), "not among the groups"),
        (lambda d: d.split(by="given"), "comes without a split"),
        (lambda d: d.split(test_groups=[2, 77]), r"\[77\] not among"),
        (lambda d: d.split(test_groups=[2], by="random"), "by='group'"),
        (lambda d: d.folds(11), "10 groups cannot be divided into 11 parts"),
        (lambda d: numbers(d.labels, np.arange(30) % 2).split(), "has 2 groups, of which the test leaves one"),
        (lambda d: d.folds(1), "at least 2 folds"),
        (lambda d: d.folds(2.5), "whole number"),
        (lambda d: d.subset(range(3)).split(by="random"), "too few"),
        (lambda d: solar_cells(0), "above 0"),
    ],
)
def test_a_division_that_cannot_be_made_is_an_error(thirty, wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong(thirty)


@pytest.mark.parametrize("shares", [{"test": "0.25"}, {"val": "0.2"}, {"test": None}, {"val": True}])
def test_a_share_that_is_no_number_is_an_error(thirty, shares):
    ((name, value),) = shares.items()
    with pytest.raises(TypeError, match=f"{name} must be a share .*a number such as 0.25, got {value!r}"):
        thirty.split(**shares)


def test_one_group_to_test_on_needs_no_list(thirty):
    assert set(thirty.groups[thirty.split(test_groups=7).test]) == {7}
    assert len(numbers([0, 1] * 10, ["a"] * 10 + ["bc"] * 10).split(test_groups="bc", val=0).test) == 10


def test_groups_of_very_different_sizes_are_divided_too():
    groups = np.repeat(np.arange(5), [90, 4, 3, 2, 1])
    data = numbers([0, 1] * 50, groups)
    for seed in range(5):
        folds = data.folds(4, seed=seed)
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(100))
        assert all(len(fold.test) and len(fold.train) for fold in folds)


def test_a_class_of_the_fewest_images_is_in_every_part_and_can_be_cross_validated():
    few = tl.data.FEWEST
    for seed in range(5):
        data = numbers([0] * few + [1] * few)
        split = data.split(by="random", seed=seed)
        assert all(set(data.labels[part]) == {0, 1} for part in split)
        inner = data.subset(split.train)
        for fold in inner.folds(4, by="random", seed=seed):
            assert set(inner.labels[fold.train]) == {0, 1} and len(fold.test)
    assert few == 4


def test_two_classes_of_one_name_are_refused():
    for make in (
        lambda: from_dataset([("good", 1), ("bad", 0)], class_names=("a", "a")),
        lambda: Dataset(["good", "bad"], [1, 0], (1, "1")),
    ):
        with pytest.raises(ValueError, match="class_names holds .* 2 times: give each class its own name"):
            make()


def test_a_part_without_a_class_is_said():
    data = Dataset(list(range(12)), [0, 1] * 5 + [2, 2], ("a", "b", "rare"), np.repeat(np.arange(6), 2))
    for tested, says in ((5, "the train part has no example of rare: .* not learnt"), (0, "test .* not judged")):
        with pytest.warns(UserWarning, match=says):
            data.split(test_groups=[tested], val=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers([0, 1, 3, 3] * 10).split(by="random")  # of class 2 there is none at all


def test_a_split_that_is_given_is_taken():
    part = np.array(["train", "test", "val", "train"] * 5)
    data = numbers([0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1], part=part)
    for name, rows in data.split(by="given")._asdict().items():
        assert rows.tolist() == np.flatnonzero(part == name).tolist()
    drawn = numbers(data.labels, part=np.where(part == "val", "train", part)).split(by="given", val=0.2)
    assert drawn.test.tolist() == np.flatnonzero(part == "test").tolist() and len(drawn.val) == 3
    assert sorted(np.concatenate(drawn)) == list(range(20))
    assert not len(numbers(data.labels, part=np.where(part == "val", "train", part)).split(by="given", val=0).val)
    with pytest.raises(ValueError, match="no test part, only .*column split.*rename 'val' to 'test'"):
        numbers(data.labels, part=np.where(part == "test", "val", part)).split(by="given")
    with pytest.raises(ValueError, match="no train part"):
        numbers(data.labels, part=["test"] * 20).split(by="given")
    with pytest.raises(ValueError, match=r"must be 'train', 'val' or 'test', got \['dev'\]"):
        numbers(data.labels, part=np.where(part == "val", "dev", part)).split(by="given")
    with pytest.raises(ValueError, match="leave one of them out"):
        data.split(by="given", test_groups=[1])
    with pytest.warns(UserWarning, match="the given split separates groups .1, such as 1.*column split"):
        numbers(data.labels, np.arange(20) % 2, part=part).split(by="given")


def test_without_groups_a_grouped_split_is_an_error():
    with pytest.raises(ValueError, match="no groups to split by"):
        numbers([0, 1] * 10).split()


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_outside_the_classes_names_the_example(label):
    labels = np.array([0, 1, 0, label])
    with pytest.raises(ValueError, match=f"label {label} of example 3 is outside the 2 classes"):
        Dataset(list("abcd"), labels, ("no", "yes"))


@pytest.mark.parametrize(
    "labels, remedy",
    [
        (np.array([0.0, 1.0]), r"astype\(int\)"),
        ([0.0, float("nan")], r"astype\(int\)"),
        (np.array(["a", "b"]), "number the classes from 0"),
        ([None, 1], "number the classes from 0"),
        (np.zeros((2, 1), int), r"ravel\(\)"),
        (torch.eye(2), r"argmax\(1\)"),
        ([[0], [0, 1]], "one class for each example"),
    ],
)
def test_labels_that_are_not_n_integers_are_an_error_that_says_what_to_do(labels, remedy):
    with pytest.raises(ValueError, match=f"labels must be N integers.*{remedy}"):
        Dataset(list("ab"), labels, ("no", "yes"))


@pytest.mark.parametrize(
    "labels", [[False, True], np.array([False, True]), torch.tensor([0, 1]), (0, 1), np.uint8([0, 1])]
)
def test_whole_labels_of_any_kind_are_int64(labels):
    data = Dataset(list("ab"), labels, ("no", "yes"))
    assert data.labels.dtype == np.int64 and data.labels.tolist() == [0, 1]


@pytest.mark.parametrize("unknown", [None, float("nan"), np.nan])
def test_an_unknown_group_names_the_example(unknown):
    with pytest.raises(ValueError, match="groups: example 2 has .* one of its own"):
        Dataset(list("abc"), [0, 1, 0], ("no", "yes"), groups=[1, 2, unknown])


def test_class_names_in_one_string_are_an_error():
    with pytest.raises(TypeError, match="class_names must be a sequence of K names, got the string 'cat'"):
        Dataset(list("abc"), [0, 1, 2], "cat")


@pytest.mark.parametrize("what", ["labels", "groups", "kind"])
def test_a_column_of_another_length_is_named(what):
    columns = {"labels": [0, 1, 0], "groups": [0, 0, 1], "kind": ["a", "b", "c"]}
    columns[what] = columns[what][:2]
    with pytest.raises(ValueError, match=f"{what}: 2 values for 3 inputs"):
        Dataset(list("abc"), np.array(columns["labels"]), ("no", "yes"), columns["groups"], {"kind": columns["kind"]})


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


@pytest.mark.parametrize("index", [[0.0, 1.0], np.zeros((2, 2), int), ["a"], None])
def test_an_index_of_another_kind_is_an_error(thirty, index):
    with pytest.raises(TypeError, match="index must be integers, a slice or a mask of 30 booleans"):
        thirty.subset(index)


def test_an_index_outside_is_an_error_and_the_obvious_ones_are_not(thirty):
    for index in ([30], [-31], [0, 99]):
        with pytest.raises(IndexError, match="and there are 30 examples"):
            thirty.subset(index)
    rows = {
        "one": thirty.subset(4),
        "end": thirty.subset([-1]),
        "slice": thirty.subset(slice(2)),
        "no": thirty.subset([]),
    }
    assert {name: list(part.inputs) for name, part in rows.items()} == {
        "one": [4],
        "end": [29],
        "slice": [0, 1],
        "no": [],
    }


def in_palette(colour):
    image = Image.new("P", (4, 4))
    image.putpalette(colour)
    return image


def test_whatever_decides_an_images_colours_is_part_of_its_fingerprint():
    """The stored pixels of each pair are the same; what `to_rgb` makes of them is not."""
    wide, turned = (Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)) for _ in range(2))
    turned.getexif()[0x0112] = 6
    opaque, seen_through = in_palette([255, 0, 0]), in_palette([255, 0, 0])
    seen_through.info["transparency"] = 0
    grey = np.zeros((4, 4), np.uint8)
    pairs = {
        "palette": (in_palette([255, 0, 0]), in_palette([0, 0, 255])),
        "orientation": (wide, turned),
        "transparency": (opaque, seen_through),
        "mode": (Image.fromarray(np.zeros((4, 4, 3), np.uint8)), Image.new("YCbCr", (4, 4), (0, 0, 0))),
        "low bits": (Image.fromarray(grey + np.uint16(65280)), Image.fromarray(grey + np.uint16(65281))),
    }
    for what, (one, other) in pairs.items():
        assert Dataset([one], [0], ["x"]).fingerprint != Dataset([other], [0], ["x"]).fingerprint, what
        assert (
            Dataset([one], [0], ["x"]).fingerprint == Dataset([one.copy()], [0], ["x"]).fingerprint
            or what == "orientation"
        )


def test_inputs_of_any_kind_have_a_fingerprint_of_their_contents_or_none():
    def printed(x):
        return Dataset([x], [0], ["x"]).fingerprint

    assert printed({"a": [1, 2]}) == printed({"a": [1, 2]}) != printed({"a": [1, 3]})
    assert printed(torch.ones(2, dtype=torch.bfloat16)) != printed(torch.zeros(2, dtype=torch.bfloat16))
    assert printed(os.fsdecode(b"\xff")) != printed(os.fsdecode(b"\xfe"))
    with pytest.raises(TypeError, match="inputs of type object have no bytes .* cache=False"):
        printed(object())


def test_only_what_is_known_to_be_safe_is_read_by_several_threads(folder, cells, tmp_path):
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder

    first = folder / "cat" / "00.jpg"
    whole = Image.fromarray(np.zeros((4, 4), np.uint8))
    exif = whole.copy()
    exif.info["exif"] = b"Exif"
    safe = {
        "files": tl.data.image_folder(folder),
        "array": cells,
        "tensors": Dataset([torch.zeros(2), np.zeros(2), "text", 3], [0] * 4, ["x"]),
        "an array": Dataset(np.zeros((4, 2)), [0] * 4, ["x"]),
        "images in memory": Dataset([whole], [0], ["x"]),
        "pairs": from_dataset([("good", 0), ("bad", 1)]),
        "torchvision": from_dataset(ImageFolder(folder)),
        "a part of it": from_dataset(Subset(ImageFolder(folder), [0, 13])),
    }
    with Image.open(first) as lazy:
        unsafe = {
            "foreign": from_dataset(Pairs([0, 1], [0, 1])),
            "inputs": Dataset(Pairs([0, 1], [0, 1]), [0, 1], ["x", "y"]),
            "lazy": Dataset([whole, lazy], [0, 0], ["x"]),
            "lazy pairs": from_dataset([(lazy, 0), (lazy, 1)]),
            "palette": Dataset([in_palette([255, 0, 0])], [0], ["x"]),
            "exif": Dataset([exif], [0], ["x"]),
            "objects": Dataset(np.array([whole, {}], dtype=object), [0, 0], ["x"]),
            "a loader": from_dataset(ImageFolder(folder, loader=lambda path: Image.open(path))),
            "a transform": from_dataset(ImageFolder(folder, transform=lambda x: x)),
            "inherited": from_dataset(type("Mine", (ImageFolder,), {})(folder)),
        }
        for expected, datasets in ((True, safe), (False, unsafe)):
            for name, data in datasets.items():
                assert data.reads_in_parallel is expected, name
                assert data.subset([1 if len(data) > 1 else 0]).subset([0]).reads_in_parallel is expected, name


def test_one_changed_pixel_is_another_fingerprint_and_labels_are_no_part_of_it():
    images = list(torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    data = Dataset(images, [0, 1, 0], ("no", "yes"))
    before = data.fingerprint
    assert before == Dataset([x.clone() for x in images], [1, 1, 1], ("no", "yes")).fingerprint
    images[1][0, 2, 3] = 1
    assert data.fingerprint != before


def test_the_fingerprint_of_the_solar_cells_depends_on_their_pixels(cells):
    array = np.array(cells.inputs.array[:8])
    before = tl.data.dataset.Tensors(array).fingerprint()
    array[3, 0, 0, 0] ^= 1
    assert tl.data.dataset.Tensors(array).fingerprint() != before
    assert cells.fingerprint == solar_cells(64).fingerprint != before


def test_the_order_and_the_boundaries_of_texts_are_part_of_the_fingerprint():
    prints = {Dataset(texts, [0, 1], ("no", "yes")).fingerprint for texts in (["ab", "c"], ["a", "bc"], ["c", "ab"])}
    assert len(prints) == 3


def test_a_list_of_texts_is_a_dataset():
    data = from_dataset([("good", 1), ("bad", 0)], class_names=("negative", "positive"), groups=["x", "y"])
    assert data[0] == ("good", 1) and list(data.inputs) == ["good", "bad"]
    assert data.subset([1]).fingerprint == from_dataset([("bad", 0)]).fingerprint


def test_torchvision_datasets_are_taken_as_they_are():
    fake = FakeData(6, (3, 8, 8), num_classes=3)
    data = from_dataset(fake, class_names=tuple("abc"))
    image, label = data[4]
    assert isinstance(image, PIL.Image.Image) and label == int(fake[4][1])
    assert data.name == "FakeData" and data.fingerprint == from_dataset(fake, class_names=tuple("abc")).fingerprint
    assert from_dataset(fake, fingerprint="fake 1").fingerprint != data.fingerprint
    unreadable = from_dataset([(object(), 0), (object(), 1), (object(), 1)], fingerprint="mine")
    parts = [unreadable.subset(index).fingerprint for index in ([0, 1], [1, 2], [1, 0], [0, 1])]
    assert len(set(parts)) == 3 and parts[0] == parts[3]


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


def test_targets_are_read_without_decoding_all():
    pairs = Pairs([0, 1] * 500, [0, 1] * 500)
    assert from_dataset(pairs).labels.tolist() == [0, 1] * 500 and pairs.read < 20
    assert from_dataset(Pairs([torch.tensor(1), torch.tensor(0)], torch.tensor([1, 0]))).labels.tolist() == [1, 0]


def test_labels_are_those_that_the_data_set_hands_out_though_its_targets_differ():
    targets = [k for k in range(5) for _ in range(100)]
    remapped = [0 if k == 3 else k for k in targets]  # of one class alone
    assert from_dataset(Pairs(remapped, targets)).labels.tolist() == remapped
    turned = Pairs([1 - k for k in [0, 1, 0]], [0, 1, 0])
    turned.target_transform = lambda k: 1 - k
    assert from_dataset(turned).labels.tolist() == [1, 0, 1]
    assert from_dataset(Pairs([1, 0], [1, 0, 1])).labels.tolist() == [1, 0]


def stream():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield "text", 0

    return Stream()


@pytest.mark.parametrize(
    "make, kind, says",
    [
        (lambda: torch.utils.data.DataLoader([("a", 0)]), TypeError, r"a DataLoader of batches: pass its \.dataset"),
        (stream, TypeError, r"must have len\(\) and dataset\[i\], got a Stream: pass list"),
        (lambda: iter([("a", 0)]), TypeError, "got a list_iterator"),
        (lambda: [], ValueError, "dataset is empty"),
        (lambda: ["good", "bad"], TypeError, r"must be a pair \(input, label\), or a dict, got a str"),
        (
            lambda: [{"picture": 1, "label": 0}],
            ValueError,
            "which are input and label cannot be told",
        ),
        (lambda: {"good": 1}, TypeError, r"must be a pair \(input, label\), or a dict, got dict"),
    ],
)
def test_what_is_no_map_style_data_set_is_an_error(make, kind, says):
    with pytest.raises(kind, match=says):
        from_dataset(make())


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


def test_a_folder_is_a_dataset(folder):
    data = tl.data.image_folder(folder, groups=lambda path: path.split("/")[1][:1])
    assert data.class_names == ("cat", "coffee", "rocket") and data.class_counts.tolist() == [12] * 3
    assert set(data.groups) == {"0", "1"} and data.columns["path"][0] == "cat/00.jpg"
    assert {data[i][0].mode for i in range(len(data))} == {"RGB"}
    before = data.fingerprint
    assert before == tl.data.image_folder(folder).fingerprint


def test_a_part_of_a_folder_is_told_apart_by_the_bytes_of_its_files_without_decoding_them(folder, monkeypatch):
    data = tl.data.image_folder(folder)
    monkeypatch.setattr(images, "read", lambda path: pytest.fail(f"{path} was decoded"))
    part = data.subset([7, 3])
    assert part.fingerprint == data.subset([0, 7, 3]).subset([1, 2]).fingerprint
    assert len({data.fingerprint, part.fingerprint, data.subset([3, 7]).fingerprint}) == 3


def test_five_broken_files_are_listed_or_skipped_and_counted(folder, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(folder, root)
    broken = break_five(root)
    with pytest.raises(ValueError, match=r"^5 problems in ") as error:
        tl.data.image_folder(root)
    assert all(Path(name).name in str(error.value) for name in broken) and "on_error='skip'" in str(error.value)
    with pytest.warns(UserWarning, match="5 problems in .* passed over"):
        data = tl.data.image_folder(root, on_error="skip")
    assert len(data) == 36


def test_what_is_no_classification_is_refused(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        tl.data.image_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="has 0 classes"):
        tl.data.image_folder(tmp_path)
    shutil.copytree(folder / "cat", tmp_path / "cat")
    with pytest.raises(ValueError, match=r"has 1 classes with images \(cat\)"):
        tl.data.image_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match="dog has 0 usable images"):
        tl.data.image_folder(tmp_path)
    with pytest.raises(ValueError, match="on_error"):
        tl.data.image_folder(folder, on_error="ignore")


def test_groups_from_a_file(folder, tmp_path):
    paths = tl.data.image_folder(folder).columns["path"]
    table = tmp_path / "groups.csv"
    table.write_text("path,group\n" + "".join(f"{path},{i % 9}\n" for i, path in enumerate(paths)))
    data = tl.data.image_folder(folder, groups=table)
    assert data.groups.tolist() == [str(i % 9) for i in range(36)]
    table.write_text("path,group\n" + "".join(f"{path},1\n" for path in paths[1:]))
    with pytest.raises(ValueError, match=f"no group for 1 of 36 images, such as {paths[0]}"):
        tl.data.image_folder(folder, groups=table)
    table.write_text("path,group\n" + "".join(f"{path},\n" for path in paths))
    with pytest.raises(ValueError, match="no group for 36 of 36 images"):
        tl.data.image_folder(folder, groups=table)
    for content in (b"path,group\n\xff\xfe", b"path,group\n" + b"x" * 200_000):
        table.write_bytes(content)
        with pytest.raises(ValueError, match="groups.csv is not a CSV file"):
            tl.data.image_folder(folder, groups=table)
    table.write_text("file,panel\na,b\n")
    with pytest.raises(ValueError, match="must begin with the line path,group"):
        tl.data.image_folder(folder, groups=table)


def test_a_groups_file_is_read_as_people_have_it_or_says_what_it_lacks(folder, tmp_path):
    paths, table = tl.data.image_folder(folder).columns["path"], tmp_path / "groups.csv"
    lines = ["path,group", "", *(f"{path},{i % 9}".replace("/", "\\") for i, path in enumerate(paths)), ",", ""]
    table.write_text("\n".join(lines))
    assert tl.data.image_folder(folder, groups=table).groups.tolist() == [str(i % 9) for i in range(36)]
    table.write_text("\n".join(lines).replace(",", ";"))
    with pytest.raises(ValueError, match="groups.csv separates its columns by semicolons: save it with commas"):
        tl.data.image_folder(folder, groups=table)
    with pytest.raises(FileNotFoundError, match="none.csv does not exist"):
        tl.data.image_folder(folder, groups=tmp_path / "none.csv")
    with pytest.raises(ValueError, match="cannot be read as a CSV file .Is a directory"):
        tl.data.image_folder(folder, groups=tmp_path)


def test_an_image_in_folders_of_two_classes_is_named_in_both_and_skipped(tmp_path, monkeypatch):
    root = small_folders(tmp_path, "a", "b", n=6)
    shutil.copy(root / "a" / "2.png", root / "b" / "9.png")
    shutil.copy(root / "a" / "3.png", root / "a" / "8.png")  # of one class
    near = np.asarray(Image.open(root / "a" / "4.png")).copy()
    near[0, 0, 0] ^= 1
    Image.fromarray(near).save(root / "b" / "7.png")  # nearly the same is for `suspect` to tell
    with pytest.raises(ValueError, match="^1 problems .*\n.*a/2.png and .*b/9.png are the same, and of two classes"):
        tl.data.image_folder(root)
    with pytest.warns(UserWarning, match="a/2.png and .*b/9.png are the same"):
        paths = tl.data.image_folder(root, on_error="skip").columns["path"].tolist()
    assert len(paths) == 13 and "a/2.png" not in paths and "b/9.png" not in paths
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(
        ValueError, match="row 4: a/2.png is the same as b/9.png in row 16, of the label 'b'. One label"
    ):
        tl.data.folder(root / "labels.csv")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read a second time"))
    (root / "b" / "9.png").unlink()
    (root / "b" / "7.png").unlink()
    (root / "labels.csv").unlink()
    assert len(tl.data.image_folder(root)) == 13


def test_images_without_folders_are_one_line_that_says_to_make_them(tmp_path):
    for i in range(20):
        Image.new("L", (9, 9)).save(tmp_path / f"{i}.png")
    for on_error in ("raise", "skip"):
        with pytest.raises(
            ValueError, match="^.* holds 20 images and no folder in it: make a folder for each class.*$"
        ):
            tl.data.image_folder(tmp_path, on_error=on_error)


@pytest.mark.parametrize("name", ["table.tsv", "table.xlsx", "table.json", "image.png", "file"])
def test_a_file_that_is_not_taken_says_what_is(name, tmp_path):
    (tmp_path / name).write_text("path\tlabel\n")
    with pytest.raises(
        ValueError, match=f"{name} is none of what is taken: a folder .*; a .csv file, .*; an .npz file"
    ):
        tl.data.folder(tmp_path / name)


def test_near_duplicates_across_a_split_are_reported(folder, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(folder, root)
    Image.open(root / "cat" / "00.jpg").resize((90, 90)).save(root / "cat" / "zz.png")
    data = tl.data.image_folder(root)
    path = data.columns["path"].tolist()
    twin, original = path.index("cat/zz.png"), path.index("cat/00.jpg")
    others = np.setdiff1d(np.arange(len(data)), [twin])
    found = tl.data.near_duplicates(data, tl.data.Split(others, others[:0], np.array([twin])))
    assert [(row["test"], row["seen"]) for row in found] == [("cat/zz.png", "cat/00.jpg")]
    others = np.setdiff1d(others, [original])
    assert not tl.data.near_duplicates(data, tl.data.Split(others, others[:0], np.array([twin])))


def test_near_duplicates_are_found_among_tensors_too():
    draw = torch.Generator().manual_seed(0)
    pictures = [torch.randint(256, (1, 40, 40), dtype=torch.uint8, generator=draw) for _ in range(12)]
    pictures[11] = (pictures[3].float() * 0.98 + 2).to(torch.uint8)
    data = tl.data.from_dataset([(x, i % 2) for i, x in enumerate(pictures)], class_names=["a", "b"], fingerprint="x")
    rows = np.arange(11)
    found = tl.data.near_duplicates(data, tl.data.Split(rows, rows[:0], np.array([11])))
    assert [(row["test"], row["seen"]) for row in found] == [(11, 3)]
    rest = np.delete(rows, 3)
    assert not tl.data.near_duplicates(data, tl.data.Split(rest, rows[:0], np.array([11])))


def test_from_dataset_takes_torchvisions_own(folder):
    from torchvision.datasets import ImageFolder

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = tl.data.from_dataset(ImageFolder(folder))
    assert data.class_names == ["cat", "coffee", "rocket"] or data.class_names == ("cat", "coffee", "rocket")
    assert len(data) == 36


def small_folders(root, *names, n=4):
    """``n`` images of noise in each of the folders."""
    rng = np.random.default_rng(len(str(root)))
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("Training", "validation", "testing"), ("train", "valid")])
def test_a_folder_of_the_parts_of_a_split_has_the_inner_folders_as_classes(tmp_path, parts):
    root = small_folders(tmp_path, *(f"{part}/{name}" for part in parts for name in ("cat", "dog")))
    data = tl.data.image_folder(root)
    assert data.class_names == ("cat", "dog")
    for path, part, k in zip(data.columns["path"], data.columns["part"], data.labels, strict=True):
        assert tl.data.folders.PARTS[path.split("/")[0].lower()] == part and path.split("/")[1] == data.class_names[k]
    if len(parts) == 3:
        split = data.split(by="given")
        assert all(set(data.columns["part"][rows]) == {name} for name, rows in split._asdict().items())


@pytest.mark.parametrize(
    "names, says",
    [
        (["train/cat", "train/dog", "val/cat"], r"must hold the same classes.*\['cat', 'dog'\].*\['cat'\]"),
        (["train", "test"], "no folder for each class.*rename them, such as to class_test"),
        (["train/cat", "train/dog", "val/cat", "val/dog", "more"], "parts of a split.*beside more"),
        (["val/cat", "val/dog", "valid/cat", "valid/dog"], "two of these are one part"),
    ],
)
def test_parts_of_a_split_that_cannot_be_told_from_classes_are_an_error(tmp_path, names, says):
    with pytest.raises(ValueError, match=says):
        tl.data.image_folder(small_folders(tmp_path, *names))


@pytest.mark.parametrize("names", [("test", "control"), ("train", "bus"), ("train/2020", "bus/2020", "tram")])
def test_a_class_may_be_called_as_a_part_of_a_split_is(tmp_path, names):
    data = tl.data.image_folder(small_folders(tmp_path, *names))
    assert set(data.class_names) == {name.split("/")[0] for name in names} and "part" not in data.columns


def test_an_image_outside_the_classes_of_a_given_split_is_named(tmp_path):
    root = small_folders(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "0.png")
    with pytest.raises(ValueError, match="0.png is in no class's folder"):
        tl.data.image_folder(root)


def test_links_clutter_and_odd_names_are_taken_as_people_mean_them(tmp_path):
    root = small_folders(
        tmp_path / "data", "$5", "猫", "🐱", os.fsdecode(b"caf\xe9"), "@eaDir/x", "__MACOSX", ".thumbnails"
    )
    elsewhere = small_folders(tmp_path / "elsewhere", "linked/deeper")
    (root / "linked").symlink_to(elsewhere / "linked")
    (root / "猫" / "back").symlink_to(root)
    (root / "猫" / "._0.png").write_bytes(b"resource fork")
    (root / "猫" / "Thumbs.db").write_bytes(b"thumbs")
    data = tl.data.image_folder(root)
    assert set(data.class_names) == {"$5", "猫", "🐱", "linked", "caf\\udce9"} and len(data) == 20
    assert "\n".join(data.class_names).encode() and data[0][0].size == (9, 9) and data.fingerprint
    assert tl.data.image_folder(root, groups=lambda path: path.split("/")[0]).groups.shape == (20,)


def test_files_that_are_passed_over_are_named_with_the_remedy(tmp_path):
    root = small_folders(tmp_path, "a", "b")
    for name in ("a/x.cr2", "a/x.jp2", "b/notes.txt"):
        (root / name).write_bytes(b"something")
    (root / "b" / "gone.png").symlink_to(root / "nowhere")
    with pytest.raises(ValueError) as error:
        tl.data.image_folder(root)
    for says in (
        "x.cr2 is a camera's raw file: develop",
        "x.jp2 is of a format",
        "notes.txt is not an",
        "link to nothing",
    ):
        assert says in str(error.value)


def test_names_in_a_groups_file_match_however_their_accents_are_written(tmp_path):
    root = small_folders(tmp_path / "data", unicodedata.normalize("NFD", "é"), "b")
    paths = tl.data.image_folder(root).columns["path"]
    table = tmp_path / "groups.csv"
    rows = [f"{unicodedata.normalize('NFC', path)},{i % 3}" for i, path in enumerate(paths)]
    table.write_text("\n".join(["path,group", *rows, rows[0]]), encoding="utf-8")  # twice, in one group
    assert tl.data.image_folder(root, groups=table).groups.tolist() == [str(i % 3) for i in range(8)]
    table.write_text("\n".join(["path,group", *rows, "b/0.png,7"]), encoding="utf-8")
    with pytest.raises(ValueError, match="puts b/0.png in group . and in group 7: leave one of them"):
        tl.data.image_folder(root, groups=table)


def test_the_fewest_images_a_class_are_enough_to_be_fine_tuned_from_a_probe(tmp_path):
    root = small_folders(tmp_path, "a", "b", n=tl.data.FEWEST)
    data = tl.data.image_folder(root)
    backbone = tl.load_backbone("test_resnet", weights=None)
    found = tl.finetune(backbone, data, data.split(by="random"), recipe="lp_ft", epochs=1, augment=None)
    assert found.predict(data).shape == (8, 2)
    (root / "b" / "0.png").unlink()
    with pytest.raises(ValueError, match="b has 3 usable images, fewer than 4"):
        tl.data.image_folder(root)


def test_few_labels_are_drawn_with_the_classes_in_turn():
    labels, rows = np.repeat([0, 1, 2], [50, 30, 3]), np.arange(0, 83)
    for n in (1, 2, 8, 9, 20, 83):
        drawn = splits.few(rows, labels, n, seed=3)
        assert len(drawn) == n == len(set(drawn)) and (np.diff(drawn) > 0).all()
        counts = np.bincount(labels[drawn], minlength=3)
        assert counts.max() - min(counts[:2]) <= 1 or n == 83
        assert counts[2] == min(3, -(-n // 3)) or counts[2] == min(3, n // 3)
    assert splits.few(rows, labels, 8, seed=3).tolist() != splits.few(rows, labels, 8, seed=4).tolist()
    for n in (0, 84):
        with pytest.raises(ValueError, match="n must be between 1 and the 83 rows"):
            splits.few(rows, labels, n)
