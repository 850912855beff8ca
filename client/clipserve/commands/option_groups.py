"""Options that several commands share, written once, as the fields of a dataclass."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints


def spread_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let each parameter that is a dataclass stand for one command-line option per field.

    >>> @spread_options
    ... def classify(sources: list[str], *, connection: Connection) -> None: ...

    Typer sees the fields (`--url`, `--timeout`, ...) in the place of `connection`; the command gets the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint) and isinstance(hint, type):
            options = [_read_option(field, hint) for field in fields(hint)]
            groups[parameter.name] = (hint, [option.name for option in options])
            parameters += options
        else:
            parameters.append(parameter.replace(annotation=hint))

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name, (group, options) in groups.items():
            arguments[name] = group(**{option: arguments.pop(option) for option in options})
        command(**arguments)

    # Typer reads both of them.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _read_option(field: Field[Any], group: type) -> inspect.Parameter:
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.default is MISSING else field.default,
        annotation=get_type_hints(group, include_extras=True)[field.name],
    )
