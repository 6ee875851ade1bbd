"""The findings as one HTML page with pictures, which needs no other file."""

import base64
from html import escape
from io import BytesIO

import numpy as np

from tlbook import cache, images

SHOWN = 12  # pictures, or pairs of them, beside a finding
SIDE = 112  # pixels of a picture on the page

STYLE = """
body { font: 17px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.7rem } h2 { font-size: 1.2rem; margin: 0 0 .3rem } p { margin: .4rem 0 }
section { border-left: .5rem solid #0072b2; padding: .2rem 1rem; margin: 1.6rem 0 }
section.serious { border-left: .5rem double #d55e00 }
.mark { font-weight: bold } .serious .mark { color: #a34700 }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: .8rem } figure { margin: 0 }
figure div { display: flex; gap: 2px } figcaption { font-size: .8rem; max-width: 15rem; overflow-wrap: anywhere }
td, th { padding: .2rem .7rem }
"""


def write_page(found, path):
    """Write the `Suspicions` to ``path``, whole or not at all."""
    n = len(found.serious)
    verdict = f"{n} serious" if n else "nothing serious"
    parts = [
        "<!doctype html>",
        f"<html lang='en'><head><meta charset='utf-8'><title>{escape(found.data.name)}: {verdict}</title>",
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style></head><body>",
        f"<h1>Would a score on {escape(found.data.name)} flatter?</h1>",
        f"<p>{escape(repr(found.data))}. {len(found.findings)} findings, {verdict}; the worst first.</p>",
        *(_section(finding, found.data) for finding in found.findings),
        *_rest(found),
        "</body></html>",
    ]
    with cache.atomic(path) as part:
        part.write_bytes("\n".join(parts).encode("utf-8", "backslashreplace"))


def _section(finding, data):
    mark = "Serious" if finding.severity == "serious" else "Look"
    pictures = "".join(_figure(example, data) for example in finding.examples[:SHOWN])
    return (
        f"<section class='{finding.severity}'><h2><span class='mark'>{mark}:</span> {escape(finding.title)}</h2>"
        f"<p>{escape(finding.text)}</p><div class='pictures'>{pictures}</div></section>"
    )


def _rest(found):
    """The tables of facts and scores, and what raised no suspicion."""
    if found.facts:
        yield "<h2>What is known without a pixel</h2><p>AUC of the label from each fact alone, and how well the "
        yield f"features show the fact among images of one class; .5 is nothing.</p>{found.facts._repr_html_()}"
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{auc:.3f}</td></tr>" for name, auc in found.scores.items())
    yield f"<h2>What the pixels say</h2><table><tr><th>score</th><th>AUC</th></tr>{rows}</table>"
    if found.fine:
        yield "<h2>No suspicion</h2><ul>" + "".join(f"<li>{escape(words)}</li>" for words in found.fine) + "</ul>"


def _figure(example, data):
    """One example, or several side by side, with their names and labels."""
    rows = [int(i) for i in np.atleast_1d(example)]
    names = data.columns.get("path", np.arange(len(data)))
    words = [f"{names[i]} ({data.class_names[data.labels[i]]})" for i in rows]
    if data.kind.name != "images":
        return f"<figure><figcaption>{escape(' · '.join(words))}</figcaption></figure>"
    shown = "".join(
        f"<img alt='{escape(word)}' src='{_as_url(data[i][0])}'>" for i, word in zip(rows, words, strict=True)
    )
    return f"<figure><div>{shown}</div><figcaption>{escape(' · '.join(words))}</figcaption></figure>"


def _as_url(image):
    from tlbook.data.dataset import _as_picture

    image, buffer = images.to_rgb(_as_picture(image)), BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
