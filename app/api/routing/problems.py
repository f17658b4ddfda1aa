"""Every error as a problem document (RFC 9457), and the OpenAPI responses that document it, from the same classes.

Texts are fixed: no stack trace, no path, no echo of the input; what is wrong with a value is told in
pydantic's own fixed sentences.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RateExceeded,
    Unauthorized,
    UnknownModel,
    UnsupportedMediaType,
    VaeError,
)

MEDIA_TYPE = "application/problem+json"

_MOST_ERRORS = 16
_V2 = "/v2"

logger = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer into the body, such as `/images/3`; `/query/n` for a parameter.")
    detail: str = Field(description="What is wrong there.")


def urn(error: type[VaeError]) -> str:
    """What identifies a kind of problem."""
    return f"urn:vaeserve:problem:{error.slug}"


def kinds(error: type[VaeError] = VaeError) -> list[type[VaeError]]:
    """An error class and every one below it that can be answered: those that have a slug of their own."""
    below = [kind for child in error.__subclasses__() for kind in kinds(child)]
    return [error, *below] if "slug" in vars(error) else below


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    # An open list: with an `enum`, a client would choke on a kind that a later version adds.
    type: str = Field(
        description="Identifies the kind of problem; later versions may add some.",
        examples=[urn(InvalidInput)],
        json_schema_extra={"x-extensible-enum": [urn(error) for error in kinds()]},
    )
    title: str = Field(description="The kind of problem in words.", examples=["Invalid input"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str | None = Field(None, description="What to know about this occurrence.")
    errors: list[FieldError] | None = Field(None, description="Each thing that is wrong with the request.")
    error: str | None = Field(None, description="Under `/v2`, all of it in one sentence.")


def documented(*errors: type[VaeError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these errors."""
    by_status: dict[int, list[type[VaeError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {status: _of_status(classes) for status, classes in by_status.items()}


def _of_status(classes: list[type[VaeError]]) -> dict[str, Any]:
    return {"$ref": f"#/components/responses/{classes[0].__name__}"} if len(classes) == 1 else _response(*classes)


def problem_responses() -> dict[str, dict[str, Any]]:
    """OpenAPI of what each error class answers, by its name."""
    return {error.__name__: _response(error) for error in kinds()}


def _response(*errors: type[VaeError]) -> dict[str, Any]:
    """OpenAPI of one response that any of these errors makes, with an example of each."""
    content = {
        "schema": {"$ref": f"#/components/schemas/{Problem.__name__}"},
        "examples": {error.slug: {"value": _example(error)} for error in errors},
    }
    title = "; ".join(error.title for error in errors)
    response: dict[str, Any] = {"description": title, "content": {MEDIA_TYPE: content}}
    if any(issubclass(error, Overloaded | RateExceeded) for error in errors):
        seconds = {"description": "Seconds to wait before another try.", "schema": {"type": "integer"}}
        response["headers"] = {"Retry-After": seconds}
    return response


def _example(error: type[VaeError]) -> dict[str, Any]:
    wrong = [FieldError(pointer="/images/3", detail="not base64")] if issubclass(error, InvalidInput) else None
    return Problem(type=urn(error), title=error.title, status=error.status, errors=wrong).model_dump(exclude_none=True)


MODEL_ERRORS = (UnknownModel, InvalidInput, InferenceFailed, Overloaded, DeadlineExceeded)
BODY_ERRORS = (BadRequest, BodyTooLarge, UnsupportedMediaType, *MODEL_ERRORS)

MODEL_PROBLEMS = documented(*MODEL_ERRORS)
"""What every operation on a model can answer."""

BODY_PROBLEMS = documented(*BODY_ERRORS)
"""What every operation with a body can answer."""


def problem(
    error: type[VaeError],
    detail: str | None = None,
    errors: list[FieldError] | None = None,
    request: Request | None = None,
) -> JSONResponse:
    """The answer for one error; `request` is what it answers, if it came so far as to be one: its scope tells from then
    on what the problem was."""
    document = Problem(type=urn(error), title=error.title, status=error.status, detail=detail, errors=errors)
    if request is not None:
        request.scope["vae.problem"] = error.slug
        if _path(request).startswith(_V2):
            document.error = _sentence(document)
    headers = {}
    if issubclass(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after)
    if issubclass(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    content = document.model_dump(exclude_none=True)
    return JSONResponse(content, error.status, headers=headers, media_type=MEDIA_TYPE)


def _path(request: Request) -> str:
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def _sentence(document: Problem) -> str:
    details = [": ".join(filter(None, (error.pointer, error.detail))) for error in document.errors or ()]
    return ": ".join([document.title, document.detail or "; ".join(details)]).removesuffix(": ")


def install(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


class Problems:
    """ASGI middleware: answers every error of what it wraps with a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except asyncio.CancelledError:  # the server stops, and the time that requests get is over
            if "vae.leaves" in scope:  # no: in a cluster it is the client that went away
                raise
            if not started:
                cast(asyncio.Task[object], asyncio.current_task()).uncancel()
                await problem(Overloaded, "the server is stopping", request=Request(scope))(scope, receive, send)
        except Exception as error:
            if started:
                raise
            handler = next(handler for kind, handler in _HANDLERS.items() if isinstance(error, kind))
            await handler(Request(scope, receive), error)(scope, receive, send)
            if handler is _unknown:
                raise  # for the server's log


def answer(error: VaeError, request: Request) -> JSONResponse:
    """The answer for an error that was raised."""
    if isinstance(error, InvalidInput):
        wrong = [FieldError(pointer=error.pointer, detail=error.detail)]
        return problem(type(error), errors=wrong, request=request)
    if error.status == 500:
        request.scope["vae.error"] = error
        logger.error("%s", error, exc_info=error)
        return problem(type(error), request=request)
    response = problem(type(error), str(error) or None, request=request)
    if isinstance(error, RateExceeded):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VaeError)
    return answer(error, request)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()
    if any(item["type"] == "json_invalid" for item in wrong):
        return problem(BadRequest, "the body is not JSON", request=request)
    return problem(InvalidInput, errors=[_field_error(item) for item in wrong[:_MOST_ERRORS]], request=request)


def _field_error(item: dict[str, Any]) -> FieldError:
    source, *path = item["loc"]
    if source != "body":
        path = [source, *path]
    if item["type"] == "extra_forbidden":  # the last step is a name that the client made up: it is not repeated
        return FieldError(pointer=_pointer(path[:-1]), detail="an unknown field or parameter")
    return FieldError(pointer=_pointer(path), detail=item["msg"].removeprefix("Value error, "))


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


_BY_STATUS: dict[int, type[VaeError]] = {e.status: e for e in (BadRequest, NotFound, MethodNotAllowed, BodyTooLarge)}


_ADVICE = {404: "openapi.json lists every path", 405: "the header Allow lists the methods of this path"}


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = _ADVICE.get(error.status_code) if error.detail == HTTPStatus(error.status_code).phrase else error.detail
    if error.status_code == 400:  # FastAPI's answer to text that is not UTF-8, nested too deep, ...
        detail = "the body is not JSON"
    answer = problem(_BY_STATUS.get(error.status_code, VaeError), detail, request=request)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of the first route at this path alone
        answer.headers["Allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """Every method that the request's path takes, by the OpenAPI document."""
    path = _path(request)
    operations = request.app.openapi()["paths"].items()
    documented = {
        method.upper()
        for pattern, methods in operations
        if re.fullmatch(re.sub("{[^}]*}", "[^/]+", pattern), path)
        for method in methods
    }
    return sorted(documented | ({"HEAD"} if "GET" in documented else set()))


def _unknown(request: Request, error: Exception) -> JSONResponse:
    return problem(VaeError, request=request)  # Starlette raises it again behind this answer, and the server logs it


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    VaeError: _known,
    RequestValidationError: _invalid,
    HTTPException: _http,
    Exception: _unknown,
}
"""What answers an error; the first kind that fits."""
