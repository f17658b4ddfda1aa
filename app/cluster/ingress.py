"""The way into the cluster: an ASGI application that sends each request to a replica of the model that it is for."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware.errors import ErrorResponses
from app.api.middleware.exchange import Exchanges
from app.api.middleware.headers import SecurityHeaders
from app.api.service.service import Health
from app.api.v2.server import Live
from app.cluster.fan_out import TOGETHER, Models, get_model
from app.cluster.messages import Answer, Request
from app.cluster.routing import model_of
from app.errors import DeadlineExceeded

_RAYS_OWN = b"x-request-id"
"""Ray's proxy sets it on every answer, to what the replica was told."""
_LIVE = {"/health/live": Health(status="live"), "/v2/health/live": Live()}


def ingress(models: Models, default: str, *, seconds: float, max_body_bytes: int) -> ASGIApp:
    """The application for these models, of which `default` is that of requests that name none. A request gets
    `seconds`, from its head to the whole answer."""
    app = ErrorResponses(_Ingress(models, default, seconds))
    return Exchanges(SecurityHeaders(app, varies_by_origin=False), max_body_bytes)


class _Ingress:
    """What concerns no model, and what names one that is not there, any replica answers alike: the default one's."""

    def __init__(self, models: Models, default: str, seconds: float) -> None:
        self._models, self._default, self._seconds = dict(sorted(models.items())), default, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._answer(await Request.received(scope, receive))
        except TimeoutError:
            raise DeadlineExceeded("no answer in time") from None
        headers = [(name, value) for name, value in answer.headers if name.lower() != _RAYS_OWN]
        await Answer(answer.status, headers, answer.body)(scope, receive, send)

    async def _answer(self, request: Request) -> Answer:
        if request.method == "GET" and request.path in _LIVE:
            return _of_this_process(_LIVE[request.path].model_dump_json().encode())
        if together := TOGETHER.get((request.method, request.path)):
            return await together(self._models, self._default, request)
        name = model_of(request)
        model = self._models.get(name or "", self._models[self._default])
        if request.method == "GET" and request.path == f"/models/{name}":
            return await get_model(model, self._default, request)
        return await model.ask(request)


def _of_this_process(body: bytes) -> Answer:
    return Answer(200, [(b"content-type", b"application/json")], b"").with_body(body)
