"""The one loader: examples are read ahead, decoded and stacked, for extract, predict and finetune alike."""

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice


def eval_batch_size(device):
    """Examples in a forward pass on ``device``: on a CPU more of them take memory, and no less time."""
    return 32 if device.type == "cpu" else 256


def read_ahead(tasks, workers):
    """Yield the results of each list of functions, in order; the next two lists run in threads while one is in use.

    Args:
        tasks: an iterable of lists of functions without arguments. workers: how many threads, which share each list.
    """
    tasks, pool, closed = iter(tasks), ThreadPoolExecutor(workers), threading.Event()

    def call(functions):
        return [function() for function in functions if not closed.is_set()]

    def submit(batches):
        return [[pool.submit(call, share) for share in _shares(batch, workers)] for batch in batches]

    try:
        reading = deque(submit(islice(tasks, 2)))
        while reading:
            results = [result for future in reading.popleft() for result in future.result()]
            reading.extend(submit(islice(tasks, 1)))
            yield results
    finally:  # the generator may be closed halfway, by an error or Ctrl-C
        closed.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _shares(items, n):
    """At most n pieces of a list, as equal as can be."""
    size = -(-len(items) // n) or 1
    return [items[i : i + size] for i in range(0, len(items), size)]


def load(data, batches, backbones):
    """Yield the prepared inputs of each batch: a list with one tensor (B, …) for each backbone, on its device.

    An input is read once for all backbones, in several threads only where the data set allows it
    (`Dataset.reads_in_parallel`), and memory holds the inputs of three batches. A large JPEG file is decoded to fewer
    pixels (`tlbook.images.read`), where every backbone says how many it needs.

    Args:
        data: `tlbook.data.Dataset`. batches: a list of arrays of rows. backbones: a list of Backbone.

    Raises:
        ValueError: an example that cannot be read, or whose shape is not the first one's; the error names it.
    """

    def for_each_backbone(x):  # decoded and resized, not yet normalised
        return [b.as_tensor(x) for b in backbones]

    sides = [b.side for b in backbones]
    data = data if None in sides else seen_at(data, max(sides))
    tasks = ([partial(read_input, data, int(i), for_each_backbone) for i in rows] for rows in batches)
    reading = read_ahead(tasks, workers=os.cpu_count() if data.reads_in_parallel else 1)
    expected = None
    try:
        for rows, read in zip(batches, reading, strict=True):
            for i, (x, *_) in zip(rows, read, strict=True):
                first, shape = expected = expected or (i, x.shape)
                if x.shape != shape:
                    here, there = called(data, i), called(data, first)
                    raise ValueError(f"{here} has shape {tuple(x.shape)}, {there} {tuple(shape)}: resize them")
            yield [b.collate(tensors) for b, tensors in zip(backbones, zip(*read, strict=True), strict=True)]
    finally:
        reading.close()


def seen_at(data, side):
    """The same data for someone who will see ``side`` pixels of each image: of large JPEG files fewer are decoded."""
    inputs = getattr(data, "inputs", None)
    return replace(data, inputs=inputs.seen_at(side)) if hasattr(inputs, "seen_at") else data


def read_input(data, i, use=lambda x: x):
    """What ``use`` makes of the input of example i; an error says which one it was."""
    try:
        return use(data[i][0])
    except Exception as error:
        raise ValueError(f"{called(data, int(i))} cannot be read: {error}") from error


def called(data, i):
    """What an error calls example ``i`` of a data set: by its position, and its path where it has one."""
    paths = getattr(data.inputs, "paths", data.columns.get("path"))
    return f"example {data.place(i)}" + ("" if paths is None else f" ({paths[i]})")
