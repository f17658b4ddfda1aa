"""An operation of the API as one frozen record, and the route that is made from it.

FastAPI only documents the route: a request skips FastAPI's parsing and is answered straight from the ASGI messages.
That saves half of the time of a small request; see docs/performance.md.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from fastapi import Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.api.routing.caching import CachePolicy
from app.api.routing.negotiation import VARY
from app.api.routing.problems import BODY_ERRORS, MODEL_ERRORS, documented
from app.api.routing.queries import ModelQuery, ParsedQuery, QueryParser
from app.api.routing.response import Header
from app.api.routing.state import State, caller_of
from app.inference.graphs import Lane
from app.observability.timing import Timing
from app.vae.catalog import Catalog
from app.vae.vae import Vae


class Body(Protocol):
    """How a request's body is read."""

    @property
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI entry of the request body."""

    async def read(self, scope: Scope, receive: Receive, server: State) -> Any:
        """The content of the body."""


@dataclass(frozen=True)
class Reader:
    """Turns a request's body into the input of an operation."""

    body: Body
    read: Callable[[State, Vae, Any, Any], Awaitable[Any]] | None = None
    """Makes the input from the server, the model, `query` and the body's content; None if the content is the input."""
    query: type[BaseModel] | None = None
    """Query parameters of the reader."""
    words: str = ""
    """Completes `As encode, ...` in the documentation."""


@dataclass(frozen=True)
class Writer:
    """Turns the result of an operation into a response."""

    write: Callable[[Vae, Any, Any, Any], Awaitable[Response]]
    """Makes the response from the model, `query`, the result and the operation's `answer`."""
    query: type[BaseModel] | None = None
    """Query parameters of the writer."""
    words: str = ""
    """Completes `As sample, ...` in the documentation."""
    media_types: tuple[str, ...] = ()
    """Media types of the response; empty if it is JSON."""
    description: str = ""
    """Description of the response, if it is not JSON."""
    scale: Callable[[Any], int] | None = None
    """Factor of both sides of the response's images, from `query`; None if they are not enlarged."""


def find_by_query(catalog: Catalog, timing: Timing, query: ModelQuery) -> Vae:
    """The model that the query names, for one request.

    Raises:
        UnknownModel: there is none.
    """
    return catalog.find(query.model, query.version).for_request(timing)


@dataclass(frozen=True)
class Operation:
    """One operation on a model: `OperationRoute` makes its route and its OpenAPI entry from this record."""

    path: str
    query: type[BaseModel]
    """Parameters of the operation. Fields that `path` names come from the path, the others from the query string."""
    compute: Callable[..., Awaitable[Any]]
    """Makes the result from the server, the model, `query` and, if there is a reader, the input."""
    reader: Reader | None = None
    """None if the request has no body; the method is then GET, else POST."""
    writer: Writer | None = None
    """None if the result is the response."""
    answer: type[BaseModel] | None = None
    """Model of the JSON response."""
    min_rows: Callable[[Any], tuple[Lane, int]] | None = None
    """The lane and the minimum rows that a request will run, from its query. If the queue cannot take the rows, the
    response is 503, and the body is not read."""
    operation_id: str = ""
    """Name of the operation in generated clients; made of `path` if empty."""
    tag: str = ""
    """Group in the documentation; the first part of `path` if empty."""
    find: Callable[[Catalog, Timing, Any], Vae] = find_by_query
    """Finds the model that the request names in `query`, for one request."""
    description: str = ""
    """What the operation does; the docstring of `compute` if empty."""
    responses: Mapping[int | str, dict[str, Any]] = field(default_factory=dict)
    """OpenAPI responses besides the errors that all operations have in common."""


