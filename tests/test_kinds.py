"""Folders of texts and sounds, and tables of texts: taken as folders of images are, by the same commands."""

import csv

import numpy as np
import pytest
from scipy.io import wavfile
from small import tiny
from small_text import films, tiny_text
from typer.testing import CliRunner

import tlbook as tl
from tlbook.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def text_folder(root, n=24, parts=("",)):
    data = films(n)
    for part in parts:
        for i, text in enumerate(data.inputs):
            folder = root / part / data.class_names[data.labels[i]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:02}.txt").write_text(f"{text} {part} {'plot ' * (i + 1)}", encoding="utf-8")
    return root


def sound_folder(root, n=16):
    rng = np.random.default_rng(0)
    for i in range(n):
        name, frequency = ("low", 300) if i % 2 else ("high", 2_000)
        (root / name).mkdir(parents=True, exist_ok=True)
        x = np.sin(2 * np.pi * frequency * np.arange(4_000) / 8_000) + 0.1 * rng.normal(size=4_000)
        wavfile.write(root / name / f"{i:02}.wav", 8_000, (10_000 * x).astype(np.int16))
    return root


def table(path, rows, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def small(monkeypatch, one_thread_and_own_cache):
    """Every encoder is a tiny one with weights at random."""
    of_images, of_texts = tiny(), tiny_text()
    monkeypatch.setattr(tl, "load_backbone", lambda name: of_texts if name == "minilm" else of_images)


def test_a_folder_of_texts_is_a_data_set_of_strings(tmp_path):
    data = tl.data.folder(text_folder(tmp_path / "films"))
    assert data.class_names == ("bad", "good") and data.kind.name == "texts" and data.name == "films"
    assert data[0][0].startswith("the film was") and data.columns["path"][0] == "bad/00.txt"
    before = data.fingerprint
    (tmp_path / "films" / "bad" / "00.txt").write_text("another")
    assert tl.data.folder(tmp_path / "films").fingerprint != before
    assert "part" in tl.data.folder(text_folder(tmp_path / "parts", parts=("train", "test"))).columns


def test_a_folder_of_sounds_is_a_data_set_of_sounds(tmp_path):
    data = tl.data.folder(sound_folder(tmp_path / "tones"))
    assert data.kind.name == "sounds" and data.class_names == ("high", "low") and data[0][0].rate == 8_000
    assert data.subset([3, 4]).fingerprint != data.subset([3, 5]).fingerprint


BAD_TEXTS = {
    "empty": (b"", "is empty"),
    "spaces": (b"  \n ", "is empty"),
    "Latin-1": ("café".encode("latin-1"), "is not text in UTF-8"),
    "zero bytes": (b"film\0film", "is not text"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_bad_text_is_named_before_anything_is_computed(name, tmp_path):
    raw, words = BAD_TEXTS[name]
    root = text_folder(tmp_path / "films")
    (root / "bad" / "bad.txt").write_bytes(raw)
    with pytest.raises(ValueError, match=f"bad.txt {words}"):
        tl.data.folder(root)
    with pytest.warns(UserWarning, match="1 problems .* passed over"):
        assert len(tl.data.folder(root, on_error="skip")) == 24


def test_a_mark_at_the_beginning_and_another_script_are_read(tmp_path):
    root = text_folder(tmp_path / "films")
    (root / "bad" / "00.txt").write_bytes("\ufeffфильм был плохой".encode())
    assert tl.data.folder(root)[0][0] == "фильм был плохой"


def test_a_bad_sound_is_named_before_anything_is_computed(tmp_path):
    root = sound_folder(tmp_path / "tones")
    wavfile.write(root / "low" / "silent.wav", 8_000, np.zeros(800, np.int16))
    (root / "low" / "cut.wav").write_bytes((root / "low" / "01.wav").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"(?s)cut.wav is cut off.*silent.wav: the recording is silent"):
        tl.data.folder(root)


def test_the_kind_is_that_of_most_files_and_a_tie_is_an_error(tmp_path):
    root = text_folder(tmp_path / "films")
    wavfile.write(root / "good" / "one.wav", 8_000, np.ones(800, np.int16))
    with pytest.raises(ValueError, match="one.wav is not a .txt file"):
        tl.data.folder(root)
    tied = tmp_path / "tied"
    tied.mkdir()
    (tied / "a.txt").write_text("a")
    wavfile.write(tied / "a.wav", 8_000, np.ones(800, np.int16))
    with pytest.raises(ValueError, match="1 texts, 1 sounds: keep one kind"):
        tl.data.folder(tied)


def test_a_table_of_texts_is_a_data_set(tmp_path):
    rows = [(f"film {i}, {'good' if i % 2 else 'bad'}", ("no", "yes")[i % 2], i // 4, "x") for i in range(16)]
    data = tl.data.folder(table(tmp_path / "films.csv", rows, ("Text", "label", "group", "source")))
    assert data.class_names == ("no", "yes") and data[1] == ("film 1, good", 1) and data.groups[5] == "1"
    assert data.columns["source"][0] == "x" and data.columns["path"][0] == "row 2"
    assert len(data.subset([0, 1]).inputs) == 2


BAD_TABLES = {
    "no label": ([("a",)] * 8, ("text",), "has no column 'label', only text"),
    "no rows": ([], ("text", "label"), "rows below it"),
    "twice": ([("a", "b")] * 8, ("text", "Text"), "names each column once"),
    "short row": ([("a", "b"), ("a",)], ("text", "label"), "row 3: 1 values for 2 columns"),
    "empty text": ([("a", "x"), ("b", "y")] * 4 + [(" ", "x")], ("text", "label"), "row 10: no text, or no label"),
    "few": ([("a", "x"), ("b", "y")] * 4 + [("c", "z")], ("text", "label"), "1 texts of 'z', fewer than 4"),
    "one class": ([("a", "x")] * 8, ("text", "label"), "1 labels with enough texts"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_an_error_that_says_where(name, tmp_path):
    rows, header, words = BAD_TABLES[name]
    with pytest.raises(ValueError, match=words):
        tl.data.folder(table(tmp_path / "bad.csv", rows, header))


def test_a_table_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b"text,label\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="is not a CSV file in UTF-8"):
        tl.data.folder(tmp_path / "bad.csv")
    with pytest.raises(FileNotFoundError, match="none.csv does not exist"):
        tl.data.folder(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="stand in its column 'group'"):
        tl.data.folder(tmp_path / "bad.csv", groups=lambda path: path)


@pytest.mark.parametrize("make", [text_folder, sound_folder])
def test_the_command_line_takes_texts_and_sounds_as_it_takes_images(make, small, tmp_path):
    root = make(tmp_path / "data")
    result = run("extract", root, "--out", tmp_path / "features.safetensors")
    assert result.exit_code == 0, result.stderr
    assert len(tl.load_features(tmp_path / "features.safetensors").X) == len(tl.data.folder(root))

    result = run("finetune", root, "--epochs", "1", "--out", tmp_path / "model")
    assert result.exit_code == 0, result.stderr
    assert "accuracy" in result.stdout and not (tmp_path / "model" / "worst_mistakes.png").exists()
    assert (tmp_path / "model" / "confusion_matrix.png").exists()

    result = run("predict", tmp_path / "model", root, "--csv", tmp_path / "out.csv")
    assert result.exit_code == 0, result.stderr
    rows = list(csv.reader((tmp_path / "out.csv").open()))
    assert len(rows) == 1 + len(tl.data.folder(root))
    assert np.mean([row[0].split("/")[-2] == row[1] for row in rows[1:]]) > 0.8

    result = run("export", tmp_path / "model", "--out", tmp_path / "m.onnx")
    assert result.exit_code == 1 and "only classifiers of images are exported" in result.stderr


def test_the_command_line_takes_a_table_and_keeps_its_groups_whole(small, tmp_path):
    data = films(48)
    rows = [(text, data.class_names[y], g) for text, y, g in zip(data.inputs, data.labels, data.groups, strict=True)]
    path = table(tmp_path / "films.csv", rows, ("text", "label", "group"))
    result = run("finetune", path, "--epochs", "1", "--out", tmp_path / "model")
    assert result.exit_code == 0, result.stderr
    assert "Groups were kept whole." in (tmp_path / "model" / "README.md").read_text()
    assert "Trained by `tlbook finetune films.csv" in (tmp_path / "model" / "README.md").read_text()


def test_an_encoder_of_another_kind_is_refused_by_name(small, tmp_path):
    root = text_folder(tmp_path / "films")
    result = run("finetune", root, "--backbone", "resnet18", "--out", tmp_path / "model")
    assert result.exit_code == 1 and "takes images, and these are texts: try --backbone minilm" in result.stderr
    result = run("finetune", root, "--augment", "flips", "--out", tmp_path / "model")
    assert result.exit_code == 1 and "augment must be one of [None]" in result.stderr


def test_texts_that_begin_alike_are_said_to_flatter(small, tmp_path):
    root = tmp_path / "films"
    text_folder(root)
    for i, path in enumerate(sorted(root.rglob("*.txt"))):
        path.write_text(f"title {i}\n\nthe same plot of the same film {path.parent.name}")
    result = run("finetune", root, "--epochs", "1", "--out", tmp_path / "model")
    assert "texts to test on begin like one that is trained on" in result.stderr
