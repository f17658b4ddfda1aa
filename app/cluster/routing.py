"""Which model a request is for, by its path and query alone: its body is not looked at."""

import re
from urllib.parse import parse_qsl

from app.cluster.messages import Request

_PATH = re.compile(r"/models/([^/]+)(?:/.*)?|/v2/models/([^/]+)\.(?:encoder|decoder)(?:/.*)?")
_MOST_PARAMETERS = 4096
"""What has more is refused by any model."""


def model_of(request: Request) -> str | None:
    """The name in the path or, without one, in the query; None where the default model is meant, or any.

    The name need not be a model's.
    """
    found = _PATH.fullmatch(request.path)
    return (found[1] or found[2]) if found else _named(request.scope["query_string"])


def _named(query: bytes) -> str | None:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        return None
    return next((value for name, value in pairs if name == "model"), None)
