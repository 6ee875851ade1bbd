"""Named tensors are read whole or refused by name, and what does not fit is explained."""

import argparse
import os
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tlbook.named_tensors import TransferError, tensors_of
from tlbook.parameter_transfer import TaskVector, interpolate, soup, transfer


def raw(state):
    """{name: bytes}, so that equality is to the bit."""
    state = state.state_dict() if isinstance(state, nn.Module) else state
    return {k: (v.dtype, v.shape, v.detach().cpu().contiguous().numpy().tobytes()) for k, v in state.items()}


# What strict=False hides


def test_a_wrong_prefix_loads_nothing_with_strict_false_and_is_named_here():
    torch.manual_seed(0)
    x = torch.randn(400, 8)
    y = ((x[:, :1] * x[:, 1:2]) > 0).long().squeeze(1)  # not linear: chance is 1/2

    def network():
        return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))

    def accuracy(model):
        model.cpu().eval()  # where there is a GPU, DataParallel has taken it there
        return (model(x).argmax(1) == y).float().mean().item()

    trained = network()
    optimizer = torch.optim.Adam(trained.parameters(), 0.02)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(x), y).backward()
        optimizer.step()
    checkpoint = nn.DataParallel(trained).state_dict()  # adds "module."
    assert accuracy(trained) > 0.95

    silent, target = network(), network()
    before = raw(silent)
    silent.load_state_dict(checkpoint, strict=False)
    assert raw(silent) == before and abs(accuracy(silent) - 0.5) < 0.15

    with pytest.raises(TransferError) as refusal:
        transfer(checkpoint, target)
    assert "begin with 'module.'" in str(refusal.value) and r"(r'^module\.', '')" in str(refusal.value)
    transfer(checkpoint, target, rename=[(r"^module\.", "")])
    assert accuracy(target) == accuracy(trained)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("module.", ""), ("", "backbone."), ("encoder.", "backbone."), ("model.net.", "features.")],
)
def test_the_rename_that_a_refusal_suggests_is_the_one_that_works(theirs, ours):
    model = nn.Sequential(*[nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)) for _ in range(12)])
    source = {theirs + name: tensor for name, tensor in model.state_dict().items()}
    target = model
    for part in reversed(ours.split(".")[:-1]):
        target = nn.ModuleDict({part: target})
    with pytest.raises(TransferError) as refusal:
        transfer(source, target)
    pattern, replacement = re.search(r"add \(r'(.*)', '(.*)'\) to rename", str(refusal.value)).groups()
    report = transfer(source, target, rename=[(pattern, replacement)])
    assert len(report.copied) == len(source)


def test_a_refusal_names_keys_shapes_nearest_names_and_a_remedy():
    target = nn.ModuleDict({"conv": nn.Conv2d(1, 4, 3), "classifier": nn.Linear(4, 2), "fc": nn.Linear(1, 2)})
    source = {
        "conv.weight": torch.ones(4, 3, 3, 3),
        "conv.bias": torch.ones(4),
        "classifer.weight": torch.ones(2, 4),  # misspelt
        "classifier.bias": torch.ones(2),
        "fc.weight": torch.ones(1000, 1),
        "fc.bias": torch.ones(1000),
    }
    with pytest.raises(TransferError) as refusal:
        transfer(source, target)
    text = str(refusal.value)
    assert "without a source: 1; that do not fit: 3; unused: 1. Nothing was loaded." in text
    assert "classifier.weight 2×4; nearest: classifer.weight" in text and "allow_missing" in text
    assert "classifer.weight 2×4; nearest: classifier.weight" in text and "allow_unused" in text
    assert "4×3×3×3 does not fit 4×1×3×3" in text and "adapt={'conv.weight': 'input_channels'}" in text
    assert "adapt={'fc.bias': 'new_head'}" in text


def test_a_refusal_of_a_thousand_tensors_is_short():
    model = nn.ModuleList([nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)) for _ in range(200)])  # 1,400 tensors
    for prefix in ("module.", "x"):
        source = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
        with pytest.raises(TransferError) as refusal:
            transfer(source, model)
        assert len(str(refusal.value).splitlines()) < 20


