"""Checks of arguments, of whatever type they come: Python's, numpy's, a cell of a data frame.

Each check returns the value as Python's own type, which JSON and gRPC know, or raises InvalidRequest.
"""

import math
import numbers
import operator
from collections.abc import Container
from functools import partial
from typing import Any, get_args

import numpy as np

from clipserve.errors import InvalidRequest

# The longest deadline, some thirty years: gRPC and sockets fail on much longer ones.
LONGEST_SECONDS = 10**9

# The limit of Triton and of protobuf for one gRPC message.
MAX_MESSAGE_BYTES = 2**31 - 1
# A message also carries names, shapes and parameters; 64 KiB is far more than they need.
MAX_VIDEO_BYTES = MAX_MESSAGE_BYTES - 64 * 1024

_BOOLS = (bool, np.bool_)


def check_choice(name: str, value: object, choices: Any) -> str:
    """Accept one of a Literal's words."""
    # Only texts are compared: arrays and pandas' NA raise errors when they are compared.
    words = get_args(choices)
    if not isinstance(value, str) or value not in words:
        *others, last = map(repr, words)
        raise InvalidRequest(f"{name} must be {', '.join(others)} or {last}, got {value!r}")
    return value


def check_bool(name: str, value: object) -> bool:
    """Accept a truth value. Texts and numbers are not truth values."""
    if not isinstance(value, _BOOLS):
        raise InvalidRequest(f"{name} must be True or False, got {value!r}")
    return bool(value)


def check_int(name: str, value: object, allowed: Container[int], described: str) -> int:
    """Accept a whole number of `allowed`; `described` says in the message what that is."""
    if (number := read_int(value)) is None or number not in allowed:
        raise InvalidRequest(f"{name} must be {described}, got {value!r}")
    return number


# Up to what a gRPC request can carry: 64 bits.
check_positive_int = partial(check_int, allowed=range(1, 2**63), described="a whole number from 1 on")


def check_seconds(name: str, value: object, *, longest: float = math.inf) -> float:
    """Accept a time or a duration: from 0 to `longest`."""
    if (seconds := read_float(value)) is None or not 0 <= seconds <= longest:
        raise InvalidRequest(f"{name} must be a number of seconds from 0 on, got {value!r}")
    return seconds


def check_timeout(name: str, value: object) -> float:
    """Accept a deadline: more than 0 and at most LONGEST_SECONDS."""
    if (seconds := read_float(value)) is None or not 0 < seconds <= LONGEST_SECONDS:
        raise InvalidRequest(f"{name} must be a positive number of seconds, at most {LONGEST_SECONDS:,}; got {value!r}")
    return seconds


def read_int(value: Any) -> int | None:
    """The value as an int; None for anything else. Truth values are not ints, nor are floats, 2.0 included."""
    if isinstance(value, _BOOLS):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def read_float(value: Any) -> float | None:
    """The value as a float; None for anything else. Truth values and NaN are not numbers; infinity is one."""
    if (whole := read_int(value)) is not None:
        value = whole
    elif not isinstance(value, numbers.Real) or isinstance(value, _BOOLS):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except TypeError:  # numpy's timedelta64 is registered as a number
        return None
    return None if math.isnan(number) else number
