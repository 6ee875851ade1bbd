"""The batches of a run: every example once an epoch, and a frozen prefix that changes nothing but the seconds."""

import numpy as np
import pytest
import torch
from small import DATA, FAST, NO_VAL, SPLIT, apart, same, tiny

import tlbook as tl
from tlbook.backbones import Backbone
from tlbook.processes import Processes
from tlbook.training import batches, run
from tlbook.training.recipes import LPFT, Full

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


@pytest.mark.parametrize("recipe", ["head", Full(until="layer2"), "gradual", LPFT(until="layer1")])
def test_a_stored_prefix_gives_the_weights_of_one_computed_each_time(recipe, monkeypatch):
    options = FAST | {"recipe": recipe, "epochs": 5, "augment": "flips"}
    split = NO_VAL if isinstance(recipe, LPFT) else SPLIT  # a probe is at its best at the start
    stored = tl.finetune(tiny(), DATA, split, **options)
    calls, look_up = [], batches.Batches._look_up
    monkeypatch.setattr(batches.Batches, "_look_up", lambda *a: calls.append(a) or look_up(*a))
    assert apart(stored, tl.finetune(tiny(), DATA, split, **options, store_prefix=False)) < 1e-4
    assert not any(calls)
    monkeypatch.setattr(batches, "IN_MEMORY", 0)
    assert same(stored, tl.finetune(tiny(), DATA, split, **options)) and any(calls)


def test_a_stored_prefix_runs_each_view_once(monkeypatch):
    seen = []
    collate = Backbone.collate
    monkeypatch.setattr(Backbone, "collate", lambda self, inputs: seen.append(len(inputs)) or collate(self, inputs))
    tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"recipe": "head", "epochs": 8}), augment="flips")
    pairs = 4 * len(SPLIT.train) + len(SPLIT.val)
    assert sum(seen) <= pairs  # eight epochs, four views: half of what no store would cost


def test_the_eight_views_are_the_symmetries_of_the_square():
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat(8, 1, 1, 1)
    turned = batches.apply_views(x, np.arange(8))
    assert len({tuple(image.flatten().tolist()) for image in turned}) == 8
    expected = [x[0].rot90(k, (1, 2)) for k in range(4)]
    expected += [image.flip(-1) for image in expected]
    assert torch.equal(turned, torch.stack(expected))
    assert {tuple(x[0].flatten().tolist()), *(tuple(x[0].flip(d).flatten().tolist()) for d in (-1, -2, (-1, -2)))} == {
        tuple(turned[v].flatten().tolist()) for v in batches.AUGMENTATIONS["flips"]
    }
    with pytest.raises(ValueError, match="square"):
        batches.apply_views(torch.zeros(2, 1, 3, 4), np.array([0, 1]))


def test_every_example_comes_once_an_epoch_and_in_every_view_before_one_returns():
    train = np.arange(10, 47)
    settings = run.Settings(4, 1e-3, 8, 1, 1.0, "flips", True, 3)
    for world in (1, 2):
        views = {i: [] for i in train}
        for epoch in range(4):
            members = [Processes(rank, world) for rank in range(world)]
            shares = [batches.shares_of_epoch(train, epoch, 5, settings, member) for member in members]
            rows = np.concatenate([rows for share in shares for rows, _, _ in share])
            assert sorted(rows) == sorted(train)
            assert {size for share in shares for _, _, size in share} <= {7, 8}
            for share in shares:
                for part, view, _ in share:
                    for i, v in zip(part, view, strict=True):
                        views[i].append(v)
        assert all(sorted(v) == [0, 2, 4, 6] for v in views.values())


def upright(n=200, side=32):
    """Brightness rises to the bottom, redness to the right."""
    x = torch.zeros(n, 3, side, side)
    x[:, 1] = torch.linspace(0, 1, side)[:, None]
    x[:, 0] = torch.linspace(0, 1, side)
    return x


def test_a_photo_is_cropped_and_mirrored_and_never_upside_down():
    x, numbers = upright(), np.arange(8, 208)
    shown = batches.apply_views(x, numbers)
    assert shown.shape == x.shape and not torch.equal(shown[0], shown[1])
    down = shown[:, 1].mean(2)  # (N, H)
    assert (down[:, -1] > down[:, 0]).all()
    across = shown[:, 0].mean(1)
    mirrored = (across[:, 0] > across[:, -1]).float().mean().item()
    assert 0.35 < mirrored < 0.65
    area = (shown[:, 1].amax((1, 2)) - shown[:, 1].amin((1, 2))) * (shown[:, 0].amax((1, 2)) - shown[:, 0].amin((1, 2)))
    assert area.min() > batches.LEAST - 0.1 and area.min() < 0.65 and area.max() > 0.9
    assert torch.equal(shown, batches.apply_views(x, numbers)), "a function of the number"
    assert torch.equal(batches.apply_views(x, numbers % 1), x)


def test_photo_draws_from_no_other_random_state_and_comes_anew_each_epoch():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batches.photo_view(upright(1)[0], 77)
    assert torch.equal(before, torch.get_rng_state())
    settings = run.Settings(4, 1e-3, 8, 1, 1.0, "photo", True, 3)
    views = {}
    for world in (1, 2):
        members = [Processes(rank, world) for rank in range(world)]
        for epoch in range(2):
            shares = [batches.shares_of_epoch(np.arange(37), epoch, 5, settings, member) for member in members]
            of = {
                int(i): int(v) for share in shares for rows, view, _ in share for i, v in zip(rows, view, strict=True)
            }
            assert views.setdefault(epoch, of) == of, "processes agree"
    assert all(views[0][i] != views[1][i] for i in views[0])


@pytest.mark.parametrize("recipe", ["head", "full"])
def test_a_photo_is_shown_in_training_alone(recipe, monkeypatch):
    options = FAST | {"recipe": recipe}
    shown = []
    apply = batches.apply_views
    monkeypatch.setattr(batches, "apply_views", lambda x, views: shown.append(views) or apply(x, views))
    found = tl.finetune(tiny(), DATA, SPLIT, **options, augment="photo")
    views = np.concatenate(shown)
    assert (views >= batches.VIEWS).sum() == options["epochs"] * len(SPLIT.train)
    assert set(views[views < batches.VIEWS]) == {0}  # validation
    shown.clear()
    found.predict(DATA)
    assert not shown
