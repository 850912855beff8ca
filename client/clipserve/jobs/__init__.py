"""Runs that go on where they were, and shares of a run."""
