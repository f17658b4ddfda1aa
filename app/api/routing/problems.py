"""Problem documents (RFC 9457): the body of every error response, and the OpenAPI responses that document it.

Both are made from the classes of `app.errors`. Texts are fixed: no stack trace, no path, no echo of the input.
"""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.types import Scope

from app.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    Overloaded,
    RateExceeded,
    Unauthorized,
    UnknownModel,
    UnsupportedMediaType,
    VaeError,
)

MEDIA_TYPE = "application/problem+json"

_V2 = "/v2"


class FieldError(BaseModel):
    """One error in a request."""

    pointer: str = Field(description="JSON pointer into the body, such as `/images/3`; `/query/n` for a parameter.")
    detail: str = Field(description="What is wrong there.")


def urn(error: type[VaeError]) -> str:
    """Identifier of a kind of problem: the `type` of its documents."""
    return f"urn:vaeserve:problem:{error.slug}"


def kinds(error: type[VaeError] = VaeError) -> list[type[VaeError]]:
    """`error` and its subclasses that clients can receive: the classes that define a slug."""
    below = [kind for child in error.__subclasses__() for kind in kinds(child)]
    return [error, *below] if "slug" in vars(error) else below


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    # An open list: with an `enum`, a client would fail on a kind that a later version adds.
    type: str = Field(
        description="Identifies the kind of problem; later versions may add more kinds.",
        examples=[urn(InvalidInput)],
        json_schema_extra={"x-extensible-enum": [urn(error) for error in kinds()]},
    )
    title: str = Field(description="The kind of problem in words.", examples=["Invalid input"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str | None = Field(None, description="Details of this occurrence.")
    errors: list[FieldError] | None = Field(None, description="Each error in the request.")
    error: str | None = Field(None, description="Under `/v2`, the whole problem in one sentence.")


def problem(error: VaeError, scope: Scope | None = None, errors: list[FieldError] | None = None) -> JSONResponse:
    """The response for one error; the details of a failure of the server stay in its log.

    `scope` is the scope of the request, if one was read. Its `vae.problem` is set to the slug of the error. `errors`
    lists the errors in the request; by default, the one that `error` names.
    """
    if isinstance(error, InvalidInput):
        errors = errors or [FieldError(pointer=error.pointer, detail=error.detail)]
    detail = error.failure if error.status == 500 else None if errors else str(error) or None
    kind = type(error)
    document = Problem(type=urn(kind), title=kind.title, status=kind.status, detail=detail, errors=errors)
    if scope is not None:
        scope["vae.problem"] = error.slug
        if path_below_root(scope).startswith(_V2):
            document.error = _sentence(document)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    content = document.model_dump(exclude_none=True)
    response = JSONResponse(content, error.status, headers=headers, media_type=MEDIA_TYPE)
    if isinstance(error, RateExceeded):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def path_below_root(scope: Scope) -> str:
    """Path of a request without the prefix (`VAE_ROOT_PATH`) that the application is served under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _sentence(document: Problem) -> str:
    details = [": ".join(filter(None, (error.pointer, error.detail))) for error in document.errors or ()]
    return ": ".join([document.title, document.detail or "; ".join(details)]).removesuffix(": ")


def documented(*errors: type[VaeError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these errors, by status."""
    by_status: dict[int, list[type[VaeError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: response_of(*classes) if len(classes) > 1 else {"$ref": f"#/components/responses/{classes[0].__name__}"}
        for status, classes in by_status.items()
    }


def response_of(*errors: type[VaeError]) -> dict[str, Any]:
    """OpenAPI of one response shared by these errors, with an example of each."""
    content = {
        "schema": {"$ref": f"#/components/schemas/{Problem.__name__}"},
        "examples": {error.slug: {"value": _example(error)} for error in errors},
    }
    title = "; ".join(error.title for error in errors)
    response: dict[str, Any] = {"description": title, "content": {MEDIA_TYPE: content}}
    if any(issubclass(error, Overloaded | RateExceeded) for error in errors):
        seconds = {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}}
        response["headers"] = {"Retry-After": seconds}
    return response


def _example(error: type[VaeError]) -> dict[str, Any]:
    wrong = [FieldError(pointer="/images/3", detail="not base64")] if issubclass(error, InvalidInput) else None
    return Problem(type=urn(error), title=error.title, status=error.status, errors=wrong).model_dump(exclude_none=True)


MODEL_ERRORS = (UnknownModel, InvalidInput, InferenceFailed, Overloaded, DeadlineExceeded)
"""Errors of every operation on a model."""
BODY_ERRORS = (BadRequest, BodyTooLarge, UnsupportedMediaType, *MODEL_ERRORS)
"""Errors of every operation with a body."""
