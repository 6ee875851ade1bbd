"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import numpy as np
import torch
from torchvision import transforms


def steps(size=(96, 96), rgb=True, scale=True, mean=0.5, std=0.25):
    def answer(image):
        image = (image.convert("RGB") if rgb else image).resize(size) if size else image
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        return ((x / 255 if scale else x) - mean) / std

    return answer


def as_text(groups, wanted):
    names = groups.astype(str)
    return np.isin(names, np.unique(names)[:wanted])


def in_training_mode(model, batches):
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) for x in batches])


def last_batch(model, batches):
    model.eval()
    return [model(x).argmax(1) for x in batches][-1]


def logits(model, batches):
    model.eval()
    return torch.cat([model(x)[:, 0] for x in batches])


def one_by_one(groups, wanted):
    first = sorted(set(groups.tolist()))[:wanted]
    return np.array([group in first for group in groups.tolist()])


def in_inference_mode(model, batches):
    model.train(False)
    with torch.inference_mode():
        return [int(k) for x in batches for k in model(x).argmax(1)]


RIGHT = {"06.1": [steps()], "06.2": [one_by_one], "06.3": [in_inference_mode]}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "not normalised": ("06.1", steps(mean=0, std=1), "not yet normalised"),
    "not scaled": ("06.1", steps(scale=False), "Divide by 255"),
    "mean after": ("06.1", steps(mean=0.125), "First minus the mean"),
    "modes forgotten": ("06.1", steps(rgb=False), "convert it to RGB"),
    "shorter side": (
        "06.1",
        lambda im: transforms.Compose([transforms.Resize(96), transforms.ToTensor(), transforms.Normalize(0.5, 0.25)])(
            im.convert("RGB")
        ),
        "not to 96",
    ),
    "examples": ("06.2", lambda groups, n: np.arange(len(groups)) < n, "on both sides"),
    "turned round": ("06.2", lambda groups, n: ~np.isin(groups, np.unique(groups)[:n]), "other way round"),
    "as text": ("06.2", as_text, "sort them"),
    "names": ("06.2", lambda groups, n: np.unique(groups)[:n], "boolean mask"),
    "training mode": ("06.3", in_training_mode, "training mode"),
    "last batch": ("06.3", last_batch, "last batch alone"),
    "logits": ("06.3", logits, "argmax"),
}
