"""Files that are computed once: where they live, and how they appear whole or not at all."""

import errno
import math
import os
import shutil
import time
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from uuid import uuid4

import numpy as np

LIMIT = 20 * 10**9  # bytes of features; beyond it the oldest go first


def folder():
    """Return the cache folder: the environment variable ``TLBOOK_CACHE``, or ``~/.cache/tlbook``."""
    return Path(os.environ.get("TLBOOK_CACHE") or "~/.cache/tlbook").expanduser()


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


def new_array(path, shape):
    """Make the .npy file of a float32 array, with room on the disk for all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            reserve(file, file.tell() + 4 * math.prod(shape))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def stored_array(path, shape):
    """The array of a .npy file, memory-mapped, or None where there is none or a damaged one, which is removed."""
    try:
        X = np.load(path, mmap_mode="r")
        if X.shape != tuple(shape) or X.dtype != np.float32:
            raise ValueError(f"{X.shape} of {X.dtype}")
        os.utime(path)  # used now: the oldest go first
        return X
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError):
        path.unlink(missing_ok=True)
        return None


def trim(folder, limit=LIMIT):
    """Remove the files of ``folder`` that were not used for longest, until they take at most ``limit`` bytes."""
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*") if path.is_file()]
    total = sum(size for _, size, _ in files)
    for last_used, size, path in sorted(files):
        abandoned = path.suffix == ".part" and time.time() - last_used > 86_400
        if total > limit and path.suffix != ".part" or abandoned:
            path.unlink(missing_ok=True)
            total -= size


def reserve(file, size):
    """Take ``size`` bytes of the disk for an open file now: memory mapped over a full disk ends the process later.

    Raises:
        OSError: they are not there; it names the size, the folder and the remedy.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # Windows and macOS: what is free now may be taken by others meanwhile
            if shutil.disk_usage(folder()).free < size:
                raise OSError(errno.ENOSPC, "no space left")
            file.truncate(size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"{size / 1e6:,.0f} MB are needed in {folder()}, and the disk has no room for them: make some, or name a "
            "folder on another disk by the environment variable TLBOOK_CACHE",
        ) from None


def umask():
    """The permissions that this process takes from the files it makes."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
