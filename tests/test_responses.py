"""What a stage sees, by its gradient, against the kernels; the patches that excite a channel, against a search."""

import numpy as np
import pytest
import torch
from small import tiny

from tlbook import plots, responses


def limit(backbone, stage):
    """The receptive field that kernels and strides allow."""
    field = jump = 1
    for name, parts in backbone.parts.items():
        for conv in (m for p in parts for m in backbone.model.get_submodule(p).modules()):
            if isinstance(conv, torch.nn.Conv2d | torch.nn.MaxPool2d):
                kernel, stride = (v if isinstance(v, int) else v[0] for v in (conv.kernel_size, conv.stride))
                field, jump = field + (kernel - 1) * jump, jump * stride
        if name == stage:
            return field


@pytest.fixture
def noise():
    g = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=g) for _ in range(12)]


@pytest.mark.parametrize("stage", ["stem", "blocks.0", "blocks.1"])
def test_a_stage_sees_no_more_than_its_kernels_allow_and_most_of_it_in_the_middle(stage, noise):
    backbone = tiny("test_efficientnet")
    reach, core = responses.seen(backbone, noise[0], stage)
    for low, high in ((0, 2), (1, 3)):
        assert reach[low] <= core[low] < core[high] <= reach[high]
        assert reach[high] - reach[low] <= limit(backbone, stage)


@pytest.mark.parametrize("stage", ["stem", "blocks.0"])
def test_pixels_outside_what_is_seen_change_nothing_and_those_inside_do(stage, noise):
    backbone = tiny("test_efficientnet")
    (top, left, bottom, right), _ = responses.seen(backbone, noise[0], stage)

    def middle(image):
        with torch.inference_mode():
            z = backbone.prefix(stage)(backbone.prepare([image]))
        return z[0, :, z.shape[2] // 2, z.shape[3] // 2]

    outside, inside = noise[1].clone(), noise[0].clone()
    outside[:, top:bottom, left:right] = noise[0][:, top:bottom, left:right]
    inside[:, top:bottom, left:right] = noise[1][:, top:bottom, left:right]
    assert torch.allclose(middle(outside), middle(noise[0]), atol=1e-5)
    assert not torch.allclose(middle(inside), middle(noise[0]), atol=1e-3)


def test_the_figure_draws_both_boxes_where_they_are(noise):
    backbone = tiny("test_efficientnet")
    figure, alt = plots.receptive_fields_figure(backbone, noise[0], ["stem", "blocks.1"])
    for axis, stage in zip(figure.axes, ["stem", "blocks.1"], strict=True):
        boxes = [(p.get_y() + 0.5, p.get_x() + 0.5, p.get_height(), p.get_width()) for p in axis.patches]
        found = [(t, left, b - t, r - left) for t, left, b, r in responses.seen(backbone, noise[0], stage)]
        assert boxes == [tuple(map(float, box)) for box in found]
        assert f"{stage} sees {found[0][3]} pixels across, and nine tenths of it lie in {found[1][3]}" in alt
    assert {p.get_linestyle() for p in figure.axes[0].patches} == {"--", "-"}
    plots.plt.close(figure)


def test_the_strongest_place_is_the_one_that_a_search_over_all_positions_finds(noise):
    backbone = tiny("test_efficientnet")
    values, places = responses.strongest_places(backbone, noise, "blocks.0", [2, 0], batch_size=5)
    with torch.inference_mode():
        z = backbone.prefix("blocks.0")(backbone.prepare(noise)).cpu().numpy()
    jump = 64 / z.shape[2]
    for i, k in np.ndindex(12, 2):
        own = z[i, [2, 0][k]]
        row, column = (int(place // jump) for place in places[i, k])
        near = 1e-5 if backbone.device.type == "cpu" else 0.01  # on a GPU another size of batch gives other digits
        highest = pytest.approx(own.max(), rel=near)
        assert values[i, k] == highest and own[row, column] == highest


def test_the_patches_are_those_of_the_images_with_the_highest_response(noise):
    backbone = tiny("test_efficientnet")
    figure, alt = plots.exciting_patches_figure(backbone, {"a": noise[:6], "b": noise[6:]}, "stem", [1, 3], n=2)
    for title, images in (("a", noise[:6]), ("b", noise[6:])):
        values, _ = responses.strongest_places(backbone, images, "stem", [1, 3])
        for k, channel in enumerate((1, 3)):
            best = ", ".join(f"{v:.1f}" for v in sorted(values[:, k])[::-1][:2])
            assert f"channel {channel}, {title}: {best}" in alt
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 8 and len({axis.images[0].get_array().shape for axis in drawn}) == 1
    plots.plt.close(figure)


def test_what_has_no_map_or_too_few_images_is_refused(noise):
    with pytest.raises(ValueError, match="tokens, not feature maps"):
        plots.receptive_fields_figure(tiny("test_vit"), noise[0][:, :32, :32].repeat(1, 5, 5), ["blocks.0"])
    with pytest.raises(ValueError, match="at least 4 images"):
        plots.exciting_patches_figure(tiny(), {"a": noise[:3]}, "stem", [0])


def test_neighbours_of_other_groups_are_those_of_a_brute_force_search():
    rng = np.random.default_rng(0)
    Z, y, groups = rng.normal(size=(60, 5)), rng.integers(0, 2, 60), rng.integers(0, 4, 60)
    alike = []
    for i in range(60):
        others = [j for j in range(60) if groups[j] != groups[i]]
        near = sorted(others, key=lambda j: np.linalg.norm(Z[i] - Z[j]))[:10]
        alike.append(np.mean(y[near] == y[i]))
    assert np.isclose(plots._neighbours_alike(Z, y, apart=groups), np.mean(alike))
