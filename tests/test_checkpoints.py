"""A run is one run however it is cut up, and a checkpoint is of one run only."""

import math
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from small import DATA, RUN, SPLIT, dropping, same, tiny

import tlbook as tl
from tlbook import fine_tuning
from tlbook.data import Split
from tlbook.training import run

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


def die_at(step, folder):
    torch.set_num_threads(1)
    os.environ["TLBOOK_DEVICE"] = "cpu"
    os.environ["TLBOOK_CACHE"] = str(folder.parent / "cache")
    schedule = fine_tuning.schedule

    def counted(now, steps):
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return schedule(now, steps)

    fine_tuning.schedule, run.CHECKPOINT_SECONDS = counted, 0
    tl.finetune(dropping(), DATA, SPLIT, **RUN, checkpoint=folder, resume=True)


def kill_and_resume(folder, steps, whole):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tlbook.fine_tuning", "tlbook.backbones", "timm", "sklearn.utils"])
    for step in steps:
        child = context.Process(target=die_at, args=(step, folder))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    resumed = tl.finetune(dropping(), DATA, SPLIT, **RUN, checkpoint=folder, resume=True)
    assert same(whole, resumed) and whole.epoch == resumed.epoch
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {k: str(v) for k, v in a.items() if k != "seconds"} == {
            k: str(v) for k, v in b.items() if k != "seconds"
        }


STEPS = RUN["epochs"] * math.ceil(len(SPLIT.train) / RUN["batch_size"])


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_run_killed_at_a_random_step_and_resumed_is_the_run_never_interrupted(tmp_path):
    whole = tl.finetune(dropping(), DATA, SPLIT, **RUN)
    kill_and_resume(tmp_path / "early", [1], whole)  # in the epoch of the head alone, whose features drop out
    kill_and_resume(tmp_path / "run", [np.random.default_rng().integers(2, STEPS)], whole)


@pytest.mark.prove
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_ten_runs_killed_at_random_steps_each_end_with_the_same_weights(tmp_path):
    whole = tl.finetune(dropping(), DATA, SPLIT, **RUN)
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    for i, first in enumerate(np.random.default_rng(seed).integers(0, STEPS - 1, 10)):
        print("killed at steps", first, first + 1)
        kill_and_resume(tmp_path / str(i), [first, first + 1], whole)


def test_a_checkpoint_is_of_one_run_only(tmp_path):
    tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="resume=True goes on"):
        tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    others = [({"lr": 2e-3}, "lr"), ({"recipe": "full"}, "recipe"), ({"objective": tl.Objective(l2_sp=1)}, "objective")]
    for other, named in others:
        with pytest.raises(ValueError, match=f"a run with other {named}"):
            tl.finetune(tiny(), DATA, SPLIT, **(RUN | other), checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="other backbone"):
        tl.finetune(tiny(seed=1), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="give checkpoint="):
        tl.finetune(tiny(), DATA, SPLIT, **RUN, resume=True)


def test_a_checkpoint_knows_which_examples_validated(tmp_path):
    tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    rows = np.concatenate(SPLIT[:2])
    other = Split(rows[:-5], rows[-5:], SPLIT.test)
    with pytest.raises(ValueError, match="other labels, weights, split"):
        tl.finetune(tiny(), DATA, other, **RUN, checkpoint=tmp_path, resume=True)
