"""The forward pass: whatever computes it, the outputs are those of the plain one."""

import copy
import gc
import signal
import weakref
from unittest import mock

import numpy as np
import pytest
import small
import torch
from torch import nn

import tlbook as tl
from tlbook import forward
from tlbook.forward import Engine, Forward, Stages, choose_engine

pytest.importorskip("openvino", reason="needs OpenVINO: pip install openvino")

FAMILIES = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_byobnet"]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_DEVICE", "cpu")
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path))


def backbone(name="test_resnet", seed=0):
    torch.manual_seed(seed)
    return tl.load_backbone(name, weights=None)


def batch(b, n=4, seed=0):
    return torch.randn(n, 3, b.input_size, b.input_size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_openvino_gives_the_features_of_the_plain_pass_in_every_stage(name, dtype, tolerance):
    b = backbone(name)
    x = batch(b)
    f = Forward(Stages(b, list(b.stages)), Engine("openvino", dtype))
    found = f.submit(x).result()
    assert f.engine.name == "openvino"
    with torch.inference_mode():
        expected = b.forward_stages(x, list(b.stages)).values()
    for stage, z, plain in zip(b.stages, found, expected, strict=True):
        assert z.dtype == torch.float32 and (z - plain).norm() <= tolerance * plain.norm(), stage


@pytest.mark.parametrize("engine, key", [("torch", None), ("openvino", None), ("openvino", ["cells"])])
def test_bfloat16_leaves_the_first_convolutions_in_full(engine, key, monkeypatch):
    if engine == "openvino" and not tl.device.has_fast_bfloat16(torch.device("cpu")):
        pytest.skip("OpenVINO computes in bfloat16 only where the CPU has AMX or AVX512-BF16")
    b, data = tl.load_backbone(), tl.data.solar_cells(64)
    x = b.prepare([data[i][0] for i in range(0, len(data), 41)])

    def distance():
        f = Forward(Stages(b, ["final"]), Engine(engine, torch.bfloat16), key)
        (z,) = f.submit(x).result()
        assert f.engine.name == engine
        return float((z - plain).norm() / plain.norm()), precisions(f)

    with torch.inference_mode():
        plain = b.forward_stages(x)["final"]
    for _ in range(2):  # with a key, converted anew and then from the file
        found, of_convolutions = distance()
        assert found < 0.045 and of_convolutions in ([], ["f32", "f32", "bf16", "bf16"])
    monkeypatch.setattr(forward, "IN_FULL", 0)
    found, of_convolutions = distance()
    assert found > 0.055 and of_convolutions in ([], ["bf16"] * 4)


def precisions(found):
    """Of the first four convolutions, as OpenVINO computes them; [] where PyTorch does."""
    if not found.requests:
        return []
    (requests,) = found.requests.values()
    layers = requests[0].request.get_compiled_model().get_runtime_model().get_ordered_ops()
    facts = [layer.get_rt_info() for layer in layers]
    return [i["runtimePrecision"].astype(str) for i in facts if i["layerType"].astype(str) == "Convolution"][:4]


class Called(nn.Module):
    """A convolution behind a linear layer, with its arguments in one of two ways."""

    def __init__(self, by_keyword):
        super().__init__()
        self.first, self.conv, self.by_keyword = nn.Linear(12, 12), nn.Conv2d(3, 4, 3), by_keyword

    def forward(self, x):
        x, w, b = self.first(x), self.conv.weight, self.conv.bias
        found = nn.functional.conv2d(input=x, weight=w, bias=b) if self.by_keyword else nn.functional.conv2d(x, w, b)
        return found.flatten(1)


def test_the_third_convolution_is_the_first_in_bfloat16_and_a_network_with_fewer_is_computed_too():
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)]
    x, seen = torch.randn(2, 3, 12, 12), []
    for layer in layers:
        layer.register_forward_hook(lambda module, args, z: seen.append(z.dtype))
    network = nn.Sequential(*layers, nn.Flatten()).eval()
    for _ in range(2):  # each pass begins anew
        Forward(forward.Only(network), Engine("torch", torch.bfloat16)).submit(x).result()
    assert seen == [*[torch.float32] * 4, torch.bfloat16] * 2
    few = [nn.Sequential(*part, nn.Flatten()) for part in (layers[:3], layers[:1], [nn.Linear(12, 5)])]
    for network in [*few, Called(True), Called(False)]:
        for engine in ("torch", "openvino"):
            f = Forward(forward.Only(network.eval()), Engine(engine, torch.bfloat16))
            (z,) = f.submit(x).result()
            assert f.engine.name == engine
            assert (z - network(x)).norm() < (0.02 if "Linear" in str(network) else 1e-5) * network(x).norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_dtype_is_left_to_autocast(dtype):
    b = backbone().to(dtype)
    with torch.inference_mode():
        expected = b.forward_stages(batch(b).to(dtype))["final"].float()
    (z,) = Forward(Stages(b, ["final"]), Engine("torch", torch.bfloat16)).submit(batch(b).to(dtype)).result()
    assert torch.allclose(z, expected, atol=0.05)


