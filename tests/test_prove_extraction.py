"""The long proof of feature extraction: ten times the images on disk take ten times as long, and no more memory."""

import json
import os
import subprocess
import sys

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
tl.extract(backbone, data.subset(range(64)), cache=False)  # warm up
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
        environment = os.environ | {"TLBOOK_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", EXTRACT, str(folder.parent)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found[copies] = json.loads(run.stdout)
    print(found)
    assert [found[k][0] for k in found] == [2624, 26240]
    assert 8 < found[10][1] / found[1][1] < 12
    assert found[10][2] < 1.1 * found[1][2]
