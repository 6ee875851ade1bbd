"""A fine-tuned classifier: what it predicts, how it is kept in a folder, and how it leaves for other programs."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import nn

from tlbook import arguments, cache, decisions, images, progress
from tlbook.data import Dataset
from tlbook.device import memory_kept
from tlbook.evaluation import METRICS, evaluate
from tlbook.forward import gathered, in_eval_mode
from tlbook.kinds import KINDS
from tlbook.loading import eval_batch_size, load
from tlbook.table import Table, apart_from
from tlbook.training import checkpoints, deciding
from tlbook.training.onnx_file import write_onnx
from tlbook.training.run import probabilities
from tlbook.training.tried import Tried, card_of_tried

_WEIGHTS, _ABOUT = "model.safetensors", "model.json"
_PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib"}


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned classifier of K classes, with the weights of the epoch that validation chose.

    Attributes:
        model: Backbone with a head of K classes, in eval mode, none of its modules frozen.
        history: a row for each epoch; epoch 0 is the start.
        epoch: the one whose weights these are.
        class_names: the K names.
        start: {name: tensor}, θ⁰ with the head it began with; None where loaded from disk.
        stopped: why the training ended before its last epoch: "", "Ctrl-C", or how the loss diverged and what to try.
        tried: with the recipe "auto" a `tlbook.training.tried.Tried` for each candidate; else empty.
        decider: what `decide` uses: the `tlbook.decisions.Decider` of a saved classifier. None where it has none.
        held_out: n positions in the data, (n, K) probabilities of these from fits that did not see them, (n,) the
            `tlbook.decisions.distances` of their features, in those fits, from what was seen (None where the network is
            frozen), and (n,) their labels. Or None: then the validation part is what it was not trained on.
        weighting: how the training examples were weighted, in a sentence; "" where alike, or where loaded from disk.
    """

    model: nn.Module = field(repr=False)
    history: Table
    epoch: int
    class_names: tuple
    start: dict | None = field(default=None, repr=False)
    stopped: str = ""
    tried: tuple = ()
    decider: object = field(default=None, repr=False)
    held_out: tuple | None = field(default=None, repr=False)
    weighting: str = field(default="", repr=False)

    @property
    def finished(self):
        """Whether the training came to its last epoch."""
        return not self.stopped

    def predict(self, inputs, *, views=("identity",), batch_size=None):
        """Return (N, K) float64 probabilities, computed in float32; rows sum to 1.

        Args:
            inputs: a Dataset; N inputs; one input (N is 1); the path of a file; or of a folder, whose files are
                taken in the order of their paths (`tlbook.images.find`). Images of any mode and size. Strings are
                texts where the model reads texts: there a path is a ``Path``.
            views: of the model's ``views``; the probabilities are the mean over them, such as ("identity", "hflip"),
                which reads and computes everything once for each. Whether that helps, a validation part tells.

        Raises:
            ValueError: an image that cannot be read, a folder without images, an empty list, an unknown view, a
                batch_size that is no whole number above 0. FileNotFoundError: no such path.
        """
        data, shown = self._data_of(inputs), [self.model.view(name) for name in arguments.names("views", views)]

        def seen_through(view):
            def compute(batches, n):
                return probabilities(self.model, map(view, batches), len(self.class_names), n)

            return self._through(compute, data, batch_size)

        return np.mean([seen_through(view) for view in shown], axis=0)

    def probabilities_and_features(self, inputs, *, batch_size=None):
        """Return what `predict` does, and (N, D) float32 features of the last stage, from one forward pass."""
        K, network = len(self.class_names), deciding.Both(self.model)

        def both(x, n):
            with in_eval_mode(self.model):
                return gathered(network, x, n, "float32")

        z = self._through(both, self._data_of(inputs), batch_size)
        return z[:, :K].double().softmax(1).numpy(), z[:, K:].float().numpy()

    def decide(self, inputs, *, costs=None, batch_size=None):
        """Say of each input which class it is, how likely, which others cannot be excluded, and whether it is known.

        Args:
            inputs: as of `predict`. costs: {class name: the price of missing one of that class}; 1 where left out. The
                answer is the class of the lowest expected cost, without costs the likeliest.

        Returns:
            Table, a row for each input: class, probability (calibrated, of every class, by its name; that of a class
            that is called known stands as "p(known)"), set (the names of the classes that hold the true one with the
            coverage promised) and known: the share of the examples it was calibrated on that are as far from those it
            was trained on. Below .05 it may be none of the classes.

        Raises:
            ValueError: it was saved without enough validation examples; no such class; a price that is not above 0.

        Appendix on decisions; `tlbook.decisions`.
        """
        price = self._prices(costs)
        if self.decider is None:
            few = f"at least {decisions.FEWEST} validation (held-out) examples"
            if self.start is not None:  # fresh from the training
                raise ValueError(
                    f"what decides is fitted when it is saved, to {few}: save it with data and split, and load it; or "
                    "use predict"
                )
            raise ValueError(
                f"it was saved without decisions, which need {few}: train it with more, or leave --cost out (in "
                "Python, use predict)"
            )
        p, X = self.probabilities_and_features(inputs, batch_size=batch_size)
        p = self.decider.probabilities(p)
        answers, members, known = decisions.least_cost(p, price), self.decider.sets(p), self.decider.known(X)
        names = list(map(str, self.class_names))
        columns = apart_from(("class", "set", "known"), names)
        return Table(
            {"class": names[k], **dict(zip(columns, map(float, row), strict=True))}
            | {"set": [name for name, is_in in zip(names, of, strict=True) if is_in], "known": float(share)}
            for k, row, of, share in zip(answers, p, members, known, strict=True)
        )

    def _prices(self, costs):
        """(K,) the price of missing each class."""
        names, costs = list(map(str, self.class_names)), costs or {}
        unknown = [name for name in costs if name not in names]
        if unknown:
            raise ValueError(f"costs names {unknown[0]!r}, and the classes are {', '.join(names)}")
        return np.array([float(costs.get(name, 1.0)) for name in names])

    def _data_of(self, inputs):
        """What `predict` was given, as a Dataset."""
        if isinstance(inputs, Dataset):
            return inputs
        kind = KINDS.get(self.model.kind)
        inputs = list(inputs) if kind is None else images.inputs_of(inputs, kind)
        return Dataset(inputs, np.zeros(len(inputs), int), self.class_names)

    def _through(self, compute, data, batch_size):
        """What ``compute`` makes of prepared batches of the examples and their number."""
        size = (
            eval_batch_size(self.model.device)
            if batch_size is None
            else arguments.whole_number("batch_size", batch_size, 1)
        )
        batches = [range(i, min(i + size, len(data))) for i in range(0, len(data), size)]
        with memory_kept(), closing(load(data, batches, [self.model])) as loaded:
            shown = (x for (x,) in progress.track(loaded, len(batches), "predicting", " batches"))
            return compute(shown, len(data))

    def evaluate(self, data, index):
        """Score the examples at ``index``: a `tlbook.evaluation.Evaluation` with intervals by group."""
        self._check_classes(data)
        part = data.subset(index)
        if not len(part):
            raise ValueError("index is empty: give the examples to score, such as split.test")
        return evaluate(self.predict(part), part.labels, groups=part.groups)

    def save(self, folder, *, data=None, split=None, trained=""):
        """Write the model to ``folder``, whole or not at all; `load_finetuned` reads it back.

        Always: the weights (model.safetensors) and what they are (model.json). With ``data`` and its ``split``, also
        what it scores on ``split.test``, the confusion matrix and the worst mistakes as PNG files, and what `decide`
        goes by (``decider``, which is kept where no other can be fitted). And a card to read (README.md). Scores,
        figures and card never lose a model: where one of them fails, a warning says why, and the folder is complete
        without it.

        Args:
            folder: does not exist yet, or is empty.
            data, split: both or none. Where ``split.test`` is empty there are no scores.
            trained: how, in words or as a command, for the card.

        Returns:
            The Evaluation on ``split.test``; None where there is none.

        Raises:
            FileExistsError: there is something in the folder. OSError: the disk is full.
            ValueError: the model has LoRA that was not merged; data without split; a test that was trained on.
        """
        if any(hasattr(module, "_plain") for module in self.model.modules()):
            raise ValueError("the model has LoRA beside its weights: tl.lora.merge(found.model) first")
        self._check_test(data, split)
        facts, state = self._facts(), self.model.model.state_dict()
        with whole_folder(folder, sum(tensor.nbytes for tensor in state.values())) as part:
            # The model
            checkpoints.write(part / _WEIGHTS, state, facts)
            about = {"model": facts, "weights": {"file": _WEIGHTS, "sha256": _digest(part / _WEIGHTS)}}
            about |= {"date": date.today().isoformat(), "versions": _versions(), "trained": trained}
            about["weighting"] = self.weighting

            # What is known of it
            about["licence"] = _attempt("the licence", _licence, self.model) or "not known"
            evaluation = None
            if data is not None:
                about["data"] = _attempt("what is known of the images", _facts_of, data, split)
                evaluation = self._score(data, split, part)
                about |= {"scores": _scores_of(evaluation), "notes": evaluation.notes if evaluation else []}
            about["decisions"] = _attempt("what it decides by", self._save_decider, data, split, part)
            if about["decisions"] is None:
                (part / deciding.FILE).unlink(missing_ok=True)  # half of it would be an error when it is loaded
            (part / _ABOUT).write_bytes(_utf8(json.dumps(_as_json(about), indent=1, ensure_ascii=False) + "\n"))
            _attempt("README.md", _write_card, part)
        return evaluation

    def export(self, path):
        """Write the classifier as ONNX, and check with ONNX Runtime that it answers as the original.

        Its input "image" is (B, 3, H, W) float32 in 0 … 255, RGB, of the size that the model sees (``input_size``: the
        one it was trained on); its output "probabilities" is (B, K). Scaling, mean and standard deviation are inside;
        resizing is not. The file's metadata hold the size ("height", "width") and the class names as JSON
        ("class_names").

        Returns:
            The largest difference of a probability between the two.

        Raises:
            ValueError: it takes texts or sounds.
            ModuleNotFoundError: onnx, onnxscript and onnxruntime are not installed.
            RuntimeError: they differ by more than 1e-4; nothing is written then.
        """
        return write_onnx(path, self.model, class_names=json.dumps(_as_json(self.class_names)))

    def _facts(self):
        facts = {"name": self.model.name, "kind": self.model.kind, **self.model.facts()}
        facts |= {"class_names": self.class_names, "history": self.history, "reads": self.model.reads}
        facts |= {"tried": [asdict(row) for row in self.tried]}
        return _as_json(facts | {"epoch": self.epoch, "stopped": self.stopped})

    def _check_classes(self, data):
        if tuple(data.class_names) != tuple(self.class_names):
            raise ValueError(f"the data's classes are {data.class_names}, the model's {self.class_names}")

    def _check_test(self, data, split):
        """Refuse what could not be scored honestly, before anything is written."""
        if (data is None) != (split is None):
            given, missing = ("data", "split") if split is None else ("split", "data")
            raise ValueError(f"{given} is given without {missing}: the scores are those of data at split.test")
        if data is not None:
            self._check_classes(data)
            learned = () if self.held_out is None else self.held_out[0]  # by what was chosen among several
            for rows, where in (
                (np.concatenate([split.train, split.val]), "is in train or val too"),
                (learned, "was learned from: give the split of the training"),
            ):
                seen = np.intersect1d(split.test, rows)
                if len(seen):
                    raise ValueError(f"example {seen[0]:.0f} of split.test {where} ({len(seen)} such)")

    def _save_decider(self, data, split, folder):
        """Write the Decider, a new one where it can be fitted, and say what it promises and reaches; None without."""
        decider = (None if data is None else deciding.fit_decider(self, data, split)) or self.decider
        if decider is None:
            return None
        deciding.write(decider, folder)
        facts = deciding.facts_of(decider) | {"sha256": _digest(folder / deciding.FILE)}
        if data is not None and len(split.test):
            test, groups = data.subset(split.test), deciding.unseen_groups(data, split.test, [*split.train, *split.val])
            facts["measured"] = deciding.measured(decider, *self.probabilities_and_features(test), test.labels, groups)
        return facts

    def _score(self, data, split, folder):
        """The Evaluation on the test part, drawn to ``folder``; None where there is none."""
        from tlbook import plots

        if not len(split.test):
            warnings.warn("split.test is empty: the model is saved without scores", stacklevel=3)
            return None
        evaluation = _attempt("the scores", self.evaluate, data, split.test)
        if evaluation is not None:
            drawings = {"confusion_matrix.png": (plots.confusion_matrix_figure, evaluation, self.class_names)}
            if self.model.kind == "images":
                drawings["worst_mistakes.png"] = (plots.worst_mistakes_figure, self, data, split.test, evaluation)
            for name, drawing in drawings.items():
                _attempt(name, _draw, folder / name, *drawing)
        return evaluation


