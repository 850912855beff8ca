"""When the server's certificate expires."""

from __future__ import annotations

import ssl
import time
from pathlib import Path


def read_expiry(certificate: Path) -> float | None:
    """When a certificate in PEM expires, in seconds since 1970; None if that cannot be found out.

    CPython has no public function that reads a certificate that is no peer's. Where this one does not exist, the
    clients report an expired certificate.
    """
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    return ssl.cert_time_to_seconds(decode(str(certificate))["notAfter"]) if decode else None


def day(seconds: float) -> str:
    """The date, such as 2027-11-28."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
