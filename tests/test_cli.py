"""The command line: what a user types, what is said, what is written, and what is never lost."""

import errno
import hashlib
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import typer
from pictures import break_five
from PIL import Image
from small import tiny
from typer.testing import CliRunner

import tlbook
from tlbook import backbones, cli, images
from tlbook.backbones import Backbone
from tlbook.cli import app
from tlbook.course import doctor
from tlbook.training import checkpoints

WHOLE = {"model.safetensors", "model.json", "README.md", "confusion_matrix.png", "worst_mistakes.png"}
TORCHRUN = Path(sys.executable).with_name("torchrun")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def draw_folder(root, names=("blue", "red"), n=8, side=32):
    """Noise with more of one colour for each class: learned in an epoch."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 100, (side, side, 3), dtype=np.uint8)
            pixels[..., k % 3] += 150
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of eight drawings: to be read and never changed."""
    return draw_folder(tmp_path_factory.mktemp("drawn") / "photos")


@pytest.fixture
def small(monkeypatch, one_thread_and_own_cache):
    """Every backbone is a tiny one with weights at random, whatever its name."""
    network = tiny()

    def load_backbone(name):
        backbones.build(name)  # or an error that says that there is none
        return network

    monkeypatch.setattr(tlbook, "load_backbone", load_backbone)


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    """A folder that `tlbook finetune` could have written."""
    data = tlbook.data.image_folder(photos)
    found = tlbook.finetune(tiny(), data, data.split(by="random"), recipe="head", epochs=1)
    saved = tmp_path_factory.mktemp("saved") / "model"
    found.save(saved)
    return saved


@pytest.mark.parametrize("command", ["course", "doctor", "extract", "suspect", "finetune", "predict", "export", "page"])
def test_every_command_explains_itself_with_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0 and f"Example: tlbook {command}" in result.output


def test_course_prints_a_table_with_the_headline(tmp_path, make_lesson, monkeypatch):
    make_lesson(tmp_path / "notebooks" / "00_a.ipynb")
    monkeypatch.chdir(tmp_path)
    result = run("course", "--only", "00")
    header, _, row = result.stdout.strip().splitlines()
    assert result.exit_code == 0
    assert header.split("  ")[0] == "lesson" and "peak memory MB" in header
    assert row.startswith("00_a") and row.endswith("AUC .87")
    assert (tmp_path / "build" / "course" / "00_a.ipynb").exists()


def test_course_never_writes_over_the_lessons(tmp_path, make_lesson, monkeypatch):
    make_lesson(tmp_path / "notebooks" / "00_a.ipynb")
    monkeypatch.chdir(tmp_path)
    result = run("course", "--out", "notebooks")
    assert result.exit_code == 1 and "overwrite the lessons" in result.stderr


def test_a_mistake_is_one_line_and_an_exit_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("course")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no lessons in ") and result.stderr.count("\n") == 1


def test_debug_shows_where_an_error_came_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(run("--debug", "course").exception, FileNotFoundError)


def test_doctor_prints_a_table_or_json():
    assert "torchvision" in run("doctor").stdout
    result = run("doctor", "--json")
    assert result.exit_code == 0
    assert {"what": "tlbook", "here": tlbook.__version__, "remedy": ""} in json.loads(result.stdout)


def test_doctor_exits_with_1_when_something_is_missing(monkeypatch):
    monkeypatch.setitem(doctor.BUNDLED, "solar cells", "no-such-package")
    result = run("doctor")
    assert result.exit_code == 1 and "pip install no-such-package" in result.stdout


def test_python_m_tlbook_is_the_same_program_and_starts_without_torch():
    code = "import sys, tlbook.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    version = subprocess.run([sys.executable, "-m", "tlbook", "--version"], capture_output=True, text=True)
    assert version.stdout == f"tlbook {tlbook.__version__}\n"