def test_permitting_everything_does_not_let_a_transfer_move_nothing():
    model = nn.Linear(2, 2)
    with pytest.raises(TransferError, match="'module.'"):
        transfer(nn.DataParallel(model).state_dict(), model, allow_missing=".*", allow_unused=".*")


@pytest.mark.parametrize(
    ("kwargs", "culprit"),
    [
        ({"adapt": {"wieght": "new_head"}}, "'wieght' matches no tensor of the target; nearest: weight"),
        ({"adapt": {"weight": "newhead"}}, "no adapter 'newhead'"),
        ({"rename": ["weight"]}, r"\(pattern, replacement\)"),
        ({"rename": lambda name: None}, "becomes None"),
        ({"rename": [(".*", "weight")]}, "as does 'weight'"),
    ],
)
def test_a_misspelt_argument_is_an_error(kwargs, culprit):
    with pytest.raises(TransferError, match=culprit):
        transfer(nn.Linear(2, 2), nn.Linear(2, 2), **kwargs)


def test_the_report_tells_of_each_tensor_whence_it_came_and_what_shapes_it_has():
    source, target = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, classes)) for classes in (5, 2))
    renamed = {f"old.{name}": tensor for name, tensor in source.state_dict().items()}
    report = transfer(renamed, target, rename=[(r"^old\.", "")], adapt={r"1\..*": "new_head"})
    assert tuple(report.copied["0.weight"]) == ("old.0.weight", (4, 3), (4, 3), "")
    assert tuple(report.initialised["1.weight"]) == (None, None, (2, 4), "new_head")
    assert tuple(report.unused["old.1.weight"]) == ("old.1.weight", (5, 4), None, "new_head")


def test_where_an_adapter_was_given_and_fails_no_other_one_is_advised():
    source, target = nn.Sequential(nn.Linear(3, 5)), nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(TransferError, match="for other classes: adapt="):
        transfer(source, target)
    with pytest.raises(TransferError) as refusal:
        transfer(source, target, adapt={".*": "input_channels"})
    assert "for other classes" not in str(refusal.value)


# Files


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol=2))])
def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(tmp_path, save):
    path, trace = tmp_path / "weights.pth", tmp_path / "it-ran"
    save(nn.Linear(2, 2).state_dict() | {"bias": Hostile(str(trace))}, path)
    target = nn.Linear(2, 2)
    before = raw(target)
    with pytest.raises(TransferError, match="refused") as refusal:
        transfer(path, target)
    assert not trace.exists() and raw(target) == before
    assert "weights_only" not in str(refusal.value) and refusal.value.__suppress_context__
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # the trap was real


def test_safetensors_and_plain_pickles_are_loaded(tmp_path):
    source, names = nn.Linear(2, 2), ["a.safetensors", "a.pth"]
    save_file(source.state_dict(), tmp_path / names[0])
    torch.save(source.state_dict(), tmp_path / names[1])
    for path in (tmp_path / names[0], str(tmp_path / names[1])):
        target = nn.Linear(2, 2)
        transfer(path, target)
        assert raw(target) == raw(source)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TransferError, match=name):
        transfer(tmp_path / name, nn.Linear(2, 2))


STATE = nn.Linear(2, 2).state_dict()
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2, 2), "step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"epoch": 3, "state_dict": STATE, "optimizer": OPTIMIZER},
        {"model": STATE, "args": argparse.Namespace(lr=0.1), "rng": torch.tensor(1)},
        {"training": {"done": True, "net": STATE}},
    ],
)
def test_of_a_checkpoint_the_one_state_dict_in_it_is_taken(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / "a.pth")
    for source in (tmp_path / "a.pth", checkpoint):
        assert raw(tensors_of(source)) == raw(STATE)


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        ({"model": STATE, "model_ema": STATE}, r"source\['model'\] \(2 tensors\), source\['model_ema'\] \(2 tensors\)"),
        ({"a": {"x": 1, "net": STATE}, "ema": STATE}, r"source\['a'\]\['net'\].*, source\['ema'\]"),
        (
            {"epoch": 3, "optimizer": OPTIMIZER},
            "'epoch' is of type int, not a tensor, and there is no state dict",
        ),
        ({"weight": torch.ones(2), "more": STATE}, r"'more' is of type .*source\['more'\]"),  # which is meant?
    ],
)
def test_a_checkpoint_without_one_obvious_state_dict_is_refused_and_says_what_it_holds(tmp_path, checkpoint, says):
    torch.save(checkpoint, tmp_path / "a.pth")
    with pytest.raises(TransferError, match=says):
        tensors_of(tmp_path / "a.pth")


