"""Base64 in JSON -> bytes: strict base64 at full speed, and other forms of it that have one meaning only."""

import re
from binascii import a2b_base64
from contextlib import suppress

from app.errors import InvalidInput

_PIECE = 2**20
"""Characters that are decoded at a time, a multiple of 4; no other thread can run meanwhile."""
_PREFIX = re.compile(r"\s{0,100}data:[^,]{0,1000},", re.IGNORECASE | re.ASCII)
_FOREIGN = re.compile(r"[^A-Za-z0-9+/_=\s-]", re.ASCII)
_WHITESPACE = b" \t\n\r\f\v"
_STANDARD = bytes.maketrans(b"-_", b"+/")
"""From the URL-safe alphabet to the standard one (RFC 4648, section 5)."""


def read_base64(text: str) -> bytes:
    """Bytes of a base64 text, which may be a `data:` URL.

    It may have whitespace, no padding, and the URL-safe alphabet.

    Raises:
        InvalidInput: not base64, and why.
    """
    start = text.find(",") + 1 if text.startswith("data:") else 0
    if text.find("=", start, len(text) - 2) < 0:  # a piece may end with the padding that ends a text
        with suppress(ValueError):
            return _decoded(text, start)
    prefix = _PREFIX.match(text)
    return _decoded(_standard(text, prefix.end() if prefix else 0), 0)


def _decoded(text: str | bytes, start: int) -> bytes:
    if len(text) - start <= _PIECE:
        return a2b_base64(text[start:], strict_mode=True)
    return b"".join(a2b_base64(text[at : at + _PIECE], strict_mode=True) for at in range(start, len(text), _PIECE))


def _standard(text: str, start: int) -> bytes:
    """Standard base64, with its padding, of the text from `start` on."""
    pieces = []
    for at in range(start, len(text), _PIECE):
        if foreign := _FOREIGN.search(text, at, at + _PIECE):
            raise InvalidInput(f"not base64 from character {foreign.start() + 1} on")
        pieces.append(text[at : at + _PIECE].encode().translate(_STANDARD, _WHITESPACE))
    given = b"".join(pieces)
    letters = given.rstrip(b"=")
    padding, missing = len(given) - len(letters), -len(letters) % 4
    if b"=" in letters:
        raise InvalidInput(f"not base64 from character {text.index('=', start) + 1} on: padding in the middle")
    if missing == 3 or padding > min(2, len(letters)):
        raise InvalidInput(f"not base64: {len(given)} characters, which is no length of base64")
    if b"+" not in letters and _may_lack_plus(text.count(" ", start), len(given), padding):
        raise InvalidInput("not base64: it has spaces, and each may be a + that was decoded as of a form")
    return letters + b"=" * missing


def _may_lack_plus(spaces: int, length: int, padding: int) -> bool:
    """Whether `length` characters of base64 are as many as base64 should have with a + for each of the spaces.

    Decoding a form turns each + into a space. A text that still has a + was not decoded so.
    """
    remainder = (length + spaces) % 4
    return spaces > 0 and (remainder == 0 or (not padding and remainder > 1))