def load_finetuned(folder):
    """Read the `FineTuned` that `FineTuned.save` wrote. Nothing in the folder is run, and no pickle is opened.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a pickle lies in the folder; a file is damaged, was edited or exchanged, or points elsewhere.
    """
    folder = Path(folder)
    if not (folder / _ABOUT).is_file():
        raise FileNotFoundError(f"{folder / _ABOUT} does not exist: give the folder that FineTuned.save wrote")
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICKLES)
    if pickles:
        raise ValueError(
            f"{folder} holds {', '.join(pickles)}, which may run code when opened and was not written by tlbook: "
            "remove it if you do not know where it comes from"
        )
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        name, digest, said = about["weights"]["file"], about["weights"]["sha256"], about["model"]
        said = dict(said)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / _ABOUT} is damaged ({type(error).__name__}: {error}): save again") from None
    path = folder / _WEIGHTS
    if name != _WEIGHTS or path.is_symlink():
        raise ValueError(f"{folder / _ABOUT} takes its weights from {name!r}; only {_WEIGHTS} of the folder is read")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: a saved model is {_WEIGHTS} and {_ABOUT}")
    state, facts = checkpoints.read(path)
    changed = [key for key in facts.keys() | said.keys() if _as_json(facts.get(key)) != _as_json(said.get(key))]
    if changed:
        raise ValueError(
            f"{folder / _ABOUT} disagrees with what the weights were saved with in {', '.join(sorted(changed))}: "
            "one of the two was edited or exchanged"
        )
    if _digest(path) != digest:
        raise ValueError(f"{path} is damaged or was exchanged: its SHA-256 is not the one in {_ABOUT}")
    decider = deciding.read(folder)
    of_it = about.get("decisions")
    wanted = of_it.get("sha256") if isinstance(of_it, dict) else of_it
    if wanted != (None if decider is None else _digest(folder / deciding.FILE)):
        raise ValueError(f"{folder / deciding.FILE} is damaged, missing or exchanged: save the model again")
    try:
        found = _rebuilt(state, facts)
        if decider is not None and decider.bank.shape[1] != found.model.num_features:
            raise ValueError(f"{deciding.FILE} is of features of another width")
        return replace(found, decider=decider)
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{folder} holds no model that can be rebuilt here ({error})") from error


