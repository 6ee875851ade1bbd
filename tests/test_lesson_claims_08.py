"""What lesson 08 asserts about its student holds without a label, by the teacher alone, and fails by its contrary."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.training.recipes import Full


@pytest.fixture(scope="module")
def data():
    return tl.data.solar_cells(64)


@pytest.fixture(scope="module")
def split(data):
    parts = data.split(test=0.4, val=0.3, seed=0)
    return parts._replace(val=parts.val[:0])


@pytest.fixture(scope="module")
def teacher(data, split):
    """(N, 2) what a linear probe says of every cell; its C lets it tell them well apart."""
    features = tl.extract(tl.load_backbone(), data, stages=("blocks.4",), precision="float32")
    return tl.linear_probe(features, split, C=1e-3).predict_proba(features.X)


@pytest.fixture(scope="module")
def student(data, split):
    """(teacher, labels) -> the evaluation of a student that hears the teacher alone."""

    def student(teacher, labels=data.labels):
        torch.manual_seed(0)
        start, relabelled = tl.load_backbone("test_efficientnet", weights=None), replace(data, labels=labels)
        options = {"recipe": Full(head_multiplier=1.0), "lr": 3e-3, "augment": "flips", "epochs": 5}
        found = tl.distill(teacher, start, relabelled, split, soft_share=1.0, **options)
        return found.evaluate(data, split.test)

    return student


def assert_learned(evaluation):
    """As the lesson does."""
    assert evaluation.interval["auc"][0] > 0.5


def test_a_student_without_labels_learns_from_its_teacher(student, teacher, data, split):
    lies = data.labels.copy()
    lies[split.train] = np.random.default_rng(0).permutation(lies[split.train])
    assert_learned(student(teacher, lies))


def test_the_claim_fails_with_a_teacher_that_says_the_contrary(student, teacher):
    with pytest.raises(AssertionError):
        assert_learned(student(teacher[:, ::-1].copy()))
