"""The versions of installed packages."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def find_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