def _rebuilt(state, facts):
    from tlbook import device
    from tlbook.parameter_transfer import transfer

    facts = {"stopped": "", "kind": "images", "reads": ["final"], "tried": [], **facts}
    if facts["kind"] != "texts":
        facts.setdefault("fit", "crop")
    _check_facts(facts)
    history = Table({k: math.nan if v is None else v for k, v in row.items()} for row in facts.pop("history"))
    epoch, stopped, classes = facts.pop("epoch"), facts.pop("stopped"), tuple(facts.pop("class_names"))
    reads, tried = facts.pop("reads"), tuple(Tried(**row) for row in facts.pop("tried"))
    encoder = _MAKE[facts.pop("kind")](len(classes), **facts)
    if reads != ["final"]:
        encoder.reset_head(len(classes), reads)
    transfer(state, encoder.model)
    encoder = encoder.to(device.choose(), memory_format=torch.channels_last)
    return FineTuned(encoder, history, epoch, classes, stopped=stopped, tried=tried)


def _make_of_images(classes, architecture, **facts):
    from tlbook.backbones import Backbone, build

    return Backbone(build(architecture, classes), **facts)


def _make_of_sounds(classes, rate, seconds, keep_pitch, name, input_size, **facts):
    from tlbook.speech import SpectrogramBackbone

    seen = _make_of_images(classes, name=name.removesuffix(" on spectrograms"), input_size=input_size, **facts)
    return SpectrogramBackbone(seen, rate, seconds, input_size, keep_pitch)


