"""Arguments, checked: each function returns the value, or raises a ValueError that names argument, value and remedy."""

import math

import numpy as np


def whole_number(name, value, least):
    """``value`` as an int."""
    try:
        if isinstance(value, str | bytes | bool) or int(value) != value or value < least:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}") from None
    return int(value)


def positive_number(name, value):
    """``value`` as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, and a number, got {value!r}")
    return float(value)


def names(name, values):
    """``values`` as a tuple of strings, each once; one string alone stands for itself."""
    values = (values,) if isinstance(values, str) else tuple(dict.fromkeys(values))
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} must be at least one name, got {values!r}")
    return values
