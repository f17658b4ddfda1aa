"""Find the model that a request names in its path or query, without reading the body."""

import re
from urllib.parse import parse_qsl

from app.cluster.messages import ReplicaRequest

_PATH = re.compile(r"/models/([^/]+)(?:/.*)?|/v2/models/([^/]+)\.(?:encoder|decoder)(?:/.*)?")
_MAX_PARAMETERS = 4096
"""Maximum parameters of a query; every model refuses more."""


def model_of(request: ReplicaRequest) -> str | None:
    """Return the name in the path or else in the query, which may not be a model's; None if there is none."""
    if found := _PATH.fullmatch(request.path):
        return found[1] or found[2]
    query = request.scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return None
    return next((value for name, value in pairs if name == "model"), None)