def test_what_finetune_is_not_told_is_what_the_function_takes(photos, small, tmp_path, monkeypatch):
    given, finetune = [], tlbook.finetune

    def spy(*arguments, **options):
        given.append(options)
        return finetune(*arguments, **options | {"recipe": "head", "epochs": 1})

    spy.__signature__ = inspect.signature(finetune)
    monkeypatch.setattr(tlbook, "finetune", spy)
    assert run("finetune", photos, "--out", tmp_path / "m").exit_code == 0
    assert given[0].keys() == {"recipe", "seed", "checkpoint", "resume"} and given[0]["recipe"] == tlbook.recipes.Auto()
    assert run("finetune", photos, "--out", tmp_path / "n", "--lr", "1e-3", "--augment", "none").exit_code == 0
    assert given[1]["lr"] == 1e-3 and not given[1]["recipe"].photo and given[1].get("augment") is None
    said = run("finetune", "--help").output
    assert "[default: auto]" in said and "[default: 10.0]" in said
    assert "inspect._empty" not in said and "<class" not in said
    for name, words in {"epochs": "5", "lr": "the recipe's own", "augment": "none"}.items():
        assert f"[default: {words}]" in said
        default = inspect.signature(finetune).parameters[name].default
        assert default == {"5": 5}.get(words)


def test_the_command_line_trains_and_says_so(folder, small, tmp_path, monkeypatch):
    root = tmp_path / "secret" / "photos"
    shutil.copytree(folder, root)
    break_five(root)
    monkeypatch.chdir(tmp_path)
    command = ["finetune", root, "--recipe", "head", "--epochs", "1", "--out", root.parent / "model"]
    refused = run(*command)
    assert refused.exit_code == 1 and "5 problems" in refused.stderr and "(--skip)" in refused.stderr
    assert [path.name for path in root.parent.iterdir()] == ["photos"]
    done = run(*command, "--skip")
    assert done.exit_code == 0, done.output
    assert "Warning: 5 problems" in done.stderr and "passed over" in done.stderr and "auc" in done.stdout
    assert sorted(p.name for p in root.parent.iterdir()) == ["model", "photos"]  # the checkpoint is gone
    again = run(*command, "--skip")
    assert again.exit_code == 1 and "choose another --out" in again.stderr
    model = root.parent / "model"
    assert {path.name for path in model.iterdir()} == WHOLE
    assert f"{json.loads((model / 'model.json').read_text())['scores']['auc']['value']:.3f}" in done.stdout

    # The command is told, the machine is not
    card = (model / "README.md").read_text()
    assert "`tlbook finetune photos --out model --recipe head --epochs 1 --skip`" in card
    assert "secret" not in card and "secret" not in (model / "model.json").read_text()


