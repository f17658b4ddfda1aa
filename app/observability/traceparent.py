"""The header `traceparent` of W3C Trace Context: which trace a request is part of (https://www.w3.org/TR/trace-context/)."""

import re

_HEADER = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_id(header: bytes) -> str | None:
    """The trace id of a header, 32 hexadecimal digits; None of one that is not as the standard has it."""
    found = _HEADER.fullmatch(header)
    if found is None:
        return None
    version, trace, parent, rest = found.groups()
    is_void = version == b"ff" or not trace.strip(b"0") or not parent.strip(b"0")
    if is_void or (version == b"00" and rest is not None):  # later versions may have more
        return None
    return trace.decode()
