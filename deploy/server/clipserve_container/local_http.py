"""Requests to servers in this container.

Docker's client copies the proxies of its user into the environment of containers (http_proxy and others). Those proxies
cannot reach a container's own addresses.
"""

from __future__ import annotations

import http.client
import urllib.request
from typing import IO, Any

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def open_url(url: str | urllib.request.Request, *, timeout: float) -> IO[bytes]:
    """The response, to be closed. Raises urllib's HTTPError for another status than 200, OSError for anything else."""
    try:
        response: Any = _opener.open(url, timeout=timeout)
    except http.client.HTTPException as error:
        # urllib lets it through when the answer is no HTTP.
        raise OSError(f"the answer is not HTTP ({type(error).__name__}: {error})") from error
    return response  # type: ignore[no-any-return]


def find_problem(url: str, *, timeout: float) -> str:
    """Empty when the status is 200, otherwise what is wrong."""
    try:
        with open_url(url, timeout=timeout):
            return ""
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))
