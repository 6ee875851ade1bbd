"""A folder of images becomes a saved classifier; what is broken, edited or hostile is refused by name."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from typer.testing import CliRunner

import tlbook as tl
from tlbook import backbones, images
from tlbook.backbones import Backbone
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
    assert f"{json.loads((model / 'model.json').read_text())['scores']['auc']['value']:.3f}" in done.stdout


def test_features_are_written_to_a_file_or_into_a_folder(folder, tmp_path):
    for out in (tmp_path / "new" / "features", tmp_path):
        result = CliRunner().invoke(app, ["extract", str(folder), "--out", str(out)])
        assert result.exit_code == 0, result.output
    for written in (tmp_path / "new" / "features", tmp_path / "features.safetensors"):
        assert tl.load_features(written).X.shape == (36, 1280)


def test_a_single_image_is_predicted(trained, folder, tmp_path):
    image, csv = folder / "cat" / "00.jpg", tmp_path / "o.csv"
    result = CliRunner().invoke(app, ["predict", str(trained[3]), str(image), "--csv", str(csv)])
    assert result.exit_code == 0, result.output
    (row,) = csv.read_text().splitlines()[1:]
    assert row.split(",")[0] == str(image)
    assert np.allclose([float(p) for p in row.split(",")[2:]], trained[0].predict(image)[0], atol=1e-5)


def test_a_model_is_exported_to_the_current_folder_unless_told_otherwise(trained, monkeypatch):
    written = []
    monkeypatch.setattr(type(trained[0]), "export", lambda self, path: written.append(path) or 0.0)
    result = CliRunner().invoke(app, ["export", str(trained[3])])
    assert result.exit_code == 0 and result.stdout.startswith("model.onnx: "), result.output
    assert written == [Path("model.onnx")]


@pytest.mark.parametrize("where, what", [(images, "difference_hash"), (Backbone, "prepare")])
def test_ctrl_c_before_training_leaves_nothing_and_says_one_line(folder, tmp_path, monkeypatch, where, what):
    whole, pressed = getattr(where, what), []

    def press(*args):
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)
        return whole(*args)

    monkeypatch.setattr(where, what, press)
    command = ["finetune", str(folder), "--recipe", "head", "--epochs", "2", "--out", str(tmp_path / "m")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 130 and result.stderr.endswith("Stopped by Ctrl-C: nothing half-written is left\n")
    assert result.stderr.count("\n") == 1 and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command, says",
    [
        ("predict {here} {photos} --csv {here}/o.csv", "model.json does not exist"),
        ("predict {model} {here}/none --csv {here}/o.csv", "none does not exist"),
        ("predict {model} {here}/file --csv {here}/o.csv", "file is not readable as an image"),
        ("predict {model} {photos} --csv {here}", "is a folder: name a file"),
        ("predict {model} {photos} --csv {here}/file/o.csv", "cannot be written (Not a directory)"),
        ("export {here}/none", "model.json does not exist"),
        ("export {model} --out {here}", "is a folder: name a file"),
        ("export {model} --out {here}/file/m.onnx", "cannot be written (Not a directory)"),
        ("extract {photos} --out {here}/file/f", "cannot be written (Not a directory)"),
        ("extract {photos} --stage nose --out {here}/f", "no stage 'nose'"),
        ("finetune {here}/none --out {here}/m", "none is not a folder"),
        ("finetune {photos} --out {here}/file/m", "cannot be written (Not a directory)"),
        ("finetune {photos} --out {here}/file", "choose another --out"),
        ("finetune {photos} --out .", "choose another --out"),
        ("finetune {photos} --out {photos}/m", "among the images"),
        ("finetune {photos} --backbone no_such_net --out {here}/m", "no backbone is called 'no_such_net'"),
        ("finetune {photos} --recipe magic --out {here}/m", "recipe must be one of"),
        ("finetune {photos} --augment colour --out {here}/m", "--augment must be none, flips or dihedral"),
        ("finetune {photos} --groups {here}/none --out {here}/m", "No such file"),
        ("finetune {photos} --groups {here}/file --out {here}/m", "must begin with the line path,group"),
        ("finetune {photos} --epochs 0 --out {here}/m", "epochs must be"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, folder, trained, command, says):
    (tmp_path / "file").write_text("neither an image nor a folder")
    words = command.format(here=tmp_path, photos=folder, model=trained[3]).split()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and result.stderr.startswith("Error: ") and says in result.stderr
    assert result.stderr.count("\n") == 1 and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_training_is_neither_overwritten_nor_taken_up_unasked(folder, tmp_path):
    (tmp_path / "m.checkpoint").mkdir()
    result = CliRunner().invoke(app, ["finetune", str(folder), "--out", str(tmp_path / "m")])
    assert result.exit_code == 1 and "m.checkpoint holds a training that was interrupted" in result.stderr
    assert "--resume" in result.stderr


@pytest.fixture
def official_resnet18(tmp_path, monkeypatch):
    """A file like torchvision's, of random numbers, where torch hub keeps it; its name tells its digest, as theirs."""
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "unnamed")
    digest = hashlib.sha256((folder / "unnamed").read_bytes()).hexdigest()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(backbones, "_RESNET18_URL", f"https://nowhere.invalid/resnet18-{digest[:8]}.pth")
    return (folder / "unnamed").rename(folder / f"resnet18-{digest[:8]}.pth")


