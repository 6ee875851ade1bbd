"""Transfer learning as three operators: feature extraction, fine-tuning, parameter transfer.

Every public name is reachable from here (``import tlbook as tl``) and is loaded when it is first used, so that the
import itself is quick.
"""

from importlib import import_module

__version__ = "0.2.0"

_HOME = {  # public name -> the module that defines it
    "Encoder": "encoder",
    "load_backbone": "backbones",
    "list_backbones": "backbones",
    "extract": "feature_extraction",
    "load_features": "feature_extraction",
    "transfer": "parameter_transfer",
    "interpolate": "parameter_transfer",
    "soup": "parameter_transfer",
    "TaskVector": "parameter_transfer",
    "recalibrate_batchnorm": "parameter_transfer",
    "linear_probe": "probes",
    "knn_probe": "probes",
    "cross_val_predict": "probes",
    "evaluate": "evaluation",
    "compare": "evaluation",
    "Objective": "fine_tuning",
    "finetune": "fine_tuning",
    "distill": "fine_tuning",
    "load_finetuned": "training.classifier",
    "freeze": "training.trainable",
    "unfreeze": "training.trainable",
    "parameter_groups": "training.trainable",
    "audit": "training.trainable",
    "check": "course.exercises",
    "hint": "course.exercises",
    "solution": "course.exercises",
    "bet": "course.bets",
    "outcome": "course.bets",
    "bets": "course.bets",
    "record": "course.score_card",
    "scorecard": "course.score_card",
    "doctor": "course.doctor",
    "suspect": "leaks",
}
_MODULES = {
    **{
        name: name
        for name in ("adaptation", "cache", "data", "decisions", "device", "fine_tuning", "lora", "page", "plots")
    },
    **{name: name for name in ("ranking", "speech", "text")},
    "recipes": "training.recipes",
    "exercises": "course.exercises",
    "widgets": "course.widgets",
}

__all__ = [*_HOME, *_MODULES]


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"tlbook.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"tlbook.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'tlbook' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*__all__, "__version__"])
