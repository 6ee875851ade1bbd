"""Rows that read well in a terminal and in a notebook: numbers to the right, with the same decimals down a column."""

import math
import re
from html import escape
from numbers import Integral, Real

_LIKE_NUMBERS = re.compile(r"[-+−\[]?\d[\d.,%\]]*(?:(?: to |, | … )[-+−]?\d[\d.,%\]]*)*")  # "0.861", "0.80 to 0.90"


class Table(list):
    """A list of dicts with the same keys, shown as a table."""

    def _columns(self):
        """[(name, texts, whether it holds numbers)] of each column."""
        for name in self[0] if self else ():
            values = [row[name] for row in self]
            texts = _texts(values)
            yield name, texts, any(map(_is_number, values)) or all(map(_LIKE_NUMBERS.fullmatch, filter(None, texts)))

    def __repr__(self):
        columns = []
        for name, texts, is_number in self._columns():
            width = max(map(len, (name, *texts)))
            align = str.rjust if is_number else str.ljust
            columns.append([align(name, width), "-" * width, *(align(text, width) for text in texts)])
        return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))

    def _repr_html_(self):
        columns = list(self._columns())
        sides = ["right" if is_number else "left" for *_, is_number in columns]
        body = zip(*(texts for _, texts, _ in columns), strict=True)
        lines = [_line("th", [name for name, *_ in columns], sides), *(_line("td", texts, sides) for texts in body)]
        return f"<div style='overflow-x:auto'><table>{''.join(lines)}</table></div>"


def _line(tag, texts, sides):
    style = "text-align:{};white-space:nowrap"
    cells = (
        f"<{tag} style='{style.format(side)}'>{escape(text)}</{tag}>" for text, side in zip(texts, sides, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _texts(values):
    """A column as texts; fractions get three significant digits of the largest, and the same decimals all."""
    sizes = [abs(value) for value in values if _is_fraction(value) and math.isfinite(value) and value]
    decimals = min(3, max(0, 2 - math.floor(math.log10(max(sizes))))) if sizes else 0
    is_wide = sizes and (max(sizes) < 0.01 or max(sizes) >= 1e6 or min(sizes) < 10 ** -(decimals + 1))
    return [_text(value, ".3g" if is_wide else f".{decimals}f") for value in values]


def _text(value, form):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_fraction(value):
        return format(value, form)
    return f"{value:,}" if isinstance(value, Integral) else str(value)


def _is_fraction(value):
    return isinstance(value, Real) and not isinstance(value, Integral)


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def apart_from(taken, names):
    """``names``, of which a taken one is written p(name), or p(p(name)) where a class is called that."""
    others, apart = {*taken, *names}, []
    for name in names:
        written = name
        while name in taken and written in others:
            written = f"p({written})"
        apart.append(written)
    return apart
