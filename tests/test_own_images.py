"""A folder of images becomes a saved classifier; what is broken, edited or hostile is refused by name."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tlbook as tl
from tlbook import images
from tlbook.cli import app

MODES = ("RGB", "L", "P", "CMYK", "RGBA", "I;16")


def photographs():
    """Real photographs of three kinds, which ship with scikit-image: {name: (H, W, 3) uint8}."""
    import skimage.data

    return {name: getattr(skimage.data, name)() for name in ("cat", "coffee", "rocket")}


def in_mode(image, mode):
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def write_folder(root, n=12):
    """``n`` pieces of each photograph, as JPEG and PNG files in mixed modes."""
    rng = np.random.default_rng(0)
    for name, pixels in photographs().items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            side = rng.integers(120, 250)
            y, x = (rng.integers(0, size - side) for size in pixels.shape[:2])
            mode = MODES[i % len(MODES)]
            image = in_mode(Image.fromarray(pixels[y : y + side, x : x + side]), mode)
            image.save(root / name / f"{i:02}.{'jpg' if mode in ('RGB', 'CMYK') else 'png'}")
    return root


def break_five(root):
    """Damage five files as disks and people do."""
    whole = (root / "cat" / "00.jpg").read_bytes()
    broken = {
        "cat/empty.jpg": b"",
        "cat/cut.jpg": whole[: len(whole) // 2],
        "coffee/text.png": b"this is no image",
        "coffee/notes.txt": b"remember the milk",
        "rocket/cut.png": (root / "rocket" / "01.png").read_bytes()[:200],
    }
    for name, content in broken.items():
        (root / name).write_bytes(content)
    return broken


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("own") / "photos")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """(FineTuned, Dataset, Split, the folder where it is saved)"""
    data = tl.data.image_folder(folder)
    split = data.split(by="random", seed=0)
    found = tl.finetune(tl.load_backbone(), data, split, recipe="lp_ft", epochs=1, augment=None)
    saved = tmp_path_factory.mktemp("saved") / "model"
    found.save(saved, data=data, split=split, trained="In a test.")
    return found, data, split, saved


def test_a_folder_is_a_dataset(folder):
    data = tl.data.image_folder(folder, groups=lambda path: path.split("/")[1][:1])
    assert data.class_names == ("cat", "coffee", "rocket") and data.class_counts.tolist() == [12] * 3
    assert set(data.groups) == {"0", "1"} and data.columns["path"][0] == "cat/00.jpg"
    assert {data[i][0].mode for i in range(len(data))} == {"RGB"}
    before = data.fingerprint
    assert before == tl.data.image_folder(folder).fingerprint


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
    table.write_text("file,panel\n")
    with pytest.raises(ValueError, match="must begin with the line path,group"):
        tl.data.image_folder(folder, groups=table)


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


@pytest.mark.parametrize("mode", [*MODES, "LA", "1", "F", "I", "PA", "YCbCr", "LAB", "HSV"])
def test_every_mode_becomes_rgb(mode):
    grey = np.full((8, 8), 128, np.uint8)
    image = {
        "P": lambda: Image.fromarray(grey).convert("P"),
        "F": lambda: Image.fromarray(grey.astype(np.float32) / 255),
        "I": lambda: Image.fromarray(grey.astype(np.int32) * 257),
        "PA": lambda: Image.fromarray(grey).convert("P").convert("PA"),
        "LAB": lambda: Image.new("LAB", (8, 8), (137, 128, 128)),
    }.get(mode, lambda: in_mode(Image.fromarray(np.stack([grey] * 3, -1)), mode))()
    assert image.mode == mode
    found = np.asarray(images.to_rgb(image)).astype(int)
    assert found.shape == (8, 8, 3)
    if mode not in ("1", "LAB"):  # one bit is black or white; Lab has no fixed grey of 128
        assert np.abs(found - 128).max() <= 2


def test_what_is_transparent_is_white_and_exif_turns_upright(tmp_path):
    assert images.to_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    image = Image.new("RGB", (30, 20), "black")
    image.paste("white", (0, 0, 30, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter to see it so
    image.save(tmp_path / "a.jpg", exif=exif)
    turned = np.asarray(images.read(tmp_path / "a.jpg")).mean(-1)
    assert turned.shape == (30, 20) and turned[:, -1].min() > 200 and turned[:, 0].max() < 50


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="decompression bomb"):
        images.read(tmp_path / "bomb.png")


def test_one_input_a_list_a_path_a_folder(trained, folder):
    found, data, _, _ = trained
    p = found.predict(folder)
    assert p.shape == (36, 3) and np.allclose(p.sum(1), 1)
    assert np.allclose(found.predict(data), p, atol=1e-6)  # both in the order of the paths
    first = folder / "cat" / "00.jpg"
    for one in (first, str(first), Image.open(first), [first], [images.read(first)]):
        assert np.allclose(found.predict(one), p[:1], atol=1e-5)
    tensor = torch.from_numpy(np.array(images.read(first).resize((224, 224)))).permute(2, 0, 1)
    assert found.predict(tensor).shape == (1, 3)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.predict(folder / "none")


def test_predict_refuses_a_folder_without_images(trained, tmp_path):
    with pytest.raises(ValueError, match="has no images"):
        trained[0].predict(tmp_path)


def test_a_saved_folder_predicts_the_same_in_a_new_process(trained, folder, tmp_path):
    found, _, _, saved = trained
    names = {"model.safetensors", "model.json", "README.md", "confusion_matrix.png", "worst_mistakes.png"}
    assert {p.name for p in saved.iterdir()} == names
    elsewhere = tmp_path / "moved"
    shutil.copytree(saved, elsewhere)
    command = [sys.executable, "-m", "tlbook", "predict", str(elsewhere), str(folder), "--csv", "out.csv"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "path,class,cat,coffee,rocket" and len(lines) == 37
    p = np.array([line.split(",")[2:] for line in lines[1:]], dtype=float)
    assert np.abs(p - found.predict(folder)).max() < 1e-6
    card = (saved / "README.md").read_text()
    assert "Scores on the test part" in card and "Apache-2.0" in card and "In a test." in card


def test_a_model_is_not_saved_over_something_else(trained, tmp_path):
    (tmp_path / "thesis.tex").write_text("my only copy")
    with pytest.raises(FileExistsError, match="choose another"):
        trained[0].save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def edit(path, change):
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_a_tampered_folder_is_refused_with_the_reason(trained, tmp_path):
    def tampered(how):
        model = tmp_path / how.__name__
        shutil.copytree(trained[3], model)
        how(model)
        return model

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    def a_pickle(model):
        (model / "model.pt").write_bytes(pickle.dumps(Hostile()))

    def climbs_out(model):
        edit(model / "model.json", lambda a: a["weights"].update(file="../../weights.safetensors"))

    def links_out(model):
        (model / "model.safetensors").rename(tmp_path / "elsewhere")
        (model / "model.safetensors").symlink_to(tmp_path / "elsewhere")

    def other_classes(model):
        edit(model / "model.json", lambda a: a["model"].update(class_names=["dog", "coffee", "rocket"]))

    def one_byte(model):
        content = bytearray((model / "model.safetensors").read_bytes())
        content[-1000] ^= 1
        (model / "model.safetensors").write_bytes(content)

    reasons = {
        a_pickle: "model.pt, which may run code",
        climbs_out: "only model.safetensors of the folder is read",
        links_out: "only model.safetensors of the folder is read",
        other_classes: "disagrees with .* in class_names",
        one_byte: "damaged or was exchanged",
    }
    for how, reason in reasons.items():
        with pytest.raises(ValueError, match=reason):
            tl.load_finetuned(tampered(how))
    assert not (tmp_path / "owned").exists()


def damaged(content, rng):
    """``content`` cut, with bytes changed, put in or taken out."""
    content = bytearray(content)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(content[: rng.integers(len(content))])
    for _ in range(rng.integers(1, 30)):
        at = int(rng.integers(len(content)))
        if kind == 1:
            content[at] = rng.integers(256)
        elif kind == 2:
            content[at:at] = rng.bytes(3)
        else:
            del content[at : at + int(rng.integers(1, 40))]
            content = content or bytearray(b"x")
    return bytes(content)


def fuzz_images(folder, tmp_path, n):
    rng, sources, read = np.random.default_rng(0), sorted(folder.rglob("*.*g")), 0
    for i in range(n):
        source = sources[i % len(sources)]
        path = tmp_path / f"{i}{source.suffix}"
        path.write_bytes(damaged(source.read_bytes(), rng))
        try:
            assert images.read(path).mode == "RGB"
            read += 1
        except ValueError as error:
            assert str(path) in str(error)
        path.unlink()
    assert 0 < read < n


def fuzz_models(saved, tmp_path, n):
    rng, refused = np.random.default_rng(0), 0
    for i in range(n):
        model = tmp_path / f"{i}"
        shutil.copytree(saved, model)
        victim = model / ("model.json" if i % 2 else "model.safetensors")
        content = victim.read_bytes()
        if i % 4 == 0:  # its header alone: the rest of the file is numbers
            size = 8 + int.from_bytes(content[:8], "little")
            victim.write_bytes(damaged(content[:size], rng) + content[size:])
        else:
            victim.write_bytes(damaged(content, rng))
        before = {p.name for p in tmp_path.iterdir()}
        try:
            tl.load_finetuned(model)
        except (ValueError, FileNotFoundError):
            refused += 1
        assert {p.name for p in tmp_path.iterdir()} == before
        shutil.rmtree(model)
    assert refused > n / 2  # damage to the card's part of model.json does no harm


def test_damaged_images_and_models_are_refused_and_nothing_else(folder, trained, tmp_path):
    fuzz_images(folder, tmp_path, 40)
    fuzz_models(trained[3], tmp_path, 12)


@pytest.mark.prove
def test_many_damaged_images_and_models_are_refused_and_nothing_else(folder, trained, tmp_path):
    fuzz_images(folder, tmp_path, 500)
    fuzz_models(trained[3], tmp_path, 200)


def test_the_onnx_file_answers_as_the_original(trained, tmp_path):
    found, data, _, saved = trained
    result = CliRunner().invoke(app, ["export", str(saved), "--out", str(tmp_path / "m.onnx")])
    assert result.exit_code == 0, result.output
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    x = torch.stack([found.model.as_tensor(data[i][0]) for i in range(5)]).float().numpy()
    assert np.abs(session.run(None, {"image": x})[0] - found.predict(data.subset(range(5)))).max() < 1e-4


def test_grad_cam_marks_what_speaks_for_the_class(trained):
    """Cover what the map marks, and what it does not: the logit falls more in the first case."""
    from tlbook.explain import grad_cam

    found, data, split, _ = trained
    falls = []
    for i in split.train[:6]:
        x, k = found.model.as_tensor(data[i][0]), data.labels[i]
        hot = torch.from_numpy(grad_cam(found, [x], [k])[0])
        assert hot.shape == x.shape[1:] and 0 <= hot.min() and hot.max() <= 1.0001
        limit = hot.flatten().quantile(0.7)

        def logit(covered, x=x, k=k):
            with torch.inference_mode():
                return float(found.model(found.model.prepare([torch.where(covered, 127, x).to(torch.uint8)]))[0, k])

        falls.append(logit(hot < hot.flatten().quantile(0.3)) - logit(hot > limit))
    assert np.mean(falls) > 0


@pytest.mark.parametrize("command", ["extract", "finetune", "predict", "export"])
def test_every_command_shows_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0 and f"Example: tlbook {command}" in result.output


def test_the_command_line_trains_and_says_so(folder, tmp_path):
    root, model = tmp_path / "photos", tmp_path / "model"
    shutil.copytree(folder, root)
    break_five(root)
    command = ["finetune", str(root), "--recipe", "head", "--epochs", "1", "--out", str(model)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1 and "5 problems" in refused.stderr and not model.exists()
    done = CliRunner().invoke(app, [*command, "--skip"])
    assert done.exit_code == 0, done.output
    assert "passed over" in done.stderr and "auc" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "photos"]  # the checkpoint is gone
    again = CliRunner().invoke(app, [*command, "--skip"])
    assert again.exit_code == 1 and "choose another --out" in again.stderr
    result = CliRunner().invoke(app, ["extract", str(folder), "--out", str(tmp_path / "features")])
    assert result.exit_code == 0 and tl.load_features(tmp_path / "features").X.shape == (36, 1280)


def test_a_users_mistake_is_one_line(tmp_path, folder):
    for command in (
        ["predict", str(tmp_path), str(folder), "--csv", str(tmp_path / "o.csv")],
        ["export", str(tmp_path / "none")],
        ["finetune", str(tmp_path / "none"), "--out", str(tmp_path / "m")],
        ["finetune", str(folder), "--backbone", "no_such_net", "--out", str(tmp_path / "m")],
        ["finetune", str(folder), "--recipe", "magic", "--out", str(tmp_path / "m")],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1 and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, command
    assert not any(tmp_path.iterdir())


def test_from_dataset_takes_torchvisions_own(folder):
    from torchvision.datasets import ImageFolder

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = tl.data.from_dataset(ImageFolder(folder))
    assert data.class_names == ["cat", "coffee", "rocket"] or data.class_names == ("cat", "coffee", "rocket")
    assert len(data) == 36
