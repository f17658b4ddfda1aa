"""ASGI middleware that turns every exception into a problem document.

Details about a value are pydantic's fixed sentences, which never repeat the value.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, cast

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware.exchange import Exchange
from app.api.routing.problems import FieldError, problem
from app.errors import (
    BadRequest,
    BodyTooLarge,
    InvalidInput,
    MethodNotAllowed,
    NotFinite,
    NotFound,
    Overloaded,
    VaeError,
)

logger = logging.getLogger(__name__)

_MAX_ERRORS = 16
_EXPECTED = (VaeError, RequestValidationError, HTTPException)
_BY_STATUS: dict[int, type[VaeError]] = {e.status: e for e in (NotFound, MethodNotAllowed, BodyTooLarge)}
_ADVICE = {404: "openapi.json lists every path", 405: "the header Allow lists the methods of this path"}


class ErrorResponses:
    """ASGI middleware: answers an exception with a problem document, unless the response has already begun.

    An unexpected exception is raised again after its response, so that the server logs the traceback.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect as error:
            _release(error)
        except asyncio.CancelledError:  # the server is stopping, and the time to drain is over
            if "vae.leaves" in scope:  # in a cluster: the client disconnected
                raise
            if Exchange.of(scope).status is None:
                cast(asyncio.Task[object], asyncio.current_task()).uncancel()
                await problem(Overloaded("the server is stopping"), scope)(scope, receive, send)
        except Exception as error:
            if Exchange.of(scope).status is not None:
                raise
            await error_response(error, scope)(scope, receive, send)
            if not isinstance(error, _EXPECTED):
                raise
            _release(error)


def _release(error: BaseException | None) -> None:
    """Let the exceptions behind `error` forget where they were raised.

    Their frames hold the body of the request. Some refer back to the exception, and would stay in memory until the
    garbage collector runs.
    """
    while error is not None:
        error.__traceback__, error = None, error.__context__


def error_response(error: Exception, scope: Scope) -> JSONResponse:
    """The response for an exception that was raised while the request of `scope` was handled."""
    match error:
        case VaeError():
            if error.status == 500:
                scope["vae.error"] = error
                # a client's own absurd latent is enough for NotFinite, and the message says all
                logger.error("%s", error, exc_info=None if isinstance(error, NotFinite) else error)
            return problem(error, scope)
        case RequestValidationError():
            found = error.errors()
            if any(item["type"] == "json_invalid" for item in found):
                return problem(BadRequest("the body is not JSON"), scope)
            return problem(InvalidInput(""), scope, [_field_error(item) for item in found[:_MAX_ERRORS]])
        case HTTPException():
            return _http_response(error, scope)
    return problem(VaeError(), scope)


def _field_error(item: dict[str, Any]) -> FieldError:
    source, *path = item["loc"]
    if source != "body":
        path = [source, *path]
    if item["type"] == "extra_forbidden":  # the last step is a name from the request, which is not repeated
        return FieldError(pointer=_pointer(path[:-1]), detail="an unknown field or parameter")
    return FieldError(pointer=_pointer(path), detail=item["msg"].removeprefix("Value error, "))


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def _http_response(error: HTTPException, scope: Scope) -> JSONResponse:
    status = error.status_code
    detail = _ADVICE.get(status, "") if error.detail == HTTPStatus(status).phrase else error.detail
    response = problem(_BY_STATUS.get(status, VaeError)(detail), scope)
    response.headers.update(error.headers or {})
    if status == 405:  # Starlette lists only the methods of the first route at this path
        response.headers["Allow"] = ", ".join(_methods(scope))
    return response


def _methods(scope: Scope) -> list[str]:
    """Every method of the request's path."""
    partial = (route for route in scope["app"].routes if route.matches(scope)[0] is Match.PARTIAL)
    methods = {method for route in partial for method in route.methods}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set())) or ["GET", "HEAD"]  # those of static files