class OperationRoute(APIRoute):
    """The route of one operation."""

    def __init__(self, operation: Operation) -> None:
        """Make the route.

        Raises:
            TypeError: a parameter is of a kind that cannot be read.
        """
        reader, writer = operation.reader, operation.writer
        parts = operation.path.removeprefix("/").split("/")
        operation_id = operation.operation_id or "_".join(parts)
        is_binary = writer is not None and bool(writer.media_types)
        super().__init__(
            operation.path,
            _endpoint,
            methods=["POST" if reader else "GET"],
            operation_id=operation_id,
            name=operation_id,
            tags=[operation.tag or parts[0]],
            description=operation.description or inspect.getdoc(operation.compute),
            response_model=None if is_binary else operation.answer,
            response_class=JSONResponse if operation.answer and not is_binary else Response,
            response_model_exclude_none=True,
            responses={**documented(*(BODY_ERRORS if reader else MODEL_ERRORS)), **operation.responses},
        )
        self.operation = operation
        queries = (operation.query, reader.query if reader else None, writer.query if writer else None)
        in_path = frozenset(self.param_convertors)
        self._method = "POST" if reader else "GET"
        self._is_binary = is_binary
        self._parser = QueryParser(*queries, in_path=in_path)
        self.openapi_extra = {
            "parameters": [entry for query in queries if query for entry in _parameters(query, in_path)]
        } | ({"requestBody": reader.body.openapi} if reader else {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors are raised, and a middleware turns them into problem documents."""
        operation = self.operation
        if scope["method"] != self._method:
            raise HTTPException(405)
        began, timing = time.perf_counter(), scope["vae.timing"]
        timing.caller = caller_of(scope)
        server: State = scope["state"]["server"]
        query = self._parser.parse(scope["query_string"], scope["path_params"] if self.param_convertors else {})
        vae = operation.find(server.catalog, timing, query.operation)
        if operation.writer is not None and operation.writer.scale is not None:
            scale = operation.writer.scale(query.writer)
            vae = vae.enlarged(scale) if scale > 1 else vae
        policy = None
        if operation.reader is None:
            policy = CachePolicy.of(server.cache, scope, self.name, vae, query)
        response = policy.cached_response() if policy else None
        if response is None:
            server.offload.check(timing.caller)
            if operation.min_rows is not None:
                vae.check_admission(*operation.min_rows(query.operation))
            content = await operation.reader.body.read(scope, receive, server) if operation.reader else None
            response = await server.watcher.watch(self._answer(server, vae, query, content), receive)
            if policy:
                response = policy.store(response)
        if response.status_code == 304 and not self._is_binary:
            response.raw_headers.append((b"vary", VARY.encode()))
        response.raw_headers += _timing_headers(timing, time.perf_counter() - began)
        await response(scope, receive, send)

    async def _answer(self, server: State, vae: Vae, query: ParsedQuery, content: Any) -> Response:
        """Turn the body's content into the input, compute the result, and write it."""
        operation, reader, writer = self.operation, self.operation.reader, self.operation.writer
        if reader is None:
            result = await operation.compute(server, vae, query.operation)
        else:
            if reader.read is not None:
                content = await reader.read(server, vae, query.reader, content)
            result = await operation.compute(server, vae, query.operation, content)
        if writer is not None:
            result = await writer.write(vae, query.writer, result, operation.answer)
        return cast(Response, result)


async def _endpoint() -> None:
    """A placeholder that never runs: FastAPI requires an endpoint to document, and the record replaces it."""


class _Unsorted(GenerateJsonSchema):
    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        return value


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a model for the OpenAPI document, its keys in pydantic's own order, as FastAPI writes them."""
    return model.model_json_schema(ref_template="#/components/schemas/{model}", schema_generator=_Unsorted)


def _parameters(query: type[BaseModel], in_path: frozenset[str]) -> list[dict[str, Any]]:
    """OpenAPI entries of the parameters of a query model; `$defs` of a schema are the named schemas it refers to."""
    schema = json_schema(query)
    named = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in schema.get("required", ()),
            "schema": part | named,
            "description": part.get("description", ""),
        }
        for name, part in schema["properties"].items()
    ]


def _timing_headers(timing: Timing, total: float) -> list[Header]:
    """The headers with the milliseconds of the wait for a slot, of the graphs, and in total."""
    return [
        (b"x-queue-time", b"%.3f" % (1e3 * timing.queue)),
        (b"x-inference-time", b"%.3f" % (1e3 * timing.inference)),
        (b"x-total-time", b"%.3f" % (1e3 * total)),
    ]
