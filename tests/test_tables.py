"""Tables of your own examples: CSV files of paths, .npz files; what is wrong is said with its row and the remedy."""

import csv
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import draw_folder, run, small  # noqa: F401 the fixture
from torch.utils.data import Subset

import tlbook as tl
from tlbook.data import from_dataset

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


@pytest.fixture
def photos(tmp_path):
    return draw_folder(tmp_path / "photos")


def rows_of(photos):
    """A row for each of the sixteen drawings; the label of a drawing is the name of its folder."""
    paths = sorted(photos.rglob("*.png"))
    return [
        {"path": p.relative_to(photos).as_posix(), "label": p.parent.name, "group": f"g{i % 4}", "weight": 1 + i % 2}
        for i, p in enumerate(paths)
    ]


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_table_of_paths_is_the_data_set_of_the_folder(photos):
    rows = rows_of(photos)
    table = write(photos / "labels.csv", [row | {"Split": "train", "camera": "A"} for row in rows])
    data, folder = tl.data.folder(table), tl.data.image_folder(photos.parent / "photos", on_error="skip")
    assert data.class_names == folder.class_names == ("blue", "red") and np.array_equal(data.labels, folder.labels)
    assert data.fingerprint == folder.fingerprint and data.name == "labels"
    assert data.groups.tolist() == [row["group"] for row in rows]
    assert data.columns["weight"].tolist() == [row["weight"] for row in rows]
    assert set(data.columns["part"]) == {"train"} and set(data.columns["camera"]) == {"A"}
    assert np.array_equal(data.columns["bits"], folder.columns["bits"])


def test_paths_are_relative_to_the_folder_where_one_is_given(photos, tmp_path):
    table = write(tmp_path / "elsewhere.csv", rows_of(photos))
    assert len(tl.data.folder(photos, labels=table)) == 16
    with pytest.raises(ValueError, match=r"row 2: .*does not exist: paths are relative to"):
        tl.data.folder(table)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        tl.data.folder(tmp_path / "none", labels=table)
    with pytest.raises(ValueError, match="stand in its column 'group'"):
        tl.data.folder(photos, labels=table, groups=lambda path: path)


def test_a_given_split_is_kept_with_the_usual_words(photos):
    parts = ["Training", "valid", "test", "train"] * 4
    rows = [row | {"split": part} for row, part in zip(rows_of(photos), parts, strict=True)]
    data = tl.data.folder(write(photos / "l.csv", [{k: row[k] for k in ("path", "label", "split")} for row in rows]))
    split = data.split(by="given")
    assert [len(part) for part in split] == [8, 4, 4]


def change(rows, i, **values):
    return [row | values if k == i else row for k, row in enumerate(rows)]