def test_float32_is_float32_inside_an_autocast_of_the_users():
    b = backbone()
    f = Forward(Stages(b, ["final"]), Engine("torch", torch.float32))
    (expected,) = f.submit(batch(b)).result()
    with torch.autocast("cpu", torch.bfloat16):
        (z,) = f.submit(batch(b)).result()
    assert torch.equal(z, expected)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_outputs_are_gathered_in_order_as_one_tensor(engine, monkeypatch):
    monkeypatch.setenv("TLBOOK_ENGINE", engine)
    b = backbone()
    batches = [batch(b, n, seed=n) for n in (5, 5, 3)]
    found = forward.gathered(b, iter(batches), 20)
    with torch.inference_mode():
        assert torch.allclose(found, b(torch.cat(batches)), atol=0.1) and found.shape[0] == 13
    assert forward.gathered(b, [], 20).numel() == 0


def test_batches_come_back_in_their_order_and_a_smaller_last_one_is_cut():
    b = backbone()
    batches = [batch(b, n, seed=n) for n in (5, 5, 5, 5, 3)] + [batch(b, 5, seed=9)[..., :20, :24]]
    f = Forward(Stages(b, ["layer2", "final"]), Engine("openvino", torch.float32))
    futures = [f.submit(x) for x in batches]
    for x, future in zip(batches, futures, strict=True):
        with torch.inference_mode():
            plain = b.forward_stages(x, ["layer2", "final"]).values()
        for z, expected in zip(future.result(), plain, strict=True):
            assert z.shape == expected.shape and torch.allclose(z, expected, atol=1e-4)


def test_a_network_is_given_up_with_the_pass_that_used_it():
    b = backbone()
    model, x = weakref.ref(b.model), batch(b)
    gc.collect()
    gc.disable()
    try:
        Forward(Stages(b, ["final"]), Engine("openvino", torch.float32)).submit(x).result()
        del b
        assert model() is None
    finally:
        gc.enable()


def test_what_was_converted_is_found_again_under_its_key_and_under_no_other(tmp_path):
    b, other = backbone(), backbone(seed=1)
    x = batch(b)
    first = Forward(Stages(b, ["final"]), Engine("openvino", torch.float32), key=[b.fingerprint, "final"])
    (z,) = first.submit(x).result()
    kept = {path: path.stat().st_ino for path in (tmp_path / "engines").iterdir()}
    assert sorted(path.suffix for path in kept) == [".bin", ".xml"]
    again = Forward(None, Engine("openvino", torch.float32), key=[b.fingerprint, "final"])  # nothing to convert
    assert torch.equal(again.submit(x).result()[0], z)
    third = Forward(Stages(other, ["final"]), Engine("openvino", torch.float32), key=[other.fingerprint, "final"])
    assert not torch.allclose(third.submit(x).result()[0], z, atol=1e-3)
    assert all(path.stat().st_ino == number for path, number in kept.items())


def test_what_cannot_be_converted_runs_in_torch_and_says_so_once(monkeypatch):
    import openvino

    def refuse(*_, **__):
        raise RuntimeError("no such operation\nand a long story")

    monkeypatch.setattr(openvino, "convert_model", refuse)
    b = backbone()
    f = Forward(Stages(b, ["final"]), Engine("openvino", torch.float32))
    with pytest.warns(UserWarning, match=r"PyTorch does \(no such operation\)") as said:
        first, second = f.submit(batch(b)), f.submit(batch(b))
    assert len(said) == 1 and torch.equal(first.result()[0], second.result()[0])


