"""Two processes do the work of one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import DATA, SPLIT, tiny

import tlbook as tl
from tlbook.training.recipes import Full

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


TORCHRUN = Path(sys.executable).with_name("torchrun")


TWO = {"recipe": Full(until="layer1", freeze_batchnorm=True), "epochs": 5, "lr": 1e-3, "batch_size": 12}


@pytest.mark.skipif(shutil.which(str(TORCHRUN)) is None, reason="needs torchrun")
def test_two_processes_reach_the_loss_curve_of_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch, tlbook as tl, small as t, test_processes\n"
        "from torch import distributed\n"
        "torch.set_num_threads(1)\n"
        "objective = tl.Objective(l2_sp=.1, class_weight='balanced')\n"
        "options = test_processes.TWO | {'objective': objective, 'checkpoint': sys.argv[1]}\n"
        "found = tl.finetune(t.tiny(), t.DATA, t.SPLIT, **options)\n"
        "assert distributed.get_world_size() == 2\n"
        "if distributed.get_rank() == 0: found.save(sys.argv[2])\n"
        "try: tl.finetune(t.tiny(), t.DATA, t.SPLIT, recipe='full')\n"
        "except ValueError as error: assert 'freeze_batchnorm=True' in str(error)\n"
        "else: raise SystemExit('BatchNorm by process went unnoticed')\n"
        "distributed.destroy_process_group()\n"
    )
    command = [str(TORCHRUN), "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    folders = [str(tmp_path / "checkpoint"), str(tmp_path / "model")]
    done = subprocess.run([*command, *folders], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = tl.load_finetuned(tmp_path / "model")
    one = tl.finetune(tiny(), DATA, SPLIT, **TWO, objective=tl.Objective(l2_sp=0.1, class_weight="balanced"))
    for a, b in zip(one.history, two.history, strict=True):
        for key in ("train loss", "val loss"):
            assert a[key] == pytest.approx(b[key], rel=1e-3, nan_ok=True)
    assert np.allclose(one.predict(DATA), two.predict(DATA), atol=1e-3)
