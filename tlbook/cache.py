"""Files that are computed once: where they live, and how they appear whole or not at all."""

import os
import time
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from uuid import uuid4


def folder():
    """Return the cache folder: the environment variable ``TLBOOK_CACHE``, or ``~/.cache/tlbook``."""
    return Path(os.environ.get("TLBOOK_CACHE", "~/.cache/tlbook")).expanduser()


@contextmanager
def atomic(path):
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    A process killed inside the block leaves ``path`` as it was; what it had written is swept away by a later write.
    Two processes that write the same path both succeed: the last one stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{escape(path.name)}.*.part"):
        if leftover.is_file() and time.time() - leftover.stat().st_mtime > 86_400:
            leftover.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
