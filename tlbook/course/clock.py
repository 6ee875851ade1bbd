"""What work costs: seconds, and joules where the machine tells them."""

import time
from pathlib import Path

import numpy as np

COUNTERS = Path("/sys/class/powercap")  # Linux; on most machines only root may read it


def seconds_of(work, least=2.0):
    """Return the median seconds of a call of ``work()``, over at least ``least`` seconds and three calls.

    One more call comes first and does not count: it fills caches and allocates memory.
    """
    work()
    times = []
    while sum(times) < least or len(times) < 3:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def joules():
    """Return the joules that the processors have used since some moment, all programs together; None if not told."""
    try:
        counters = sorted(COUNTERS.glob("intel-rapl:?/energy_uj"))
        return sum(int(path.read_text()) for path in counters) / 1e6 if counters else None
    except OSError:
        return None


class Meter:
    """Measure what runs inside a ``with``: afterwards ``.seconds``, and ``.joules`` or None where none are told.

    >>> with Meter() as cost:
    ...     _ = sum(range(1000))
    >>> cost.seconds > 0
    True
    """

    def __enter__(self):
        self._used, self._begun = joules(), time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds, now = time.perf_counter() - self._begun, joules()
        used = None if now is None or self._used is None else now - self._used
        self.joules = None if used is None or used < 0 else used  # the counter began anew
