"""Methods whose arguments are declared once, as the fields of a dataclass.

>>> @dataclass(frozen=True)
... class ClassifyArguments:
...     video: Annotated[VideoSource, Doc("a path, ...")]
...     _: KW_ONLY
...     top_k: Annotated[int, Doc("how many labels to return")] = 5
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, get_args, get_type_hints, overload

from clipserve.errors import InvalidRequest

P = ParamSpec("P")
Owner = TypeVar("Owner")
Arguments = TypeVar("Arguments")
Arguments_co = TypeVar("Arguments_co", covariant=True)
Result = TypeVar("Result")

# Old names, accepted with a DeprecationWarning until version 0.3.
RENAMED = {"patience_seconds": "retry_seconds"}


@dataclass(frozen=True)
class Doc:
    """What `help()` and `--help` say about an argument; the last item of its field's Annotated type.

    Attributes:
        text: lower case, ends without a full stop.
        metavar: stands for the value in `--help`; None: as the type says.
        default: what `--help` shows where the default is None; None: nothing.
    """

    text: str
    metavar: str | None = None
    default: str | None = None


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
    parameters = read_parameters(arguments)
    docs = read_docs(cast(type, arguments))

    def decorate(function: Callable[..., Any]) -> Any:
        owners = list(inspect.signature(function).parameters.values())[:-1]  # self, or none
        count = len(owners)

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args[:count], build(arguments, args[count:], kwargs))

        async def call_later(*args: Any, **kwargs: Any) -> Any:
            return await function(*args[:count], build(arguments, args[count:], kwargs))

        # A coroutine function stays one, and checks its arguments when it is awaited.
        described: Any = call_later if inspect.iscoroutinefunction(function) else call
        functools.update_wrapper(described, function)
        returned = get_type_hints(function).get("return")
        described.__signature__ = inspect.Signature([*owners, *parameters.values()], return_annotation=returned)
        described.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        described.__annotations__["return"] = returned
        described.__doc__ = _add_arguments(function.__doc__, docs)
        return described

    return cast(Decorator[P, Arguments_co], decorate)


def build(arguments: Callable[..., Arguments], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """Construct `arguments`. Raises InvalidRequest for an unknown keyword."""
    kwargs = rename_old(kwargs)
    known = read_parameters(arguments)
    if unknown := sorted(kwargs.keys() - known.keys()):
        raise InvalidRequest(f"no such option: {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments(*args, **kwargs)


def rename_old(kwargs: Mapping[str, Any], *, stacklevel: int = 4) -> dict[str, Any]:
    """The keywords with new names for old ones, and a DeprecationWarning for each."""
    renamed = dict(kwargs)
    for old in RENAMED.keys() & kwargs.keys():
        warnings.warn(f"{old} is now called {RENAMED[old]}", DeprecationWarning, stacklevel=stacklevel)
        renamed.setdefault(RENAMED[old], renamed.pop(old))
    return renamed


@functools.cache
def read_parameters(arguments: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The constructor's parameters by name, with their types alone as annotations."""
    types = get_type_hints(arguments)
    parameters = inspect.signature(arguments).parameters
    return {name: parameter.replace(annotation=types[name]) for name, parameter in parameters.items()}


@functools.cache
def read_docs(arguments: type) -> Mapping[str, Doc]:
    """The Doc of each field that has one, by name."""
    hints = get_type_hints(arguments, include_extras=True)
    docs = {
        name: next((item for item in get_args(hint) if isinstance(item, Doc)), None) for name, hint in hints.items()
    }
    return {name: doc for name in read_parameters(arguments) if (doc := docs[name])}


def _add_arguments(text: str | None, docs: Mapping[str, Doc]) -> str | None:
    """The docstring with a section Args ahead of its section Raises."""
    if text is None:  # python -OO
        return None
    wrap = partial(textwrap.fill, width=100, initial_indent="    ", subsequent_indent="        ")
    section = "\n".join(["Args:", *(wrap(f"{name}: {doc.text}.") for name, doc in docs.items())])
    head, raises, tail = inspect.cleandoc(text).partition("\nRaises:")
    return f"{head.rstrip()}\n\n{section}\n{raises}{tail}"
