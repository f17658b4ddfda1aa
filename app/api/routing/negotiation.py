"""Content negotiation: whether a request comes from a browser that wants a page."""

from starlette.datastructures import Headers
from starlette.types import Scope


def wants_page(scope: Scope) -> bool:
    """Whether the request's Accept header names text/html."""
    ranges = [item.strip().lower() for item in Headers(scope=scope).get("accept", "").split(",")]
    return any(item.partition(";")[0].strip() == "text/html" and not _is_refused(item) for item in ranges)


def _is_refused(media_range: str) -> bool:
    parameters = (part.strip() for part in media_range.split(";")[1:])
    return any(part.startswith("q=") and part[2:].strip("0.") == "" for part in parameters)
