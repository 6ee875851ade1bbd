"""What a place in a network responds to: the part of an image that it sees, and the patches that excite it most."""

import numpy as np
import torch
from matplotlib.patches import Rectangle

from tlbook.figures import BLUE, ORANGE, pixels, plt, show


def maps(backbone, batch, stage):
    """(B, C, h, w) what a stage computes for a prepared batch; "final" before pooling.

    Raises:
        ValueError: an unknown stage, or one whose output is no map (C, h, w), as in a transformer.
    """
    run = backbone.forward_features if stage == "final" else backbone.prefix(stage)
    z = run(batch)
    if z.ndim != 4:
        raise ValueError(f"{backbone.name} has tokens, not feature maps, at {stage!r}: choose a convolutional one")
    return z


def seen(backbone, image, stage):
    """The pixels on which the middle of a stage's map depends, by the gradient of its channels' sum.

    Args:
        backbone: Backbone. image: as ``backbone.prepare`` takes it. stage: its name.

    Returns:
        (reach, core): two boxes (top, left, bottom, right) of pixels, the ends not included. ``reach`` holds each pixel
        whose gradient is not 0; ``core`` is the middle that holds nine tenths of the gradient's size, along each side.
    """
    with torch.enable_grad():
        x = backbone.prepare([image]).detach().requires_grad_()
        z = maps(backbone, x, stage)
        (gradient,) = torch.autograd.grad(z[0, :, z.shape[2] // 2, z.shape[3] // 2].sum(), x)
    size = gradient[0].abs().sum(0).double().cpu()  # (H, W)
    ends, cores = [], []
    for along in (size.sum(1), size.sum(0)):
        inside, share = along.nonzero(), (along / along.sum()).cumsum(0)
        ends.append((int(inside.min()), int(inside.max()) + 1))
        cores.append((int((share < 0.05).sum()), int((share < 0.95).sum()) + 1))
    return tuple(tuple(int(box[side][end]) for end in (0, 1) for side in (0, 1)) for box in (ends, cores))


def receptive_fields(backbone, image, stages):
    """Show how much of an image each stage sees; the arguments of its figure."""
    show(*receptive_fields_figure(backbone, image, stages), photographs=True)


def receptive_fields_figure(backbone, image, stages):
    """Draw what the middle of each stage's map sees of an image: all that it depends on, and most of what it does.

    The dashed box holds every pixel that plays a part, the solid one nine tenths of the gradient (`seen`).

    Args:
        backbone: Backbone that can be cut. image: as ``backbone.prepare`` takes it. stages: their names, up to five.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Lesson 02. Luo et al., Understanding the effective receptive field, NeurIPS 2016.
    """
    picture = pixels(backbone.as_tensor(image))
    figure, axes = plt.subplots(1, len(stages), figsize=(7.2, 2.6), squeeze=False)
    told = []
    for axis, stage in zip(axes[0], stages, strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        widths = []
        for (top, left, bottom, right), color, line in zip(
            seen(backbone, image, stage), (ORANGE, BLUE), ("--", "-"), strict=True
        ):
            box = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, linewidth=2)
            box.set(edgecolor=color, linestyle=line)
            axis.add_patch(box)
            widths.append(right - left)
        axis.set(xticks=[], yticks=[])
        axis.set_title(stage)
        axis.set_xlabel(f"sees {widths[0]},\nmostly {widths[1]}")
        told.append(f"{stage} sees {widths[0]} pixels across, and nine tenths of it lie in {widths[1]}")
    figure.tight_layout()
    return figure, f"What the middle of each stage sees of an image {picture.shape[1]} pixels wide: {'; '.join(told)}."


def strongest_places(backbone, inputs, stage, channels, *, batch_size=32):
    """Where in each image each channel is highest.

    Args:
        inputs: N images of one size once prepared. channels: numbers of the stage's channels.

    Returns:
        (value, place): (N, channels) the highest response, and (N, channels, 2) the pixel (row, column) in its middle.
    """
    values, places = [], []
    with torch.inference_mode():
        for start in range(0, len(inputs), batch_size):
            batch = backbone.prepare(list(inputs[start : start + batch_size]))
            z = maps(backbone, batch, stage)[:, list(channels)]  # (B, channels, h, w)
            value, at = z.flatten(2).max(2)
            jump = torch.tensor([batch.shape[2] / z.shape[2], batch.shape[3] / z.shape[3]], device=z.device)
            place = (torch.stack([at // z.shape[3], at % z.shape[3]], 2) + 0.5) * jump
            values.append(value.float().cpu().numpy())
            places.append(place.cpu().numpy())
    return np.concatenate(values), np.concatenate(places)


def exciting_patches(backbone, sources, stage, channels, *, n=4):
    """Show the patches of images that excite channels most; the arguments of its figure."""
    show(*exciting_patches_figure(backbone, sources, stage, channels, n=n))


def exciting_patches_figure(backbone, sources, stage, channels, *, n=4):
    """Draw, for each channel, the patches on which it is highest: a row for each, the sources beside each other.

    An image gives one patch, the place of its highest response. A patch is as wide as the part of an image that holds
    nine tenths of what the stage sees (`seen`).

    Args:
        backbone: Backbone that can be cut. sources: {title: [image, …]}, images of one size once prepared.
        stage: its name. channels: numbers of its channels. n: patches of each source.

    Returns:
        (figure, alt): a matplotlib figure, and a text that says what is in it.

    Raises:
        ValueError: fewer than ``n`` images in a source; a stage without maps.

    Lesson 02. Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
    """
    few = {title: len(inputs) for title, inputs in sources.items() if len(inputs) < n}
    if few or not sources:
        raise ValueError(f"each source needs at least {n} images, got {few or sources}: give more, or a smaller n")
    _, (top, left, bottom, right) = seen(backbone, next(iter(sources.values()))[0], stage)
    side = max(bottom - top, right - left, 8)
    columns = len(sources) * (n + 0.3)
    figure, axes = plt.subplots(
        len(channels),
        len(sources) * (n + 1) - 1,
        figsize=(7.2, 7.2 / columns * len(channels) + 0.5),
        squeeze=False,
        width_ratios=([1] * n + [0.3]) * (len(sources) - 1) + [1] * n,
    )
    for axis in axes.flat:
        axis.axis("off")
    told = []
    for s, (title, inputs) in enumerate(sources.items()):
        values, places = strongest_places(backbone, inputs, stage, channels)
        for k, channel in enumerate(channels):
            best = np.argsort(-values[:, k], kind="stable")[:n]
            for column, i in enumerate(best):
                image = pixels(backbone.as_tensor(inputs[i]))
                axes[k, s * (n + 1) + column].imshow(_patch(image, places[i, k], side), cmap="gray", vmin=0, vmax=255)
            told.append(f"channel {channel}, {title}: {', '.join(f'{v:.1f}' for v in values[best, k])}")
        axes[0, s * (n + 1)].set_title(title, loc="left")
    for k, channel in enumerate(channels):
        axes[k, 0].text(-0.15, 0.5, f"{channel}", transform=axes[k, 0].transAxes, ha="right", va="center")
    figure.subplots_adjust(wspace=0.06, hspace=0.06)
    return figure, (
        f"Patches {side} pixels wide on which channels of {stage} are highest, and how high: {'; '.join(told)}."
    )


def _patch(image, place, side):
    """The square of ``side`` pixels around a place, moved inside the image."""
    top, left = (
        int(np.clip(round(middle - side / 2), 0, max(size - side, 0)))
        for middle, size in zip(place, image.shape, strict=False)
    )
    return image[top : top + side, left : left + side]
