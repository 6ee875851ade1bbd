"""Distillation: the loss is its formula, the teacher is asked once and about the training part alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from small import DATA, FAST, SPLIT, same, spots, tiny

import tlbook as tl
from tlbook.training.recipes import Bias

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")

N = len(DATA)
ANSWERS = softmax(np.random.default_rng(0).normal(size=(N, 2)), axis=1)


def with_labels(labels):
    return replace(DATA, labels=np.asarray(labels))


def objective_and_targets(K, n, share, temperature, seed=0, smoothing=0.0):
    """An Objective with soft targets of n examples of K classes, their labels and what the loss compares with."""
    rng = np.random.default_rng(seed)
    data, q = spots(n, K), softmax(3 * rng.normal(size=(n, K)), axis=1)
    objective = tl.Objective(soft_targets=q, soft_share=share, temperature=temperature, label_smoothing=smoothing)
    return objective, q, data.labels, torch.from_numpy(objective.targets(data)).double()


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1), temperature=st.floats(0.5, 20), smoothing=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_the_loss_is_hintons(share, temperature, smoothing, seed):
    objective, q, y, targets = objective_and_targets(3, 12, share, temperature, seed, smoothing)
    z = 4 * np.random.default_rng(seed + 1).normal(size=(12, 3))
    softened = softmax(np.log(q) / temperature, axis=1)
    one_hot = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
    hard = -(one_hot * log_softmax(z, axis=1)).sum(1)
    soft = -(softened * log_softmax(z / temperature, axis=1)).sum(1)
    expected = ((1 - share) * hard + share * temperature**2 * soft).mean()
    assert objective.data_term(torch.from_numpy(z), targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_is_its_closed_form(share, temperature):
    objective, q, y, targets = objective_and_targets(3, 12, share, temperature)
    z = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    (12 * objective.data_term(z, targets)).backward()
    softened, tau = softmax(np.log(q) / temperature, axis=1), temperature
    p, p_tau = (softmax(z.detach().numpy() / t, axis=1) for t in (1, tau))
    expected = (1 - share) * (p - np.eye(3)[y]) + share * tau * (p_tau - softened)
    assert np.allclose(z.grad.numpy(), expected, atol=1e-5)


def test_at_a_high_temperature_the_gradient_is_that_of_logit_matching():
    # Hinton et al., equation 4: with centred logits, τ² · gradient -> (z − v) / K
    rng = np.random.default_rng(0)
    v, z = (x - x.mean(1, keepdims=True) for x in rng.normal(size=(2, 12, 3)))
    objective = tl.Objective(soft_targets=softmax(v, axis=1), temperature=1000)
    targets = torch.from_numpy(objective.targets(spots(12, 3))).double()
    z = torch.from_numpy(z).requires_grad_()
    (12 * objective.data_term(z, targets)).backward()
    assert np.allclose(z.grad.numpy(), (z.detach().numpy() - v) / 3, atol=5e-3)


def test_soft_targets_that_repeat_the_labels_train_as_the_labels_do():
    by_labels = tl.finetune(tiny(), DATA, SPLIT, **FAST)
    objective = tl.Objective(soft_targets=np.eye(2)[DATA.labels])
    by_targets = tl.finetune(tiny(), DATA, SPLIT, objective=objective, **FAST)
    for a, b in zip(by_labels.history, by_targets.history, strict=True):
        assert a["val loss"] == pytest.approx(b["val loss"], rel=1e-4)


def test_without_a_share_the_teacher_is_not_heard_and_with_all_of_it_the_labels_are_not():
    found = [
        tl.distill(answers, tiny(), data, SPLIT, soft_share=share, **FAST)
        for share, answers, data in (
            (0.0, ANSWERS, DATA),
            (0.0, ANSWERS[:, ::-1], DATA),
            (1.0, ANSWERS, DATA),
            (1.0, ANSWERS, with_labels(np.where(np.isin(np.arange(N), SPLIT.train), 1 - DATA.labels, DATA.labels))),
        )
    ]
    assert same(found[0], found[1]) and same(found[2], found[3]) and not same(found[0], found[2])


def test_labels_outside_the_labelled_examples_are_not_looked_at():
    labelled = SPLIT.train[:12]
    others = np.setdiff1d(SPLIT.train, labelled)
    lies = DATA.labels.copy()
    lies[others] = 1 - lies[others]
    a, b = (
        tl.distill(ANSWERS, tiny(), data, SPLIT, labelled=labelled, soft_share=0.3, **FAST)
        for data in (DATA, with_labels(lies))
    )
    assert same(a, b)
    assert not same(a, tl.distill(ANSWERS, tiny(), with_labels(lies), SPLIT, soft_share=0.3, **FAST))


def test_a_teacher_is_asked_once_and_about_the_training_part_alone(monkeypatch):
    teacher, asked = tl.finetune(tiny(), DATA, SPLIT, **FAST), []
    predict = type(teacher).predict
    monkeypatch.setattr(type(teacher), "predict", lambda self, data: asked.append(len(data)) or predict(self, data))
    by_teacher = tl.distill(teacher, tiny(seed=1), DATA, SPLIT, **FAST)
    assert asked == [len(SPLIT.train)]
    answers = np.full((N, 2), np.nan)
    answers[SPLIT.train] = teacher.predict(DATA.subset(SPLIT.train))
    assert same(by_teacher, tl.distill(answers, tiny(seed=1), DATA, SPLIT, **FAST))


def test_a_student_without_a_label_learns_its_teachers_task():
    # The labels of the training part are all but two wrong; what is right comes from the teacher
    teacher = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"epochs": 8}))
    lies = np.where(np.isin(np.arange(N), SPLIT.train[2:]), 1 - DATA.labels, DATA.labels)
    student = tl.distill(
        teacher, tiny(seed=1), with_labels(lies), SPLIT, labelled=SPLIT.train[:2], **(FAST | {"epochs": 8})
    )
    assert teacher.evaluate(DATA, SPLIT.test).auc > 0.9 and student.evaluate(DATA, SPLIT.test).auc > 0.9


def test_a_resumed_student_is_the_student_of_the_same_teacher(tmp_path):
    options = FAST | {"checkpoint": tmp_path / "run"}
    tl.distill(ANSWERS, tiny(), DATA, SPLIT, **options)
    tl.distill(ANSWERS, tiny(), DATA, SPLIT, resume=True, **options)
    for other in ({"temperature": 3.0}, {"soft_share": 0.4}):
        with pytest.raises(ValueError, match="holds a run with other labels, weights, split"):
            tl.distill(ANSWERS, tiny(), DATA, SPLIT, resume=True, **other, **options)
    with pytest.raises(ValueError, match="holds a run with other labels, weights, split"):
        tl.distill(ANSWERS[::-1], tiny(), DATA, SPLIT, resume=True, **options)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"soft_targets": np.ones((N, 2))}, "sum to 1"),
        ({"soft_targets": np.ones((3, 2)) / 2}, "48 rows of 2 probabilities"),
        ({"soft_targets": np.tile([1.5, -0.5], (N, 1))}, "sum to 1"),
        ({"soft_targets": np.full((N, 2), np.nan)}, "sum to 1"),
        ({"soft_targets": ANSWERS, "soft_share": 1.5}, r"soft_share must be in \[0, 1\]"),
        ({"soft_targets": ANSWERS, "soft_share": np.ones(3)}, "one number or 48"),
        ({"temperature": 0}, "temperature must be above 0"),
    ],
)
def test_soft_targets_that_make_no_sense_are_an_error(wrong, says):
    with pytest.raises(ValueError, match=says):
        tl.Objective(**wrong).targets(DATA)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"teacher": ANSWERS[:5]}, r"48 × 2 probabilities, got \(5, 2\)"),
        ({"objective": tl.Objective(soft_targets=ANSWERS)}, "soft_targets of its own"),
        ({"labelled": [0, 1], "recipe": "lp_ft"}, "need all labels"),
        ({"recipe": "auto"}, "learns from val too, of which the teacher says nothing"),
        ({"labelled": [0, 1], "objective": tl.Objective(class_weight="balanced")}, "need all labels"),
    ],
)
def test_a_distillation_that_makes_no_sense_is_an_error(wrong, says):
    given = {"teacher": ANSWERS, "student": tiny(), "data": DATA, "split": SPLIT} | wrong
    with pytest.raises(ValueError, match=says):
        tl.distill(**given)


def test_a_teacher_of_other_classes_is_refused():
    teacher = tl.finetune(tiny(), DATA, SPLIT, **FAST)
    with pytest.raises(ValueError, match="the data's classes are"):
        tl.distill(teacher, tiny(), replace(DATA, class_names=("x", "y")), SPLIT, **FAST)


def test_bias_only_moves_biases_and_the_head_and_holds_the_statistics():
    found = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"recipe": "bias"}))
    moved = {key for key, value in found.model.state_dict().items() if not torch.equal(value, found.start[key])}
    biases = {key for key, _ in found.model.named_parameters() if key.endswith("bias")}
    # tiny's residual branches start at zero, where biases within them have no gradient yet
    assert {"model.fc.weight", "model.fc.bias", "model.bn1.bias"} <= moved <= biases | {"model.fc.weight"}


def test_the_audit_agrees_with_bias_only_tuning():
    backbone = tiny()
    tl.parameter_groups(backbone, 1e-3, only=Bias().only)
    groups = tl.parameter_groups(backbone, 1e-3, only=Bias().only)
    assert not tl.audit(backbone, torch.optim.AdamW(groups)).problems
    everything = torch.optim.AdamW(backbone.parameters(), 1e-3)
    assert {row["problem"] for row in tl.audit(backbone, everything).problems} == {"frozen, yet given to the optimizer"}
