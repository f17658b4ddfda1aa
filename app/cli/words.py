"""What a server's refusal says, in words."""

import json
import re
from typing import Any

_HINTS = {401: "give a key with --api-key or VAE_API_KEY", 403: "this key does not allow it"}
_ROWS = ("", "/query/n", "/images", "/latents")
"""Where too many rows are."""


def in_words(status: int, content: bytes, where: str) -> str:
    """One sentence of a problem document (RFC 9457), whatever else a server at `where` may have answered."""
    try:
        document = json.loads(content)
        title = str(document["title"])
        errors = [(error["pointer"], error["detail"]) for error in document.get("errors") or ()]
        places = [_place(pointer) + _with_setting(pointer, text) for pointer, text in errors]
        detail = document.get("detail")
    except (ValueError, KeyError, TypeError):
        return f"{where} answered {status}, but not as vaeserve does: is --url its address?"
    parts = [*places, *([detail] if detail else []), *([_HINTS[status]] if status in _HINTS else [])]
    if status == 404 and not parts:
        parts = ["is --url the server's address, and is the server as new as this command?"]
    said = ": ".join([title, "; ".join(parts)]) if parts else title
    return said.replace("GET /models", "`vaeserve models`")


def _with_setting(pointer: Any, detail: str) -> str:
    """A limit with the setting that the server has it from."""
    is_limit = pointer in _ROWS and re.fullmatch(r"1 to \d+ are allowed", detail)
    return f"{detail}, which the server's setting VAE_MAX_ROWS says" if is_limit else detail


def _place(pointer: Any) -> str:
    """`/query/n` is `n`; `/points/1/image` is `points, no. 2, image`."""
    steps = [step for step in str(pointer).split("/") if step]
    if steps[:1] == ["query"]:
        del steps[0]
    words = ", ".join(f"no. {int(step) + 1}" if step.isdecimal() else step for step in steps)
    return f"{words}: " if words else ""
