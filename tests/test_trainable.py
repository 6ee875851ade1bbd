"""Which parameters learn, and how fast: what is frozen stays, and `audit` finds each planted mistake."""

import copy

import pytest
import torch
from small import CUT, tiny
from torch import nn

import tlbook as tl
from tlbook.training.trainable import freeze_stages, stages_of

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


@pytest.mark.parametrize("name", CUT)
def test_every_parameter_belongs_to_the_stage_that_uses_it(name):
    backbone = tiny(name)
    of, side = stages_of(backbone), backbone.input_size
    x = torch.randn(2, 3, side, side)
    assert {of[key] for key, _ in backbone.named_parameters()} <= {*backbone.stages, "head"}
    for stage in list(backbone.stages)[:-1]:
        backbone.zero_grad()
        backbone.prefix(stage)(x).square().sum().backward()
        reached = {of[key] for key, p in backbone.named_parameters() if p.grad is not None}
        before = list(backbone.stages)[: backbone._position(stage) + 1]
        assert reached <= set(before) and stage in reached


@pytest.mark.parametrize("name", CUT)
def test_what_is_frozen_stays_to_the_bit_through_training(name):
    backbone = tiny(name)
    stage = list(backbone.stages)[2]
    tl.freeze(backbone, until=stage)
    backbone.train()
    assert backbone.training
    of, before = stages_of(backbone), copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.SGD(tl.parameter_groups(backbone, 0.1))
    x = torch.randn(4, 3, backbone.input_size, backbone.input_size)
    backbone(x).square().mean().backward()
    optimizer.step()
    frozen = list(backbone.stages)[:3]
    for key, value in backbone.state_dict().items():
        if of[key if key in of else key.rpartition(".")[0]] in frozen:
            assert torch.equal(value, before[key]), key
    assert not torch.equal(
        backbone.head.weight,
        before[
            next(
                k
                for k in before
                if backbone.state_dict()[k] is not None
                and k.endswith(("fc.weight", "classifier.weight", "head.weight"))
            )
        ],
    )
    if name == "test_resnet":
        assert not torch.equal(backbone.model.layer4[0].bn1.running_mean, before["model.layer4.0.bn1.running_mean"])


def test_unfreeze_undoes_freeze_and_copies_stay_frozen():
    backbone = tiny()
    classes = [type(m) for m in backbone.modules()]
    tl.freeze(backbone, until="final")
    twin = copy.deepcopy(backbone).train()
    assert not any(m.training for m in twin.model.layer1.modules())
    tl.unfreeze(backbone)
    assert [type(m) for m in backbone.modules()] == classes
    assert all(m.training for m in backbone.train().modules()) and all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_that_learns_between_frozen_ones_is_in_train_mode(name, stage):
    backbone = tiny(name)
    learns = list(backbone.stages)[stage]
    freeze_stages(backbone, set(backbone.stages) - {learns})
    of = stages_of(backbone.train())
    for key, module in backbone.named_modules():
        if key in of:
            assert module.training == (of[key] in (learns, "head")), key


def test_frozen_batchnorm_lets_its_weights_learn():
    backbone = tiny()
    freeze_stages(backbone, (), batchnorm=True)
    norm = backbone.train().model.layer2[0].bn1
    assert not norm.training and norm.weight.requires_grad and backbone.model.layer2[0].conv1.training


@pytest.mark.parametrize("name", [*CUT, "test_byobnet"])
def test_groups_hold_each_parameter_once_at_the_rate_of_its_stage(name):
    backbone = tiny(name)
    groups = tl.parameter_groups(backbone, 0.1, layer_decay=0.5, head_multiplier=7, weight_decay=0.01)
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in backbone.parameters())
    of = stages_of(backbone)
    owners = [s for s in backbone.stages if any(of[key] == s for key, _ in backbone.named_parameters())]
    for group in groups:
        stage = group["stage"]
        assert {of[key] for key in group["names"]} == {stage}
        depth = None if stage == "head" else len(owners) - 1 - owners.index(stage)
        assert group["lr"] == pytest.approx(0.7 if stage == "head" else 0.1 * 0.5**depth)
        assert all((p.ndim > 1 or group["weight_decay"] == 0) for p in group["params"])
    before = {key: p.detach().clone() for key, p in backbone.named_parameters()}
    for p in backbone.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD([g | {"weight_decay": 0} for g in groups]).step()  # the rates are real: no scheduler ran
    rate = {key: group["lr"] for group in groups for key in group["names"]}
    for key, p in backbone.named_parameters():
        assert torch.allclose(before[key] - p, torch.tensor(rate[key]), atol=1e-6), key