def test_an_engine_is_chosen_by_the_work_there_is(monkeypatch):
    b = backbone()
    f, x = Stages(b, ["final"]), batch(b, 1)
    monkeypatch.delenv("TLBOOK_ENGINE", raising=False)
    enough = forward.WORTH_COMPILING / forward.flops(f, x)
    assert choose_engine(f, x, int(enough / 2), "float32") == Engine("torch", torch.float32)
    assert choose_engine(f, x, int(enough * 2), "float32") == Engine("openvino", torch.float32)
    monkeypatch.setenv("TLBOOK_ENGINE", "torch")
    assert choose_engine(f, x, int(enough * 2)).name == "torch"
    monkeypatch.setenv("TLBOOK_ENGINE", "openvino")
    assert choose_engine(f, x, 1).name == "openvino"
    monkeypatch.setenv("TLBOOK_ENGINE", "tensorrt")
    with pytest.raises(ValueError, match="TLBOOK_ENGINE must be torch or openvino, or not set, got 'tensorrt'"):
        choose_engine(f, x, 1)
    monkeypatch.setattr(forward, "_openvino_version", lambda: None)
    monkeypatch.setenv("TLBOOK_ENGINE", "openvino")
    with pytest.raises(ValueError, match="pip install openvino"):
        choose_engine(f, x, 1)


def test_operations_are_counted_as_by_hand():
    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert forward.flops(conv, torch.zeros(1, 3, 10, 10)) == 2 * 100 * 8 * 27


def test_counting_operations_draws_no_random_number_and_takes_a_prefix_too():
    network = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Dropout()).train()
    state = torch.get_rng_state()
    assert forward.flops(network, torch.zeros(1, 4)) == 40
    assert network.training and torch.equal(torch.get_rng_state(), state)
    assert forward.flops(lambda x: network[0](x), torch.zeros(1, 4)) == 40


def test_features_by_either_engine_are_the_same(monkeypatch):
    data = tl.data.solar_cells(64).subset(range(40))
    b, found = tl.load_backbone(), {}
    for engine in ("torch", "openvino"):
        monkeypatch.setenv("TLBOOK_ENGINE", engine)
        views = ("identity", "hflip", "scale:0.5")
        found[engine] = tl.extract(b, data, stages=("blocks.4", "final"), views=views, precision="float32")
    a, c = found.values()
    assert a.blocks == c.blocks and np.allclose(a.X, c.X, atol=1e-4)


def test_the_network_is_left_as_it_was():
    b = backbone()
    before = copy.deepcopy(b.state_dict())
    Forward(Stages(b, ["final"]), Engine("openvino", torch.bfloat16)).submit(batch(b)).result()
    assert all(torch.equal(tensor, before[name]) for name, tensor in b.state_dict().items())
    assert all(p.requires_grad for p in b.parameters())


def test_ctrl_c_can_be_caught_after_networks_have_come_and_gone():
    b, caught = backbone(), []
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        Forward(Stages(b, ["layer2", "final"]), Engine("openvino", dtype)).submit(batch(b)).result()
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(1))
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught


def test_prediction_stored_prefix_and_validation_use_the_engine_and_agree_with_pytorch(monkeypatch):
    def trained(engine):
        monkeypatch.setenv("TLBOOK_ENGINE", engine)
        compiled = []
        monkeypatch.setattr(forward, "_compile", lambda *a: compiled.append(a[0]) or compile_(*a))
        found = tl.finetune(small.tiny(), small.DATA, small.SPLIT, recipe="surgical", epochs=2, lr=1e-3, batch_size=8)
        return found, found.predict(small.DATA), compiled

    compile_ = forward._compile
    by_torch, p, compiled = trained("torch")
    assert not compiled
    by_openvino, q, compiled = trained("openvino")
    assert {type(network).__name__ for network in compiled} == {"Only"} and len(compiled) >= 4
    np.testing.assert_allclose(p, q, atol=1e-3)
    rows = ("val loss", "train loss")
    for a, b in zip(by_torch.history, by_openvino.history, strict=True):
        np.testing.assert_allclose([a[r] for r in rows], [b[r] for r in rows], atol=1e-3)


def test_a_network_that_learns_stays_in_its_mode_while_a_part_of_it_is_compiled(monkeypatch):
    monkeypatch.setenv("TLBOOK_ENGINE", "openvino")
    backbone = small.tiny().train()
    modes = [module.training for module in backbone.modules()]
    batch = backbone.prepare([small.DATA[i][0] for i in range(3)])
    (z,) = forward.outputs(forward.Prefix(backbone, list(backbone.stages)[1]), [batch], 3, "float32")
    assert len(z) == 3 and [module.training for module in backbone.modules()] == modes


def test_the_memory_of_a_batch_is_not_given_up_before_its_request_ends():
    request = mock.Mock()
    job = forward._Job(request, 1)
    del job
    request.wait.assert_called_once_with()
    job = forward._Job(request, 1, ())
    del job
    request.wait.assert_called_once_with()
