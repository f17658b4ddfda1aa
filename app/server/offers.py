"""Offers of another protocol (RFC 9110, 7.8), which a server may ignore; the parser would not.

Behind such an offer it reads no body: what is one would be taken for the next request.
"""

import re

_SIGN, _OFFER, _HIDDEN = b"pgrade:", re.compile(rb"\r\nupgrade:", re.IGNORECASE), b"\r\nUnused:"
_END_OF_HEAD = b"\r\n\r\n"


def without_offers(data: bytes) -> bytes:
    """What came over a connection, where that begins within a head: of the same length, and without its offers."""
    if _SIGN not in data:  # in capitals throughout, say, or in two pieces: whoever parses it must look, too
        return data
    head, end, rest = data.partition(_END_OF_HEAD)
    return _OFFER.sub(_HIDDEN, head) + end + rest
