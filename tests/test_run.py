"""A run stops when it must, keeps what is good, and says what went wrong."""

import math
import signal

import numpy as np
import pytest
import torch
from small import DATA, FAST, NO_VAL, RUN, SPLIT, same, tiny

import tlbook as tl
from tlbook import fine_tuning
from tlbook.backbones import Backbone
from tlbook.training import batches, run
from tlbook.training.recipes import Full, Surgical

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


def test_ctrl_c_stops_after_the_step_and_the_run_can_go_on(tmp_path, monkeypatch, capsys):
    schedule = fine_tuning.schedule

    def press(step, steps):
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return schedule(step, steps)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(fine_tuning, "schedule", press)
    stopped = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    assert "stopped at step 5" in capsys.readouterr().out and not stopped.finished
    assert signal.getsignal(signal.SIGINT) is before
    losses = [row["val loss"] for row in stopped.history]
    assert stopped.evaluate(DATA, SPLIT.val).log_loss == pytest.approx(min(losses), rel=1e-4)
    monkeypatch.setattr(fine_tuning, "schedule", schedule)
    resumed = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    assert resumed.finished and same(resumed, tl.finetune(tiny(), DATA, SPLIT, **RUN))
    again = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    assert same(resumed, again)


def test_ctrl_c_is_noticed_where_an_epoch_is_one_step(monkeypatch):
    schedule = fine_tuning.schedule

    def press(step, steps):
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return schedule(step, steps)

    monkeypatch.setattr(fine_tuning, "schedule", press)
    stopped = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"batch_size": 64, "epochs": 5}))
    assert stopped.stopped == "Ctrl-C" and [row["epoch"] for row in stopped.history] == [0, 1, 2]


def test_ctrl_c_before_the_first_step_ends_at_once(tmp_path, monkeypatch):
    prepared, collate = [], Backbone.collate

    def press(self, inputs):
        if not prepared:
            signal.raise_signal(signal.SIGINT)
        prepared.append(len(inputs))
        return collate(self, inputs)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Backbone, "collate", press)
    monkeypatch.setattr(batches, "eval_batch_size", lambda device: 8)
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"recipe": "head"}), augment=None, checkpoint=tmp_path)
    assert sum(prepared) <= 8 and not any(tmp_path.iterdir()) and signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_a_later_prefix_is_stored_returns_the_best_so_far_and_the_run_can_go_on(tmp_path, monkeypatch):
    stores, store = [], batches.Batches.store

    def press(*args, **options):
        stores.append(args)
        if len(stores) == 2:
            signal.raise_signal(signal.SIGINT)
        return store(*args, **options)

    whole = tl.finetune(tiny(), DATA, SPLIT, **RUN)
    monkeypatch.setattr(batches.Batches, "store", press)
    stopped = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    assert not stopped.finished and [row["epoch"] for row in stopped.history] == [0, 1]
    assert same(whole, tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True))


def test_a_second_ctrl_c_does_not_wait_for_the_step(monkeypatch):
    def press_twice(step, steps):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the step went on")

    monkeypatch.setattr(fine_tuning, "schedule", press_twice)
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(tiny(), DATA, SPLIT, **RUN)


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_advice(tmp_path):
    with pytest.raises(RuntimeError, match=r"not finite at step \d+, with the learning rate .*try lr="):
        backbone = tiny()
        backbone.model.layer4[0].conv1.weight.data[0] = math.nan
        tl.finetune(backbone, DATA, NO_VAL, **FAST, checkpoint=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="output for a validation example is not finite at step 0"):
        tl.finetune(backbone, DATA, SPLIT, **FAST)


def test_a_gradient_that_is_not_finite_stops_the_step_it_appears_in():
    backbone = tiny()
    backbone.model.layer4.register_forward_hook(lambda m, i, z: z + (z - z.detach()).abs().sqrt())  # ∞ · 0
    with pytest.raises(RuntimeError, match="the gradient is not finite at step 1"):
        tl.finetune(backbone, DATA, SPLIT, **FAST)


