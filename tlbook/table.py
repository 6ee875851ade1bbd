"""Rows that read well in a terminal and in a notebook."""

from html import escape


class Table(list):
    """A list of dicts with the same keys, shown as a table."""

    def _cells(self):
        rows = [list(self[0])] if self else [[]]
        return rows + [[_text(value) for value in row.values()] for row in self]

    def __repr__(self):
        rows = self._cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, ["-" * width for width in widths])
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _repr_html_(self):
        head, *body = ([escape(cell) for cell in row] for row in self._cells())
        head = "".join(f"<th style='text-align:left'>{cell}</th>" for cell in head)
        lines = ("".join(f"<td style='text-align:left'>{cell}</td>" for cell in row) for row in body)
        return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
