"""How far something long has come: one bar at a time, and none where it is over in a second.

A terminal shows it on standard error and wipes it. A notebook gets it on standard output, where it is not framed as an
error, stays readable in the saved file, and ends as one line that says how long the work took.
"""

import sys
import time
from contextlib import contextmanager

_shown = []  # the bar that is shown now, if any


def in_notebook():
    """Whether this runs in the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def bar(total, words, unit, *, initial=0, hidden=False):
    """Show a bar inside a ``with``; work inside other work is told on the bar of the latter.

    Args:
        total: of how many. words: what is done. unit: of what, such as " images". initial: how many were done before.
        hidden: show nothing, as in all processes but the first.

    Yields:
        an object whose ``update(n=1)`` counts n more.
    """
    from tqdm import tqdm

    if _shown:
        inside = _Inside(_shown[-1], total, words)
        yield inside
        inside.close()
        return
    here = {"file": sys.stdout, "leave": True, "ncols": 79, "mininterval": 0.5} if in_notebook() else {"leave": False}
    hide = {"disable": True} if hidden else {}  # disable=False would overrule TQDM_DISABLE
    with tqdm(total=total, initial=initial, desc=words, unit=unit, delay=1, **here, **hide) as shown:
        _shown.append(shown)
        try:
            yield shown
        finally:
            _shown.remove(shown)


class _Inside:
    """Work inside other work, told at the end of the other's bar."""

    def __init__(self, outer, total, words):
        self.outer, self.total, self.words, self.n, self.shown = outer, total, words, 0, 0.0

    def update(self, n=1):
        self.n += n
        self.outer.set_postfix_str(f"{self.words} {self.n}/{self.total}", refresh=False)
        if not self.outer.disable and time.time() - self.shown > 0.5:
            self.shown = time.time()
            self.outer.refresh()

    def close(self):
        self.outer.set_postfix_str("", refresh=False)


def track(items, total, words, unit):
    """Yield the items, with a bar."""
    with bar(total, words, unit) as shown:
        for item in items:
            yield item
            shown.update()