def test_resnet18_is_fine_tuned_saved_loaded_and_predicts(official_resnet18, folder, tmp_path):
    backbone, data = tl.load_backbone("resnet18"), tl.data.image_folder(folder)
    assert tl.extract(backbone, data).X.shape == (36, 512)
    found = tl.finetune(backbone, data, data.split(by="random"), recipe="head", epochs=1, augment=None)
    assert found.model.head.weight.shape == (3, 512)
    given = torch.load(official_resnet18, weights_only=True)["layer4.1.conv2.weight"]
    assert torch.equal(found.model.model.layer4[1].conv2.weight.cpu(), given)
    found.save(tmp_path / "model")
    assert np.array_equal(tl.load_finetuned(tmp_path / "model").predict(folder), found.predict(folder))


def test_resnet18_through_the_command_line(official_resnet18, folder, tmp_path):
    model, csv = tmp_path / "model", tmp_path / "o.csv"
    command = ["finetune", str(folder), "--backbone", "resnet18", "--epochs", "1", "--out", str(model)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "# resnet18, fine-tuned: cat, coffee, rocket" in (model / "README.md").read_text()
    done = CliRunner().invoke(app, ["predict", str(model), str(folder), "--csv", str(csv)])
    assert done.exit_code == 0 and len(csv.read_text().splitlines()) == 37
    official_resnet18.write_bytes(official_resnet18.read_bytes()[:-1])
    command[-1] = str(tmp_path / "other")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1 and refused.stderr.count("\n") == 1 and not (tmp_path / "other").exists()
    assert f"{official_resnet18} is damaged: its SHA-256 begins" in refused.stderr


def test_from_dataset_takes_torchvisions_own(folder):
    from torchvision.datasets import ImageFolder

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = tl.data.from_dataset(ImageFolder(folder))
    assert data.class_names == ["cat", "coffee", "rocket"] or data.class_names == ("cat", "coffee", "rocket")
    assert len(data) == 36


def test_the_card_says_whether_groups_were_kept_whole(trained, folder, tmp_path):
    found = trained[0]
    data = tl.data.image_folder(folder, groups=lambda path: path.split("/")[1][:2])
    for by, words in (("group", "Groups were kept whole"), ("random", "on both sides of the test")):
        found.save(tmp_path / by, data=data, split=data.split(by=by, seed=0))
        assert words in (tmp_path / by / "README.md").read_text()


def test_a_transformer_is_saved_with_its_test_though_it_has_no_map(folder, tmp_path):
    data = tl.data.image_folder(folder)
    split = data.split(by="random", seed=0)
    backbone = tl.load_backbone("test_vit", weights=None)
    found = tl.finetune(backbone, data, split, recipe="head", epochs=1, augment=None)
    assert (found.predict(data.subset(split.test)).argmax(1) != data.labels[split.test]).any()
    found.save(tmp_path / "model", data=data, split=split)
    assert np.allclose(tl.load_finetuned(tmp_path / "model").predict(folder), found.predict(folder), atol=1e-6)
