"""The order of names in a folder."""

import re

_DIGITS = re.compile(r"(\d{1,4000})")  # int refuses more than 4300 digits; a name in an archive may have them


def order_naturally(name: str) -> tuple[list[str | int], str]:
    """A sort key: 2 comes before 10, and no two names are equal, because a job relies on the order."""
    return [int(part) if number % 2 else part.casefold() for number, part in enumerate(_DIGITS.split(name))], name
