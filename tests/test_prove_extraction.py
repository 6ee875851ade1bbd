"""The long proofs of feature extraction: ten times the images take ten times as long and no more memory; ten kills."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tlbook as tl

EXTRACT = """
import json, os, sys, time
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import PILToTensor
import tlbook as tl
from tlbook.course.runner import PeakMemory

backbone = tl.load_backbone()
data = tl.data.from_dataset(ImageFolder(sys.argv[1], PILToTensor()))
tl.extract(backbone, data.subset(range(64)), cache=False)  # warm up: the network is compiled
with PeakMemory() as memory:
    memory.watch(os.getpid())
    start = time.perf_counter()
    features = tl.extract(backbone, data)
    seconds = time.perf_counter() - start
print(json.dumps([len(features.X), seconds, memory.peak]))
"""


@pytest.mark.prove
def test_ten_times_the_images_take_ten_times_as_long_and_no_more_memory(tmp_path):
    cells = tl.data.solar_cells(96)
    found = {}
    for copies in (1, 10):
        folder = tmp_path / str(copies) / "cells"
        folder.mkdir(parents=True)
        for i, (image, _) in enumerate(cells):
            if copies == 1:
                Image.fromarray(image[0].numpy()).convert("RGB").save(folder / f"{i}_0.png")
            else:
                for copy in range(copies):
                    os.link(tmp_path / "1" / "cells" / f"{i}_0.png", folder / f"{i}_{copy}.png")
        environment = os.environ | {"TLBOOK_CACHE": str(tmp_path / "cache"), "TLBOOK_ENGINE": "openvino"}
        command = [sys.executable, "-c", EXTRACT, str(folder.parent)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found[copies] = json.loads(run.stdout)
    print(found)
    assert [found[k][0] for k in found] == [2624, 26240]
    assert 8 < found[10][1] / found[1][1] < 12
    assert found[10][2] < 1.1 * found[1][2]


INTERRUPTED = """
import os, signal, sys
import tlbook as tl
from tlbook import cache, loading

cache.SAVE_SECONDS = 1
data, backbone = tl.data.solar_cells(300), tl.load_backbone()
read, read_input = [0], loading.read_input


def counted(*arguments):
    read[0] += 1
    if sys.argv[1:] == [str(read[0])]:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_input(*arguments)


loading.read_input = counted
views = ("identity", "hflip", "vflip", "rot90")
features = tl.extract(backbone, data, views=views, precision="float32")
features.save("features.safetensors")
print(read[0])
"""


@pytest.mark.prove
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_an_extraction_that_was_killed_ten_times_equals_the_one_that_never_was(tmp_path):
    def run(cache, *last_image):
        environment = os.environ | {"TLBOOK_CACHE": str(tmp_path / cache)}
        command = [sys.executable, "-c", INTERRUPTED, *map(str, last_image)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    whole = run("whole")
    assert whole.returncode == 0, whole.stderr
    never = tl.load_features(tmp_path / "features.safetensors").X
    kills = np.random.default_rng().integers(150, 260, 10)  # so many images are read before each
    for read in kills:
        assert run("killed", read).returncode == -signal.SIGKILL, f"killed after {kills}"
        assert list((tmp_path / "killed" / "features").glob("*.partial"))
    last = run("killed")
    assert last.returncode == 0, last.stderr
    print(f"images read by a run that was never killed: {whole.stdout.strip()}; by the one after ten: {last.stdout}")
    assert int(last.stdout) < int(whole.stdout) and len(never) == 2624
    assert np.array_equal(tl.load_features(tmp_path / "features.safetensors").X, never)