def _make_of_texts(classes, size, **facts):
    from tlbook.text import Bert, TextEncoder

    encoder = TextEncoder(Bert(**size), **facts)
    encoder.reset_head(classes)
    return encoder


_MAKE = {"images": _make_of_images, "sounds": _make_of_sounds, "texts": _make_of_texts}


def _check_facts(facts):
    """Refuse what `FineTuned.save` does not write: no other key, kind or size reaches a model."""
    from PIL import Image

    def are_numbers(values, least):
        return isinstance(values, list) and 0 < len(values) < 10 and all(is_number(v) and v > least for v in values)

    def is_number(value):
        return isinstance(value, int | float) and math.isfinite(value)

    def is_size(value):
        sides = value if isinstance(value, list) and len(value) == 2 else [value]
        return all(type(side) is int and 0 < side <= 4096 for side in sides)

    is_right = {
        **dict.fromkeys(("name", "stopped"), lambda value: isinstance(value, str)),
        "kind": lambda value: value in _MAKE,
        "class_names": lambda value: isinstance(value, list) and not any(isinstance(x, list | dict) for x in value),
        "history": lambda value: isinstance(value, list) and all(isinstance(row, dict) for row in value),
        "epoch": lambda value: type(value) is int,
        "reads": lambda value: isinstance(value, list) and value and all(isinstance(stage, str) for stage in value),
        "tried": lambda value: isinstance(value, list) and all(isinstance(row, dict) for row in value),
    }
    of_images = {
        "architecture": lambda value: isinstance(value, str),
        "mean": lambda value: are_numbers(value, -math.inf),
        "std": lambda value: are_numbers(value, 0),
        "input_size": is_size,
        "crop_pct": lambda value: are_numbers([value], 0.01),
        "interpolation": lambda value: isinstance(value, str) and value.upper() in Image.Resampling.__members__,
        "fixed_size": lambda value: isinstance(value, bool),
        "fit": lambda value: isinstance(value, str),
    }
    of_sounds = of_images | {
        "rate": lambda value: type(value) is int and 0 < value <= 1_000_000,
        "seconds": lambda value: is_number(value) and 0 < value <= 3_600,
        "keep_pitch": lambda value: isinstance(value, bool),
    }
    of_texts = {
        "vocabulary": lambda value: isinstance(value, str),
        "max_tokens": lambda value: type(value) is int and 2 < value <= 100_000,
        "pooling": lambda value: isinstance(value, str),
        "size": lambda value: (
            isinstance(value, dict)
            and sorted(value) == ["depth", "heads", "positions", "width", "words"]
            and all(type(n) is int and 0 < n <= 1_000_000 for n in value.values())
        ),
    }
    is_right |= {"images": of_images, "sounds": of_sounds, "texts": of_texts}.get(str(facts["kind"]), {})
    wrong = [key for key in facts if key not in is_right or not is_right[key](facts[key])]
    wrong += is_right.keys() - facts.keys()
    if wrong:
        raise ValueError(f"not as tlbook writes it: {', '.join(sorted(wrong))}")


