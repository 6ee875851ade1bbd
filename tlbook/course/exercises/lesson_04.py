"""Exercises of lesson 04."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from tlbook.course.exercises import Exercise


def _l2_sp(answer):
    draw = torch.Generator().manual_seed(0)
    theta0 = {"a": torch.randn(3, 2, generator=draw), "b": torch.randn(4, generator=draw)}
    theta = {name: t + torch.randn(t.shape, generator=draw) for name, t in theta0.items()}
    theta["head"] = torch.randn(5, generator=draw)
    for t in theta.values():
        t.requires_grad_(True)
    got = answer(theta, theta0, 0.5)
    moved = sum((theta[n] - theta0[n]).square().sum() for n in theta0)
    assert isinstance(got, torch.Tensor) and got.ndim == 0, "Return a scalar tensor: it is added to the loss."
    assert got.requires_grad, "The gradient is lost: stay in torch, without .item() or .detach() on theta."

    def alike(value):
        return torch.allclose(got, value, rtol=1e-4)

    weights = sum(theta[n].square().sum() for n in theta0)
    assert not alike(0.25 * weights), "That is weight decay: it pulls towards 0. L2-SP pulls towards theta0."
    assert not alike(0.25 * (moved + theta["head"].square().sum())), (
        "The head is in it. It was not transferred: L2-SP has nothing to pull it towards."
    )
    assert not alike(0.5 * moved), "Twice too much: the formula has strength / 2."
    assert not alike(0.25 * moved.sqrt()), "That is the distance; the penalty is its square."
    norms = sum((theta[n] - theta0[n]).norm() for n in theta0)
    assert not alike(0.25 * norms), "Those are distances; the penalty sums their squares."
    assert alike(0.25 * moved), "strength / 2 times the sum of (theta - theta0)², over the names in theta0."


class _Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x))


def _groups(answer):
    model, lr = _Small(), 0.01
    got = answer(model, lr)
    assert isinstance(got, list) and all(isinstance(g, dict) and "params" in g for g in got), (
        'Return a list of dicts, each with "params", "lr" and "weight_decay".'
    )
    got = torch.optim.AdamW([g | {"params": list(g["params"])} for g in got], lr=123.0).param_groups
    named = {id(p): name for name, p in model.named_parameters()}
    found = {named.get(id(p)): group for group in got for p in group["params"]}
    missing = set(named.values()) - set(found)
    assert not missing, f"{', '.join(sorted(missing))} would not learn: the optimizer does not get it."
    for name, p in model.named_parameters():
        rate, decay = found[name]["lr"], found[name]["weight_decay"]
        assert rate != 123.0, f'{name} has no "lr" of its own: it would learn at the optimizer\'s default.'
        want = lr * (10 if name.startswith("head") else 1)
        assert abs(rate - want) < 1e-9, f"{name} should learn at {want:g}, it got {rate:g}."
        want = 0.05 if p.ndim > 1 else 0.0
        assert decay == want, f"{name} has {p.ndim} dimension(s): its weight_decay should be {want:g}, it is {decay:g}."


def _repair(answer):
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(16, 6, generator=draw), torch.randint(3, (16,), generator=draw)) for _ in range(5)]

    def result(train):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = _Small().eval()
        train(model, torch.optim.SGD(model.parameters(), lr=0.5), batches)
        return torch.cat([v.detach().float().flatten() for v in model.state_dict().values()])

    def loop(zero, mode, logits):
        def train(model, optimizer, batches):
            if mode:
                model.train()
            for x, y in batches:
                if zero:
                    optimizer.zero_grad()
                z = model(x)
                F.cross_entropy(z if logits else z.softmax(1), y).backward()
                optimizer.step()

        return train

    got = result(answer)
    told = (
        "the gradients of all earlier batches are still added up in .grad",
        "the model trains in eval mode: BatchNorm neither uses the batch nor learns its statistics",
        "cross_entropy takes logits and does the softmax itself: here it is done twice",
    )
    for fixed in itertools.product((False, True), repeat=3):
        if torch.allclose(got, result(loop(*fixed)), atol=1e-5):
            left = [words for words, done in zip(told, fixed, strict=True) if not done]
            assert len(left) < 3, "All 3 bugs are left. Repair one and check again: then one of the others is named."
            assert len(left) < 2, f"2 bugs are left. One of them: {left[0]}."
            assert not left, f"1 bug is left: {left[0]}."
            return
    raise AssertionError(
        "The weights at the end are those of another loop. Each batch once and in order: zero_grad, forward, "
        "cross-entropy of the logits, backward, step; the model in train mode."
    )


EXERCISES = {
    "04.1": Exercise(
        _l2_sp,
        "Loop over theta0, not over theta: the head is then left out by itself.",
        "def answer(theta, theta0, strength):\n"
        "    return strength / 2 * sum((theta[name] - theta0[name]).square().sum() for name in theta0)",
    ),
    "04.2": Exercise(
        _groups,
        "Two questions for each parameter, so four groups: is it in the head, and is p.ndim above 1?",
        "def answer(model, lr):\n"
        "    groups = []\n"
        "    for part, rate in ((model.body, lr), (model.head, 10 * lr)):\n"
        "        for matrix, decay in ((True, 0.05), (False, 0.0)):\n"
        "            params = [p for p in part.parameters() if (p.ndim > 1) == matrix]\n"
        '            groups.append({"params": params, "lr": rate, "weight_decay": decay})\n'
        "    return groups",
    ),
    "04.3": Exercise(
        _repair,
        "One bug is in the line of the loss. Two are lines that are missing: one before the loop, one in it.",
        "from torch.nn import functional as F\n\n\n"
        "def answer(model, optimizer, batches):\n"
        "    model.train()\n"
        "    for x, y in batches:\n"
        "        optimizer.zero_grad()\n"
        "        loss = F.cross_entropy(model(x), y)\n"
        "        loss.backward()\n"
        "        optimizer.step()",
    ),
}
