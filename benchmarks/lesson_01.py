"""The learning curve of lesson 01, with more draws of the labelled panels and a larger network beside the small one.

    python benchmarks/lesson_01.py            # all draws: about an hour on two cores
    python benchmarks/lesson_01.py 0 1 2      # these draws alone; the others stay as they are recorded

A draw is a fold of panels to be judged and an order of the other 33, of which the first n are labelled. Both contenders
see the same photographs of 96 pixels. Each chooses its one setting inside the labelled panels: the probe its C, the
network from scratch its number of steps. The lesson runs a part of this live, and quotes the rest.
"""

import json
import operator
import sys
import time
from pathlib import Path

import numpy as np
import torch
from record import about
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import tlbook as tl

RESULT = Path(__file__).parent / "results" / "lesson_01.json"
SIZES, STEPS = (4, 8, 16, 33), (50, 100, 200, 400, 800, 1600)
NETWORKS = {"small": (8, 16, 32, 64), "large": (16, 32, 64, 128)}
LARGE = (33,), range(4)  # sizes and draws of the large network, which takes three times as long


def network(widths):
    layers, c_in = [], 1
    for c_out in widths:
        layers += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
        c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 2))


def pictures(views):
    return (views.float() / 255 - 0.5).div(0.25).to(memory_format=torch.channels_last)


def train(views, labels, rows, widths, steps, seed):
    """Train on ``rows``; yield the running mean of the network's weights after each number of ``steps``."""
    torch.manual_seed(seed)
    net, rng = network(widths).to(memory_format=torch.channels_last), np.random.default_rng(seed)
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.98), use_buffers=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    for step in range(1, max(steps) + 1):
        batch = rng.choice(rows, 32)
        x = pictures(views[rng.integers(4, size=32), batch])
        loss = nn.functional.cross_entropy(net(x), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.update_parameters(net)
        if step in steps:
            yield step, mean.eval()


def predict(net, views, rows):
    with torch.inference_mode():
        return torch.cat([net(pictures(views[0, part])) for part in np.array_split(rows, 8)]).softmax(1).numpy()


def log_loss(p, labels):
    return float(-np.log(p[np.arange(len(p)), labels].clip(1e-12)).mean())


def scratch(data, views, panels, test, widths, seed):
    """Choose the steps on a quarter of the labelled panels (two at least), then train on all: (steps, P(defective)).

    The search ends when four times the steps of the lowest loss brought no lower one.
    """
    labels, inside = torch.tensor(data.labels), np.isin(data.groups, panels[: max(2, len(panels) // 4)])
    labelled, loss = np.isin(data.groups, panels), {}
    inner, held_out = np.flatnonzero(labelled & ~inside), np.flatnonzero(labelled & inside)
    for steps, net in train(views, labels, inner, widths, STEPS, seed):
        loss[steps] = log_loss(predict(net, views, held_out), data.labels[held_out])
        best = min(loss, key=loss.get)
        if steps >= 4 * best:
            break
    ((_, net),) = train(views, labels, np.flatnonzero(labelled), widths, (best,), seed)
    return best, predict(net, views, test)[:, 1]


def fit(data, features, views, draw, n, fold, who):
    """One fit as a row: what was chosen, and the AUC on the panels of the fold."""
    start = time.perf_counter()
    panels = np.random.default_rng(draw).permutation(np.unique(data.groups[fold.train]))[:n]
    if who == "pretrained":
        rows = fold.train[np.isin(data.groups[fold.train], panels)]
        probe = tl.linear_probe(features, fold._replace(train=rows), folds=min(4, n))
        chosen, p = float(probe.C), probe.predict_proba(features.X[fold.test])[:, 1]
    else:
        chosen, p = scratch(data, views, panels, fold.test, NETWORKS[who], seed=draw)
    auc = tl.evaluate(np.stack([1 - p, p], 1), data.labels[fold.test], resamples=1).auc
    seconds = round(time.perf_counter() - start, 1)
    return {"draw": draw, "panels": n, "who": who, "chosen": chosen, "AUC": round(auc, 4), "seconds": seconds}


def main(draws):
    data = tl.data.solar_cells(size=96)
    features = tl.extract(tl.load_backbone(), data, precision="float32")
    images = torch.stack([data[i][0] for i in range(len(data))])
    views = torch.stack([images, images.flip(2), images.flip(3), images.flip(2, 3)])
    folds = data.folds(k=4, repeats=3, seed=0)
    for draw in draws or range(len(folds)):
        who = [("pretrained", SIZES), ("small", SIZES), ("large", LARGE[0] if draw in LARGE[1] else ())]
        for name, n in ((name, n) for name, sizes in who for n in sizes):
            row = fit(data, features, views, draw, n, folds[draw], name)
            save(row)
            print(row, flush=True)


def save(row):
    """Put this row in place of the one recorded before."""
    old = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    key = operator.itemgetter("who", "panels", "draw")
    rows = sorted([r for r in old if key(r) != key(row)] + [row], key=key)
    lines = ",\n  ".join(json.dumps(r) for r in rows)
    RESULT.write_text(
        json.dumps(about("python benchmarks/lesson_01.py"), indent=1)[:-2] + f',\n "rows": [\n  {lines}\n ]\n}}\n'
    )


if __name__ == "__main__":
    main([int(draw) for draw in sys.argv[1:]])
