"""Problem documents (RFC 9457) of a server as one sentence for the terminal."""

import json
import re

_HINTS = {401: "give a key with --api-key or VAE_API_KEY", 403: "this key does not allow it"}
_ROWS = ("", "/query/n", "/images", "/latents")
"""JSON pointers of errors about the number of rows."""


def problem_sentence(status: int, content: bytes, where: str) -> str:
    """One sentence about an error response of the server at `where`, which may not be vaeserve."""
    try:
        document = json.loads(content)
        title = str(document["title"])
        errors = [(str(error["pointer"]), error["detail"]) for error in document.get("errors") or ()]
        parts = [_place(pointer) + _with_setting(pointer, text) for pointer, text in errors]
        detail = document.get("detail")
    except (ValueError, KeyError, TypeError):
        return f"{where} answered {status}, but not as vaeserve does: is --url its address?"
    parts += [text for text in (detail, _HINTS.get(status)) if text]
    if status == 404 and not parts:
        parts = ["is --url the server's address, and is the server as new as this command?"]
    return ": ".join([title, "; ".join(parts)]) if parts else title


def _with_setting(pointer: str, detail: str) -> str:
    """The detail of an error; a limit on rows gets the name of the server's setting."""
    is_limit = pointer in _ROWS and re.fullmatch(r"1 to \d+ are allowed", detail)
    return f"{detail}, by the server's setting VAE_MAX_ROWS" if is_limit else detail


def _place(pointer: str) -> str:
    """`/query/n` becomes `n: `, `/points/1/image` becomes `points, no. 2, image: `."""
    steps = [step for step in pointer.removeprefix("/query").split("/") if step]
    words = ", ".join(f"no. {int(step) + 1}" if step.isdecimal() else step for step in steps)
    return f"{words}: " if words else ""
