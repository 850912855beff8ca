"""Numbers, truth values and words that callers give, of whatever type: Python's, numpy's, a cell of a data frame."""

import math
import numbers
import operator
from typing import Any, get_args

import numpy as np

_TRUTHS = (bool, np.bool_)


def is_one_of(words: Any, value: object) -> bool:
    """Whether the value is one of a Literal's words. Only texts are compared: arrays and pandas' NA refuse that."""
    return isinstance(value, str) and value in get_args(words)


def read_truth(value: object) -> bool | None:
    """The value as a bool; None for what is no truth value: texts and numbers are none."""
    return bool(value) if isinstance(value, _TRUTHS) else None


def read_whole(value: Any) -> int | None:
    """The value as an int; None for what is no whole number. Truth values are none, and floats are none, 2.0 too."""
    if isinstance(value, _TRUTHS):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def read_real(value: Any) -> float | None:
    """The value as a float; None for what is no number. Truth values are none, nor is NaN; infinity is one."""
    if (whole := read_whole(value)) is not None:
        value = whole
    elif not isinstance(value, numbers.Real) or isinstance(value, _TRUTHS):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except TypeError:  # numpy's spans of time call themselves numbers
        return None
    return None if math.isnan(number) else number