def test_parts_that_a_folder_has_are_taken_as_given(small, tmp_path):
    for part, n in (("train", 6), ("val", 4), ("test", 5)):
        draw_folder(tmp_path / "photos" / part, n=n)
    done = run("finetune", tmp_path / "photos", "--recipe", "head", "--epochs", "1", "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    about = json.loads((tmp_path / "m" / "model.json").read_text())
    assert about["data"]["images"] == {"train": [6, 6], "val": [4, 4], "test": [5, 5]}
    assert about["model"]["class_names"] == ["blue", "red"]
    assert "The parts came with the images." in (tmp_path / "m" / "README.md").read_text()


def test_a_class_that_is_not_tested_is_said(small, tmp_path):
    for part in ("train", "val", "test"):
        draw_folder(tmp_path / "photos" / part, ("blue", "red", "green"), n=4)
    shutil.rmtree(tmp_path / "photos" / "test" / "green")
    (tmp_path / "photos" / "test" / "green").mkdir()
    done = run("finetune", tmp_path / "photos", "--recipe", "head", "--epochs", "1", "--out", tmp_path / "m")
    assert done.exit_code == 0 and "Warning: the test part has no example of green" in done.stderr, done.output
    assert "No test image shows green" in (tmp_path / "m" / "README.md").read_text()


def test_a_training_that_diverges_is_saved_at_its_best_and_says_why(photos, small, tmp_path):
    done = run("finetune", photos, "--recipe", "lp_ft", "--lr", "1e30", "--out", tmp_path / "m")  # it starts at a probe
    assert done.exit_code == 0, done.output
    assert "Warning: the " in done.stderr and "the best so far" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["m"]
    assert "**Training stopped early**, because the " in (tmp_path / "m" / "README.md").read_text()
    assert not tlbook.load_finetuned(tmp_path / "m").finished


def test_where_nothing_was_worth_keeping_the_command_with_another_lr_works_as_it_stands(small, tmp_path, monkeypatch):
    monkeypatch.setattr(tlbook.training.run, "CHECKPOINT_SECONDS", 0)  # there is a checkpoint of the first step
    many = draw_folder(tmp_path / "photos", n=30)
    command = ["finetune", many, "--recipe", "full", "--epochs", "1", "--out", tmp_path / "m"]
    failed = run(*command, "--lr", "1e30")
    assert failed.exit_code == 1 and "try lr=" in failed.stderr and "No weights were kept" in failed.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["photos"]
    assert run(*command, "--lr", "1e-3").exit_code == 0


def test_a_checkpoint_with_nothing_worth_keeping_goes_and_another_is_said(tmp_path, capsys):
    for lowest, error in ((None, RuntimeError), (0.5, RuntimeError), (0.5, OSError)):
        checkpoints.write(tmp_path / "checkpoint.safetensors", {}, {"progress": {"lowest": lowest}})
        with pytest.raises(error), cli._going_on_made_clear(tmp_path):
            raise error("out of memory, or of disk")
        kept = lowest is not None
        assert (tmp_path / "checkpoint.safetensors").exists() == kept
        assert ("the same command with --resume" in capsys.readouterr().err) == kept


def press_ctrl_c_in(monkeypatch, where, what):
    """Press Ctrl-C when ``where.what`` is called for the first time."""
    whole, pressed = getattr(where, what), []

    def press(*arguments, **options):
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)
        return whole(*arguments, **options)

    monkeypatch.setattr(where, what, press)


@pytest.mark.parametrize("where, what", [(images, "difference_hash"), (Backbone, "collate")])
def test_ctrl_c_before_training_leaves_nothing_and_says_one_line(photos, small, tmp_path, monkeypatch, where, what):
    press_ctrl_c_in(monkeypatch, where, what)
    result = run("finetune", photos, "--recipe", "head", "--epochs", "2", "--out", tmp_path / "m")
    assert result.exit_code == 130 and result.stderr.endswith("Stopped by Ctrl-C: nothing half-written is left\n")
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]


def test_ctrl_c_in_training_or_saving_is_gone_on_from_with_resume_and_the_same_arguments(small, tmp_path, monkeypatch):
    many = draw_folder(tmp_path / "photos", n=30)  # more than one batch
    command = ["finetune", many, "--recipe", "head", "--epochs", "3", "--out", tmp_path / "m"]
    left = tmp_path / "m.checkpoint"

    # In training: the step is the loop's
    with monkeypatch.context() as patch:
        press_ctrl_c_in(patch, torch.optim.AdamW, "step")
        stopped = run(*command)
    assert stopped.exit_code == 130 and "the same command with --resume goes on from" in stopped.stderr
    assert [path.name for path in left.iterdir()] == ["checkpoint.safetensors"]

    # Neither overwritten, nor taken up unasked, nor with other arguments
    refused = run(*command)
    assert refused.exit_code == 1 and "m.checkpoint holds a training that was interrupted" in refused.stderr
    refused = run(*command, "--resume", "--lr", "1e-2")
    assert refused.exit_code == 1 and "a run with other lr" in refused.stderr and "remove the folder" in refused.stderr
    assert [path.name for path in left.iterdir()] == ["checkpoint.safetensors"]

    # While it is saved
    with monkeypatch.context() as patch:
        press_ctrl_c_in(patch, tlbook.training.classifier, "evaluate")
        stopped = run(*command, "--resume")
    assert stopped.exit_code == 130 and "the same command with --resume goes on from" in stopped.stderr
    assert left.exists() and not (tmp_path / "m").exists()
    assert run(*command, "--resume").exit_code == 0
    assert not left.exists() and (tmp_path / "m" / "README.md").exists()


