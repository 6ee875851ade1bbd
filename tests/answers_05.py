"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import torch

import tlbook as tl

LUMINANCE = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def by_name(change, everything=False):
    """An answer to 05.3 that changes tensors one by one, without the counters unless asked for."""
    return lambda a, b, c: {
        k: change(v, b[k], c[k]) if everything or v.is_floating_point() else v for k, v in a.items()
    }


def in_place(a, b, c):
    for k, v in a.items():
        if v.is_floating_point():
            v += (b[k] - v) + (c[k] - v)
    return a


def with_task_vectors(a, b, c):
    return (tl.TaskVector(b, a) + tl.TaskVector(c, a)).apply(a)


RIGHT = {
    "05.1": [
        [("^module[.]", ""), ("^fc(?=[.])", "head")],
        lambda name: name.removeprefix("module.").replace("fc.", "head."),
        [lambda name: name.split(".", 1)[1], (r"^fc\.(weight|bias)", r"head.\1")],
    ],
    "05.2": [lambda W: W.sum(dim=1)[:, None], lambda W: 3 * W.mean(1, keepdim=True)],
    "05.3": [by_name(lambda a, b, c: b + c - a), with_task_vectors],
}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "nothing renamed": ("05.1", [], "still begins with"),
    "prefix not tied": ("05.1", [("module.", ""), (r"^fc\.", "head.")], "inside a name"),
    "word not ended": ("05.1", [(r"^module\.", ""), ("^fc", "head")], "a longer word"),
    "classifier forgotten": ("05.1", [(r"^module\.", "")], "still called 'fc'"),
    "pairs turned round": ("05.1", [("^", "module."), (r"^head\.", "fc.")], "(pattern, replacement)"),
    "classifier before prefix": ("05.1", [(r"^module\.fc\.", "module.head.")], "take the prefix off first"),
    "not a pair": ("05.1", ["module."], "would refuse it"),
    "two names made one": ("05.1", [(".*", "stem.weight")], "would refuse it"),
    "last part only": ("05.1", lambda name: name[7:].replace("fc.", "classifier."), "Nothing becomes head.weight"),
    "mean": ("05.2", lambda W: W.mean(1, keepdim=True), "a third"),
    "red only": ("05.2", lambda W: W[:, :1], "one of the channels"),
    "luminance": ("05.2", lambda W: (LUMINANCE * W).sum(1, keepdim=True), "make a colour picture grey"),
    "axis lost": ("05.2", lambda W: W.sum(1), "keep the axis"),
    "wrong axis": ("05.2", lambda W: W.sum(0, keepdim=True), "should become (4, 1, 5, 5)"),
    "new filters": ("05.2", lambda W: torch.ones(4, 1, 5, 5), "the same response"),
    "not a tensor": ("05.2", lambda W: W.sum(1, keepdim=True).tolist(), "return a tensor"),
    "base twice": ("05.3", by_name(lambda a, b, c: b + c), "holds θ⁰ twice"),
    "soup": ("05.3", by_name(lambda a, b, c: (b + c) / 2), "only half"),
    "steps alone": ("05.3", by_name(lambda a, b, c: b + c - 2 * a), "add it to θ⁰"),
    "one expert": ("05.3", by_name(lambda a, b, c: b), "would be [1.5, 4.0]"),
    "counters added": ("05.3", by_name(lambda a, b, c: b + c - a, everything=True), "a counter"),
    "in place": ("05.3", in_place, "θ⁰ itself was changed"),
    "names lost": ("05.3", lambda a, b, c: list(a.values()), "a state dict"),
}
