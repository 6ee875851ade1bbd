"""Files that are computed once: where they live, and how they appear whole or not at all."""

import errno
import math
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from uuid import uuid4

import numpy as np

LIMIT = 20 * 10**9  # bytes of features; beyond it the oldest go first
SAVE_SECONDS = 5  # what a crash may cost


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


def save_tensors(path, save_file, tensors, metadata):
    """Write {name: array} by safetensors' ``save_file``, atomically, to a file as readable as any other.

    Raises:
        OSError: there is no room on the disk, or another of the system's reasons.
    """
    from safetensors import SafetensorError

    with atomic(path) as part:
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:  # which wraps the system's errors
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            size = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
            reason = os.strerror(int(number[1]))
            raise OSError(int(number[1]), f"{reason}: {path} takes {size:,.0f} MB") from None
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~umask())  # safetensors makes files that only their owner can read


def only_one(path):
    """A lock that one process at a time holds, to compute the file ``path``; it ends with its holder."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


class Growing:
    """An array of float32 that is filled part by part; it appears at ``path`` when it is whole.

    What a crash, Ctrl-C or a power cut leaves is found again by the next one with the same arguments.

    Args:
        path: of the .npy file. shape: of the array. parts: how many there are. kind: text that tells how it is cut up.
        processes: `tlbook.processes.Processes` that fill it together, each its ``own_parts``.

    Raises:
        OSError: the disk has no room for it.
    """

    def __init__(self, path, shape, parts, kind, processes):
        self.path, self.partial, self.processes = path, path.with_suffix(".partial"), processes
        self.marks_file = path.with_suffix(f".{kind}.done")
        if processes.is_first:
            trim(path.parent, ".npy")
            has_marks = self.marks_file.exists() and self.marks_file.stat().st_size == parts
            if not has_marks or stored_array(self.partial, shape) is None:
                self.discard()
                new_array(self.partial, shape)
                self.marks_file.write_bytes(bytes(parts))
        processes.wait()
        self.array = np.lib.format.open_memmap(self.partial, "r+")
        self.marks = np.memmap(self.marks_file, np.uint8, "r+", shape=(parts,))
        self.own_parts = [i for i in range(processes.rank, parts, processes.size) if not self.marks[i]]
        self.unsaved, self.last_save = [], time.monotonic()

    def note(self, part):
        """Say that a part is filled. Every few seconds that is written down, after the part itself."""
        self.unsaved.append(part)
        if time.monotonic() - self.last_save > SAVE_SECONDS:
            self.save()

    def save(self):
        self.array.flush()
        self.marks[self.unsaved] = 1
        self.marks.flush()
        self.unsaved, self.last_save = [], time.monotonic()

    def finish(self):
        """Let the array appear at ``path``, when all processes have filled their parts."""
        self.array.flush()
        del self.array, self.marks  # an open file cannot be renamed on Windows
        self.processes.wait()
        if self.processes.is_first:
            os.replace(self.partial, self.path)
            self.marks_file.unlink()
            self.path.with_suffix(".lock").unlink(missing_ok=True)
        self.processes.wait()

    def discard(self):
        """Remove what there is of it."""
        for path in (self.partial, *self.path.parent.glob(f"{self.path.stem}.*.done")):
            with suppress(OSError):  # Windows keeps a file that is still open
                path.unlink(missing_ok=True)


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
    except FileNotFoundError:
        return None
    except (ValueError, EOFError):
        path.unlink(missing_ok=True)
        return None
    note_use(path)
    return X


def note_use(path):
    """Say that a file is used now: the oldest go first."""
    with suppress(OSError):  # another's file may be read, and not touched
        os.utime(path)


def trim(folder, suffix, limit=LIMIT):
    """Remove the files of ``folder`` that were not used for longest, until they take at most ``limit`` bytes."""
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob(f"*{suffix}")]
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total > limit:
            path.unlink(missing_ok=True)
            total -= size
    for path in folder.glob("*.partial"):
        if time.time() - path.stat().st_mtime > 7 * 86_400:  # nobody came back for it
            path.unlink(missing_ok=True)


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
