"""Fine-tuning: the objective is its formula, and the loop goes down it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from small import DATA, FAST, NO_VAL, SPLIT, same, tiny
from torch import nn

import tlbook as tl
from tlbook import fine_tuning
from tlbook.data import Dataset
from tlbook.training import run
from tlbook.training.recipes import Full

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


def test_the_gradient_of_l2_sp_is_its_formula():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    theta0 = {name: torch.randn_like(p) for name, p in model.named_parameters() if name.startswith("0.")}
    tl.Objective(l2_sp=0.7, l2_head=0.3).penalty(model, theta0).backward()
    for name, p in model.named_parameters():
        expected = 0.7 * (p - theta0[name]) if name in theta0 else 0.3 * p
        assert torch.allclose(p.grad, expected, atol=1e-6), name


@settings(max_examples=30, deadline=None)
@given(
    logits=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=12),
    smoothing=st.floats(0, 0.9),
    seed=st.integers(0, 99),
)
def test_the_data_term_is_the_weighted_cross_entropy(logits, smoothing, seed):
    rng = np.random.default_rng(seed)
    z, y, s = np.array(logits), rng.integers(0, 3, len(logits)), rng.random(len(logits))
    target = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    expected = -(s * (target * log_p).sum(1)).mean()
    objective = tl.Objective(label_smoothing=smoothing)
    found = objective.data_term(*map(torch.from_numpy, (z, y, s)))
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_the_mean_over_equal_batches_is_the_loss_of_them_all():
    s = torch.from_numpy(tl.Objective(class_weight=[1, 5]).weights(DATA, SPLIT.train)[SPLIT.train[:24]])
    logits, y = torch.randn(24, 2), torch.from_numpy(DATA.labels[SPLIT.train[:24]])
    term = tl.Objective().data_term
    parts = [term(logits[i : i + 6], y[i : i + 6], s[i : i + 6]) for i in range(0, 24, 6)]
    assert torch.stack(parts).mean().item() == pytest.approx(term(logits, y, s).item(), rel=1e-6)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_goes_down_the_gradient_of_the_weighted_mean_however_the_batch_is_cut(parts):
    torch.manual_seed(0)
    x, y, s, model = torch.randn(9, 4), torch.arange(9) % 2, torch.rand(9), nn.Linear(4, 2)
    plain = nn.Linear(4, 2)
    plain.load_state_dict(model.state_dict())
    loss = (s * nn.functional.cross_entropy(plain(x), y, reduction="none")).mean()
    loss.backward()

    rows = np.array_split(np.arange(9), parts)
    fake = SimpleNamespace(
        objective=tl.Objective(), device=torch.device("cpu"), optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        settings=SimpleNamespace(accumulate=parts, clip=1e9), processes=SimpleNamespace(size=1), network=model,
        learners=list(model.parameters()),
        forward=model, y=y, s=s, model=model, theta0={},
    )  # fmt: skip
    total, norm = fine_tuning._step(fake, [(torch.from_numpy(r), x[r]) for r in rows], 9)
    assert total.item() == pytest.approx(loss.item(), rel=1e-5)
    assert norm.item() == pytest.approx(
        torch.cat([p.grad.flatten() for p in plain.parameters()]).norm().item(), rel=1e-5
    )
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), q.detach() - 0.5 * q.grad)


def test_weights_have_mean_one_and_balance_the_classes_of_the_training_part_only():
    y = np.array([0] * 30 + [1] * 10 + [1] * 60)
    data, train = Dataset(list(range(100)), y, ("a", "b")), np.arange(40)
    s = tl.Objective(class_weight="balanced").weights(data, train)
    assert np.allclose(s[train], compute_sample_weight("balanced", y[train]))
    certain = np.random.default_rng(0).random(100)
    s = tl.Objective(sample_weight=certain).weights(data, train)
    assert np.allclose(s, certain / certain[train].mean())


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"l2_sp": -1}, "l2_sp"),
        ({"l2_head": math.nan}, "l2_head"),
        ({"label_smoothing": 1}, "label_smoothing"),
        ({"sample_weight": np.ones(3)}, "sample_weight must be 48"),
        ({"sample_weight": -np.ones(48)}, "at least 0"),
        ({"sample_weight": np.zeros(48)}, "all 0"),
        ({"class_weight": "even"}, "class_weight must be"),
        ({"class_weight": [1, 2, 3]}, "2 numbers"),
    ],
)
def test_an_objective_that_makes_no_sense_is_an_error(wrong, says):
    with pytest.raises(ValueError, match=says):
        tl.Objective(**wrong).weights(DATA, SPLIT.train)


def test_l2_sp_holds_the_network_at_its_start_and_weight_decay_does_not_fight_it():
    free, held = (
        tl.finetune(tiny(), DATA, NO_VAL, objective=objective, **(FAST | {"recipe": Full(weight_decay=0.5)}))
        for objective in (None, tl.Objective(l2_sp=1e4))
    )

    def moved(found):
        theta, start = found.model.state_dict(), found.start
        return sum((theta[k] - start[k]).square().sum().item() for k in theta if "conv" in k and "weight" in k)

    assert 0 < moved(held) < moved(free) / 2
    for objective in (tl.Objective(l2_sp=1), tl.Objective(l2_head=1)):
        for group in run.groups_of(tiny(), 1e-3, objective, Full(weight_decay=0.5)):
            penalised = objective.l2_head if group["stage"] == "head" else objective.l2_sp
            decays = not penalised and group["params"][0].ndim > 1
            assert group["weight_decay"] == (0.5 if decays else 0)


def test_arguments_and_global_random_state_are_left_alone():
    backbone = tiny().train()
    backbone.model.conv1[0].weight.requires_grad_(False)
    before, wants = backbone.fingerprint, [p.requires_grad for p in backbone.parameters()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    tl.finetune(backbone, DATA, SPLIT, **(FAST | {"recipe": Full(freeze_batchnorm=True)}))
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.fingerprint == before and backbone.training
    assert [p.requires_grad for p in backbone.parameters()] == wants


def test_the_seed_decides_and_nothing_else():
    a = tl.finetune(tiny(), DATA, SPLIT, **FAST, seed=1)
    torch.manual_seed(99)
    backbone = tiny()
    torch.rand(7)
    assert same(a, tl.finetune(backbone, DATA, SPLIT, **FAST, seed=1))
    assert not same(a, tl.finetune(tiny(), DATA, SPLIT, **FAST, seed=2))


def test_validation_chooses_the_epoch_and_its_weights_are_returned():
    found = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"lr": 5e-3, "epochs": 5}))
    losses = [row["val loss"] for row in found.history]
    assert found.epoch == int(np.argmin(losses))
    val = found.evaluate(DATA, SPLIT.val)
    assert val.log_loss == pytest.approx(min(losses), rel=1e-4)
    assert val.auc == pytest.approx(found.history[found.epoch]["val AUC"])


def test_the_test_part_is_never_looked_at(tmp_path):
    class Guarded(list):
        def __getitem__(self, i):
            assert i not in SPLIT.test, "a test input was read"
            return list.__getitem__(self, i)

    labels = DATA.labels.copy()
    labels[SPLIT.test] = 1 - labels[SPLIT.test]
    guarded = Dataset(Guarded(DATA.inputs), labels, DATA.class_names, DATA.groups)
    for recipe, split in (("lp_ft", NO_VAL), ("head", SPLIT)):
        objective = tl.Objective(class_weight="balanced")
        options = FAST | {"recipe": recipe, "objective": objective}
        a = tl.finetune(tiny(), guarded, split, **options, checkpoint=tmp_path / recipe)
        assert same(a, tl.finetune(tiny(), DATA, split, **options))


def test_parts_of_a_batch_add_up_to_the_batch():
    options = FAST | {"recipe": Full(freeze_batchnorm=True), "epochs": 2}
    objective = tl.Objective(l2_sp=0.1, l2_head=0.1, class_weight=[1, 3])
    one, three = (tl.finetune(tiny(), DATA, SPLIT, **options, objective=objective, accumulate=k) for k in (1, 3))
    for a, b in zip(one.history, three.history, strict=True):
        assert a["val loss"] == pytest.approx(b["val loss"], rel=1e-3)
        assert a["train loss"] == pytest.approx(b["train loss"], rel=1e-3, nan_ok=True)


def test_the_schedule_warms_up_and_ends_near_zero():
    factors = [fine_tuning.schedule(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(a >= b for a, b in zip(factors[9:], factors[10:], strict=False)) and 0 < factors[-1] < 1e-3


def test_few_steps_stay_small_for_the_first_steps_of_adamw_have_full_size():
    assert [fine_tuning.schedule(step, 5) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert max(fine_tuning.schedule(step, 12) for step in range(12)) == 1


def test_the_line_ends_at_the_start_and_at_the_result():
    found = tl.finetune(tiny(), DATA, SPLIT, **FAST)
    line = fine_tuning.loss_along_line(found, DATA, SPLIT.val, alphas=(0.0, 1.0))
    assert line[0]["loss"] == pytest.approx(found.history[0]["val loss"], rel=1e-4)
    assert line[1]["loss"] == pytest.approx(found.history[found.epoch]["val loss"], rel=1e-4)
    assert line[1]["AUC"] == pytest.approx(found.history[found.epoch]["val AUC"], abs=1e-6)
    before = {name: value.clone() for name, value in found.model.state_dict().items()}
    fine_tuning.loss_along_line(found, DATA, SPLIT.val, alphas=(0.0,))
    assert all(torch.equal(value, before[name]) for name, value in found.model.state_dict().items())
    for beyond in (-0.1, 1.1):
        with pytest.raises(ValueError, match="alphas must be in"):
            fine_tuning.loss_along_line(found, DATA, SPLIT.val, alphas=(0.5, beyond))


def test_figures_say_what_they_show(monkeypatch):
    shown = []
    monkeypatch.setattr(tl.plots, "show", lambda figure, alt, **_: shown.append((figure, alt)))
    found = tl.finetune(tiny(), DATA, SPLIT, **FAST)
    tl.plots.history(found)
    tl.plots.loss_line(fine_tuning.loss_along_line(found, DATA, SPLIT.val))
    (history, said), (line, also) = shown
    assert len(history.axes[0].lines) >= 2 and f"epoch {found.epoch}" in said
    assert len(line.axes[0].lines) >= 1 and "α = 1" in also


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: none is visible")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_starts_where_the_cpu_does_and_reaches_its_loss(precision):
    options = FAST | {"recipe": Full(until="layer1", freeze_batchnorm=True), "lr": 1e-4, "precision": precision}
    cpu = tl.finetune(tiny().to("cpu"), DATA, SPLIT, **(options | {"precision": "float32"}))
    gpu = tl.finetune(tiny().to("cuda"), DATA, SPLIT, **options)
    assert (cpu.model.device.type, gpu.model.device.type) == ("cpu", "cuda")
    assert all(torch.equal(start.cpu(), gpu.start[name].cpu()) for name, start in cpu.start.items()), "the head too"
    for a, b in zip(cpu.history, gpu.history, strict=True):
        assert a["val loss"] == pytest.approx(b["val loss"], rel=0.02)


def test_bfloat16_trains_after_float32_in_the_same_process():
    a = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"recipe": "head"}))
    b = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"recipe": "head"}), precision="bfloat16")
    assert a.history[-1]["val loss"] == pytest.approx(b.history[-1]["val loss"], rel=0.05)
    assert all(p.dtype == torch.float32 for p in b.model.parameters())
