"""Request bodies: how JSON, uploaded files and bytes are read from a request, and their OpenAPI entries."""

import logging
import re
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from app.api.routing.operation import json_schema
from app.api.routing.queries import check_count, listed
from app.api.routing.state import State, caller_of
from app.errors import BadRequest, BodyTooLarge, InvalidInput, UnsupportedMediaType

Model = TypeVar("Model", bound=BaseModel)

MAX_ITEMS = 2**16
"""Fixed maximum of items of a JSON list: longer lists are refused before their items are parsed."""

_MAX_JSON_MEMBERS = 2**12
"""Maximum members of all JSON objects of a body. A valid request has a few hundred; each unknown one is an error of its
own."""
_SMALL_JSON, _MAX_JSON_LISTS, _MAX_JSON_VALUES, _MAX_JSON_ESCAPES = 2**18, 2**17, 2**20, 2**16
"""Maximum bytes of JSON that is parsed unchecked; maximum lists, values and escapes of larger JSON (65 ms)."""
_PIECE = 2**20
"""Bytes of JSON that lose their escapes at a time; no other thread can run meanwhile."""
_SECONDS_PER_BYTE = 5e-9
"""Estimated seconds to parse a byte of JSON."""
_MAX_PADDING = 64
"""Maximum bytes between a form's first boundary and the end of its line."""
_JSON, _MULTIPART = "application/json", "multipart/form-data"


def _not_bool_or_str(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("Input should be a valid integer")
    return value


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("leave it out instead of null")
    return value


NOT_NULL = BeforeValidator(_not_null)  # an optional member, documented without null

# Strict integers would refuse 1.0, which JSON Schema allows; lax ones would take false and "1".
JSON_INT = BeforeValidator(_not_bool_or_str)  # after the bounds, which would be documented wrongly otherwise
JsonInt = Annotated[int, Field(ge=0), JSON_INT]
JsonFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]

Vector = Annotated[list[JsonFloat], Field(min_length=1, max_length=_MAX_JSON_VALUES, fail_fast=True)]
Shape = Annotated[list[Annotated[int, Field(ge=1), JSON_INT]], Field(max_length=3, fail_fast=True)]


@dataclass(frozen=True)
class JsonBody:
    """A JSON body, parsed into `model`."""

    model: type[BaseModel]

    @property
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI entry of the request body."""
        return {"required": True, "content": {_JSON: {"schema": json_schema(self.model)}}}

    async def read(self, scope: Scope, receive: Receive, server: State) -> BaseModel:
        """The body as an instance of `model`.

        Raises:
            UnsupportedMediaType: the Content-Type is not JSON.
            BodyTooLarge, RequestValidationError: see `parse_json`.
        """
        _check_media_type(scope, _JSON)
        return await parse_json(self.model, await read_bytes(receive), scope)


@dataclass(frozen=True)
class BytesBody:
    """A binary body."""

    media_type: str
    description: str
    decode: Callable[[bytes], Any] = bytes
    """Turns the bytes into what they encode, such as an array."""
    takes_any_type: bool = False
    """Whether Content-Type and Content-Encoding are ignored."""

    @property
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI entry of the request body."""
        content = {self.media_type: {"schema": {"type": "string", "format": "binary"}}}
        return {"required": True, "description": self.description, "content": content}

    async def read(self, scope: Scope, receive: Receive, server: State) -> Any:
        """The whole body, decoded.

        Raises:
            UnsupportedMediaType: the Content-Type is not `media_type`.
        """
        if not self.takes_any_type:
            _check_media_type(scope, self.media_type)
        return self.decode(await read_bytes(receive))


class FilesBody:
    """A form whose field `images` is repeated for each uploaded file."""

    openapi: dict[str, Any] = {
        "required": True,
        "content": {
            _MULTIPART: {
                "schema": {
                    "title": "FilesRequest",
                    "description": "Images, as uploaded files.",
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",  # its length has no bounds: they would not compile in Go
                            "items": {"type": "string", "format": "binary"},
                            "description": "PNG, JPEG, WebP or still GIF files; the field is repeated for each.",
                        }
                    },
                }
            }
        },
    }

    async def read(self, scope: Scope, receive: Receive, server: State) -> list[bytes]:
        """The contents of the files.

        Raises:
            UnsupportedMediaType, BadRequest: the body is not a complete form.
            InvalidInput: the form has no file, too many files, or another field; the detail says which part it is.
        """
        _check_media_type(scope, _MULTIPART)
        limit = server.limits.max_rows
        try:
            form = await _FormParser(Request(scope, receive), limit, server.limits.max_body_bytes).parse()
        except (MultiPartException, KeyError, UnicodeError) as error:
            if isinstance(error, MultiPartException) and "Too many" in error.message:
                raise InvalidInput(f"1 to {limit} are allowed", "/images") from None
            raise BadRequest("the body is not multipart/form-data") from None
        try:
            parts = form.multi_items()
            other = next((number for number, (name, _) in enumerate(parts, 1) if name != "images"), None)
            if other is not None:  # its name, which is the client's, is not repeated
                raise InvalidInput(
                    f"part {other} of the form has another name: all are files in the field `images`;"
                    " parameters are in the query",
                    "/images",
                )
            check_count(len(parts), limit, "/images")
            return [await file.read() for _, file in parts if isinstance(file, UploadFile)]
        finally:
            await form.close()


logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings repeat what the response says


class _FormParser(MultiPartParser):
    """Parses a form of at most `max_parts` files in memory; refuses a truncated form, which would lose a part."""

    def __init__(self, request: Request, max_parts: int, max_bytes: int) -> None:
        super().__init__(request.headers, self._between_boundaries(request.stream()), max_files=max_parts)
        self.spool_max_size = max_bytes  # files stay in memory: the body is bounded
        self._has_ended = False

    def on_headers_finished(self) -> None:
        """Take every part as a file: some clients send it without a `filename`, or only with `filename*`."""
        _, _, given = (self._current_part.content_disposition or b"").partition(b";")
        self._current_part.content_disposition = b'form-data; name=""; filename=""; ' + given
        super().on_headers_finished()

    def on_end(self) -> None:
        self._has_ended = True

    async def _between_boundaries(self, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """The body without its preamble (RFC 2046, section 5.1.1), which the parser does not expect."""
        _, parameters = parse_options_header(self.headers["content-type"])
        first, before, has_begun = b"\n--" + parameters[b"boundary"], b"\n", False
        line = re.compile(re.escape(first) + rb"(--)?[ \t]*\r?\n")  # a longer line is not the boundary
        async for chunk in stream:
            if not has_begun:
                chunk = before + (chunk or b"\r\n")  # the last chunk is empty, and a line may end there
                if (found := line.search(chunk)) is None:
                    before = chunk[-len(first) - _MAX_PADDING :]  # it may hold a part of the boundary
                    continue
                chunk, has_begun = chunk[found.start() + 1 :], True
            yield chunk
        if not self._has_ended:
            raise MultiPartException("cut off")


async def read_bytes(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        ClientDisconnect: the client disconnected before the end of the body.
    """
    chunks, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def parse_json(model: type[Model], content: bytes, scope: Scope) -> Model:
    """Parse the JSON of a request, without its byte-order mark, into `model`; if it is large, in a thread.

    Raises:
        BodyTooLarge: more members, lists, values or escapes than any valid request has.
        RequestValidationError: not JSON, or not valid for `model`.
        Overloaded: it would wait too long for a thread.
    """
    content = content.removeprefix(BOM_UTF8)
    if len(content) <= _SMALL_JSON:
        _check_members(content)
        return _parse(model, content)
    server: State = scope["state"]["server"]
    seconds = len(content) * _SECONDS_PER_BYTE
    return await server.offload.run(caller_of(scope), seconds, lambda: _parse(model, _checked(content)))


def _checked(content: bytes) -> bytes:
    """Large JSON whose parsing takes less than 0.1 s, by its number of values; escapes within base64 are undone."""
    _check_members(content)
    if content.count(b"[") + content.count(b"{") > _MAX_JSON_LISTS or content.count(b",") > _MAX_JSON_VALUES:
        raise BodyTooLarge("more values than any request can have")
    if content.count(b"\\") > _MAX_JSON_ESCAPES:  # some encoders escape each slash of base64, or break it into lines
        pieces = (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))
        content = b"".join(map(_without_escapes, pieces))
        if content.count(b"\\") > _MAX_JSON_ESCAPES:
            raise BodyTooLarge("more escapes than any request can have")
    return content


def _without_escapes(piece: bytes) -> bytes:
    """JSON of base64 without the escapes that encoders make: of slashes, of line breaks and, in .NET, of pluses."""
    for escaped, plain in ((b"\\/", b"/"), (b"\\r", b""), (b"\\n", b""), (b"\\u002B", b"+"), (b"\\u002b", b"+")):
        piece = piece.replace(escaped, plain)
    return piece


def _check_members(content: bytes) -> None:
    """Raise if JSON has too many members, by its colons: each unknown one is an error of its own."""
    if content.count(b":") - content.count(b'"data:') > _MAX_JSON_MEMBERS:
        raise BodyTooLarge("more values than any request can have")


def _parse(model: type[Model], content: bytes) -> Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        errors = map(_of_nested_list, listed(error, include_input=True))
        raise RequestValidationError([it | {"loc": ("body", *it["loc"])} for it in errors]) from None


def _of_nested_list(error: Any) -> Any:
    """The error without its input; if that is a list of a nested latent, the error says what to send instead."""
    loc, is_list = error["loc"], isinstance(error.pop("input", None), list)
    if not (is_list and error["type"] == "float_type" and isinstance(loc[-1], int)):
        return error
    words = "a latent is one flat list of numbers, a map in row-major order, and latent_shape is its shape"
    return error | {"loc": loc[:-1], "msg": words}


def _check_media_type(scope: Scope, expected: str) -> None:
    headers = dict(scope["headers"])
    given = headers.get(b"content-type", b"").decode("latin-1")
    if given != expected and given.partition(";")[0].strip().lower() != expected:
        raise UnsupportedMediaType(f"send Content-Type: {expected}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")
