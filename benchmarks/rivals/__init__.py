"""The ways to serve a video classifier that side_by_side.py measures, each as one who knows its parts would write it.

A contestant is a function that opens it: a context manager over `classify(path) -> scores`. lineup.py lists them, each
runs in a process of its own (process.py), and seats.py talks to it from outside.
"""
