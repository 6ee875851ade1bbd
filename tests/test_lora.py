import copy
import io
import json
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tlbook as tl
from tlbook import lora
from tlbook.parameter_transfer import TransferError, transfer
from tlbook.training.recipes import Full


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def with_update(model, rank=2, alpha=3, targets=".*", seed=0):
    """LoRA as training would leave it: B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    lora.inject(model, rank, alpha, targets)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter)
    return model


def network():
    torch.manual_seed(0)
    conv = [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
    ]
    return nn.Sequential(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def close(one, two, tolerance=1e-5):
    torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


OPTIONS = {
    "plain": {},
    "stride": {"stride": 2},
    "padding": {"padding": 2},
    "same": {"padding": "same"},
    "asymmetric": {"kernel_size": (1, 5), "stride": (1, 2), "padding": (0, 2)},
    "pointwise": {"kernel_size": 1, "bias": False},
    "reflect": {"padding": 2, "padding_mode": "reflect"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "dilation": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "out_channels": 8},
    "all": {"stride": 2, "padding": 2, "padding_mode": "replicate", "dilation": 2, "groups": 2},
}


def convolution(options):
    return nn.Conv2d(**({"in_channels": 4, "out_channels": 6, "kernel_size": 3} | options))


# Identities


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_for_every_convolution_b_zero_is_the_base_and_merged_equals_unmerged_equals_the_formula(options):
    base, x = convolution(options), torch.randn(2, 4, 11, 12)
    model = copy.deepcopy(base)
    lora.inject(nn.ModuleList([model]), 2, 3, ["0"])
    assert torch.equal(model(x), base(x))

    model.lora_B.data.normal_()
    unmerged = model(x)
    formula = copy.deepcopy(base)
    formula.weight.data += 3 / 2 * (model.lora_B @ model.lora_A).reshape(base.weight.shape).detach()
    close(unmerged, formula(x))
    assert not torch.allclose(unmerged, base(x), atol=1e-2)

    holder = nn.ModuleList([model])
    lora.merge(holder)
    close(model(x), unmerged)
    lora.unmerge(holder)
    close(model(x), unmerged)
    assert type(model).__name__ == "LoRAConv2d"
    close(model._parameters["weight"], base.weight, 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.floats(0.1, 50), st.booleans())
def test_for_every_linear_layer_merging_is_exact_and_unmerging_restores_the_base(width, out, rank, alpha, bias):
    base = nn.Sequential(nn.Linear(width, out, bias=bias))
    model, x = copy.deepcopy(base).double(), torch.randn(5, width, dtype=torch.float64)
    with_update(model, rank, alpha)
    assert torch.linalg.matrix_rank(model[0].weight - base.double()[0].weight) <= rank
    unmerged = model(x)
    lora.merge(model)
    close(model(x), unmerged)
    lora.unmerge(model)
    close(model(x), unmerged)
    close(model[0]._parameters["weight"], base[0].weight, 1e-6)


def test_whatever_a_layers_subclass_does_with_its_weight_is_kept():
    from timm.layers import Conv2dSame, StdConv2d  # dynamic padding, standardised weights

    for kind in (Conv2dSame, StdConv2d):
        model, x = nn.Sequential(kind(3, 4, 3, stride=2)), torch.randn(1, 3, 9, 9)
        base = copy.deepcopy(model)
        assert torch.equal((lora.inject(model, 1, 1, ["0"]), model(x))[1], base(x))
        model[0].lora_B.data.normal_()
        unmerged = model(x)
        lora.merge(model)
        close(model(x), unmerged)


def test_a_layer_whose_weight_is_read_by_another_module_is_adapted_too():
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(1, 5, 8)
    before = attention(x, x, x)[0]
    with_update(attention, targets="out_proj")  # attention reads out_proj.weight and never calls out_proj
    after = attention(x, x, x)[0]
    assert not torch.allclose(before, after, atol=1e-2)
    lora.merge(attention)
    close(attention(x, x, x)[0], after)


# PEFT as an independent truth


def peft_twin(layer, rank, alpha):
    """PEFT around the same layer, and our LoRA with its A and B."""
    from peft import LoraConfig, get_peft_model

    theirs = nn.ModuleDict({"layer": copy.deepcopy(layer)})
    theirs.forward = lambda x: theirs["layer"](x)
    theirs = get_peft_model(theirs, LoraConfig(r=rank, lora_alpha=alpha, target_modules=["layer"]))
    adapted = theirs.base_model.model["layer"]
    a, b = adapted.lora_A["default"], adapted.lora_B["default"]
    nn.init.normal_(b.weight)
    ours = nn.ModuleDict({"layer": copy.deepcopy(layer)})
    lora.inject(ours, rank, alpha, ["layer"])
    ours["layer"].lora_A.data = a.weight.detach().flatten(1).clone()
    ours["layer"].lora_B.data = b.weight.detach().flatten(1).clone()
    return adapted, ours


# With groups, PEFT's A sees all channels: its update is no grouped convolution, and it cannot merge it. So there is
# no twin with the same weights to compare with; the formula above is the truth for them.
SUPPORTED = ("plain", "stride", "padding", "same", "asymmetric", "pointwise")  # by PEFT, forward and merge


@pytest.mark.parametrize("options", [None, *(OPTIONS[name] for name in SUPPORTED)], ids=["linear", *SUPPORTED])
def test_outputs_gradients_and_merged_weights_equal_pefts(options):
    layer = nn.Linear(5, 7) if options is None else convolution(options)
    x = torch.randn(3, 5) if options is None else torch.randn(2, 4, 11, 12)
    theirs, ours = peft_twin(layer, rank=3, alpha=6)
    close(ours["layer"](x), theirs(x))
    theirs(x).square().mean().backward()
    ours["layer"](x).square().mean().backward()
    close(ours["layer"].lora_A.grad, theirs.lora_A["default"].weight.grad.flatten(1))
    close(ours["layer"].lora_B.grad, theirs.lora_B["default"].weight.grad.flatten(1))
    theirs.merge()
    lora.merge(ours)
    close(ours["layer"].weight, theirs.base_layer.weight)


@pytest.mark.parametrize("name", ["reflect", "circular", "dilation"])
def test_convolutions_equal_pefts_merged_weights_where_only_its_unmerged_branch_forgets_an_option(name):
    theirs, ours = peft_twin(convolution(OPTIONS[name]), rank=2, alpha=2)
    x = torch.randn(1, 4, 11, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.merge()
    close(ours["layer"](x), theirs(x))


def test_a_starts_with_pefts_distribution_and_b_at_zero():
    theirs, _ = peft_twin(nn.Linear(200, 50), rank=16, alpha=1)
    model = nn.Sequential(nn.Linear(200, 50))
    lora.inject(model, 16, 1, ".*")
    a, peft_a = model[0].lora_A, theirs.lora_A["default"].weight
    bound = 200**-0.5  # kaiming_uniform with a = √5 is U(−1/√in, 1/√in)
    for sample in (a, peft_a):
        assert sample.abs().max() <= bound and abs(sample.std() / (bound / 3**0.5) - 1) < 0.05
    assert not model[0].lora_B.any()


# What trains, and what is saved


def test_only_lora_parameters_train():
    model = network()
    names = lora.inject(model, 2, 4, [r"\d"])
    assert names == ["0", "3", "7"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"{i}.lora_{ab}" for i in names for ab in "AB"
    }
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 9, 9)).square().mean().backward()
        optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"{i}.lora_{ab}" for i in names for ab in "AB"}


def test_training_continues_after_merge_and_unmerge_with_the_same_optimizer():
    model = with_update(network())
    parameters = [p for p in model.parameters() if p.requires_grad]
    lora.merge(model)
    assert not any(p.requires_grad for p in model.parameters())
    lora.unmerge(model)
    assert [id(p) for p in model.parameters() if p.requires_grad] == [id(p) for p in parameters]


def test_a_merged_model_is_the_base_architecture_again():
    model, plain, x = with_update(network()).eval(), network().eval(), torch.randn(2, 3, 9, 9)
    expected = model(x)
    lora.merge(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    transfer(model, plain)
    close(plain(x), expected)


def test_the_base_and_the_saved_state_are_the_whole_model(tmp_path):
    from safetensors.torch import save_file

    model = with_update(network(), targets=["0", "3"])
    model[7].requires_grad_(True)  # a head that trains too
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model.train()(torch.randn(8, 3, 9, 9)).square().mean().backward()  # moves BatchNorm's statistics
    optimizer.step()
    state = lora.state_dict(model)
    assert {name for name in state if "lora" not in name} == {
        *("1.running_mean", "1.running_var", "1.num_batches_tracked", "7.weight", "7.bias")
    }
    save_file(state, tmp_path / "lora.safetensors")

    again, x = network(), torch.randn(2, 3, 9, 9)
    lora.inject(again, 2, alpha=99, targets=["0", "3"])  # α is restored with the rest
    again[7].requires_grad_(True)
    report = lora.load_state_dict(again, tmp_path / "lora.safetensors")
    assert torch.equal(again.eval()(x), model.eval()(x))
    assert set(report.initialised) == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}


def test_a_state_of_another_rank_or_other_layers_is_refused_and_changes_nothing():
    state = lora.state_dict(with_update(network(), rank=2, targets=["0"]))
    for arguments in ({"rank": 3, "targets": ["0"]}, {"rank": 2, "targets": ["7"]}):
        model = with_update(network(), **arguments)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(TransferError, match="0.lora_A"):
            lora.load_state_dict(model, state)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_copy_of_an_adapted_model_is_independent_of_it():
    model = with_update(network())
    twin, x = copy.deepcopy(model).eval(), torch.randn(1, 3, 9, 9)
    expected = twin(x)
    lora.merge(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(twin(x), expected)


def test_lora_follows_its_layer_to_another_dtype_merged_or_not():
    model = with_update(network()).double()
    assert model[0].lora_A.dtype == model[0].lora_scale.dtype == torch.float64
    lora.merge(model)
    model.float()
    lora.unmerge(model)
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}
    assert model[0].lora_A.requires_grad and model(torch.randn(1, 3, 9, 9)).dtype == torch.float32


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": ["9"]}, "'9' matches no Linear or Conv2d; there are 3: 0, 3, 7"),
        ({"targets": ["0", "1"]}, "'1' matches no"),  # a BatchNorm
        ({"rank": 0}, "rank must be a positive integer"),
        ({"rank": 1.5}, "rank must be a positive integer"),
        ({"rank": "2"}, "rank must be a positive integer, got '2'"),
        ({"rank": True}, "rank must be a positive integer"),
        ({"alpha": "4"}, "alpha must be a positive number, got '4'"),
        ({"alpha": None}, "alpha must be a positive number"),
        ({"alpha": 0}, "alpha must be a positive number"),
        ({"alpha": float("nan")}, "alpha must be a positive number"),
    ],
)
def test_a_wrong_argument_is_named_and_the_model_is_unchanged(arguments, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        lora.inject(model, **({"rank": 1, "alpha": 1, "targets": ["0"]} | arguments))
    assert list(model.state_dict()) == list(network().state_dict())
    assert all(p.requires_grad for p in model.parameters())


def test_a_second_injection_or_merge_of_the_same_layers_is_refused():
    model = with_update(network(), targets=["0"])
    with pytest.raises(TransferError, match="0 has LoRA already"):
        lora.inject(model, 1, 1, ["0", "3"])
    with pytest.raises(TransferError, match="nothing to unmerge"):
        lora.unmerge(model)
    lora.merge(model)
    with pytest.raises(TransferError, match="nothing to merge"):
        lora.merge(model)
    with pytest.raises(TransferError, match="0 has LoRA already"):
        lora.inject(model, 1, 1, ["0"])
    with pytest.raises(TransferError, match="no LoRA to save"):
        lora.state_dict(model)


def test_other_layers_can_be_adapted_later_and_the_first_ones_train_on():
    model = with_update(network(), targets=["0"])
    lora.inject(model, 1, 1, ["7"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"0.lora_A", "0.lora_B", "7.lora_A", "7.lora_B"}


def test_a_tied_weight_is_refused_since_merging_would_change_its_twin():
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embedding"].weight
    with pytest.raises(TransferError, match="head is shared"):
        lora.inject(model, 1, 1, ["head"])


def test_a_frozen_layer_is_refused_for_unfreezing_it_would_drop_the_update():
    backbone = tl.load_backbone("test_resnet", weights=None)
    tl.freeze(backbone, until="final")
    with pytest.raises(TransferError, match="is frozen.*tl.unfreeze"):
        lora.inject(backbone, 2, 4, r"model\.layer4\..*conv1")


def test_a_merged_layer_that_was_frozen_is_not_unmerged_for_unfreezing_it_would_drop_the_update():
    backbone = tl.load_backbone("test_resnet", weights=None)
    with_update(backbone, targets=r"model\.layer4\..*conv1")
    lora.merge(backbone)
    tl.freeze(backbone, until="final")
    with pytest.raises(TransferError, match="is frozen.*tl.unfreeze"):
        lora.unmerge(backbone)
    tl.unfreeze(backbone)
    lora.unmerge(backbone)
    assert lora.state_dict(backbone)


def test_after_finetuning_the_state_is_lora_and_the_new_head_and_a_save_asks_for_the_merge(tmp_path):
    data = tl.data.from_dataset(
        [(torch.full((3, 32, 32), 200 * (i % 2), dtype=torch.uint8), i % 2) for i in range(12)], groups=range(12)
    )
    backbone = tl.load_backbone("test_resnet", weights=None)
    layers = lora.inject(backbone, 2, 4, r"model\.layer4\..*conv1")
    found = tl.finetune(backbone, data, data.split(val=0), recipe=Full(freeze_batchnorm=True), epochs=1, batch_size=4)
    learned = {name for name in lora.state_dict(found.model) if name in dict(found.model.named_parameters())}
    assert learned == {f"{name}.{ab}" for name in layers for ab in ("lora_A", "lora_B")} | {
        "model.fc.weight",
        "model.fc.bias",
    }
    with pytest.raises(ValueError, match="tl.lora.merge"):
        found.save(tmp_path / "model")
    lora.merge(found.model)
    found.save(tmp_path / "model")
    loaded = tl.load_finetuned(tmp_path / "model")
    assert torch.allclose(torch.tensor(loaded.predict(data)), torch.tensor(found.predict(data)), atol=1e-6)


# Pickling, compiling, saving


@pytest.mark.parametrize("save", [pickle.dumps, lambda model: torch_bytes(model)], ids=["pickle", "torch.save"])
def test_an_adapted_model_can_be_pickled_and_is_still_adapted(save):
    model, x = with_update(network()).eval(), torch.randn(2, 3, 9, 9)
    content = save(model)
    again = pickle.loads(content) if save is pickle.dumps else torch.load(io.BytesIO(content), weights_only=False)
    assert torch.equal(again(x), model(x)) and type(again[0]) is type(model[0])
    lora.merge(again)
    close(again(x), model(x))
    assert type(again[0]) is nn.Conv2d


def torch_bytes(model):
    file = io.BytesIO()
    torch.save(model, file)
    return file.getvalue()


def test_another_process_can_be_given_an_adapted_model():
    model, x = with_update(nn.Sequential(nn.Linear(4, 2))), torch.ones(1, 4)
    program = "import pickle, sys, torch; print(pickle.load(sys.stdin.buffer)(torch.ones(1, 4)).tolist())"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(model), capture_output=True, check=True)
    close(torch.tensor(json.loads(done.stdout)), model(x).detach())


def test_a_compiled_model_is_adapted_inside_and_answers_so():
    base, x = network().eval(), torch.randn(2, 3, 9, 9)
    compiled = torch.compile(base, backend="eager")
    before = compiled(x)
    assert lora.inject(compiled, 2, 4, ["7"]) == ["7"]
    assert {name for name, p in base.named_parameters() if p.requires_grad} == {"7.lora_A", "7.lora_B"}
    base[7].lora_B.data.fill_(1.0)
    assert not torch.allclose(compiled(x), before, atol=1e-3) and torch.equal(compiled(x), base(x))
    assert set(lora.state_dict(compiled)) == set(lora.state_dict(base))


def test_a_model_with_a_compiled_part_is_refused_and_unchanged():
    model = nn.ModuleDict({"body": torch.compile(network(), backend="eager")})
    with pytest.raises(ValueError, match="body is compiled: change the model first, and compile it then"):
        lora.inject(model, 2, 4, [".*7"])
    assert all(p.requires_grad for p in model.parameters())


def test_the_saved_state_is_a_copy_that_safetensors_takes(tmp_path):
    from safetensors.torch import save_file

    model = with_update(network().to(memory_format=torch.channels_last), targets=["0"])
    model[3].requires_grad_(True)  # a convolution that trains too, in channels-last memory
    state = lora.state_dict(model)
    save_file(state, tmp_path / "lora.safetensors")
    kept = state["3.weight"].clone()
    model[3].weight.data.zero_()
    assert torch.equal(state["3.weight"], kept)
