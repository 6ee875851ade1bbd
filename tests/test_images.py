"""Image files: every kind becomes RGB, what is broken or hostile is refused by name, and nothing else is found."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import MODES, damaged, in_mode
from PIL import Image, ImageOps

from tlbook import images


@pytest.mark.parametrize("mode", [*MODES, "LA", "1", "F", "I", "PA", "YCbCr", "LAB", "HSV"])
def test_every_mode_becomes_rgb(mode):
    grey = np.full((8, 8), 128, np.uint8)
    image = {
        "P": lambda: Image.fromarray(grey).convert("P"),
        "F": lambda: Image.fromarray(grey.astype(np.float32) / 255),
        "I": lambda: Image.fromarray(grey.astype(np.int32) * 257),
        "PA": lambda: Image.fromarray(grey).convert("P").convert("PA"),
        "LAB": lambda: Image.new("LAB", (8, 8), (137, 128, 128)),
    }.get(mode, lambda: in_mode(Image.fromarray(np.stack([grey] * 3, -1)), mode))()
    assert image.mode == mode
    found = np.asarray(images.to_rgb(image)).astype(int)
    assert found.shape == (8, 8, 3)
    if mode not in ("1", "LAB"):  # one bit is black or white; Lab has no fixed grey of 128
        assert np.abs(found - 128).max() <= 2


def grey_of(values):
    """What `to_rgb` shows of an array, as (H, W) integers."""
    found = np.asarray(images.to_rgb(Image.fromarray(np.asarray(values)))).astype(int)
    assert (found == found[..., :1]).all()
    return found[..., 0]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_grey_of_any_depth_keeps_its_256_levels(bits, kind):
    ramp = np.arange(2**bits).reshape(16, -1)
    assert np.array_equal(grey_of(ramp.astype(kind)), ramp >> (bits - 8))


def test_images_of_one_camera_are_scaled_alike_where_they_use_a_quarter_of_its_range():
    for brightest in (1024, 2000, 4095):
        assert grey_of(np.array([[512, brightest]], np.uint16))[0, 0] == 32
    for low, high in ((-1000, 1200), (-1024, 3071), (-900, 200)):  # slices of one tomogram: air to bone
        assert grey_of(np.array([[low, 0, high]], np.int32))[0, 1] == 64


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-1000, 3000, 400).astype(np.int32),
        np.linspace(-32768, 32767, 999).astype(np.int32),
        np.linspace(-(2**31), 2**31 - 1, 999).astype(np.int32),
        np.linspace(0, 255, 999).astype(np.float32),
        np.linspace(-2.5, 3, 999).astype(np.float32),
        np.linspace(20, 40, 999).astype(np.float32),
        np.linspace(-3e38, 3e38, 999).astype(np.float32),
    ],
)
def test_numbers_of_any_range_keep_their_order_and_60_levels_or_more(values):
    found = grey_of(values[None])[0]
    assert (np.diff(found) >= 0).all() and len(np.unique(found)) > 60


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1).map(np.int32)
    | st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1).map(np.float32)
)
def test_brighter_is_never_shown_darker(values):
    found = images._to_8_bits(np.sort(values)).astype(int)
    assert (np.diff(found) >= 0).all()
    assert np.array_equal(found, images._to_8_bits(np.sort(values)[::-1])[::-1])


def test_floats_from_0_to_1_are_white_at_1_and_a_little_overshoot_does_not_darken_them():
    assert grey_of(np.array([[0, 0.5, 1]], np.float32)).tolist() == [[0, 128, 255]]
    assert grey_of(np.array([[-0.1, 0.5, 1.1]], np.float32)).tolist() == [[0, 128, 255]]
    assert grey_of(np.array([[0, 0.1]], np.float32)).tolist() == [[0, 26]]  # a dark image stays dark


def test_what_is_no_number_is_as_dark_and_what_is_infinite_as_bright_as_an_image_gets():
    nan, inf = np.nan, np.inf
    assert grey_of(np.array([[nan, 10, 200, inf, -inf]], np.float32)).tolist() == [[10, 10, 200, 200, 10]]
    assert grey_of(np.array([[nan, 0.5, inf]], np.float32)).tolist() == [[0, 128, 255]]
    assert grey_of(np.full((2, 2), nan, np.float32)).max() == 0
    assert grey_of(np.full((2, 2), -1024, np.int32)).max() == 0


def test_what_is_transparent_is_white_and_exif_turns_upright(tmp_path):
    assert images.to_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    image = Image.new("RGB", (30, 20), "black")
    image.paste("white", (0, 0, 30, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter to see it so
    image.save(tmp_path / "a.jpg", exif=exif)
    turned = np.asarray(images.read(tmp_path / "a.jpg")).mean(-1)
    assert turned.shape == (30, 20) and turned[:, -1].min() > 200 and turned[:, 0].max() < 50


UNREADABLE = {"junk": b"Exif\0\0junkjunk", "zeros": b"Exif\0\0" + bytes(12), "cut": b"Exif\0\0MM"}


@pytest.mark.parametrize("exif", UNREADABLE)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_that_cannot_be_read_is_passed_over_however_often_it_is_met(exif, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (30, 20), "red").save(path, exif=UNREADABLE[exif])
    good, problems = images.check([path])
    assert list(good) == [path] and not problems
    image = images.read(path)
    assert image.size == (30, 20) and "exif" not in image.info and images.may_be_shared(image)
    for again in (image, Image.open(path)):
        assert np.array_equal(images.to_rgb(images.to_rgb(again)), image)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_every_orientation_is_turned_once_as_pillow_does(orientation, suffix, tmp_path):
    pixels, exif = np.arange(24, dtype=np.uint8).reshape(4, 6).repeat(8, 0).repeat(8, 1), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = images.read(tmp_path / f"a.{suffix}")
    assert np.array_equal(found, expected) and np.array_equal(images.to_rgb(found), expected)


def test_an_orientation_counts_where_the_rest_of_the_exif_is_damaged():
    def damaged():
        image, image_exif = Image.new("RGB", (30, 20)), Image.Exif()
        image_exif[0x0112], image_exif[0x829A] = 6, "no number"  # the exposure time
        image._exif, image.info["exif"], image_exif._loaded = image_exif, b"junk", True
        return image

    with pytest.raises(SyntaxError):
        ImageOps.exif_transpose(damaged())
    assert images.to_rgb(damaged()).size == (20, 30)


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="decompression bomb"):
        images.read(tmp_path / "bomb.png")


def test_no_limit_of_pixels_is_no_error(tmp_path, monkeypatch):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert images.read(tmp_path / "a.png").size == (30, 20)
    assert images.check([tmp_path / "a.png"])[1] == []


@pytest.mark.parametrize("suffix", sorted(set(images.FORMATS) - {".heic", ".heif", ".hif"}))
def test_every_usual_suffix_is_found_and_read(tmp_path, suffix):
    if images.FORMATS[suffix] not in images._formats():
        pytest.skip("this Pillow does not read the format")
    Image.new("RGB", (30, 20), "red").save(tmp_path / f"a{suffix.upper()}", images.FORMATS[suffix])
    found, others = images.find(tmp_path)
    assert [path.suffix for path in found] == [suffix.upper()] and not others
    assert np.abs(np.asarray(images.read(found[0])).mean((0, 1)) - (255, 0, 0)).max() < 5


def test_heic_is_named_with_the_remedy_whatever_its_suffix(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_formats", lambda: ("JPEG", "PNG"))  # no plug-in is installed
    for name in ("a.heic", "b.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    found, others = images.find(tmp_path)
    assert [path.name for path in found] == ["b.jpg"]
    assert "pip install pillow-heif" in others[tmp_path / "a.heic"]
    with pytest.raises(ValueError, match="b.jpg is a HEIC or AVIF image: pip install pillow-heif"):
        images.read(found[0])


def test_heic_is_read_where_its_plug_in_is_installed(tmp_path, monkeypatch):
    def register_heif_opener():
        Image.register_open("HEIF", lambda file, name: Image.new("RGB", (3, 2)), lambda start: start[4:8] == b"ftyp")

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register_heif_opener))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    images._formats.cache_clear()
    try:
        assert images._formats()[-1] == "HEIF"
        (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
        assert images.find(tmp_path)[0] and images.read(tmp_path / "a.heic").size == (3, 2)
    finally:
        images._formats.cache_clear()


def test_links_are_followed_but_not_back(tmp_path):
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "other" / "x.png")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "root" / "a" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    (tmp_path / "other" / "home").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "file.png").symlink_to(tmp_path / "other" / "x.png")
    found, others = images.find(tmp_path / "root")
    assert [path.relative_to(tmp_path / "root").as_posix() for path in found] == ["file.png", "out/x.png"]
    assert others == {}


def test_pages_and_frames_beyond_the_first_are_counted_and_said_once(tmp_path):
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 128, 255)]
    for name in ("a.gif", "b.tif", "c.png", "d.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "e.png")
    with pytest.warns(UserWarning) as caught:
        good, problems = images.check(images.find(tmp_path)[0])
    assert len(caught) == 1 and str(caught[0].message).startswith("4 of 5 files hold several pages or frames, such as ")
    assert len(good) == 5 and not problems
    assert all(np.asarray(images.read(path)).max() < 5 for path in good)


@pytest.mark.parametrize(
    "inputs, kind, says",
    [
        ([], ValueError, "inputs is empty"),
        (None, TypeError, "must be a path, an image or a list of them, got NoneType"),
        ({"a": 1}, TypeError, "got dict"),
        (3, TypeError, "got int"),
    ],
)
def test_what_is_no_image_nor_path_is_an_error(inputs, kind, says):
    with pytest.raises(kind, match=says):
        images.inputs_of(inputs)


def test_a_list_may_mix_paths_and_images(folder):
    first = folder / "cat" / "00.jpg"
    mixed = images.inputs_of([str(first), images.read(first)])
    assert np.array_equal(mixed[0], mixed[1])
    with pytest.raises(ValueError, match="cat is a folder, where a file is needed"):
        images.inputs_of([folder / "cat"])[0]


def test_a_folder_without_images_tells_what_is_in_it(tmp_path):
    (tmp_path / "a.cr3").write_bytes(b"raw")
    with pytest.raises(ValueError, match="has no images in it.*\n.*a.cr3 is a camera's raw file"):
        images.inputs_of(tmp_path)


def fuzz_images(folder, tmp_path, n):
    rng, sources, read = np.random.default_rng(0), sorted(folder.rglob("*.*g")), 0
    for i in range(n):
        source = sources[i % len(sources)]
        path = tmp_path / f"{i}{source.suffix}"
        path.write_bytes(damaged(source.read_bytes(), rng))
        try:
            assert images.read(path).mode == "RGB"
            read += 1
        except ValueError as error:
            assert str(path) in str(error)
        path.unlink()
    assert 0 < read < n


def test_damaged_images_are_refused_and_nothing_else(folder, tmp_path):
    fuzz_images(folder, tmp_path, 40)


@pytest.mark.prove
def test_many_damaged_images_are_refused_and_nothing_else(folder, tmp_path):
    fuzz_images(folder, tmp_path, 500)


def photograph(path, size=(1600, 1200), **options):
    """A photograph of that many pixels, as a file."""
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("flower.jpg")).resize(size, Image.Resampling.BICUBIC)
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    "side, pixels", [(50, (200, 150)), (51, (400, 300)), (134, (800, 600)), (201, (1600, 1200)), (900, (1600, 1200))]
)
def test_of_a_large_jpeg_no_less_than_three_times_the_side_is_decoded(side, pixels, tmp_path):
    path = photograph(tmp_path / "a.jpg", quality=90)
    assert images.read(path, side).size == pixels
    assert images.read(path).size == (1600, 1200)


def test_a_large_jpeg_of_few_pixels_stands_upright_and_shows_the_same(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photograph(tmp_path / "a.jpg", quality=90, exif=exif)
    small, whole = images.read(path, 50), images.read(path)
    assert small.size == (150, 200) and whole.size == (1200, 1600)
    apart = [np.asarray(x.resize((75, 100)), dtype=float) for x in (small, whole)]
    assert np.abs(apart[0] - apart[1]).mean() < 1


def test_other_formats_are_decoded_whole(tmp_path):
    assert images.read(photograph(tmp_path / "a.png"), 50).size == (1600, 1200)
