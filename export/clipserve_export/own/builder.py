"""Calls the function that builds a user's network. Its code runs only because the user has named it."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from torch import nn
from torch.nn.parameter import is_lazy

from clipserve_export.errors import WeightsError

EXAMPLE = "my_nets.py:build, or package.module:build"
CLASSES = ("classes", "num_classes")  # the parameter that gets the number of labels


def is_builder(name: str) -> bool:
    """Whether a name of the command line means a function that builds a network: FILE.py:NAME or MODULE:NAME."""
    module, colon, function = name.rpartition(":")
    return bool(colon and module and function)


def build_network(name: str, *, classes: int | None) -> nn.Module:
    """Call the function, or the class, of `FILE.py:NAME` or `MODULE:NAME`. Raises WeightsError.

    classes: how many labels there are; given to a function that has a parameter of CLASSES.
    """
    module_name, _, function_name = name.rpartition(":")
    module = load_module(module_name)
    build = getattr(module, function_name, None)
    if not callable(build):
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise WeightsError(f"{module_name} has no function {function_name!r}; it has {', '.join(there) or 'none'}")
    try:
        taken = [parameter for parameter in CLASSES if parameter in inspect.signature(build).parameters]
    except ValueError:  # of a class that is written in C
        taken = []
    try:
        network = build(**{taken[0]: classes}) if taken and classes else build()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise WeightsError(f"{name} failed: {describe_exception(error)}") from error
    if not isinstance(network, nn.Module):
        raise WeightsError(f"{name} returns {type(network).__name__}, but must return an nn.Module")
    for key, value in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(value):
            raise WeightsError(
                f"{name} returns a network whose {key!r} has no shape yet, as that of nn.LazyLinear: let the function"
                " run it on one clip before it returns it"
            )
        if value.is_meta:
            raise WeightsError(
                f"{name} returns a network whose {key!r} is on the meta device, where it has a shape and no values: let"
                " the function build it on the CPU"
            )
    return network.eval()


def builder_file(name: str) -> Path | None:
    """The file of `FILE.py:NAME` or `MODULE:NAME`, if it has one."""
    module_name = name.rpartition(":")[0]
    if module_name.endswith(".py"):
        return Path(module_name)
    file = getattr(sys.modules.get(module_name), "__file__", None)
    return Path(file) if file else None


def load_module(name: str) -> ModuleType:
    """Import a file or a module. Raises WeightsError."""
    try:
        if not name.endswith(".py"):
            # As `python -m` does, but after what is installed, so that a file here cannot stand in for a library.
            if str(Path.cwd()) not in sys.path:
                sys.path.append(str(Path.cwd()))
            return importlib.import_module(name)
        path = Path(name)
        if not path.is_file():
            raise WeightsError(f"there is no file {path}; a network of your own is named by {EXAMPLE}")
        if str(path.parent.resolve()) not in sys.path:
            sys.path.insert(0, str(path.parent.resolve()))  # files beside it may be imported
        private_name = f"_own_{path.stem}"  # a file may be named as a library is
        spec = importlib.util.spec_from_file_location(private_name, path)
        if spec is None or spec.loader is None:
            raise WeightsError(f"{path} cannot be imported; a network of your own is named by {EXAMPLE}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[private_name] = module  # as dataclasses expect
        spec.loader.exec_module(module)
        return module
    except WeightsError:
        raise
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{name} cannot be imported: {error}; a network of your own is named by {EXAMPLE}"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise WeightsError(f"{name} cannot be imported: {describe_exception(error)}") from error


def describe_exception(error: BaseException) -> str:
    """Its kind, its first line, and the place that raised it. Of a TorchScript program its last line, with the kind."""
    lines = str(error).strip().splitlines() or [""]
    if lines[0].startswith("The following operation failed in the TorchScript"):
        return lines[-1]
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {lines[0]}{place}"
