"""A folder of images becomes a saved classifier; what is broken, edited or hostile is refused by name."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from pictures import break_five, damaged
from PIL import Image
from typer.testing import CliRunner

import tlbook as tl
from tlbook import backbones, images
from tlbook.backbones import Backbone
from tlbook.cli import app


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """(FineTuned, Dataset, Split, the folder where it is saved)"""
    data = tl.data.image_folder(folder)
    split = data.split(by="random", seed=0)
    found = tl.finetune(tl.load_backbone(), data, split, recipe="lp_ft", epochs=1, augment=None)
    saved = tmp_path_factory.mktemp("saved") / "model"
    found.save(saved, data=data, split=split, trained="In a test.")
    return found, data, split, saved


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


def test_damaged_models_are_refused_and_nothing_else(trained, tmp_path):
    fuzz_models(trained[3], tmp_path, 12)


@pytest.mark.prove
def test_many_damaged_models_are_refused_and_nothing_else(trained, tmp_path):
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