def test_tokens_and_positions_do_not_decay():
    groups = tl.parameter_groups(tiny("test_vit"), 0.1, weight_decay=0.1)
    decays = {key for group in groups if group["weight_decay"] for key in group["names"]}
    assert decays and not any("token" in key or "pos_embed" in key for key in decays)


def test_only_biases_and_the_head_learn():
    backbone = tiny()
    groups = tl.parameter_groups(backbone, 0.1, only=r".*bias")
    given = {key for group in groups for key in group["names"]}
    learn = {key for key, p in backbone.named_parameters() if p.requires_grad}
    assert given == learn == {k for k, _ in backbone.named_parameters() if k.endswith("bias")} | {"model.fc.weight"}
    with pytest.raises(ValueError, match="matches the whole name of no parameter"):
        tl.parameter_groups(backbone, 0.1, only="bias")


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"layer_decay": 1.5}, {"head_multiplier": 0}, {"weight_decay": -1}])
def test_a_rate_out_of_range_is_an_error(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        tl.parameter_groups(tiny(), **({"lr": 0.1} | wrong))


def problems(backbone, parameters):
    return [(row["parameter"], row["problem"]) for row in tl.audit(backbone, torch.optim.SGD(parameters, 0.1)).problems]


def test_audit_finds_each_planted_mistake_and_no_other():
    backbone = tiny()
    assert problems(backbone, backbone.parameters()) == []
    body = [p for p in backbone.parameters() if p is not backbone.head.weight]
    ((name, what),) = problems(backbone, body)
    assert name == "model.fc.weight" and "head forgotten" in what

    optimizer = torch.optim.SGD(backbone.parameters(), 0.1)
    backbone.model.reset_classifier(2)
    found = [row["problem"] for row in tl.audit(backbone, optimizer).problems]
    assert sum("head forgotten" in what for what in found) == 2
    assert sum("not a parameter of the model" in what for what in found) == 2 and len(found) == 4

    backbone = tiny()
    tl.freeze(backbone, until="stem")
    found = problems(backbone, backbone.parameters())
    assert found and all("frozen, yet given" in what for _, what in found)
    assert {stages_of(backbone)[name] for name, _ in found} == {"stem"}
    assert problems(backbone, [p for p in backbone.parameters() if p.requires_grad]) == []


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
@pytest.mark.parametrize("alias", [False, True])
def test_audit_finds_memory_given_twice(alias):
    backbone = tiny()
    optimizer = torch.optim.SGD(backbone.parameters(), 0.1)
    p = backbone.model.layer1[0].conv1.weight
    optimizer.param_groups[0]["params"].append(nn.Parameter(p.data) if alias else p)
    (row,) = tl.audit(backbone, optimizer).problems
    assert "given twice: the same memory as model.layer1.0.conv1.weight" in row["problem"]


def test_audit_goes_by_identity_and_not_by_value():
    backbone = tiny()
    a, b = backbone.model.layer1[0].bn1, backbone.model.layer1[0].bn2
    b.weight.data.copy_(a.weight.data)
    ((name, what),) = problems(backbone, [p for p in backbone.parameters() if p is not b.weight])
    assert name == "model.layer1.0.bn2.weight" and "forgotten" in what


def test_audit_finds_the_batchnorm_that_is_frozen_by_requires_grad_alone():
    backbone = tiny()
    for p in backbone.model.layer1.parameters():
        p.requires_grad_(False)
    found = problems(backbone, [p for p in backbone.parameters() if p.requires_grad])
    norms = [k for k, m in backbone.named_modules() if "layer1" in k and isinstance(m, nn.BatchNorm2d)]
    assert [name for name, _ in found] == norms and all("statistics" in what for _, what in found)
