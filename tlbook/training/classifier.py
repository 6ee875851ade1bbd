"""A fine-tuned classifier: what it predicts, how it is kept in a folder, and how it leaves for other programs."""

import copy
import hashlib
import importlib.metadata
import json
import os
import shutil
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from tlbook import images
from tlbook.data import Dataset
from tlbook.device import memory_kept
from tlbook.evaluation import METRICS, evaluate
from tlbook.loading import eval_batch_size, load
from tlbook.table import Table
from tlbook.training import checkpoints
from tlbook.training.run import probabilities

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
    """

    model: nn.Module = field(repr=False)
    history: Table
    epoch: int
    class_names: tuple
    start: dict | None = field(default=None, repr=False)
    stopped: str = ""

    @property
    def finished(self):
        """Whether the training came to its last epoch."""
        return not self.stopped

    def predict(self, inputs, *, batch_size=None):
        """Return (N, K) float64 probabilities, computed in float32; rows sum to 1.

        Args:
            inputs: a Dataset; N inputs; one input (N is 1); the path of an image; or of a folder, whose images are
                taken in the order of their paths (`tlbook.images.find`). Images of any mode and size.

        Raises:
            ValueError: an image that cannot be read, or a folder without images. FileNotFoundError: no such path.
        """
        if isinstance(inputs, Dataset):
            data = inputs
        else:
            inputs = images.inputs_of(inputs)
            data = Dataset(inputs, np.zeros(len(inputs), int), self.class_names)
        size = batch_size or eval_batch_size(self.model.device)
        batches = [range(i, min(i + size, len(data))) for i in range(0, len(data), size)]
        bar = {"total": len(batches), "desc": "predicting", "unit": " batches", "leave": False, "delay": 1}
        with memory_kept(self.model.device), closing(load(data, batches, [self.model])) as loaded:
            return probabilities(self.model, (x for (x,) in tqdm(loaded, **bar)), len(self.class_names))

    def evaluate(self, data, index):
        """Score the examples at ``index``: a `tlbook.evaluation.Evaluation` with intervals by group."""
        if tuple(data.class_names) != tuple(self.class_names):
            raise ValueError(f"the data's classes are {data.class_names}, the model's {self.class_names}")
        part = data.subset(index)
        return evaluate(self.predict(part), part.labels, groups=part.groups)

    def save(self, folder, *, data=None, split=None, trained=""):
        """Write the model to ``folder``, whole or not at all; `load_finetuned` reads it back.

        Always: the weights (model.safetensors), what they are (model.json), and a card to read (README.md). With
        ``data`` and its ``split``, also what it scores on ``split.test``, with the confusion matrix and the worst
        mistakes as PNG files.

        Args:
            folder: does not exist yet, or is empty.
            trained: how, in words or as a command, for the card.

        Returns:
            The Evaluation on ``split.test``; None without ``data``.

        Raises:
            FileExistsError: there is something in the folder. ValueError: the model has LoRA that was not merged.
        """
        if any(hasattr(module, "_plain") for module in self.model.modules()):
            raise ValueError("the model has LoRA beside its weights: tl.lora.merge(found.model) first")
        facts = self._facts()
        about = {"model": facts, "date": date.today().isoformat(), "versions": _versions(), "trained": trained}
        about["licence"] = _licence(self.model.name)
        e = None
        with _whole_folder(folder) as part:
            checkpoints.write(part / _WEIGHTS, self.model.model.state_dict(), facts)
            about["weights"] = {"file": _WEIGHTS, "sha256": _digest(part / _WEIGHTS)}
            if data is not None:
                e = self.evaluate(data, split.test)
                about["data"] = _facts_of(data, split)
                about["scores"] = {m: {"value": getattr(e, m), "interval": e.interval[m]} for m in METRICS}
                about["baselines"] = e.baselines
                _draw(self, data, split.test, e, part)
            (part / _ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (part / "README.md").write_text(_card(about), encoding="utf-8")
        return e

    def export(self, path):
        """Write the classifier as ONNX, and check with ONNX Runtime that it answers as the original.

        Its input "image" is (B, 3, H, W) float32 in 0 … 255, RGB, of the size that the model was pretrained on; its
        output "probabilities" is (B, K). Scaling, mean and standard deviation are inside; resizing is not.

        Returns:
            The largest difference of a probability between the two.

        Raises:
            ModuleNotFoundError: onnx, onnxscript and onnxruntime are not installed.
            RuntimeError: they differ by more than 1e-4; nothing is written then.
        """
        try:
            import onnxruntime
            import onnxscript  # noqa: F401 what torch exports with
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error.name} is missing: pip install 'tlbook[export]'") from None
        from tlbook import cache

        side, whole = self.model.input_size, _FromPixels(copy.deepcopy(self.model)).cpu().eval()
        x = (255 * torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))).round()
        with cache.atomic(path) as part:
            program = torch.onnx.export(
                whole,
                (x,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["probabilities"],
                dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            )
            program.save(part)
            session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
            with torch.inference_mode():
                answers = [(session.run(None, {"image": x[:n].numpy()})[0], whole(x[:n]).numpy()) for n in (1, 3)]
            apart = max(float(np.abs(a - b).max()) for a, b in answers)
            if not apart <= 1e-4:
                raise RuntimeError(f"the ONNX model answers differently, by up to {apart:.1e}: nothing was written")
        return apart

    def _facts(self):
        b = self.model
        facts = {k: getattr(b, k) for k in ("name", "mean", "std", "input_size", "crop_pct", "interpolation")}
        facts |= {"fixed_size": b._fixed_size, "architecture": b.model.pretrained_cfg["architecture"]}
        facts |= {"class_names": self.class_names, "history": self.history, "epoch": self.epoch}
        return json.loads(json.dumps(facts))


class _FromPixels(nn.Module):
    """(B, 3, H, W) in 0 … 255 -> probabilities."""

    def __init__(self, backbone):
        super().__init__()
        self.model = backbone.model
        for name in ("mean", "std"):
            self.register_buffer(name, 255 * torch.tensor(getattr(backbone, name)).view(1, 3, 1, 1))

    def forward(self, x):
        return self.model((x - self.mean) / self.std).softmax(1)


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
    changed = [k for k in facts.keys() | said.keys() if json.dumps(facts.get(k)) != json.dumps(said.get(k))]
    if changed:
        raise ValueError(
            f"{folder / _ABOUT} disagrees with what the weights were saved with in {', '.join(sorted(changed))}: "
            "one of the two was edited or exchanged"
        )
    if _digest(path) != digest:
        raise ValueError(f"{path} is damaged or was exchanged: its SHA-256 is not the one in {_ABOUT}")
    try:
        return _rebuilt(state, facts)
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{folder} holds no model that can be rebuilt here ({error})") from error


def _rebuilt(state, facts):
    from tlbook import device
    from tlbook.backbones import Backbone, build
    from tlbook.parameter_transfer import transfer

    history, epoch, classes = facts.pop("history"), facts.pop("epoch"), tuple(facts.pop("class_names"))
    model = build(facts.pop("architecture"), len(classes))
    transfer(state, model)
    backbone = Backbone(model, **facts).to(device.choose(), memory_format=torch.channels_last)
    return FineTuned(backbone, Table(history), epoch, classes)


@contextmanager
def _whole_folder(folder):
    """Yield a temporary folder beside ``folder`` that takes its place when the block ends without an error."""
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
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _digest(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _versions():
    return {name: importlib.metadata.version(name) for name in ("tlbook", "torch", "timm", "numpy", "pillow")}


def _licence(name):
    from tlbook.backbones import list_backbones

    of = {row["name"]: row["licence"] for row in list_backbones()}.get(name, "not known to tlbook: see their source")
    return f"The pretrained weights of {name}: {of}. The images it was trained on have licences of their own."


def _facts_of(data, split):
    parts = zip(("train", "val", "test"), split, strict=True)
    counts = {part: data.subset(rows).class_counts.tolist() for part, rows in parts}
    return {"name": data.name, "fingerprint": data.fingerprint, "groups": _groups_of(data, split), "images": counts}


def _groups_of(data, split):
    """Tell how the test treats groups: "whole", "torn" where one has images on both sides, None without groups."""
    if data.groups is None:
        return None
    seen = data.groups[np.concatenate([split.train, split.val])]
    return "torn" if np.isin(data.groups[split.test], seen).any() else "whole"


def _draw(found, data, index, evaluation, folder):
    from tlbook import plots

    drawings = {
        "confusion_matrix.png": plots.confusion_matrix_figure(evaluation, found.class_names),
        "worst_mistakes.png": plots.worst_mistakes_figure(found, data, index, evaluation),
    }
    for name, (figure, _) in drawings.items():
        figure.savefig(folder / name, format="png", dpi=100, bbox_inches="tight")
        plots.plt.close(figure)


def _card(about):
    """The README.md of a saved model."""
    model, data = about["model"], about.get("data")
    lines = [f"# {model['name']}, fine-tuned: {', '.join(model['class_names'])}", ""]
    lines += [f"Saved on {about['date']}. {about['trained']}".strip(), ""]
    if data:
        lines += ["## Images", "", "| part | " + " | ".join(model["class_names"]) + " |"]
        lines += ["| --- |" + " ---: |" * len(model["class_names"])]
        lines += [f"| {part} | " + " | ".join(map(str, n)) + " |" for part, n in data["images"].items()]
        how = {
            "whole": "Groups were kept whole.",
            "torn": "Groups stand on both sides of the test: if what is new in use is a group, the scores flatter.",
            None: "The parts were drawn at random: if several images show one thing, the scores below flatter.",
        }[data["groups"]]
        lines += ["", how, "", "## Scores on the test part", "", "| metric | value | 95 % interval | majority |"]
        lines += ["| --- | ---: | --- | ---: |"]
        for metric, score in about["scores"].items():
            low, high = score["interval"]
            majority = about["baselines"]["majority"][metric]
            lines += [
                f"| {metric.replace('_', ' ')} | {score['value']:.3f} | {low:.3f} … {high:.3f} | {majority:.3f} |"
            ]
        lines += ["", "![Confusion matrix](confusion_matrix.png)", "", "![Worst mistakes](worst_mistakes.png)"]
    else:
        lines += ["It was saved without a test: nothing is known here of how good it is."]
    lines += ["", "## Use", "", "```", "tlbook predict THIS_FOLDER images/ --csv out.csv", "```", ""]
    lines += [about["licence"], "", "It knows only the classes above, and calls every image one of them."]
    return "\n".join(lines) + "\n"
