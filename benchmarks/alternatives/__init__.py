"""Other ways to serve a video classifier, which side_by_side.py compares with clipserve.

contestants.py lists them. Each is a function that opens it, a context manager over `classify(path) -> scores`, written
as somebody who knows its parts would write it, and runs in a process of its own (__main__.py).
"""
