"""An extension of griffe, which reads the code for the API reference."""

import inspect
import re
from importlib import import_module
from typing import Any

import griffe

# Lines of an interactive session: from a prompt to the next blank line.
SESSION = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


class Signatures(griffe.Extension):
    """Shows `classify(video, *, top_k=5, ...)` where the source says `classify(arguments)`.

    `takes` gives a method its arguments when the code runs. So its signature and docstring are those of the imported
    method, and not those of the source.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that griffe has read: sessions in docstrings become code, not quotations."""
        if obj.docstring:
            obj.docstring.value = SESSION.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Called for each function that griffe has read."""
        if not any(str(decorator.value).startswith("takes(") for decorator in func.decorators):
            return
        owner: Any = import_module(func.module.path)
        for name in func.path.removeprefix(f"{func.module.path}.").split("."):
            owner = getattr(owner, name)
        func.parameters = griffe.Parameters(*map(describe, inspect.signature(owner).parameters.values()))
        func.docstring = griffe.Docstring(inspect.getdoc(owner) or "", parent=func, parser="google")


def describe(parameter: inspect.Parameter) -> griffe.Parameter:
    """As griffe has it; annotations and defaults are text."""
    empty = inspect.Parameter.empty
    return griffe.Parameter(
        parameter.name,
        annotation=None if parameter.annotation is empty else inspect.formatannotation(parameter.annotation),
        kind=griffe.ParameterKind[parameter.kind.name.lower()],
        default=None if parameter.default is empty else repr(parameter.default),
    )
