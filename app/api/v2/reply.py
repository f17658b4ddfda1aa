"""Inference responses: JSON, followed by the outputs that were requested in binary."""

from typing import Any

from fastapi import Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.api.forms.writers import model_headers
from app.api.routing.response import RawResponse
from app.api.v2.content_encoding import compress
from app.api.v2.graphs import GraphModel
from app.codecs.tensors import NAMES, to_bytes
from app.errors import InvalidInput

_PACKET_BYTES = 1024
"""Maximum bytes of a response that is never compressed: it fits into one packet anyway."""
_MAX_NUMBERS = 2**22
"""Maximum numbers in a JSON response: writing them takes hundreds of MB."""


class OutputTensor(BaseModel):
    """One output."""

    name: str
    datatype: str = Field(description="UINT8 or FP32.")
    shape: list[int]
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`, instead of `data`.")
    data: list[float] | None = Field(None, description="The numbers in row-major order, flat.")


class InferReply(BaseModel):
    """Outputs, in the requested order."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="The `id` of the request.")
    outputs: list[OutputTensor]


async def reply(
    graph: GraphModel, id: str | None, arrays: dict[str, NDArray[Any]], binary: dict[str, bool], coding: str | None
) -> Response:
    """The response with the outputs of a graph.

    `binary` tells for each output whether it is in binary. `coding` is the content encoding of responses that are large
    enough to be compressed, or None.

    Raises:
        InvalidInput: there are too many numbers for JSON.
    """
    if sum(array.size for name, array in arrays.items() if not binary[name]) > _MAX_NUMBERS:
        raise InvalidInput(f"more than {_MAX_NUMBERS} numbers for JSON: ask for them in binary", "/outputs")
    elements = sum(array.size for array in arrays.values())
    return await graph.vae.computed(elements, _write, graph, id, arrays, binary, coding)


def _write(
    graph: GraphModel, id: str | None, arrays: dict[str, NDArray[Any]], binary: dict[str, bool], coding: str | None
) -> Response:
    pieces = {name: to_bytes(array) for name, array in arrays.items() if binary[name]}
    tensors = [_describe(name, array, pieces.get(name)) for name, array in arrays.items()]
    named = {"model_name": graph.name, "model_version": graph.version} | ({} if id is None else {"id": id})
    content = head = to_json(named | {"outputs": tensors}, inf_nan_mode="null")
    headers = model_headers(graph.vae)
    if pieces:
        headers.append((b"inference-header-content-length", b"%d" % len(head)))
        content = b"".join((head, *pieces.values()))
    if coding is not None and len(content) > _PACKET_BYTES:
        headers.append((b"content-encoding", coding.encode()))
        content = compress(content, coding)
    return RawResponse.of(content, b"application/octet-stream" if pieces else b"application/json", headers)


def _describe(name: str, array: NDArray[Any], piece: bytes | None) -> dict[str, Any]:
    rest = {"data": array.ravel().tolist()} if piece is None else {"parameters": {"binary_data_size": len(piece)}}
    return {"name": name, "datatype": NAMES[str(array.dtype)], "shape": array.shape, **rest}
