"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import torch
from torch.nn import functional as F


def penalty(theta, theta0, strength):
    return sum(strength / 2 * ((theta[n] - theta0[n]) ** 2).sum() for n in theta0)


def flat(theta, theta0, strength):
    parts = [(theta[name] - start).flatten() for name, start in theta0.items()]
    return strength * torch.cat(parts).square().sum() / 2


def groups(model, lr, times=10, decay=0.05, norms=0.0, parts=("body", "head")):
    return [
        {"params": [p], "lr": lr * (times if part == "head" else 1), "weight_decay": decay if p.ndim > 1 else norms}
        for part in parts
        for p in getattr(model, part).parameters()
    ]


def loop(zero=True, mode=True, logits=True, epochs=1):
    def train(model, optimizer, batches):
        if mode:
            model.train()
        for x, y in batches * epochs:
            if zero:
                model.zero_grad()
            F.cross_entropy(model(x) if logits else model(x).softmax(1), y).backward()
            optimizer.step()

    return train


RIGHT = {"04.1": [penalty, flat], "04.2": [groups], "04.3": [loop()]}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "weight decay": (
        "04.1",
        lambda theta, theta0, strength: strength / 2 * sum(theta[n].square().sum() for n in theta0),
        "That is weight decay",
    ),
    "the head too": (
        "04.1",
        lambda theta, theta0, strength: strength / 2 * sum((theta[n] - theta0.get(n, 0)).square().sum() for n in theta),
        "The head is in it",
    ),
    "no half": ("04.1", lambda theta, theta0, strength: 2 * penalty(theta, theta0, strength), "Twice too much"),
    "not squared": (
        "04.1",
        lambda theta, theta0, strength: strength / 2 * sum((theta[n] - theta0[n]).norm() for n in theta0),
        "Those are distances",
    ),
    "a number": ("04.1", lambda theta, theta0, strength: penalty(theta, theta0, strength).item(), "scalar tensor"),
    "no gradient": (
        "04.1",
        lambda theta, theta0, strength: penalty(theta, theta0, strength).detach(),
        "gradient is lost",
    ),
    "head forgotten": ("04.2", lambda model, lr: groups(model, lr, parts=("body",)), "would not learn"),
    "one rate": ("04.2", lambda model, lr: groups(model, lr, times=1), "should learn at 0.1"),
    "norms decay": ("04.2", lambda model, lr: groups(model, lr, norms=0.05), "should be 0, it is 0.05"),
    "rate left to the optimizer": (
        "04.2",
        lambda model, lr: [{"params": list(model.parameters()), "weight_decay": 0.0}],
        "of its own",
    ),
    "not groups": ("04.2", lambda model, lr: list(model.parameters()), "list of dicts"),
    "as it was printed": ("04.3", loop(False, False, False), "All 3 bugs are left. Repair one"),
    "only train mode": ("04.3", loop(False, True, False), "2 bugs are left. One of them: the gradients"),
    "only zero_grad": ("04.3", loop(True, False, False), "2 bugs are left. One of them: the model trains in eval"),
    "only the loss": ("04.3", loop(False, False, True), "2 bugs are left. One of them: the gradients"),
    "gradients add up": ("04.3", loop(zero=False), "1 bug is left: the gradients"),
    "eval mode": ("04.3", loop(mode=False), "1 bug is left: the model trains in eval mode"),
    "two softmaxes": ("04.3", loop(logits=False), "1 bug is left: cross_entropy takes logits"),
    "another loop": ("04.3", loop(epochs=2), "those of another loop"),
}