DAMAGED = {  # row 7 of the file is the sixth of the list
    "missing": (lambda rows: change(rows, 5, path="none.png"), "row 7: .*none.png does not exist: paths are relative"),
    "no label": (lambda rows: change(rows, 5, label=" "), "row 7: no path, or no label: fill it in, or remove the row"),
    "no path": (lambda rows: change(rows, 5, path=""), "row 7: no path, or no label"),
    "split": (lambda rows: [r | {"split": "train"} for r in rows][:5] + [rows[5] | {"split": "tset"}] + [
        r | {"split": "test"} for r in rows[6:]], "row 7: split is 'tset': write train, val or test"),
    "twice": (lambda rows: change(rows, 5, path=rows[1]["path"]), "row 7: blue/1.png stands in row 3 too: remove one"),
    "two labels": (
        lambda rows: change(rows, 5, path=rows[1]["path"], label="red"),
        "row 7: blue/1.png stands in row 3 too with the label 'blue'. One label for each example is learned here",
    ),
    "group": (lambda rows: change(rows, 5, group=""), "row 7: no group: give it one"),
    "weight": (lambda rows: change(rows, 5, weight="-1"), "row 7: weight is '-1': write a number of at least 0"),
    "no number": (lambda rows: change(rows, 5, weight="much"), "row 7: weight is 'much'"),
    "few": (lambda rows: rows + [rows[0] | {"path": "../other.png", "label": "green"}], "1 images of 'green', fewer"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_wrong_with_a_row_is_said_with_its_number_and_can_be_skipped(name, photos):
    damage, words = DAMAGED[name]
    Image.new("RGB", (32, 32)).save(photos.parent / "other.png")
    table = write(photos / "labels.csv", damage(rows_of(photos)))
    with pytest.raises(ValueError, match=words):
        tl.data.folder(table)
    with pytest.warns(UserWarning, match=words):
        assert len(tl.data.folder(table, on_error="skip")) == (16 if name == "few" else 15)


def test_a_broken_image_is_named_with_its_row(photos):
    table = write(photos / "labels.csv", rows_of(photos))
    (photos / "blue" / "5.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"row 7: .*5.png is not readable as an image"):
        tl.data.folder(table)


def test_a_path_that_can_be_no_file_is_named_with_its_row(photos):
    rows = rows_of(photos)
    rows[5] |= {"path": "a film " * 99}
    with pytest.raises(ValueError, match="row 7: .*does not exist"):
        tl.data.folder(write(photos / "labels.csv", rows))


def test_a_table_of_texts_may_have_a_column_of_paths_of_its_own(tmp_path):
    rows = [{"text": f"words {i}", "label": "ab"[i % 2], "path": f"letter {i}"} for i in range(8)]
    data = tl.data.folder(write(tmp_path / "texts.csv", rows))
    assert data.columns["path"].tolist() == [f"letter {i}" for i in range(8)]


def test_empty_lines_are_passed_over_and_rows_keep_their_numbers(photos):
    table = write(photos / "labels.csv", [{k: row[k] for k in ("path", "label")} for row in rows_of(photos)])
    lines = table.read_text().splitlines()
    table.write_text("\n" + "\n\n".join(lines[:9]) + "\n  \n,\n" + "\n".join(lines[9:]) + "\n\n")
    assert len(tl.data.folder(table)) == 16
    broken = table.read_text().replace("blue/3.png", "blue/none.png")
    table.write_text(broken)
    with pytest.raises(ValueError, match="1 problems .*\n.*row 10: .*none.png does not exist"):
        tl.data.folder(table)
    assert broken.splitlines()[9].startswith("blue/none.png")


SPELLINGS = [lambda at: f"./{at}", lambda at: f"red/../{at}", lambda at: "{photos}/" + at, lambda at: f"linked/{at}"]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_one_file_under_two_spellings_is_one_file(spell, photos):
    (photos / "linked").symlink_to(photos)
    other = spell("blue/1.png").format(photos=photos)
    for label, words in (("red", " with the label 'blue'. One label"), ("blue", ": remove one of the two")):
        table = write(photos / "labels.csv", change(rows_of(photos), 5, path=other, label=label))
        with pytest.raises(ValueError, match=f"row 7: {other} stands in row 3 too as blue/1.png{words}"):
            tl.data.folder(table)


def test_paths_as_windows_writes_them_are_taken_where_there_is_a_file(photos):
    names = [row["path"] for row in rows_of(photos)]
    rows = [row | {"path": row["path"].replace("/", "\\")} for row in rows_of(photos)]
    Image.new("RGB", (32, 32)).save(photos / "odd\\name.png")
    rows[0] |= {"path": "odd\\name.png"}
    data = tl.data.folder(write(photos / "labels.csv", rows))
    assert data.columns["path"].tolist() == ["odd\\name.png", *names[1:]]
    assert data.inputs.paths[0].name == "odd\\name.png"
    with pytest.raises(ValueError, match=r"red\\none.png does not exist"):
        tl.data.folder(write(photos / "labels.csv", change(rows, 9, path="red\\none.png")))


TABLES = {
    "semicolons": (lambda text: text.replace(",", ";"), "separates its columns by semicolons: save it with commas"),
    "tabs": (lambda text: text.replace(",", "\t"), "separates its columns by tabs: save it with commas"),
    "no header": (
        lambda text: text.partition("\n")[2],
        "only blue/0.png, blue: the first line names the columns, such as path,label or text,label.*or add that line",
    ),
    "both parts": (
        lambda text: "\n".join(
            line + (",split,part" if i == 0 else ",train,test") for i, line in enumerate(text.splitlines())
        ),
        "the columns split and part, which say the same: remove one of the two",
    ),
    "text and path": (
        lambda text: "\n".join(line + (",text" if i == 0 else ",words") for i, line in enumerate(text.splitlines())),
        "the columns text and path, .*Remove or rename the other",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_could_be_misread_are_refused_with_the_remedy(name, photos):
    damage, words = TABLES[name]
    table = write(photos / "labels.csv", [{k: row[k] for k in ("path", "label")} for row in rows_of(photos)])
    table.write_text(damage(table.read_text().replace("\r", "")))
    with pytest.raises(ValueError, match=words):
        tl.data.folder(table)


def test_files_that_a_table_does_not_name_are_counted(photos, tmp_path):
    table = write(tmp_path / "labels.csv", [r for i, r in enumerate(rows_of(photos)) if i not in (3, 9)])
    with pytest.warns(UserWarning, match="does not name 2 of the 16 images in .*, such as .*blue/3.png: they are left"):
        assert len(tl.data.folder(photos, labels=table)) == 14
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tl.data.folder(photos, labels=write(table, rows_of(photos)))) == 16


def test_columns_for_several_labels_are_refused_with_the_remedy(photos):
    rows = [{"path": row["path"], "cat": 1, "dog": 1} for row in rows_of(photos)]
    with pytest.raises(ValueError, match="has no column 'label', only path, cat, dog.*one data set for each"):
        tl.data.folder(write(photos / "labels.csv", rows))
    with pytest.raises(ValueError, match="has no column 'text' or 'path'"):
        tl.data.folder(write(photos / "labels.csv", [{"file": "a", "label": "b"}]))


def test_the_command_takes_a_table_with_its_groups_and_weights(photos, small, tmp_path, monkeypatch):  # noqa: F811
    given, finetune = [], tl.finetune
    monkeypatch.setattr(tl, "finetune", lambda *a, **options: given.append(options) or finetune(*a, **options))
    rows = [row | {"group": f"g{i // 2}"} for i, row in enumerate(rows_of(photos))]
    table = write(tmp_path / "labels.csv", rows)
    done = run("finetune", photos, "--labels", table, "--recipe", "head", "--epochs", "1", "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    assert given[0]["objective"].sample_weight.tolist() == [1.0, 2.0] * 8
    card = (tmp_path / "m" / "README.md").read_text()
    assert "Groups were kept whole." in card and "--labels labels.csv" in card
    table = write(photos / "labels.csv", rows)
    done = run("finetune", table, "--recipe", "head", "--epochs", "1", "--fit", "pad", "--out", tmp_path / "n")
    assert done.exit_code == 0 and tl.load_finetuned(tmp_path / "n").model.fit == "pad", done.output


# Arrays


def pictures(n=16, side=24):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 100, (n, side, side, 3), dtype=np.uint8)
    X[np.arange(n) % 2 == 1, :, :, 0] += 150
    return X


@pytest.mark.parametrize("shape", ["colour", "grey", "one channel"])
@pytest.mark.parametrize("y", [np.arange(16) % 2, np.array(["no", "yes"])[np.arange(16) % 2]])
def test_arrays_are_what_the_same_files_would_be(shape, y, tmp_path):
    X = {"colour": lambda X: X, "grey": lambda X: X[..., 0], "one channel": lambda X: X[..., :1]}[shape](pictures())
    np.savez(tmp_path / "cells.npz", X=X, y=y, group=np.arange(16) // 2)
    data = tl.data.folder(tmp_path / "cells.npz")
    assert data.labels.tolist() == [0, 1] * 8 and data.name == "cells"
    assert data.class_names == (("0", "1") if y.dtype.kind == "i" else ("no", "yes"))
    assert len(np.unique(data.groups)) == 8 and data.reads_in_parallel
    np.savez(tmp_path / "spaces.npz", X=X, y=y, group=[f"g{i // 2}" + " " * (i % 2) for i in range(16)])
    assert len(np.unique(tl.data.folder(tmp_path / "spaces.npz").groups)) == 8
    Image.fromarray(X[3] if shape != "one channel" else X[3, ..., 0]).save(tmp_path / "x.png")
    backbone = tl.load_backbone(weights=None)
    assert torch.equal(
        backbone.as_tensor(data[3][0]), backbone.as_tensor(tl.data.dataset.images.read(tmp_path / "x.png"))
    )
    assert data.fingerprint == tl.data.folder(tmp_path / "cells.npz").fingerprint


def test_integers_take_the_names_that_are_given(tmp_path):
    np.savez(tmp_path / "a.npz", X=pictures(), y=np.arange(16) % 2, class_names=["left", "right"])
    assert tl.data.folder(tmp_path / "a.npz").class_names == ("left", "right")
    np.savez(tmp_path / "b.npz", X=pictures(), y=np.arange(16) % 2, class_names=["right", "left"])
    data = tl.data.folder(tmp_path / "b.npz")
    assert data.class_names == ("right", "left") and data.labels.tolist() == [0, 1] * 8


def test_integers_are_in_the_order_of_numbers(tmp_path):
    y = np.arange(48) % 12
    np.savez(tmp_path / "a.npz", X=pictures(48), y=y)
    data = tl.data.folder(tmp_path / "a.npz")
    assert data.class_names == tuple(map(str, range(12))) and np.array_equal(data.labels, y)


def objects(*rows):
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


X, Y = pictures(), np.arange(16) % 2
BAD_ARRAYS = {
    "ragged": (
        {"X": objects(*[x[: 8 + i] for i, x in enumerate(X)]), "y": Y},
        "Python objects.*images of several sizes",
    ),
    "object labels": ({"X": X, "y": objects(*map(str, Y))}, r"Python objects.*labels as np.array\(labels, str\)"),
    "floats": (
        {"X": X / 255, "y": Y},
        r"X must be uint8 images.*got float64.*\(255 \* X\).round\(\).astype\(np.uint8\)",
    ),
    "channels first": ({"X": X.transpose(0, 3, 1, 2), "y": Y}, r"save X.transpose\(0, 2, 3, 1\)"),
    "one image": ({"X": X[0, 0], "y": Y}, "np.stack of images of one size"),
    "no y": ({"X": X, "labels": Y}, "holds no array 'y', only X, labels: save it with np.savez"),
    "short y": ({"X": X, "y": Y[:5]}, "one for each of the 16 images of X"),
    "real y": ({"X": X, "y": Y * 1.0}, "y must be N integers or strings"),
    "column": ({"X": X, "y": Y[:, None]}, r"got \(16, 1\): save y\[:, 0\]"),
    "one number": ({"X": X, "y": 1}, "one for each of the 16 images of X"),
    "one name": ({"X": X, "y": Y, "class_names": "ab"}, "class_names must be the K names.*save a list of them"),
    "nan": ({"X": X, "y": Y, "group": [1.0] * 7 + [np.nan] + [2.0] * 8}, "y, row 7: no group"),
    "bits": ({"X": X, "y": Y, "bits": Y}, "'bits' is what nearly equal images share.*rename"),
    "one-hot": ({"X": X, "y": np.eye(2, dtype=int)[Y]}, r"save y.argmax\(1\)"),
    "several labels": (
        {"X": X, "y": np.vstack([np.eye(2, dtype=int)[Y[:7]], np.ones((9, 2), int)])},
        "row 7 of y has 2 labels. One label for each example.*one data set for each",
    ),
    "twice": ({"X": X, "y": Y, "class_names": ["crane", "crane", "ibis", "ibis"]}, "holds 'crane' 2 times"),
    "outside": ({"X": X, "y": np.where(np.arange(16) == 7, 5, Y), "class_names": ["a", "b"]}, "y is 5 in row 7"),
    "empty label": (
        {"X": X, "y": np.where(np.arange(16) == 7, "", np.array(["a", "b"])[Y])},
        "y, row 7: no label: fill it in",
    ),
    "short group": ({"X": X, "y": Y, "group": Y[:3]}, "group must be 16 values"),
    "split": ({"X": X, "y": Y, "split": ["train"] * 7 + ["tset"] + ["test"] * 8}, "y, row 7: split is 'tset'"),
    "weight": ({"X": X, "y": Y, "weight": np.where(np.arange(16) == 7, -1, 1)}, "y, row 7: weight is '-1'"),
    "few": ({"X": X, "y": np.where(np.arange(16) == 7, 2, Y)}, "1 images of '2', fewer than 4"),
}


LEVELS = np.arange(256, dtype=np.uint8).repeat(24).reshape(16, 16, 24)  # every brightness
COLOUR = np.stack([LEVELS, LEVELS[::-1], 255 - LEVELS], -1)
DEEP = np.arange(2**16).reshape(16, 64, 64)
FOLLOWED = {  # what is given, and the pixels that are right
    "floats to 1": (COLOUR / 255, COLOUR),
    "float32 to 1": ((COLOUR / 255).astype(np.float32), COLOUR),
    "floats to 255": (COLOUR.astype(np.float32), COLOUR),
    "integers": (COLOUR.astype(np.int64), COLOUR),
    "uint16 to 255": (LEVELS.astype(np.uint16), LEVELS),
    "16 bits": (DEEP.astype(np.uint16), DEEP >> 8),
    "12 bits": (DEEP.astype(np.uint16) >> 4, DEEP >> 8),
    "int32 of 10 bits": (DEEP.astype(np.int32) >> 6, DEEP >> 8),
    "yes or no": (LEVELS > 99, np.where(LEVELS > 99, 255, 0)),
    "transparency": (np.concatenate([COLOUR, LEVELS[..., None]], -1), COLOUR),
    "transparency, floats": (np.concatenate([COLOUR, LEVELS[..., None]], -1) / 255, COLOUR),
    "channels first, 16 bits": (COLOUR.transpose(0, 3, 1, 2).astype(np.uint16) * 256, COLOUR),
    "below 0": (COLOUR / 127.5 - 1, COLOUR),
    "int16 below 0": ((COLOUR.astype(int) * 256 - 2**15).astype(np.int16), COLOUR),
    "no number": (np.where(LEVELS == 9, np.nan, LEVELS / 255), np.where(LEVELS == 9, 0, LEVELS)),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_remedy_for_arrays_gives_the_right_pixels_when_it_is_followed(name, tmp_path):
    X, right = FOLLOWED[name]
    for _ in range(4):
        np.savez(tmp_path / "a.npz", X=X, y=np.arange(len(X)) % 2)
        try:
            data = tl.data.folder(tmp_path / "a.npz")
            break
        except ValueError as error:
            remedy = re.search("save ([^,]*(?:, .*)?)$", str(error))[1].partition(", if")[0]
            X = eval(remedy, {"np": np, "X": X})
    assert np.array_equal(np.stack([data[i][0] for i in range(len(X))]), right)


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused_with_the_row_and_the_remedy(name, tmp_path):
    arrays, words = BAD_ARRAYS[name]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        tl.data.folder(tmp_path / "bad.npz")


def test_files_that_hold_no_arrays_are_said(tmp_path):
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(ValueError, match=r"is one array, without labels: np.savez\('images.npz', X=images, y=labels\)"):
        tl.data.folder(tmp_path / "a.npy")
    for junk in (b"PK no zip", b"junk", (tmp_path / "a.npy").read_bytes()):
        (tmp_path / "b.npz").write_bytes(junk)
        with pytest.raises(ValueError, match="b.npz is damaged, or no .npz file: np.savez.* writes one"):
            tl.data.folder(tmp_path / "b.npz")
    with pytest.raises(FileNotFoundError, match="c.npz does not exist"):
        tl.data.folder(tmp_path / "c.npz")


def test_the_command_takes_arrays(small, tmp_path):  # noqa: F811
    np.savez(tmp_path / "cells.npz", X=pictures(32), y=np.arange(32) % 2)
    options = ["--recipe", "head", "--epochs", "1"]
    done = run("finetune", tmp_path / "cells.npz", *options, "--out", tmp_path / "m")
    assert done.exit_code == 0 and (tmp_path / "m" / "worst_mistakes.png").exists(), done.output


# Hugging Face's data sets, and torchvision's parts


class ClassLabel:
    def __init__(self, names):
        self.names = names


class HubDataset:
    """Of the shape of `datasets.Dataset`: rows are dicts, columns come by name, features know the classes."""

    def __init__(self, features, **columns):
        self.features, self.columns, self.decoded = features, columns, 0

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.columns[key]
        self.decoded += 1
        return {name: values[int(key)] for name, values in self.columns.items()}


def hub(n=16, **columns):
    images = [Image.fromarray(x) for x in pictures(n)]
    columns = {"image": images, "label": (np.arange(n) % 2).tolist(), "patient": [i // 4 for i in range(n)]} | columns
    return HubDataset({"image": None, "label": ClassLabel(["cat", "dog"]), "patient": None}, **columns)


def test_rows_with_class_labels_keep_their_names_and_columns_are_groups():
    given = hub()
    data = from_dataset(given, groups="patient")
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0, 1] * 8
    assert data.groups.tolist() == [i // 4 for i in range(16)] and data[3][0] is given.columns["image"][3]
    assert given.decoded < 8, "the labels are read at once"
    assert not data.reads_in_parallel and data.kind.name == "images"


def test_rows_of_texts_with_labels_in_words():
    data = from_dataset([{"text": "good film", "label": "yes"}, {"text": "bad film", "label": "no"}] * 4)
    assert data.class_names == ("no", "yes") and data.labels.tolist() == [1, 0] * 4 and data.kind.name == "texts"
    other_order = from_dataset(
        [{"text": "good film", "label": "yes"}, {"text": "bad", "label": "no"}], class_names=("yes", "no")
    )
    assert other_order.class_names == ("yes", "no") and other_order.labels.tolist() == [0, 1]
    named = from_dataset(hub(kind=["x"] * 16), columns=("image", "kind"), class_names=("x",))
    assert named.labels.tolist() == [0] * 16


BAD_ROWS = {
    "two inputs": (lambda: hub(text=["a"] * 16), {}, "which are input and label cannot be told: give columns="),
    "unknown column": (
        lambda: hub(),
        {"columns": ("image", "class")},
        "columns must be the names of input and label out",
    ),
    "unknown group": (
        lambda: hub(),
        {"groups": "person"},
        "groups must be one of the columns 'image', 'label', 'patient'",
    ),
    "several labels": (lambda: hub(label=[[0]] * 7 + [[0, 1]] + [[1]] * 8), {}, r"example 0 has the labels \[0\]"),
    "no label": (lambda: hub(label=[0, 1] * 3 + [0, None] + [0, 1] * 4), {}, "example 7 has no label.*leave it out"),
    "hidden labels": (lambda: hub(label=[0, 1] * 3 + [0, -1] + [0, 1] * 4), {}, "label -1 of example 7 is outside"),
    "columns of pairs": (lambda: [("a", 0), ("b", 1)], {"columns": ("x", "y")}, "name columns of dicts"),
    "groups of pairs": (lambda: [("a", 0), ("b", 1)], {"groups": "x"}, "name columns of dicts"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_cannot_be_told_or_learned_are_refused(name):
    make, options, words = BAD_ROWS[name]
    with pytest.raises(ValueError, match=words):
        from_dataset(make(), **options)


def test_a_dictionary_of_data_sets_says_how_to_take_one():
    with pytest.raises(TypeError, match=r"dataset\['train'\] is one"):
        from_dataset({"train": hub(), "test": hub()})


def test_hugging_faces_own_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.fromarray(x) for x in pictures()], "label": [i % 2 for i in range(16)]}
    data = from_dataset(datasets.Dataset.from_dict(rows, features=features))
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0, 1] * 8
    assert np.array_equal(np.asarray(data[3][0]), pictures()[3])
    assert tl.load_backbone(weights=None).prepare([data[0][0]]).shape == (1, 3, 224, 224)


def test_a_part_of_torchvisions_folder_keeps_its_names_without_decoding(photos, monkeypatch):
    from torchvision.datasets import ImageFolder

    whole, read = ImageFolder(photos), []
    loader = whole.loader
    whole.loader = lambda path: read.append(path) or loader(path)
    data = from_dataset(Subset(Subset(whole, range(1, 16)), [14, 0, 3, 2]))
    assert data.class_names == ("blue", "red") and data.labels.tolist() == [1, 0, 0, 0] and len(read) < 8
