"""Addresses that fsspec opens: s3://bucket/key, zip://clip.mp4::s3://bucket/archive.zip. Nothing here opens them."""

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Self

# Schemes that copy what follows to this machine, one that names a store, its path, and what holds the store.
_PARTS = re.compile(
    r"(?P<caches>(?:(?:simplecache|filecache|blockcache)::)*)(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<path>(?:(?!::).)*)(?P<holder>::.*)?",
    re.IGNORECASE | re.DOTALL,
)
# user:password@. A password with a slash, as a secret key of S3 may have, ends at the last @; a port is none.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/@\s]*|[^/@:\s]*:(?!:|[0-9]*/)(?:(?!::)\S)*)@")
# Of presigned addresses of S3, Google and Azure.
_SIGNATURES = re.compile(r"(?i)(?<![\w-])((?:x-(?:amz|goog)-[a-z-]+|signature|sig|awsaccesskeyid)=)[^&\s'\"]+")
# Where no user, host or bucket comes first, so that an @ belongs to a name.
_PLACELESS = frozenset(("zip", "tar", "libarchive", "memory", "file", "local"))
# In a query or a message, not as a folder: s3://bucket/key=1/ and s3://bucket/key=2/ are two.
_SECRETS = re.compile(r"(?i)(?<![^?&\s'\"(,])([\w-]*(?:token|key|secret|password|credential)[\w-]*=)[^&\s'\"]+")


@dataclass(frozen=True)
class RemotePath:
    """An address in parts.

    Attributes:
        caches: such as simplecache::, in front.
        scheme: of the store, or of the archive.
        path: bucket and key, or the name in the archive.
        holder: where the archive is, with its ::; "" for a store.
    """

    caches: str
    scheme: str
    path: str
    holder: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """Take an address apart."""
        found = _PARTS.fullmatch(address)
        if found is None:
            raise ValueError("an address must begin with the name of a store and ://")
        return cls(found["caches"], found["scheme"].lower(), found["path"], found["holder"] or "")

    @property
    def shown(self) -> str:
        """The address without credentials and signatures."""
        if self.scheme in _PLACELESS:
            return f"{self.caches}{self.scheme}://{self.path}{hide_secrets(self.holder)}"
        return hide_secrets(str(self))

    @property
    def suffix(self) -> str:
        """As of a file: ".mp4"; in lower case."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def parent(self) -> Self:
        """The folder that it is in."""
        return replace(self, path=self.path.rpartition("/")[0])

    def join(self, name: str) -> Self:
        """What is below it by this name."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}" if self.path else name)

    def __str__(self) -> str:
        return f"{self.caches}{self.scheme}://{self.path}{self.holder}"


def is_remote(source: object) -> bool:
    """Whether this is an address for fsspec; http(s) addresses are not."""
    if not isinstance(source, str):
        return False
    found = _PARTS.fullmatch(source)
    return found is not None and not (found["scheme"].lower() in ("http", "https") and not found["caches"])


def hide_signatures(text: str) -> str:
    """A text without the signatures of presigned addresses."""
    return _SIGNATURES.sub(r"\1...", text)


def hide_secrets(text: str) -> str:
    """A text without the credentials and signatures of the addresses in it."""
    return _SECRETS.sub(r"\1...", hide_signatures(_CREDENTIALS.sub("", text)))
