"""What every operation on a model does around its own few lines: reads the request, answers, times, caches.

FastAPI documents an operation from its signature; here the same signature is read once, when the route is made, and a
request is then parsed straight from the ASGI messages. That is worth half of a small request's time; see
docs/performance.md.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Any, Self, TypeVar, cast, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.routing.caching import Freshness
from app.api.routing.queries import BRANCHES, ModelQuery
from app.api.routing.response import Raw
from app.api.routing.state import State, request_timing, server_state
from app.errors import BodyTooLarge, InvalidInput, UnsupportedMediaType
from app.inference.graphs import Lane
from app.observability.timing import Timing

Body = TypeVar("Body", bound=BaseModel)
Least = Callable[[Any], tuple[Lane, int]]
"""From a query to the rows that its request runs at least: where they have no room, its body is not read."""

_MOST_PARAMETERS = 4096
_MOST_ERRORS = 1000
"""More are not told apart: to make a list of them would take the event loop seconds."""
_SMALL_JSON, _MOST_LISTS, _MOST_VALUES = 2**18, 2**17, 2**22
"""Bytes that are parsed in a few milliseconds whatever they are; and of larger ones, what takes a tenth of a second."""
_REMEMBERED_QUERIES = 1024
_LONGEST_REMEMBERED = 256
"""Characters: what is kept of queries is bounded in bytes, too."""


class AnyType(params.Depends):
    """FastAPI's marker `Depends`, of a body whose Content-Type and Content-Encoding are not looked at."""


class SelfReading(BaseModel):
    """A body that reads itself: FastAPI documents it as JSON, but on the wire it may be more than that."""

    @classmethod
    async def of_request(cls, request: Request, server: State) -> Self:
        """The body of `request`."""
        raise NotImplementedError


class Operation(APIRoute):
    """A route whose endpoint takes, by annotation: the server's state, parameters of its path and of its query, and one
    kind of body. An endpoint may have an attribute `least`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._arguments = _Arguments(endpoint, self.openapi_extra, set(self.param_convertors))
        self._least: Least | None = getattr(endpoint, "least", None)
        self._cacheable = self.methods == {"GET"}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors are raised, and become problem documents further out."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405)
        began = time.perf_counter()
        timing: Timing = scope["vae.timing"]
        server: State = scope["state"]["server"]
        query = self._arguments.query(scope)
        freshness = Freshness.of(server, scope, self.operation_id or "", query) if self._cacheable else None
        response = freshness.remembered() if freshness else None
        if response is None:
            if self._least is not None:
                vae = server.catalog.find(query.model, query.version).for_request(timing)
                vae.check_admission(*self._least(query))
            arguments = await self._arguments.read(server, query, scope, receive)
            answer = await server.departures.attend(self.endpoint(**arguments), receive)
            response = answer if isinstance(answer, Response) else self._json(answer)
            if freshness:
                freshness.remember(response)
        response.raw_headers += _timing_headers(timing, time.perf_counter() - began)
        await response(scope, receive, send)

    def _json(self, answer: BaseModel) -> Response:
        content = answer.__pydantic_serializer__.to_json(answer, exclude_none=self.response_model_exclude_none)
        return Raw.of(content, b"application/json")


def _timing_headers(timing: Timing, total: float) -> list[tuple[bytes, bytes]]:
    """Milliseconds that the request's rows waited for a slot, that the graphs took, and in all."""
    return [
        (b"x-queue-time", b"%.3f" % (1e3 * timing.queue)),
        (b"x-inference-time", b"%.3f" % (1e3 * timing.inference)),
        (b"x-total-time", b"%.3f" % (1e3 * total)),
    ]


class _Arguments:
    """How an endpoint's parameters are read from a request."""

    def __init__(self, endpoint: Callable[..., Any], openapi_extra: dict[str, Any] | None, in_path: set[str]) -> None:
        self._server = self._timing = self._query = ""
        self._parse: Callable[[bytes], ModelQuery] = lambda _: ModelQuery()  # whatever it says, without a model of it
        self._path: dict[str, TypeAdapter[Any]] = {}
        self._body: tuple[str, Callable[[Scope, Receive, State], Awaitable[Any]]] | None = None
        self._media_type: str | None = None
        for name, parameter in inspect.signature(endpoint).parameters.items():
            kind, marker = _annotation(parameter.annotation)
            if name in in_path:
                self._path[name] = TypeAdapter(parameter.annotation)
            elif isinstance(marker, params.Query):
                self._query, self._parse = name, _query_parser(kind)
            elif isinstance(marker, params.Depends) and marker.dependency is server_state:
                self._server = name
            elif isinstance(marker, params.Depends) and marker.dependency is request_timing:
                self._timing = name
            elif isinstance(marker, params.Depends):
                self._body = name, _request_reader(cast(Any, marker.dependency))
                if not isinstance(marker, AnyType):
                    self._media_type = next(iter((openapi_extra or {})["requestBody"]["content"]))
            elif issubclass(kind, SelfReading):
                self._body = name, _request_reader(kind.of_request)
            else:
                self._body, self._media_type = (name, _json_reader(kind)), "application/json"

    def query(self, scope: Scope) -> ModelQuery:
        """The query parameters.

        Raises:
            RequestValidationError: they are not what the operation takes.
        """
        return self._parse(scope["query_string"])

    async def read(self, server: State, query: ModelQuery, scope: Scope, receive: Receive) -> dict[str, Any]:
        """Every argument of the endpoint, by name.

        Raises:
            UnsupportedMediaType: a body of another type than the operation takes.
            RequestValidationError, VaeError: a body, or a parameter of the path, that cannot be read.
        """
        arguments: dict[str, Any] = {self._server: server}
        if self._timing:
            arguments[self._timing] = scope["vae.timing"]
        if self._query:
            arguments[self._query] = query
        for name, kind in self._path.items():
            arguments[name] = _path_parameter(name, kind, scope["path_params"][name])
        if self._body is not None:
            name, reader = self._body
            if self._media_type is not None:
                _check_media_type(scope, self._media_type)
            arguments[name] = await reader(scope, receive, server)
        return arguments


