"""The long proof of your own images: 100,000 files take the memory of 2,000, and Ctrl-C loses and spoils nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tlbook as tl
from tlbook.course.runner import PeakMemory
from tlbook.training import checkpoints

pytestmark = [pytest.mark.prove, pytest.mark.skipif(os.name == "nt", reason="signals differ")]

MANY, FEW = 100_000, 2_000
WHOLE = {"model.safetensors", "model.json", "decisions.safetensors", "README.md"}
WHOLE |= {"confusion_matrix.png", "worst_mistakes.png"}


def write_images(root, n):
    """``n`` JPEG files of 64 px in two classes: soft noise, redder or greener."""
    for k, name in enumerate(("red", "green")):
        (root / name).mkdir(parents=True)
        for i in range(k, n, 2):
            pixels = np.random.default_rng(i).integers(0, 196, (8, 8, 3), dtype=np.uint8)
            pixels[..., k] += 60
            Image.fromarray(pixels).resize((64, 64)).save(root / name / f"{i}.jpg")
    return root


@dataclass
class Finetune:
    """``tlbook finetune`` as a program of its own, in a folder of its own."""

    images: Path
    folder: Path
    epochs: int
    code: int = 0
    peak: int = 0

    @contextmanager
    def run(self, *options):
        """Start it; at the end of the block wait for it."""
        command = [sys.executable, "-m", "tlbook", "finetune", str(self.images), "--recipe", "head", *options]
        command += ["--epochs", str(self.epochs), "--out", str(self.folder / "model")]
        environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
        environment["TLBOOK_CACHE"] = str(self.folder / "cache")
        self.folder.mkdir(exist_ok=True)
        self.log, start = self.folder.with_suffix(".log"), time.monotonic()
        with self.log.open("w") as log, PeakMemory() as memory:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                memory.watch(self.process.pid)
                yield self
                self.code = self.process.wait(3600)
            finally:
                self.process.kill()
        self.peak = memory.peak
        print(self.folder.name, *options, f"{time.monotonic() - start:.0f} s, {self.peak / 1e6:.0f} MB")

    def press_ctrl_c_at(self, progress):
        """Wait until the bar ``progress`` has moved from 0, press, and return the seconds until the program ends."""
        while not re.search(rf"{progress}(: [^\r\n]*\|)? *[1-9]\d*/", self.said()):
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)
        self.process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        self.process.wait(60)
        return time.monotonic() - pressed

    def said(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def left(self):
        """Every file that the program wrote and left."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    def last_line(self):
        return re.split(r"[\r\n]+", self.said().strip())[-1].strip()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("many") / "images", MANY)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A training on few images that nothing interrupted."""
    root = tmp_path_factory.mktemp("few")
    program = Finetune(write_images(root / "images", FEW), root / "whole", epochs=20)
    with program.run():
        pass
    assert program.code == 0, program.said()
    return program


@pytest.mark.parametrize("when", ["checking images", "frozen part, once"])
def test_ctrl_c_before_training_ends_at_once_with_a_line_and_leaves_nothing(many, tmp_path, when):
    program = Finetune(many, tmp_path / "stopped", epochs=2)
    with program.run():
        seconds = program.press_ctrl_c_at(when)
    assert program.code == 130 and seconds < 10 and program.left() == set()
    assert program.last_line() == "Stopped by Ctrl-C: nothing half-written is left"
    assert "Traceback" not in program.said()


def test_a_training_stopped_and_resumed_ends_with_the_weights_of_one_never_stopped(few, tmp_path):
    program = Finetune(few.images, tmp_path / "stopped", few.epochs)
    with program.run():
        program.press_ctrl_c_at("fine-tuning")
    assert program.code == 130 and program.left() == {"model.checkpoint/checkpoint.safetensors"}
    with program.run("--resume"):
        program.press_ctrl_c_at("predicting")  # it is trained, and about to be tested and saved
    assert program.code == 130 and program.left() == {"model.checkpoint/checkpoint.safetensors"}
    with program.run("--resume"):
        pass
    assert program.code == 0 and program.left() == {f"model/{name}" for name in WHOLE}
    one, other = (checkpoints.read(p.folder / "model" / "model.safetensors") for p in (few, program))
    assert one[0].keys() == other[0].keys() and all(torch.equal(one[0][k], other[0][k]) for k in one[0])
    assert one[1]["epoch"] == other[1]["epoch"] > 0


def test_fifty_times_the_images_take_no_more_memory_show_progress_and_survive_ctrl_c(few, many, tmp_path):
    program = Finetune(many, tmp_path / "stopped", epochs=2)
    with program.run():
        program.press_ctrl_c_at("fine-tuning")
    peak = program.peak
    assert program.code == 130 and program.left() == {"model.checkpoint/checkpoint.safetensors"}
    assert "the same command with --resume goes on" in program.last_line()
    with program.run("--resume"):
        pass
    assert program.code == 0 and program.left() == {f"model/{name}" for name in WHOLE}
    for bar in ("checking images", "frozen part, once", "fine-tuning", "predicting"):
        assert re.search(rf"{bar}(: +\d+%| +\d+/)", program.said()), bar
    found = tl.load_finetuned(program.folder / "model")
    assert found.history[-1]["epoch"] == 2 and found.history[-1]["val loss"] < found.history[0]["val loss"]
    assert max(peak, program.peak) < 1.2 * few.peak
