r"""Names of videos as text that every output can hold, and back.

On Linux a file's name is bytes. Python represents bytes that are not UTF-8 as lone surrogates, and a line of JSON may
hold lone surrogates of its own; neither can be written as UTF-8. Rows, predictions, errors and files of results escape
them:

    b"caf\xe9.mp4"      caf\xe9.mp4      each byte that is not UTF-8 as \x and two hex digits
    "\ud800.mp4"        \ud800.mp4       each other lone surrogate as \u and four
    a file "\xe9.mp4"   \x5cxe9.mp4      a backslash that would read as an escape, as \x5c

All other names stay as they are. `read_name` returns the name, for `open`; paths in CSV and JSON lines files are read
the same way. On a terminal control characters and invisible ones are escaped, too: a line break is \x0a, a zero-width
space \u200b, a tag \U000e0041. Messages quote names as Python quotes texts, so a backslash in them is two.
"""

import re

_SURROGATE = "\ud800-\udfff"
_ESCAPE = r"x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}"
_TO_ESCAPE = re.compile(rf"[{_SURROGATE}]|\\(?={_ESCAPE})")
_ESCAPED = re.compile(rf"\\({_ESCAPE})")
# Unicode's categories Cc (control characters), Zl and Zp (they end a line) and Cf (invisible: zero-width characters,
# those that change the direction of what follows, tags).
_INVISIBLE = (
    "\x00-\x1f\x7f-\x9f\u2028\u2029"
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f"
)
UNPRINTABLE = re.compile(f"[{_INVISIBLE}{_SURROGATE}]")

# Where Python puts bytes that are not UTF-8 (PEP 383).
_BYTES = 0xDC00


def spell_name(name: str) -> str:
    """The name as text that can be written as UTF-8."""
    return name if name.isascii() and "\\" not in name else _TO_ESCAPE.sub(_escape, name)


def read_name(spelling: str) -> str:
    """The name from the text that `spell_name` returned, for `open` and `os.fsencode`."""
    return _ESCAPED.sub(_read, spelling)


def make_printable(text: str) -> str:
    """The text as one line for a terminal, with nothing in it that is invisible or a command to the terminal."""
    return text if text.isprintable() else UNPRINTABLE.sub(_escape, text)


def make_message(text: str) -> str:
    """The text of an error: as `make_printable`, but line breaks and tabs stay."""
    return "\n".join("\t".join(map(make_printable, line.split("\t"))) for line in text.split("\n"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0x80 <= code - _BYTES <= 0xFF:
        return f"\\x{code - _BYTES:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _read(found: re.Match[str]) -> str:
    code = int(found[1][1:], 16)
    return chr(code + _BYTES) if found[1][0] == "x" and code >= 0x80 else chr(code)