def test_a_start_that_is_good_is_not_lost_to_a_loss_that_diverges():
    with pytest.warns(UserWarning, match=r"at step \d+, with the learning rate .*the weights are those of epoch 0"):
        found = tl.finetune(tiny(), DATA, SPLIT, recipe="lp_ft", epochs=9, lr=1e3, batch_size=8)
    assert not found.finished and "try lr=" in found.stopped and found.epoch == 0
    assert all(torch.equal(tensor, found.start[name]) for name, tensor in found.model.state_dict().items())


def test_a_run_without_validation_keeps_its_weights_through_a_loss_that_diverges_also_when_it_was_resumed(
    tmp_path, monkeypatch
):
    rate, options = fine_tuning.schedule, FAST | {"recipe": "full", "epochs": 3, "lr": 1e-3}
    monkeypatch.setattr(fine_tuning, "schedule", lambda step, steps: 1e9 if step > 5 else rate(step, steps))
    with pytest.warns(UserWarning, match="the weights are those of epoch"):
        whole = tl.finetune(tiny(), DATA, NO_VAL, **options)
    assert whole.epoch > 0

    def killed(self, epoch):
        end_epoch(self, epoch)
        raise SystemExit

    end_epoch = run.Run.end_epoch
    monkeypatch.setattr(run.Run, "end_epoch", killed)
    with pytest.raises(SystemExit):
        tl.finetune(tiny(), DATA, NO_VAL, **options, checkpoint=tmp_path)
    monkeypatch.setattr(run.Run, "end_epoch", end_epoch)
    with pytest.warns(UserWarning, match="the weights are those of epoch"):
        resumed = tl.finetune(tiny(), DATA, NO_VAL, **options, checkpoint=tmp_path, resume=True)
    assert same(whole, resumed) and resumed.epoch == whole.epoch


def test_numbers_that_mean_the_same_are_taken():
    a = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"epochs": 3.0, "batch_size": np.int64(8)}), clip=None)
    assert same(a, tl.finetune(tiny(), DATA, SPLIT, **FAST, clip=math.inf))


def test_a_loss_that_diverges_stops():
    with pytest.raises(RuntimeError, match=r"(diverges|not finite).*at step \d+, with the learning rate"):
        tl.finetune(tiny(), DATA, SPLIT, recipe="head", epochs=20, lr=1e4, batch_size=8)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"recipe": "best"}, "recipe must be one of head, full"),
        ({"recipe": Surgical(stage="layer9")}, "no stage 'layer9'"),
        ({"recipe": Full(until="final")}, "has no parameters"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"accumulate": 30}, "too few"),
        ({"epochs": "3"}, "epochs must be"),
        ({"epochs": None}, "epochs must be"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": "1e-4"}, "lr must be above 0 and finite, and a number, got '1e-4'"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"clip": -1}, "clip must be above 0"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"augment": ["flips"]}, "augment must be one of"),
        ({"objective": "l2"}, "objective must be"),
        ({"augment": "colour"}, "augment must be one of"),
        ({"precision": "float8"}, "precision must be"),
    ],
)
def test_an_argument_that_makes_no_sense_is_an_error(wrong, says):
    with pytest.raises(ValueError, match=says):
        tl.finetune(tiny(), DATA, SPLIT, **(FAST | wrong))


def test_a_split_that_makes_no_sense_is_an_error():
    for split, says in (
        (SPLIT._replace(val=SPLIT.train[:3]), "in train and in val"),
        (SPLIT._replace(test=SPLIT.train[:3]), "in train and in test"),
        (SPLIT._replace(val=SPLIT.test[:3]), "in val and in test"),
        (SPLIT._replace(test=np.array([48])), "split.test must hold integers from 0 to 47"),
        (SPLIT._replace(train=SPLIT.train / 2), "split.train must hold integers"),
        (SPLIT._replace(train=SPLIT.train[:0]), "without a training example"),
        (SPLIT._replace(train=SPLIT.train[DATA.labels[SPLIT.train] == 0]), r"without a training example: \['b'\]"),
    ):
        with pytest.raises(ValueError, match=says):
            tl.finetune(tiny(), DATA, split, **FAST)


