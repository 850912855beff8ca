"""Arguments that are declared once: as the fields of a dataclass, each with its type, default, text and check.

>>> @dataclass(frozen=True)
... class ClassifyArguments(CheckedArguments):
...     video: Annotated[VideoSource, Argument("a path, ...")]
...     _: KW_ONLY
...     top_k: Annotated[int, Argument("how many labels to return", check_positive_int)] = 5
>>> class VideoClassifier:
...     @takes(ClassifyArguments)
...     def classify(self, arguments: ClassifyArguments) -> Prediction: ...
>>> classifier.classify("archery.mp4", top_k=3)

Type checkers and editors take the method's signature from the dataclass's constructor (ParamSpec); `help()` and
`inspect.signature` take it from `__signature__`. The command line reads the same fields, see commands/options.py.
"""

import functools
import inspect
import textwrap
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, get_args, get_type_hints, overload

from clipserve.errors import InvalidRequest

P = ParamSpec("P")
Owner = TypeVar("Owner")
Arguments = TypeVar("Arguments")
Arguments_co = TypeVar("Arguments_co", covariant=True)
Result = TypeVar("Result")

# Old names, which versions before 0.3 accept with a DeprecationWarning.
RENAMED = {"patience_seconds": "retry_seconds"}


@dataclass(frozen=True)
class Argument:
    """What there is to know about an argument beside its type and default; part of its field's Annotated type.

    Attributes:
        doc: text for `help()` and `--help`; begins in lower case, ends without a full stop.
        check: takes name and value; returns the value as Python's own type, or raises InvalidRequest. None, where the
            type allows it, is not checked.
        metavar: stands for the value in `--help`; None: as the type says.
        default: what `--help` shows as the default where that is None; None: nothing.
    """

    doc: str
    check: Callable[[str, Any], Any] | None = None
    metavar: str | None = None
    default: str | None = None


class CheckedArguments:
    """Base of dataclasses that check their fields when they are made."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        parameters = read_parameters(kind)
        for name, argument in read_arguments(kind).items():
            value = getattr(self, name)
            optional = type(None) in get_args(parameters[name].annotation)
            if argument.check and not (value is None and optional):
                object.__setattr__(self, name, argument.check(name, value))  # the class is frozen

    def select(self, kind: "type[CheckedArguments]") -> dict[str, Any]:
        """The arguments that are fields of a base class, by name."""
        return {name: getattr(self, name) for name in inspect.signature(kind).parameters}


class Decorator(Protocol[P, Arguments_co]):
    """Turns a method, or a function, that takes an instance into one that takes the arguments of its constructor."""

    @overload
    def __call__(
        self, method: Callable[[Owner, Arguments_co], Result], /
    ) -> Callable[Concatenate[Owner, P], Result]: ...

    @overload
    def __call__(self, function: Callable[[Arguments_co], Result], /) -> Callable[P, Result]: ...


def takes(arguments: Callable[P, Arguments_co]) -> Decorator[P, Arguments_co]:
    """Let callers of a method or function pass what the constructor of `arguments` takes.

    Raises:
        InvalidRequest: at a call with an unknown keyword; lists the known ones.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        owners = list(inspect.signature(function).parameters.values())[:-1]  # self, or none
        count = len(owners)

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args[:count], build(arguments, args[count:], kwargs, name=function.__qualname__))

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await function(*args[:count], build(arguments, args[count:], kwargs, name=function.__qualname__))

        # A coroutine function stays one, and checks its arguments when it is awaited.
        described: Any = call_async if inspect.iscoroutinefunction(function) else call
        functools.update_wrapper(described, function)
        parameters = read_parameters(arguments)
        returned = inspect.signature(function).return_annotation
        described.__signature__ = inspect.Signature([*owners, *parameters.values()], return_annotation=returned)
        described.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        described.__annotations__["return"] = returned
        described.__doc__ = _add_arguments(function.__doc__, read_arguments(arguments))
        return described

    return cast(Decorator[P, Arguments_co], decorate)


def build(
    arguments: Callable[..., Arguments], args: Sequence[Any], kwargs: Mapping[str, Any], *, name: str
) -> Arguments:
    """Construct `arguments` from what the caller gave to the function `name`.

    Raises:
        InvalidRequest: for an unknown keyword, or a value that is not allowed.
        TypeError: there are too many positional arguments or too few, as for any Python function.
    """
    known = read_parameters(arguments)
    kwargs = rename_old(kwargs, known)
    if unknown := sorted(kwargs.keys() - known.keys()):
        raise InvalidRequest(f"unknown option: {', '.join(unknown)}; the options are {', '.join(known)}")
    try:
        read_signature(arguments).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}") from None
    return arguments(*args, **kwargs)


def rename_old(kwargs: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """The keywords with new names for old ones, where the new one is known, and a DeprecationWarning for each."""
    renamed = dict(kwargs)
    for old, new in RENAMED.items():
        if old in kwargs and new in known:
            # 4: the caller's line, past the frames of this function, build and the called function.
            warnings.warn(
                f"{old} is now called {new}; version 0.3 drops the old name", DeprecationWarning, stacklevel=4
            )
            renamed.setdefault(new, renamed.pop(old))
    return renamed


@functools.cache
def read_signature(arguments: Callable[..., Any]) -> inspect.Signature:
    """The constructor's signature, with types alone as annotations."""
    types = get_type_hints(arguments)
    signature = inspect.signature(arguments)
    return signature.replace(
        parameters=[parameter.replace(annotation=types[name]) for name, parameter in signature.parameters.items()]
    )


def read_parameters(arguments: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The constructor's parameters by name, with types alone as annotations."""
    return read_signature(arguments).parameters


@functools.cache
def read_arguments(arguments: Callable[..., Any]) -> Mapping[str, Argument]:
    """The Argument of each parameter that has one, by name."""
    hints = get_type_hints(arguments, include_extras=True)
    return {
        name: item
        for name in read_parameters(arguments)
        for item in get_args(hints[name])
        if isinstance(item, Argument)
    }


def _add_arguments(text: str | None, arguments: Mapping[str, Argument]) -> str | None:
    """The docstring with a section Args ahead of its section Raises."""
    if text is None:  # python -OO
        return None
    wrap = partial(textwrap.fill, width=100, initial_indent="    ", subsequent_indent="        ")
    section = "\n".join(["Args:", *(wrap(f"{name}: {argument.doc}.") for name, argument in arguments.items())])
    head, raises, tail = inspect.cleandoc(text).partition("\nRaises:")
    return f"{head.rstrip()}\n\n{section}\n{raises}{tail}"