@contextmanager
def whole_folder(folder, size):
    """Yield a temporary folder beside ``folder`` that takes its place when the block ends without an error.

    Raises:
        OSError: the disk has no room for the ``size`` bytes that it is for.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder: choose another, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
    part.mkdir()
    try:
        yield part
        if folder.exists():
            folder.rmdir()
        os.replace(part, folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"{size / 1e6:,.0f} MB are needed in {folder.absolute().parent}, and the disk has no room for them: make "
            "some, or choose another folder. Nothing was written",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _attempt(what, make, *arguments):
    """What ``make`` returns, or None and a warning: nothing that is known of a model may lose the model."""
    try:
        return make(*arguments)
    except Exception as error:
        warnings.warn(
            f"{what} is left out of what is saved, the model is not ({type(error).__name__}: {error})", stacklevel=3
        )


def _as_json(value):
    """The value as it comes back from JSON; null where a number is not finite, for which JSON has no words."""
    plain = json.dumps(value, default=lambda x: x.item() if hasattr(x, "item") else str(x))
    return checkpoints.finite(json.loads(plain))


def _utf8(text):
    """Text as bytes; half a letter, as in a file name that is not UTF-8, as JSON and Python write it: \\udcff."""
    return text.encode("utf-8", "backslashreplace")


def _digest(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _versions():
    """{package: version}, of what is loaded: a package may run without being installed."""
    import PIL
    import timm

    import tlbook

    modules = {"tlbook": tlbook, "torch": torch, "timm": timm, "numpy": np, "pillow": PIL}
    return {name: str(getattr(module, "__version__", "not known")) for name, module in modules.items()}


def _licence(model):
    from tlbook.backbones import list_backbones

    name, kind = model.name.removesuffix(" on spectrograms"), "texts" if model.kind == "texts" else "images"
    of = {row["name"]: row["licence"] for row in list_backbones()}.get(name, "not known to tlbook: see their source")
    return f"The pretrained weights of {name}: {of}. The {kind} it was trained on have licences of their own."


def _facts_of(data, split):
    parts = zip(("train", "val", "test"), split, strict=True)
    counts = {part: data.subset(rows).class_counts.tolist() for part, rows in parts}
    facts = {"name": data.name, "fingerprint": data.fingerprint, "images": counts}
    facts["groups of val"] = None if data.groups is None else len(np.unique(data.groups[split.val]))
    return facts | {"groups": _groups_of(data, split), "given": _is_given(data, split)}


def _groups_of(data, split):
    """Tell how the test treats groups: "whole", "torn" where one has images on both sides, None without groups."""
    if data.groups is None:
        return None
    seen = data.groups[np.concatenate([split.train, split.val]).astype(np.int64)]
    return "torn" if np.isin(data.groups[split.test], seen).any() else "whole"


def _is_given(data, split):
    """Whether the test is the one that the data came with."""
    part = data.columns.get("part")
    return part is not None and set(split.test) == set(np.flatnonzero(part == "test"))


def _scores_of(evaluation):
    """Scores, intervals and baselines as JSON has them; None without an evaluation."""
    if evaluation is None:
        return None
    majority = evaluation.baselines["majority"]
    return {
        metric: {
            "value": getattr(evaluation, metric),
            "interval": evaluation.interval[metric],
            "why no interval": evaluation.why_no_interval(metric),
            "majority": majority[metric],
        }
        for metric in METRICS
    }


def _draw(path, figure_of, *arguments):
    from tlbook import plots

    figure, _ = figure_of(*arguments)
    try:
        with cache.atomic(path) as part:
            figure.savefig(part, format="png", dpi=100, bbox_inches="tight")
    finally:
        plots.plt.close(figure)


def _write_card(folder):
    """The README.md of a saved model, from its model.json and the figures beside it."""
    about = json.loads((folder / _ABOUT).read_bytes())
    model, name = about["model"], _markdown(about["model"]["name"])
    lines = [f"# {name}, fine-tuned: {', '.join(map(_markdown, model['class_names']))}", ""]
    lines += [" ".join(filter(None, [f"Saved on {about['date']}.", about["trained"], about["weighting"]])), ""]
    if model["stopped"]:
        why = "by hand (Ctrl-C)" if model["stopped"] == "Ctrl-C" else f"because {model['stopped']}"
        lines += [f"**Training stopped early**, {why}. These are the weights of epoch {model['epoch']}, the best.", ""]
    lines += _card_of_inputs(about.get("data"), model["class_names"], _kind_of(model), model["tried"])
    lines += _card_of_scores(about.get("scores"), about.get("notes", []))
    lines += card_of_tried(model["tried"], _markdown)
    lines += deciding.card(about.get("decisions"), _kind_of(model), model["class_names"])
    lines += [
        f"![{words}]({words.replace(' ', '_').lower()}.png)\n"
        for words in ("Confusion matrix", "Worst mistakes")
        if (folder / f"{words.replace(' ', '_').lower()}.png").exists()
    ]
    lines += ["## Use", "", "```", f"tlbook predict THIS_FOLDER {_kind_of(model).name}/ --csv out.csv", "```", ""]
    lines += [_what_it_sees(model), ""]
    lines += [
        about["licence"],
        "",
        f"It knows only the classes above, and calls every {_kind_of(model).one} one of them."
        + (" Where `known` is below 0.05, doubt it." if about.get("decisions") else ""),
    ]
    (folder / "README.md").write_bytes(_utf8("\n".join(lines) + "\n"))


def _kind_of(model):
    return KINDS[model.get("kind", "images")]


def _what_it_sees(model):
    """What of an input reaches the network, in a sentence."""
    if _kind_of(model).name == "texts":
        return f"It reads the first {model['max_tokens']} tokens of a text; a token is a word or a piece of one."
    if _kind_of(model).name == "sounds":
        return f"It hears the first {model['seconds']:g} s of a recording, at {model['rate']:,} samples a second."
    size = model["input_size"]
    height, width = size if isinstance(size, list) else (size, size)
    how = {"squeeze": "all of it, squeezed into them", "pad": "all of it, in a frame"}
    how = how.get(model.get("fit"), "resized until they are covered, and then the middle")
    return f"It sees {height} × {width} pixels of an image: {how}."


def _card_of_inputs(data, class_names, kind, tried):
    """How many inputs of each class the parts have, and how they were parted."""
    if not data:
        return []
    lines = [f"## {kind.name.capitalize()}", "", f"| part | {' | '.join(map(_markdown, class_names))} |"]
    lines += ["| --- |" + " ---: |" * len(class_names)]
    lines += [f"| {part} | " + " | ".join(map(str, counts)) + " |" for part, counts in data["images"].items()]
    how = {
        "whole": "Groups were kept whole.",
        "torn": "Groups stand on both sides of the test: if what is new in use is a group, the scores flatter.",
        None: f"The parts were drawn at random: if several {kind.name} show one thing, the scores below flatter.",
    }[data["groups"]]
    if data["given"]:
        how = f"The parts came with the {kind.name}." + (f" {how}" if data["groups"] else "")
    if data["groups of val"] == 1 and not tried:
        how += f" The validation {kind.name} are of one group: nothing tells how groups differ."
    absent = [_markdown(name) for name, n in zip(class_names, data["images"]["test"], strict=True) if not n]
    if absent and any(data["images"]["test"]):
        how += f" No test {kind.one} shows {', '.join(absent)}: the scores say nothing of it."
    return [*lines, "", how, ""]


def _card_of_scores(scores, notes):
    def number(value):
        return "–" if value is None else f"{value:.3f}"

    if not scores:
        return ["It was saved without a test: nothing is known here of how good it is.", ""]
    lines = ["## Scores on the test part", "", "| metric | value | 95 % interval | majority |"]
    lines += ["| --- | ---: | --- | ---: |"]
    for metric, score in scores.items():
        interval = score["why no interval"] or " … ".join(map(number, score["interval"]))
        lines += [
            f"| {metric.replace('_', ' ')} | {number(score['value'])} | {interval} | {number(score['majority'])} |"
        ]
    return [*lines, "", *(f"{note}.\n" for note in notes)]


def _markdown(text):
    """Text on one line, with nothing in it that Markdown, its tables or its formulas would take for a sign."""
    signs = r"[\\`*\[\]<>|$~&]|(?<![^\W_])_|_(?![^\W_])"  # an underscore within a word is none
    return re.sub(signs, r"\\\g<0>", " ".join(str(text).split()))
