"""Runs over many videos, several at once, and the streams of their rows."""
