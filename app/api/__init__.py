"""The HTTP surface; the tables below list every module with routes, in the order in which paths are matched."""

from app.api.operations import (
    combine,
    decode,
    encode,
    interpolate,
    manifold,
    posteriors,
    reconstruct,
    remote,
    sample,
    score,
    traverse,
    vary,
)
from app.api.service import manage, models, service
from app.api.v2 import index, inference, metadata, repository, statistics
from app.api.v2 import service as v2_service

ROUTERS = (
    encode,
    decode,
    sample,
    interpolate,
    reconstruct,
    score,
    vary,
    combine,
    traverse,
    manifold,
    posteriors,
    remote,
    models,
    service,
)
V2_ROUTERS = (v2_service, statistics, metadata, inference, index)
"""The Open Inference Protocol; `/v2/models/stats` is matched before `/v2/models/{name}`."""
MANAGEMENT = (manage, repository)
"""Routes that need an admin key and change what the server serves."""
