"""Content negotiation: what the headers Accept and Accept-Encoding of a request name, and what may be compressed."""

from functools import lru_cache

from starlette.datastructures import Headers
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES
from starlette.types import Scope

VARY = "Accept-Encoding"
"""In the header Vary of responses that are compressed for clients that accept it."""
BINARY = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "application/octet-stream",
    "application/x-npy",
    "application/x-npz",
    "application/x-safetensors",
    "tensor/binary",
)
"""Media types of images, numbers and pixels, which gzip hardly makes smaller."""


@lru_cache(64)
def is_text(media_type: str) -> bool:
    """Whether a response of this media type is compressed for clients that accept it; never if there is none."""
    name = media_type.partition(";")[0].strip().lower()
    return name != "" and name not in BINARY and f"{name.partition('/')[0]}/*" not in BINARY


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
