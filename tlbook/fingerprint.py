"""What decides the features of a model, as one number: classes, settings, tensors, and the versions of libraries."""

import functools
import hashlib
import importlib.metadata
import inspect
import weakref
from collections.abc import Mapping
from enum import Enum
from types import MethodType, NoneType

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as _torchs

LIBRARIES = {"torch", "torchvision", "timm", "tlbook"}  # what is named and has a version; other code is read
_PLAIN = (int, float, complex, str, bytes, NoneType, np.generic, Enum, torch.dtype, torch.device, torch.memory_format)
_NO_SETTINGS = {*vars(nn.Module()), "_compiled_call_impl", "pretrained_cfg", "default_cfg", "pretrained_model_args"}


class _Unknown(Exception):
    """There is no text that stands for a value in every process."""


def fingerprint(model):
    """SHA-256, in hexadecimal, over a module's classes, settings and tensors, and the libraries that it runs on.

    Train or eval mode, and what `tlbook.freeze` does, are no part of it.
    """
    libraries = getattr(model, "libraries", ("timm", "torchvision", "pillow"))
    versions = [importlib.metadata.version(name) for name in libraries]
    digest = hashlib.sha256(repr(versions).encode())
    for name, module in model.named_modules(remove_duplicate=False):
        settings = sorted(_settings(module).items())
        digest.update(f"{name}: {_known(_class_text, type(module))} {settings}".encode())
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            digest.update(f"{name}: {_tensor_text(tensor)}".encode())
    return digest.hexdigest()


def has_hooks(model):
    """Tell whether the module runs what no fingerprint can know: hooks, methods replaced on an instance, closures."""
    hooks = [_torchs._global_forward_hooks, _torchs._global_forward_pre_hooks, _torchs._global_backward_hooks]
    for module in model.modules():
        hooks += [module._forward_hooks, module._forward_pre_hooks, *_replaced_methods(module)]
        hooks += [module._backward_hooks, module._backward_pre_hooks]
        hooks.append(None in (_known(_class_text, type(module)), *_settings(module).values()))
    return any(hooks)


def _replaced_methods(module):
    return [
        name
        for name, value in vars(module).items()
        if callable(getattr(type(module), name, None)) and not _is_own_method(value, module)
    ]


def _is_own_method(value, module):
    return (
        isinstance(value, MethodType)
        and value.__self__ is module
        and getattr(type(module), value.__name__, None) is value.__func__
    )


def _settings(module):
    """{attribute: text} of a module's own attributes; None where no text stands for the value."""
    return {
        name: f"self.{value.__name__}" if _is_own_method(value, module) else _known(_text, value)
        for name, value in vars(module).items()
        if name not in _NO_SETTINGS
    }


def _known(text, value):
    try:
        return text(value)
    except _Unknown:
        return None


def _text(value):
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Mapping):
        return str([(_text(k), _text(v)) for k, v in value.items()])
    if isinstance(value, (list, tuple)):
        return str([_text(v) for v in value])
    if isinstance(value, (set, frozenset)):
        return str(sorted(_text(v) for v in value))
    if isinstance(value, torch.Tensor):
        return _tensor_text(value)
    if isinstance(value, functools.partial):
        return _text([value.func, value.args, value.keywords])
    if isinstance(value, weakref.ref):
        return "a reference"
    if isinstance(value, type):
        return _class_text(value)
    return _function_text(value)


def _tensor_text(tensor):
    tensor = tensor.detach().cpu().contiguous()
    content = hashlib.sha256(tensor.view(-1).view(torch.uint8).numpy().data)
    return f"{tuple(tensor.shape)} {tensor.dtype} {content.hexdigest()}"


def _class_text(kind):
    kind = getattr(kind, "_recipe", (kind,))[0]  # frozen, or with LoRA, which its tensors tell
    text = f"{kind.__module__}.{kind.__qualname__}"
    if kind is object or _is_of_a_library(kind):
        return text
    members = [getattr(v, "fget", None) or getattr(v, "__func__", v) for v in vars(kind).values()]
    functions = [_function_text(member) for member in members if inspect.isfunction(member)]
    constants = [(k, repr(v)) for k, v in vars(kind).items() if isinstance(v, _PLAIN) and not k.startswith("__")]
    return str([text, functions, constants, [_class_text(base) for base in kind.__bases__]])


def _function_text(function):
    """A function's name in a library, and otherwise its source, if that is all there is to it."""
    name = getattr(function, "__qualname__", "<")
    if "<" not in name and (_is_of_a_library(function) or isinstance(getattr(function, "__self__", None), type)):
        return f"{function.__module__}.{name}"
    if not inspect.isfunction(function) or {*inspect.unwrap(function).__code__.co_freevars} - {"__class__"}:
        raise _Unknown
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        raise _Unknown from None


def _is_of_a_library(thing):
    return str(getattr(thing, "__module__", "")).split(".")[0] in LIBRARIES
