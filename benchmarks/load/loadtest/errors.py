"""What ends a load test before it has measured anything."""


class LoadTestError(Exception):
    """A message for the person at the keyboard: what came, and what to do."""
