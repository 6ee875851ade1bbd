"""The package: importing it is quick, and every public name is there."""

import importlib
import inspect
import operator
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tlbook as tl


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    code = "import sys; import tlbook; print([m for m in ('torch', 'timm', 'numpy', 'sklearn') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[0] == "[]"


@pytest.mark.parametrize("name", tl.__all__)
def test_every_public_name_is_there_and_explained(name):
    assert getattr(tl, name).__doc__
    assert name in dir(tl)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'linear_prob'"):
        tl.linear_prob  # noqa: B018


def test_editors_see_every_public_name():
    seen = re.findall(r"import \w+ as (\w+)", (Path(tl.__file__).parent / "__init__.pyi").read_text())
    assert sorted(seen) == sorted(tl.__all__)


CONTRACT = {  # the parameters of public functions, in order: lessons, the command line and others rely on them
    "load_backbone": "name weights",
    "list_backbones": "",
    "extract": "backbone data stages views combine precision batch_size cache",
    "load_features": "path",
    "linear_probe": "features split C class_weight sample_weight folds seed",
    "knn_probe": "features split k temperature",
    "cross_val_predict": "features folds probe options",
    "evaluate": "probabilities labels groups sample_weight reference resamples seed",
    "compare": "a b metric resamples seed",
    "Objective": "l2_sp l2_head label_smoothing class_weight sample_weight soft_targets soft_share temperature",
    "freeze": "model until",
    "unfreeze": "model",
    "parameter_groups": "model lr layer_decay head_multiplier weight_decay only",
    "audit": "model optimizer",
    "finetune": "backbone data split recipe objective epochs lr batch_size accumulate clip augment precision "
    "store_prefix seed checkpoint resume",
    "recipes.Auto": "minutes rates photo folds",
    "load_finetuned": "folder",
    "transfer": "source target rename adapt allow_missing allow_unused",
    "interpolate": "theta0 theta1 alpha",
    "soup": "thetas",
    "TaskVector": "theta1 theta0",
    "recalibrate_batchnorm": "model data index only batch_size",
    "check": "number answer",
    "hint": "number",
    "solution": "number",
    "record": "lesson method evaluation trained seconds",
    "scorecard": "until",
    "doctor": "",
    "page.write": "folder model",
    "suspect": "data backbone stage features seed",
    "decisions.temperature": "probabilities labels sample_weight",
    "decisions.least_cost": "probabilities costs",
    "decisions.conformal_limit": "scores coverage groups",
    "decisions.fit": "probabilities labels X bank groups coverage far seed",
    "data.solar_cells": "size",
    "data.news": "",
    "data.spoken_digits": "label download",
    "data.folder": "path groups labels on_error",
    "speech.log_mel": "sound rate seconds bins",
    "speech.SpectrogramBackbone": "backbone rate seconds side keep_pitch",
    "text.TextEncoder": "model name vocabulary max_tokens pooling",
    "Encoder": "model name parts example",
    "data.image_folder": "path groups on_error",
    "data.from_dataset": "dataset class_names groups name fingerprint columns",
    "data.Dataset.subset": "self index",
    "data.Dataset.split": "self test val by test_groups seed",
    "data.Dataset.folds": "self k by repeats val seed",
    "ranking.logme": "X y",
    "ranking.leep": "source_probs y",
    "ranking.nce": "source_labels y",
    "ranking.h_score": "X y",
    "lora.inject": "model rank alpha targets",
    "lora.merge": "model",
    "lora.unmerge": "model",
}


@pytest.mark.parametrize("name", CONTRACT)
def test_no_line_of_the_public_contract_is_lost(name):
    parameters = inspect.signature(operator.attrgetter(name)(tl)).parameters
    assert list(parameters) == CONTRACT[name].split()


@pytest.mark.parametrize(
    "of, names",
    {
        "backbones.Backbone": "name num_features stages head prepare forward_features forward_head forward_stages "
        "prefix suffix",
        "encoder.Encoder": "stages num_features views augmentations as_tensor collate prepare view head reset_head "
        "pool forward_features forward_head forward_stages prefix suffix fingerprint has_hooks device",
        "feature_extraction.Features": "X y groups blocks save",
        "probes.Probe": "predict_proba evaluate C coef path",
        "evaluation.Evaluation": "accuracy balanced_accuracy auc log_loss interval baselines",
        "training.classifier.FineTuned": (
            "model history predict decide evaluate save export finished decider tried held_out"
        ),
        "named_tensors.TransferReport": "copied reshaped initialised unused",
        "parameter_transfer.TaskVector": "apply",
        "data.Dataset": "labels class_names groups columns fingerprint subset split folds",
    }.items(),
)
def test_public_objects_keep_their_attributes(of, names):
    module, kind = of.rsplit(".", 1)
    kind = getattr(importlib.import_module(f"tlbook.{module}"), kind)
    ours = "".join(inspect.getsource(k) for k in kind.__mro__ if k.__module__.startswith("tlbook"))
    there = {*dir(kind), *getattr(kind, "__annotations__", ()), *re.findall(r"self\.(\w+)", ours)}
    assert set(names.split()) <= there