def test_an_absent_file_is_an_oserror_and_a_folder_names_the_files_in_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        tensors_of(tmp_path / "absent.pth")
    with pytest.raises(TransferError, match="is a folder: .*there is none"):
        tensors_of(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(TransferError, match=r"is a folder: .*\(model.safetensors\)"):
        tensors_of(tmp_path)
    with pytest.raises(TransferError, match="is empty: download or save it again"):
        tensors_of(tmp_path / "model.safetensors")


def test_a_torch_that_cannot_open_pickles_safely_opens_none(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "a.pth")
    save_file(STATE, tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.5.1+cu124"))
    with pytest.raises(TransferError, match=r"torch 2.5.1\+cu124 cannot open safely: install torch >= 2.6"):
        tensors_of(tmp_path / "a.pth")
    assert raw(tensors_of(tmp_path / "a.safetensors")) == raw(STATE)


# Tensors that cannot be copied or mixed


def quantised():
    return torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (quantised, r"'weight' is quantised: .*dequantize\(\)"),
        (lambda: torch.eye(2).to_sparse(), r"'weight' is sparse_coo: use to_dense\(\)"),
        (lambda: torch.eye(2).to_sparse_csr(), r"'weight' is sparse_csr: use to_dense\(\)"),
        (lambda: torch.eye(2).to_mkldnn(), r"'weight' is _mkldnn: use to_dense\(\)"),
        (lambda: torch.empty(2, 2, device="meta"), r"'weight' is on the meta device"),
        (lambda: nn.LazyLinear(2).weight, r"'weight' has no shape yet"),
    ],
    ids=["quantised", "sparse", "csr", "mkldnn", "meta", "lazy"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_a_plain_value_for_each_position_are_refused_everywhere(make, says):
    theta = {"weight": make(), "bias": torch.ones(2)}
    target = nn.Linear(2, 2)
    before = raw(target)
    for use in (
        lambda: transfer(theta, target),
        lambda: soup([theta, theta]),
        lambda: interpolate(target, theta, 0.5),
        lambda: TaskVector(theta, theta),
    ):
        with pytest.raises(TransferError, match=says):
            use()
    assert raw(target) == before


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn, torch.bfloat16, torch.float64])
def test_tensors_of_every_real_and_complex_dtype_are_copied_and_mixed(dtype):
    one, two = ({"w": torch.full((2, 2), v).to(dtype)} for v in (1.0, 3.0))
    target = nn.Module()
    target.register_buffer("w", torch.zeros(2, 2).to(dtype))
    transfer(one, target)
    assert torch.equal(target.w.cfloat(), one["w"].cfloat()) and target.w.dtype == dtype
    for mean in (soup([one, two]), interpolate(one, two, 0.5), (0.5 * TaskVector(two, one)).apply(one)):
        assert mean["w"].dtype == dtype and (mean["w"].cfloat() == 2).all()


def test_states_of_two_dtypes_are_mixed_in_the_first_ones():
    half, double = {"w": torch.ones(2).half()}, {"w": 3 * torch.ones(2).double()}
    for one, two in ((half, double), (double, half)):
        for mean in (soup([one, two]), interpolate(one, two, 0.5)):
            assert mean["w"].dtype == one["w"].dtype and mean["w"].tolist() == [2, 2]


# Wrappers


def test_a_compiled_or_parallel_model_is_read_and_loaded_as_the_one_inside():
    source, inside = nn.Linear(2, 2), nn.Linear(2, 2)
    for wrap in (
        lambda m: torch.compile(m, backend="eager"),
        nn.DataParallel,
        lambda m: nn.DataParallel(torch.compile(m)),
    ):
        assert raw(tensors_of(wrap(source))) == raw(source)
        inside.weight.data.zero_()
        assert len(transfer(source, wrap(inside)).copied) == 2
        assert raw(inside) == raw(source)


def test_a_target_that_is_no_module_is_named():
    with pytest.raises(TypeError, match="target must be an nn.Module, got dict"):
        transfer(nn.Linear(2, 2), {})