def test_ctrl_c_in_a_search_is_gone_on_from_with_resume(small, tmp_path, monkeypatch):
    command = ["finetune", draw_folder(tmp_path / "photos", n=20), "--epochs", "1", "--out", tmp_path / "m"]
    monkeypatch.setattr(tlbook.training.search.np, "allclose", lambda *values: False)  # nothing is sure
    with monkeypatch.context() as patch:
        press_ctrl_c_in(patch, torch.optim.AdamW, "step")
        stopped = run(*command)
    assert stopped.exit_code == 130 and "the same command with --resume goes on from" in stopped.stderr, stopped.output
    assert not (tmp_path / "m").exists()
    done = run(*command, "--resume")
    assert done.exit_code == 0 and not (tmp_path / "m.checkpoint").exists(), done.output


def no_room(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_the_end_loses_no_training(photos, small, tmp_path, monkeypatch):
    command = ["finetune", photos, "--recipe", "head", "--epochs", "1", "--out", tmp_path / "m"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", no_room)
        failed = run(*command)
    assert failed.exit_code == 1 and f"MB are needed in {tmp_path}" in failed.stderr
    assert "the same command with --resume goes on" in failed.stderr and not (tmp_path / "m").exists()
    assert run(*command, "--resume").exit_code == 0


def test_two_trainings_with_one_out_are_not_started(photos, small, tmp_path):
    out, command = tmp_path / "m", ["finetune", photos, "--recipe", "head", "--epochs", "1", "--out", tmp_path / "m"]
    with cli._reserve(out, photos, Path(f"{out}.checkpoint"), resume=False):
        for options in ([], ["--resume"]):
            refused = run(*command, *options)
            words = f"is being trained to by process {os.getpid()} on {socket.gethostname()}: wait for it"
            assert refused.exit_code == 1 and words in refused.stderr
    assert not Path(f"{out}.checkpoint").exists()
    assert run(*command).exit_code == 0


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_training_that_was_killed_does_not_keep_its_folder(photos, small, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from tlbook import cli; out = Path(sys.argv[1])\n"
        "with cli._reserve(out, Path(sys.argv[2]), Path(f'{out}.checkpoint'), False): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m"), str(photos)])
    assert killed.returncode == -9 and (tmp_path / "m.checkpoint" / "owner").exists()
    done = run("finetune", photos, "--recipe", "head", "--epochs", "1", "--out", tmp_path / "m")
    assert done.exit_code == 0 and not (tmp_path / "m.checkpoint").exists(), done.output


