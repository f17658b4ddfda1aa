"""The HTTP API; the tables below list every module with routes, in the order in which paths are matched."""

from app.api import operations
from app.api.service import manage, models, service
from app.api.v2 import index, inference, metadata, repository, server, statistics

ROUTERS = (operations, models, service)
V2_ROUTERS = (server, statistics, metadata, inference, index)
"""The Open Inference Protocol; `/v2/models/stats` is matched before `/v2/models/{name}`."""
MANAGEMENT = (manage, repository)
"""Routes that need an admin key and change what the server serves."""
