r"""Names of videos as text that every output can hold, and back.

On Linux a file's name is bytes. Python gives those that are not UTF-8 as lone surrogates, and a line of JSON may hold
lone surrogates of its own; neither can be written as UTF-8. Rows, predictions, errors and files of results spell them:

    b"caf\xe9.mp4"      caf\xe9.mp4      each byte that is not UTF-8 as \x and two hex digits
    "\ud800.mp4"        \ud800.mp4       each other lone surrogate as \u and four
    a file "\xe9.mp4"   \x5cxe9.mp4      a backslash that would read as one of these, as \x5c

All other names stay as they are. `read_name` gives the name back, for `open`; paths in CSV and JSON lines files are
read so, too. On a terminal control characters are spelt likewise: a line break is \x0a. Messages quote names as Python
quotes texts, so a backslash in them is two.
"""

import re

_SURROGATE = "\ud800-\udfff"
_LOOKS_SPELT = r"\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})"
_TO_SPELL = re.compile(f"[{_SURROGATE}]|{_LOOKS_SPELT}")
_SPELT = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))")
# Control characters of ASCII and beyond, and those that end a line or change the direction of what follows.
_CONTROLS = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
UNPRINTABLE = re.compile(f"[{_CONTROLS}{_SURROGATE}]")

# Where Python puts bytes that are not UTF-8 (PEP 383).
_BYTES = 0xDC00


def spell_name(name: str) -> str:
    """The name as text that can be written as UTF-8."""
    return name if name.isascii() and "\\" not in name else _TO_SPELL.sub(_spell, name)


def read_name(spelling: str) -> str:
    """The name that `spell_name` spelt, for `open` and `os.fsencode`."""
    return _SPELT.sub(_read, spelling)


def make_printable(text: str) -> str:
    """The text as one line for a terminal: nothing in it is a command to it."""
    return text if text.isprintable() else UNPRINTABLE.sub(_spell, text)


def make_message(text: str) -> str:
    """The text of an error: as `make_printable`, with its line breaks and tabs."""
    return "\n".join("\t".join(map(make_printable, line.split("\t"))) for line in text.split("\n"))


def _spell(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0x80 <= code - _BYTES <= 0xFF:
        return f"\\x{code - _BYTES:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _read(found: re.Match[str]) -> str:
    code = int(found[1] or found[2], 16)
    return chr(code + _BYTES) if found[1] and code >= 0x80 else chr(code)