def _annotation(annotation: Any) -> tuple[Any, Any]:
    """Type and FastAPI marker of `Annotated[type, marker]`; of anything else the type alone."""
    if hasattr(annotation, "__metadata__"):
        kind, marker, *_ = get_args(annotation)
        return kind, marker
    return annotation, None


def _query_parser(model: type[ModelQuery]) -> Callable[[bytes], ModelQuery]:
    """A parser of query strings; it remembers the short ones, and its results are shared: nobody changes them."""
    known = set(model.model_fields)
    lists = {name for name, info in model.model_fields.items() if _takes_a_list(info.annotation)}

    def parse(text: bytes) -> ModelQuery:
        values: dict[str, Any] = {}
        try:
            pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            raise InvalidInput("too many parameters", "/query") from None
        for name, value in pairs:
            if name in lists:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise InvalidInput("given more than once", f"/query/{name}" if name in model.model_fields else "/query")
            else:
                values[name] = value
        if not values.keys() <= known:  # which are named: what the client wrote is not
            raise InvalidInput(f"an unknown parameter; there are {', '.join(model.model_fields)}", "/query")
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise invalid(error, "query") from None

    remembered = lru_cache(_REMEMBERED_QUERIES)(parse)
    return lambda text: remembered(text) if len(text) <= _LONGEST_REMEMBERED else parse(text)


def _takes_a_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_takes_a_list, get_args(annotation)))


def _path_parameter(name: str, kind: TypeAdapter[Any], text: str) -> Any:
    try:
        return kind.validate_python(text)
    except ValidationError as error:
        raise invalid(error, "path", name) from None


def _json_reader(model: type[BaseModel]) -> Callable[[Scope, Receive, State], Awaitable[BaseModel]]:
    async def read(scope: Scope, receive: Receive, _: State) -> BaseModel:
        return parse_json(model, await _read_body(receive))

    return read


def parse_json(model: type[Body], content: bytes) -> Body:
    """A body of JSON, unless to parse it would take the event loop long; to count what is in it does not.

    Raises:
        BodyTooLarge: it has more lists and objects, or more values, than any request.
        RequestValidationError: it is not what the operation takes.
    """
    if len(content) > _SMALL_JSON and (
        content.count(b"[") + content.count(b"{") > _MOST_LISTS or content.count(b",") > _MOST_VALUES
    ):
        raise BodyTooLarge("more values than any request can have")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise invalid(error, "body") from None


def _request_reader(
    dependency: Callable[[Request, State], Awaitable[Any]],
) -> Callable[[Scope, Receive, State], Awaitable[Any]]:
    return lambda scope, receive, server: dependency(Request(scope, receive), server)


async def _read_body(receive: Receive) -> bytes:
    chunks, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_media_type(scope: Scope, expected: str) -> None:
    headers = dict(scope["headers"])
    given = headers.get(b"content-type", b"").decode("latin-1")
    if given != expected and given.partition(";")[0].strip().lower() != expected:
        raise UnsupportedMediaType(f"send Content-Type: {expected}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")


def invalid(error: ValidationError, *place: str) -> RequestValidationError:
    """pydantic's errors as FastAPI raises them; `place` is the part of the request: body, query, or path and a name."""
    if error.error_count() > _MOST_ERRORS:
        return RequestValidationError([{"type": "many", "loc": place, "msg": "wrong in too many places"}])
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([item | {"loc": (*place, *item["loc"])} for item in _without_branches(wrong)])


def _without_branches(wrong: Iterable[Any]) -> list[Any]:
    """Errors; of a union of vectors and maps only that of the branch which came furthest, as if there were no other."""
    found: dict[tuple[int | str, ...], Any] = {}
    for item in wrong:
        place = item["loc"]
        at = next((index for index, step in enumerate(place) if step in BRANCHES), None)
        if at is None or item["type"] == "extra_forbidden":
            found[*place, item["type"]] = item
            continue
        union, rest = place[:at], place[at + 1 :]
        before = found.get(union)
        if before is None or rest > before["loc"][at:]:
            found[union] = item | {"loc": (*union, *rest)}
    return list(found.values())