def test_seeds_of_different_steps_and_ranks_differ():
    found = {run.seed_of(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)}
    assert len(found) == 180


@pytest.mark.parametrize(
    "of_true_class, epoch",
    [
        ([0.5, 0.5001], 0),  # the mean gain is there, but one group makes it
        ([0.5, 0.6], 1),
        ([0.5, 0.4, 0.7, 0.65], 2),
    ],
)
def test_a_probe_is_given_up_only_for_what_is_better_by_more_than_a_standard_error(monkeypatch, of_true_class, epoch):
    labels, p = DATA.labels[SPLIT.val], iter(of_true_class)

    def seen(network, batches, K, examples):
        q = np.full(len(labels), next(p))
        if q[0] == 0.5001:
            q[-1], q[-2] = 0.9, 0.4
        return np.where(np.arange(K) == labels[:, None], q[:, None], 1 - q[:, None])

    monkeypatch.setattr(run, "probabilities", seen)
    found = tl.finetune(tiny(), DATA, SPLIT, recipe="lp_ft", epochs=len(of_true_class) - 1, batch_size=8)
    assert found.epoch == epoch


def test_how_sure_a_gain_is_counts_the_groups_and_not_their_examples():
    gain = np.random.default_rng(0).normal(size=6)
    truth = pytest.approx((gain.mean(), gain.std(ddof=1) / math.sqrt(6)))
    assert run.mean_and_error(gain, np.ones(6), None) == truth
    assert run.mean_and_error(gain, np.ones(6), np.zeros(6)) == truth  # a single group: its examples are all there is
    fifty = np.repeat(gain, 50)
    assert run.mean_and_error(fifty, np.full(300, 3.0), np.repeat(np.arange(6), 50)) == truth
    assert run.mean_and_error(fifty, np.ones(300), None)[1] < truth.expected[1] / 6


def test_a_head_that_nothing_has_trained_is_never_kept(monkeypatch):
    data = tl.data.solar_cells(64).subset(range(300))
    split = tl.data.Split(np.arange(0, 200), np.arange(200, 300), np.arange(0))
    of_true_class = iter((0.9, 0.1, 0.3))  # what validation sees at the start and after each epoch

    def seen(network, batches, K, examples):
        p = next(of_true_class)
        return np.where(np.arange(K) == data.labels[split.val][:, None], p, 1 - p)

    monkeypatch.setattr(run, "probabilities", seen)
    found = tl.finetune(tl.load_backbone(), data, split, recipe="head", epochs=2, augment=None)
    assert np.argmin([row["val loss"] for row in found.history]) == 0 and found.epoch == 2


def test_a_backbone_of_which_nothing_may_learn_is_refused_but_for_its_head():
    frozen = tiny().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the backbone requires a gradient"):
        tl.finetune(frozen, DATA, SPLIT, **(FAST | {"recipe": "lp_ft"}))
    assert tl.finetune(frozen, DATA, SPLIT, **(FAST | {"recipe": "head"})).epoch


def test_a_copy_of_the_weights_shares_what_is_as_before_and_nothing_else():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    start = run.state_of(model)
    with torch.no_grad():
        model[1].weight += 1
    best = run.state_of(model, start)
    with torch.no_grad():
        model[0].weight += 1  # a copy does not follow the model

    assert best["0.weight"] is start["0.weight"] and torch.equal(model[0].weight, start["0.weight"] + 1)
    assert torch.equal(best["1.weight"], start["1.weight"] + 1) and best["1.weight"] is not model[1].weight


def test_what_the_caller_froze_stays_frozen_whatever_the_recipe():
    backbone = tiny()
    tl.freeze(backbone, until="layer1")
    found = tl.finetune(backbone, DATA, NO_VAL, **(FAST | {"recipe": "full"}))
    moved = {name for name, t in found.model.state_dict().items() if not torch.equal(t, found.start[name])}
    assert moved and not any(".layer1." in name or ".conv1." in name and "layer" not in name for name in moved)
    assert any(".layer4." in name and "running_mean" in name for name in moved)