@pytest.mark.skipif(shutil.which(str(TORCHRUN)) is None, reason="needs torchrun")
@pytest.mark.parametrize("options", [["--recipe", "head"], ["--lr", "1e-3", "--augment", "none"]], ids=["head", "auto"])
def test_under_torchrun_the_first_process_alone_writes_and_speaks(options, photos, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import tlbook, small\n"
        "network = small.tiny(); tlbook.load_backbone = lambda name: network\n"
        "from tlbook.cli import app; app()\n"
    )
    command = [TORCHRUN, "--standalone", "--nproc-per-node", "2", script, "finetune", photos]
    command += [*options, "--epochs", "1", "--out", tmp_path / "m"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TLBOOK_CACHE": str(tmp_path / "cache"), "TLBOOK_DEVICE": "cpu"}

    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("95 % intervals") == done.stdout.count("see README.md") == 1
    assert done.stdout.count("what was tried") == ("--lr" in options)
    assert {path.name for path in (tmp_path / "m").iterdir()} == WHOLE
    assert not (tmp_path / "m.checkpoint").exists()


def test_what_fails_in_the_first_process_ends_the_others_in_silence(capfd):
    class Group:
        is_first = False
        told = []

        def from_first(self, value):
            self.told.append(value)
            return None if not self.is_first else value

    def fail():
        raise ValueError("only the first says this")

    group = Group()
    with pytest.raises(typer.Exit), cli._silence_unless(group.is_first):
        print("nobody hears this")
        print("nor this", file=sys.stderr)
        cli._from_first(group, fail)
    group.is_first = True
    with pytest.raises(ValueError, match="only the first"):
        cli._from_first(group, fail)
    assert group.told == [None, None] and capfd.readouterr() == ("", "")  # the others are told in either case


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are Unicode there")
def test_names_that_are_not_utf_8_are_trained_on_and_come_back_as_they_are(small, tmp_path):
    photos = draw_folder(tmp_path / "photos", (os.fsdecode(b"caf\xe9"), "$a|b"))
    image = (photos / "$a|b" / "0.png").rename(photos / "$a|b" / os.fsdecode(b"na\xefve, 0.png"))
    done = run("finetune", photos, "--recipe", "head", "--epochs", "1", "--out", tmp_path / "m")
    assert done.exit_code == 0 and {path.name for path in (tmp_path / "m").iterdir()} == WHOLE, done.output
    done = run("predict", tmp_path / "m", photos, "--csv", tmp_path / "o.csv")
    assert done.exit_code == 0, done.output
    assert os.fsencode(image) in (tmp_path / "o.csv").read_bytes()
    assert len((tmp_path / "o.csv").read_bytes().splitlines()) == 17


def test_a_saved_folder_predicts_the_same_in_a_new_process(model, photos, tmp_path):
    elsewhere = tmp_path / "moved"
    shutil.copytree(model, elsewhere)
    command = [sys.executable, "-m", "tlbook", "predict", str(elsewhere), str(photos), "--csv", "out.csv"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "path,class,blue,red" and len(lines) == 17
    p = np.array([line.split(",")[2:] for line in lines[1:]], dtype=float)
    assert np.abs(p - tlbook.load_finetuned(model).predict(photos)).max() < 1e-6


def test_no_two_columns_of_predictions_share_a_name(tmp_path):
    for names, written in (
        (["class", "path"], ["p(class)", "p(path)"]),
        (["path", "p(path)"], ["p(p(path))", "p(path)"]),
        (["a", "p(a)"], ["a", "p(a)"]),
    ):
        cli._write_csv(tmp_path / "o.csv", ["x.png"], [("a", 0.25, 0.75)], names)
        header, row = (tmp_path / "o.csv").read_text().splitlines()
        assert header.split(",") == ["path", "class", *written] and row == "x.png,a,0.250000,0.750000"


def test_a_single_image_is_predicted(model, photos, tmp_path):
    image, csv = photos / "red" / "0.png", tmp_path / "o.csv"
    result = run("predict", model, image, "--csv", csv)
    assert result.exit_code == 0, result.output
    (row,) = csv.read_text().splitlines()[1:]
    assert row.split(",")[0] == str(image)
    assert np.allclose(
        [float(p) for p in row.split(",")[2:]], tlbook.load_finetuned(model).predict(image)[0], atol=1e-5
    )


def test_predict_counts_and_names_what_it_passes_over(model, tmp_path):
    photos = draw_folder(tmp_path / "new", n=2)
    (photos / "red" / "notes.txt").write_text("remember the milk")
    (photos / ".hidden").write_text("clutter")
    command = ["predict", model, photos, "--csv", tmp_path / "o.csv"]
    done = run(*command)
    assert done.exit_code == 0 and "4 images" in done.stdout
    assert done.stderr == f"Warning: 1 files passed over:\n  {photos / 'red' / 'notes.txt'} is not an image\n"
    (photos / "red" / "cut.png").write_bytes((photos / "red" / "0.png").read_bytes()[:99])
    refused = run(*command, "--force")
    assert refused.exit_code == 1 and "1 images cannot be read" in refused.stderr and "cut.png" in refused.stderr
    done = run(*command, "--force", "--skip")
    assert done.exit_code == 0 and "Warning: 1 images passed over" in done.stderr and "cut.png" in done.stderr
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 5


def test_damaged_exif_is_no_warning_for_every_image(model, photos, tmp_path):
    for i in range(3):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{i}.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        images.read(tmp_path / "0.jpg")
    done = run("predict", model, tmp_path, "--csv", tmp_path.parent / f"{tmp_path.name}.csv")
    assert done.exit_code == 0 and "3 images" in done.stdout and done.stderr == "", done.output


def test_features_are_written_to_a_file_or_into_a_folder(photos, small, tmp_path):
    for out in (tmp_path / "new" / "features", tmp_path):
        result = run("extract", photos, "--out", out)
        assert result.exit_code == 0, result.output
    for written in (tmp_path / "new" / "features", tmp_path / "features.safetensors"):
        assert tlbook.load_features(written).X.shape == (16, tiny().num_features)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are Unicode there")
def test_a_file_name_that_cannot_be_printed_ends_nothing(photos, small, tmp_path):
    done = run("extract", photos, "--out", tmp_path / os.fsdecode(b"caf\xe9"))
    assert done.exit_code == 0 and "caf\\udce9: 16 × " in done.stdout


def test_a_file_is_replaced_only_by_force(model, photos, small, tmp_path):
    out = tmp_path / "mine"
    for command in (
        ["predict", model, photos, "--csv", out],
        ["export", model, "--out", out],
        ["extract", photos, "--out", out],
    ):
        out.write_text("my only copy")
        refused = run(*command)
        assert refused.exit_code == 1 and "exists: choose another, or replace it with --force" in refused.stderr
        assert out.read_text() == "my only copy"
        assert run(*command, "--force").exit_code == 0
        assert out.read_bytes() != b"my only copy"


def test_predictions_may_lie_beside_the_images_they_are_of(model, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "new")
    for force in ([], ["--force"]):
        done = run("predict", model, tmp_path / "new", "--csv", tmp_path / "new" / "out.csv", *force)
        assert done.exit_code == 0, done.output
        assert len((tmp_path / "new" / "out.csv").read_text().splitlines()) == 17


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "predict {model} {photos}/red/0.png --csv {photos}/red/0.png",
        "predict {model} {photos} --csv {photos}/red/0.png",
        "predict {model} {photos} --csv {link}/red/0.png",
        "predict {model} {photos} --csv {model}/model.json",
        "predict {model} {link}/red/0.png --csv {image}",
        "export {model} --out {model}/model.safetensors",
        "export {model} --out {model}/model.onnx",
        "export {model} --page {model}/site",
        "extract {photos} --out {photos}/f.safetensors",
        "extract {photos} --out {photos}",
        "extract {table} --out {table}",
        "extract {table} --out {photos}/red/0.png",
        "suspect {photos} --out {photos}/red/s.html",
        "suspect {photos} --labels {table} --out {table}",
        "suspect {photos} --groups {table} --out {table}",
        "suspect {table} --out {photos}/red/0.png",
        "finetune {photos} --out {link}/m",
    ],
)
def test_what_a_command_reads_is_never_written_to_whatever_force(command, model, photos, small, tmp_path):
    places = {name: tmp_path / name for name in ("photos", "model", "table", "link", "image")}
    shutil.copytree(photos, places["photos"])
    shutil.copytree(model, places["model"])
    places["link"].symlink_to(places["photos"])
    places["image"].symlink_to(places["photos"] / "red" / "0.png")
    places["table"] = tmp_path / "labels.csv"
    names = sorted(path.relative_to(tmp_path).as_posix() for path in places["photos"].rglob("*.png"))
    places["table"].write_text("path,label\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in names))
    before = contents(tmp_path)
    force = [] if "finetune" in command or "--page" in command else ["--force"]
    refused = run(*command.format(**places).split(), *force)
    assert refused.exit_code == 1 and "which is read: choose another" in refused.stderr, refused.output
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "command, says",
    [
        ("finetune {photos} --out {here}/m --recipe magic", "recipe must be one of"),
        ("finetune {photos} --out {here}/m --minutes nan", "minutes must be above 0"),
        ("finetune {photos} --out {here}/m --recipe head --epochs 0", "epochs must be"),
        ("finetune {photos} --out {here}/m --recipe head --lr -1", "lr must be above 0"),
        ("finetune {photos} --out {here}/m --seed -1", "seed must be"),
        ("finetune {photos} --out {here}/m --fit stretch", "fit must be one of"),
        ("finetune {photos} --out {here}/m --augment colour", "--augment must be"),
        ("finetune {photos} --out {here}/m --backbone no_such_net", "no backbone is called 'no_such_net'"),
        ("extract {photos} --out {here}/f --backbone no_such_net", "no backbone is called 'no_such_net'"),
        ("extract {photos} --out {here}/f --fit stretch", "fit must be one of"),
        ("suspect {photos} --backbone no_such_net", "no backbone is called 'no_such_net'"),
        (
            "predict {model} {photos} --csv {here}/o.csv --cost green=2",
            "--cost names 'green', and the classes are blue",
        ),
        ("predict {model} {photos} --csv {here}/o.csv --cost red", "--cost must be CLASS=PRICE"),
        ("predict {model} {photos} --csv {here}/o.csv --cost red=0", "--cost red must be above 0"),
        ("predict {model} {photos} --csv {here}/o.csv --cost red=1 --cost red=2", "--cost names 'red' twice"),
        ("predict {model} {photos} --csv {here}/o.csv --cost red=2", "saved without enough validation examples"),
        ("export {model} --out {here}/o.onnx --page {here}/site", "leave one of them out"),
    ],
)
def test_arguments_are_checked_before_an_image_is_decoded(command, says, model, photos, small, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_open", lambda path, use: pytest.fail(f"{path} was decoded"))
    refused = run(*command.format(model=model, photos=photos, here=tmp_path).split())
    assert refused.exit_code == 1 and refused.stderr.startswith("Error: ") and says in refused.stderr, refused.output
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


@pytest.mark.parametrize("given", ["folder", "table", "labels", "arrays", "parts"])
def test_the_remedy_for_look_alikes_is_one_that_what_was_given_has(given, photos, tmp_path):
    folder, labels = photos, None
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = "path,label\n" + "".join(f"{photos / name},{name.split('/')[0]}\n" for name in names)
    (tmp_path / "labels.csv").write_text(rows)
    if given == "table":
        folder = tmp_path / "labels.csv"
    elif given == "labels":
        labels = tmp_path / "labels.csv"
    elif given == "arrays":
        folder = tmp_path / "a.npz"
        np.savez(folder, X=np.zeros((16, 32, 32), np.uint8), y=np.arange(16) % 2)
    elif given == "parts":
        folder = tmp_path / "parts"
        shutil.copytree(photos, folder / "train")
        shutil.copytree(photos, folder / "test")
    says = {
        "folder": "keep such images in one group of --groups",
        "table": "give such images one value in a column 'group'",
        "labels": "give such images one value in a column 'group'",
        "arrays": "give such images one value in an array 'group'",
        "parts": "move one of the two to the part of the other",
    }
    pairs = [{"test": "a", "seen": "b"}]
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match=says[given]):
        patch.setattr(tlbook.data, "near_duplicates", lambda *_: pairs)
        cli._data_and_split(folder, None, labels, False, 0)


