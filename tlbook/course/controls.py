"""Controls of native HTML, which a keyboard moves and a screen reader reads, and the box that holds them.

A slider of ipywidgets has a handle without a name, and speaks the place of a value in place of the value.
"""

from pathlib import Path

import anywidget
import ipywidgets
import traitlets

NOTE = "Moved by hand while the notebook runs. Is nothing above, or an error? Run this cell again."


class _Control(anywidget.AnyWidget):
    _esm = Path(__file__).with_name("controls.js")
    _css = Path(__file__).with_name("controls.css")
    kind = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)


class Slider(_Control):
    """A number: of a range in steps, with a field to type it; or one of ``values``, which are spoken as ``texts``."""

    kind = traitlets.Unicode("slider").tag(sync=True)
    value = traitlets.Union([traitlets.Int(), traitlets.Float()]).tag(sync=True)
    min = traitlets.Float(0).tag(sync=True)
    max = traitlets.Float(1).tag(sync=True)
    step = traitlets.Float(1).tag(sync=True)
    values = traitlets.List().tag(sync=True)
    texts = traitlets.List().tag(sync=True)


class Choice(_Control):
    """One of a few names, all of them in sight."""

    kind = traitlets.Unicode("choice").tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)
    options = traitlets.List().tag(sync=True)


class Several(_Control):
    """Several of ``values``, which are shown as ``texts``."""

    kind = traitlets.Unicode("several").tag(sync=True)
    value = traitlets.List().tag(sync=True)
    values = traitlets.List().tag(sync=True)
    texts = traitlets.List().tag(sync=True)


class Points(_Control):
    """One of the points [x, y, class] of a plane, x and y in 0 … 1; ``texts`` are what is spoken of each."""

    kind = traitlets.Unicode("points").tag(sync=True)
    value = traitlets.Int().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    texts = traitlets.List().tag(sync=True)


class Status(_Control):
    """A text that is read aloud when it changes."""

    kind = traitlets.Unicode("status").tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)


class Explorer(ipywidgets.VBox):
    """Controls, and what they show. Where it cannot be shown, a sentence stands in its place."""

    def __repr__(self):
        return NOTE

    def _ipython_display_(self):
        from IPython.display import HTML, display

        view = self._repr_mimebundle_()
        view = view[0] if isinstance(view, tuple) else view
        display(view | {"text/plain": ""}, raw=True)
        display(HTML(f"<p><small>{NOTE}</small></p>"))
