"""The cluster's ingress: an ASGI application that sends each request to a replica of the model it names."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware.compression import Compression
from app.api.middleware.errors import ErrorResponses
from app.api.middleware.exchange import Exchanges
from app.api.middleware.headers import SecurityHeaders
from app.api.service.service import Health
from app.api.v2.server import Live
from app.cluster.fan_out import MERGED, OF_ALL_REPLICAS, Models, get_model, merge_responses
from app.cluster.messages import ReplicaRequest, ReplicaResponse
from app.cluster.routing import model_of
from app.errors import DeadlineExceeded
from app.settings import Settings

_RAY_HEADER = b"x-request-id"
"""Ray's proxy adds this header to every response, with the value that the replica got."""
_LIVE = {"/health/live": Health(status="live"), "/v2/health/live": Live()}


def ingress(models: Models, default: str, *, seconds: float, limits: Settings) -> ASGIApp:
    """Return the application; `default` is the model of requests that name none, `seconds` the limit of each request,
    from its head to the complete response."""
    app = Compression(ErrorResponses(_Ingress(models, default, seconds)), threads=limits.slot_count)
    return Exchanges(SecurityHeaders(app, origins=""), limits.max_body_bytes, limits.held_bytes)


class _Ingress:
    """Sends requests that name no model, or an unknown one, to the default model: all replicas respond alike."""

    def __init__(self, models: Models, default: str, seconds: float) -> None:
        self._models, self._default, self._seconds = dict(sorted(models.items())), default, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._respond(await ReplicaRequest.read(scope, receive))
        except TimeoutError:
            raise DeadlineExceeded("no response in time") from None
        headers = [(name, value) for name, value in response.headers if name.lower() != _RAY_HEADER]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, request: ReplicaRequest) -> ReplicaResponse:
        if request.method == "GET" and request.path in _LIVE:
            body = _LIVE[request.path].model_dump_json().encode()
            return ReplicaResponse(200, [(b"content-type", b"application/json")], b"").with_body(body)
        if request.method == "GET" and (handler := OF_ALL_REPLICAS.get(request.path)):
            return await handler(self._models, request)
        if merge := MERGED.get((request.method, request.path)):
            return await merge_responses(merge, self._models.values(), self._default, request)
        name = model_of(request)
        replicas = self._models.get(name or "", self._models[self._default])
        if request.method == "GET" and request.path == f"/models/{name}":
            return await merge_responses(get_model, [replicas], self._default, request)
        return await replicas.ask(request)
