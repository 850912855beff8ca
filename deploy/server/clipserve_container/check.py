"""`docker compose run --rm check`: would the server start?"""

from __future__ import annotations

import os
import sys

from clipserve_container.checks import find_problems
from clipserve_container.ports import find_taken
from clipserve_container.repository import choose_models
from clipserve_container.settings import SettingError, Settings


def main() -> int:
    """Print the problems; 1 where there is one."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingError as error:
        return report([str(error)])
    problems = [*find_problems(settings, in_server=False), *find_taken(os.environ)]
    if problems:
        return report(problems)
    models = choose_models(settings.repository, settings.models)
    print(f"clipserve: ready to serve {', '.join(model.name for model in models)}")  # noqa: T201
    return 0


def report(problems: list[str]) -> int:
    """One line a problem, on standard error."""
    for problem in problems:
        print(f"clipserve: {problem}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
