"""The ground of every figure: colours and hatchings, names of classes, and an image that carries its text."""

import base64
import html
import io

import matplotlib.pyplot as plt
import numpy as np

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"  # told apart without red and green
PAGE = 1.1  # a figure's inch on a page: the usual letters of 10 pt are read there at 11 pt
DPI = 160 * PAGE  # pixels in an inch of the figure: 160 in an inch of the page

# Fonts with letters that matplotlib's own lacks, of Linux, Windows and macOS; what is not installed is passed over.
_MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS"),
    *("Noto Sans", "Noto Emoji", "Segoe UI Emoji", "Segoe UI Symbol"),
)


class Picture:
    """An image with its alternative text, as the HTML that pages show: notebooks forget the text of a bare PNG."""

    def __init__(self, png, alt, width, kind="png"):
        self.png, self.alt, self.width, self.kind = png, alt, width, kind

    def __repr__(self):
        return f"Figure: {self.alt}"

    def _repr_html_(self):
        alt, data = html.escape(self.alt), base64.b64encode(self.png).decode()
        style = "max-width:100%;height:auto"
        return f'<img alt="{alt}" width="{self.width}" style="{style}" src="data:image/{self.kind};base64,{data}">'


def picture(figure, alt, photographs=False):
    """Return ``figure`` as a `Picture` with the alternative text ``alt``, and close it.

    It is a PNG of up to 256 colours, which makes the file a third as large; of ``photographs`` a JPEG, a quarter of it.

    Raises:
        ValueError: an empty text.
    """
    from PIL import Image

    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt must say in words what is in the figure, got {alt!r}")
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    image = Image.open(drawn).convert("RGB")
    if photographs:
        image.save(small, format="JPEG", quality=80, dpi=(160, 160))
    else:
        image.quantize(256, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True, dpi=(160, 160))
    width = round(image.width * 96 / 160)  # a page has 96 pixels in an inch
    return Picture(small.getvalue(), alt, width, "jpeg" if photographs else "png")


def show(figure, alt, photographs=False):
    """Display ``figure`` in the notebook with the alternative text ``alt``, and close it."""
    from IPython import display

    display.display(picture(figure, alt, photographs))


def class_labels(class_names):
    """What a figure calls each class, and how such a text is drawn: with fonts that have its letters, "$" a dollar.

    White space becomes one space, a long name is cut, and one with a letter that no font here has is "class k".

    Returns:
        ([K texts], {argument of matplotlib's texts: value})
    """
    from matplotlib import font_manager

    names = [" ".join(str(name).split()) for name in class_names]
    names = [name if len(name) <= 30 else f"{name[:29]}…" for name in names]
    families = plt.rcParams["font.family"]
    letters = set("".join(names))
    if not all(" " <= letter <= "~" for letter in letters):
        here = set(font_manager.fontManager.get_font_names())
        families = [*families, *(family for family in _MORE_FONTS if family in here)]
        files = [font_manager.findfont(font_manager.FontProperties(family=[family])) for family in families]
        fonts = [font_manager.get_font(file) for file in files]
        letters -= {chr(code) for font in fonts for code in font.get_charmap()}
        names = [f"class {k}" if letters & set(name) else name for k, name in enumerate(names)]
    return names, {"fontfamily": families, "parse_math": False}


def pixels(image):
    """(H, W) or (H, W, 3) of an image, a uint8 tensor (1 or 3, H, W) or a PIL image, as matplotlib draws it."""
    return np.asarray(image.permute(1, 2, 0) if hasattr(image, "permute") else image).squeeze()
