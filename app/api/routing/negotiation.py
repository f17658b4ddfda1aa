"""Content negotiation: what the headers Accept and Accept-Encoding of a request name."""

from starlette.datastructures import Headers
from starlette.types import Scope


def accepted(header: str) -> set[str]:
    """Media types or content encodings that a header names with a weight above 0, in lower case."""
    named = set()
    for item in header.lower().replace(" ", "").split(","):
        name, *parameters = item.split(";")
        if not any(it.startswith("q=") and it[2:].strip("0.") == "" for it in parameters):
            named.add(name)
    return named


def wants_page(scope: Scope) -> bool:
    """Whether a request comes from a browser that wants a page: its Accept header names text/html."""
    return "text/html" in accepted(Headers(scope=scope).get("accept", ""))