def test_a_model_is_exported_to_the_current_folder_unless_told_otherwise(model, tmp_path, monkeypatch):
    written = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tlbook.training.classifier.FineTuned, "export", lambda self, path: written.append(path) or 0.0)
    result = run("export", model)
    assert result.exit_code == 0 and result.stdout.startswith("model.onnx: for images of "), result.output
    assert written == [Path("model.onnx")]


@pytest.mark.parametrize(
    "command, says",
    [
        ("predict {here}/none {photos} --csv {here}/o.csv", "model.json does not exist"),
        ("predict {model} {here}/none --csv {here}/o.csv", "none does not exist"),
        ("predict {model} {here}/file --csv {here}/o.csv", "file is not readable as an image"),
        ("predict {model} {here}/file --csv {here}/o.csv", "give images or a folder of them"),
        ("predict {model} {model} --csv {here}/o.csv", "has no images in it"),
        ("predict {model} {photos} --csv {here}", "is a folder: name a file"),
        ("predict {model} {photos} --csv {here}/file", "exists: choose another"),
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
        ("finetune {photos} --out {photos}/m", "/m would lie in {photos}, which is read"),
        ("finetune {photos} --backbone no_such_net --out {here}/m", "no backbone is called 'no_such_net'"),
        ("finetune {photos} --recipe magic --out {here}/m", "recipe must be one of"),
        ("finetune {photos} --augment colour --out {here}/m", "--augment must be none, photo, flips or dihedral"),
        ("finetune {photos} --groups {here}/none --out {here}/m", "Error: {here}/none does not exist"),
        ("finetune {photos} --groups {photos} --out {here}/m", "cannot be read as a CSV file (Is a directory)"),
        ("finetune {photos} --groups {here}/file --out {here}/m", "must have a first line that names each column"),
        ("finetune {here}/file --out {here}/m", "is none of what is taken: a folder"),
        ("finetune {photos} --epochs 0 --out {here}/m", "epochs must be"),
        ("finetune {photos} --minutes 0 --out {here}/m", "minutes must be above 0"),
        ("finetune {photos} --recipe head --minutes 5 --out {here}/m", "--minutes is the clock of --recipe auto"),
        ("finetune {photos} --fit stretch --out {here}/m", "fit must be one of crop, squeeze, pad"),
        ("finetune {photos} --labels {here}/file --out {here}/m", "must have a first line that names each column"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, photos, model, small, command, says):
    (tmp_path / "file").write_text("neither an image nor a folder")
    places = {"here": tmp_path, "photos": photos, "model": model}
    result, says = run(*command.format(**places).split()), says.format(**places)
    assert result.exit_code == 1 and result.stderr.startswith("Error: ") and says in result.stderr, result.output
    assert result.stderr.count("\n") == 1 + (says == "has no images in it") * 3  # and which files it has
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["file"]


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


def test_resnet18_through_the_command_line(official_resnet18, photos, tmp_path):
    model, csv = tmp_path / "model", tmp_path / "o.csv"
    command = ["finetune", photos, "--backbone", "resnet18", "--recipe", "head", "--epochs", "1", "--out", model]
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert "# resnet18, fine-tuned: blue, red" in (model / "README.md").read_text()
    given = torch.load(official_resnet18, weights_only=True)["layer4.1.conv2.weight"]
    assert torch.equal(tlbook.load_finetuned(model).model.model.layer4[1].conv2.weight.cpu(), given)
    done = run("predict", model, photos, "--csv", csv)
    assert done.exit_code == 0 and len(csv.read_text().splitlines()) == 17
    official_resnet18.write_bytes(official_resnet18.read_bytes()[:-1])
    command[-1] = tmp_path / "other"
    refused = run(*command)
    assert refused.exit_code == 1 and refused.stderr.count("\n") == 1 and not (tmp_path / "other").exists()
    assert f"{official_resnet18} is damaged: its SHA-256 begins" in refused.stderr


def test_photographs_through_the_command_line(folder, tmp_path):
    """With everything left out but the time: the default backbone, its real weights, the default recipe."""
    done = run("finetune", folder, "--out", tmp_path / "m", "--minutes", "0.1")
    assert done.exit_code == 0, done.output
    assert "Kept: probe" in done.stdout and "LP-FT at 1e-4" in done.stdout
    tried = json.loads((tmp_path / "m" / "model.json").read_text())["model"]["tried"]
    assert sum(row["kept"] for row in tried) == 1 and tried[0]["name"] == "probe"
    assert json.loads((tmp_path / "m" / "model.json").read_text())["scores"]["auc"]["value"] > 0.95
    assert "Apache-2.0" in (tmp_path / "m" / "README.md").read_text()
