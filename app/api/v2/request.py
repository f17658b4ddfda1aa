"""A request for inference: its JSON, what lies behind it, and what both say."""

import asyncio
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field, PrivateAttr
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from app.api.forms.bodies import JsonBody, JsonInt, parse_json, read_bytes
from app.api.forms.images import pixels_of_values
from app.api.forms.latents import latents_of_values
from app.api.routing.queries import check_count
from app.api.routing.state import State
from app.api.v2.content_encoding import inflate, wanted_coding
from app.api.v2.graphs import Graph, all_graphs
from app.codecs.tensors import DATATYPES, of_bytes, of_json, split_header, split_tensors
from app.errors import BodyTooLarge, InvalidInput

_KNOWN = {"timeout", "binary_data_output", "binary_data_size", "binary_data"}

# The others pass, as the protocol asks, but are not kept: they may be large, and rows wait.
Parameters = Annotated[
    dict[str, Any], AfterValidator(lambda given: {name: given[name] for name in given if name in _KNOWN})
]

_BESIDE_DATA, _LONGEST_NUMBER = 2**16, 25
"""Bytes: of all that is not data, and of a number with what parts it from the next."""
_LENGTH = "inference-header-content-length"
_EXAMPLE = {"name": "latent", "shape": [1, 2], "datatype": "FP32", "data": [0.5, -1.2]}
_TAKEN = {"encoder": list(DATATYPES), "decoder": [name for name in DATATYPES if name.startswith("FP")]}
"""The data types that the graphs' inputs are sent as."""


class InputTensor(BaseModel):
    """One input: `image` or `latent`."""

    name: str = Field(description="`image` for an encoder, `latent` for a decoder.")
    shape: list[JsonInt] = Field(
        min_length=1, max_length=8, description="[N, C, H, W] or [N, *latent], of the model's sizes."
    )
    datatype: str = Field(
        description="FP16, FP32 or FP64; for `image` also UINT8, which floats are in [0, 1] the same as."
    )
    parameters: Parameters | None = Field(None, description="`binary_data_size`, in place of `data`.")
    data: list[Any] | None = Field(None, description="The numbers in row-major order, flat or nested.")


class WantedOutput(BaseModel):
    """One output that is asked for."""

    name: str = Field(description="`mean` or `log_std`; `image`, or a parameter of the likelihood, such as `logits`.")
    parameters: Parameters | None = Field(None, description="`binary_data`: whether it comes back in binary.")


class InferRequest(BaseModel):
    """Rows for one graph."""

    id: str | None = Field(None, description="Comes back with the answer.")
    parameters: Parameters | None = Field(
        None, description="`binary_data_output`; `timeout`, the longest wait for a slot in microseconds; others pass."
    )
    inputs: list[InputTensor] = Field(min_length=1, max_length=16, examples=[[_EXAMPLE]])
    outputs: list[WantedOutput] | None = Field(
        None, max_length=16, description="All that the encoder has, or `image`, if absent."
    )

    _binary: memoryview = PrivateAttr()
    _accepted: str | None = PrivateAttr()

    @property
    def accepted(self) -> str | None:
        """The content coding that the client asks the answer to be in."""
        return self._accepted

    def seconds(self) -> float | None:
        """The longest wait for a slot, as `timeout` says; None where it says nothing, or 0.

        Raises:
            InvalidInput: it is no whole number of 0 or more.
        """
        timeout = _whole(self.parameters, "timeout", "/parameters")
        return timeout / 1e6 if timeout else None

    def wanted(self, graph: Graph) -> dict[str, bool]:
        """The outputs that are asked for, and whether each is to come back in binary.

        Raises:
            InvalidInput: one that the graph does not have, or twice, or a parameter of another type.
        """
        binary = _flag(self.parameters, "binary_data_output", "/parameters", default=False)
        if not self.outputs:
            return dict.fromkeys(graph.usual, binary)
        wanted: dict[str, bool] = {}
        for index, output in enumerate(self.outputs):
            if output.name not in graph.outputs or output.name in wanted:
                raise InvalidInput(f"name each of {', '.join(graph.outputs)} at most once", f"/outputs/{index}/name")
            wanted[output.name] = _flag(output.parameters, "binary_data", f"/outputs/{index}/parameters", binary)
        return wanted

    def rows(self, graph: Graph, limit: int) -> NDArray[Any]:
        """The graph's input: uint8 `[N, C, H, W]` or float32 `[N, *latent]`, N at most `limit`.

        Raises:
            InvalidInput: not this one input, another shape or data type, or data that do not fit.
            BadRequest: another number of bytes behind the JSON than the inputs say.
        """
        sizes = [_binary_size(tensor, f"/inputs/{index}") for index, tensor in enumerate(self.inputs)]
        pieces = split_tensors(self._binary, [size or 0 for size in sizes])
        tensor = self.inputs[0]
        if len(self.inputs) > 1 or tensor.name != graph.input:
            raise InvalidInput(f"this model has one input, {graph.input}", "/inputs")
        _check(tensor, graph, limit)
        try:
            array = _array(tensor, pieces[0])
        except InvalidInput as error:
            raise error.below(_pointer(sizes[0])) from None
        return _rows(array, graph, limit)


class InferBody:
    """A request for inference: JSON, and perhaps tensors in binary after it. Clients send any Content-Type, or none."""

    openapi = JsonBody(InferRequest).openapi

    async def read(self, scope: Scope, receive: Receive, server: State) -> InferRequest:
        """The body, inflated.

        Raises:
            UnsupportedMediaType, BodyTooLarge, BadRequest, RequestValidationError: it cannot be read.
        """
        body, limit, headers = await read_bytes(receive), server.limits.max_body_bytes, Headers(scope=scope)
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":  # a few bytes can hold millions
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(server.decoding, inflate, body, coding, limit)
        length = headers.get(_LENGTH)
        head, binary = split_header(body, None if length is None else length.encode("latin-1"))
        if len(head) > _longest_head(server):
            raise BodyTooLarge("more JSON than the rows of one request can take")
        read = parse_json(InferRequest, bytes(head))
        read._binary, read._accepted = binary, wanted_coding(headers.get("accept-encoding", ""))
        return read


def _longest_head(server: State) -> int:
    """Bytes of JSON that the largest input can take: parsed, a byte may become a list, which takes fifty. Where a model
    takes any size, only how many values there are is bounded, when they are parsed."""
    largest = [graph.most_values for graph in all_graphs(server.catalog)]
    if None in largest:
        return server.limits.max_body_bytes
    return _BESIDE_DATA + _LONGEST_NUMBER * server.limits.max_rows * max(filter(None, largest))


def _binary_size(tensor: InputTensor, pointer: str) -> int | None:
    """Its bytes behind the JSON; None where it has `data`."""
    size = _whole(tensor.parameters, "binary_data_size", f"{pointer}/parameters")
    if (size is None) == (tensor.data is None):
        raise InvalidInput("must have either data or the parameter binary_data_size", pointer)
    return size


def _check(tensor: InputTensor, graph: Graph, limit: int) -> None:
    if tensor.datatype not in _TAKEN[graph.kind]:
        raise InvalidInput(f"{graph.input} is sent as {', '.join(_TAKEN[graph.kind])}", "/inputs/0/datatype")
    check_count(tensor.shape[0], limit, "/inputs/0/shape/0")
    graph.check(tensor.shape, "/inputs/0/shape")


def _array(tensor: InputTensor, piece: memoryview) -> NDArray[Any]:
    dtype = DATATYPES[tensor.datatype]
    return of_bytes(piece, dtype, tensor.shape) if tensor.data is None else of_json(tensor.data, dtype, tensor.shape)


def _pointer(size: int | None) -> str:
    return "/inputs/0/data" if size is None else "/inputs/0/parameters/binary_data_size"


def _rows(array: NDArray[Any], graph: Graph, limit: int) -> NDArray[Any]:
    try:
        if graph.kind == "encoder":
            return np.ascontiguousarray(pixels_of_values(array))
        return latents_of_values(array, graph.vae, limit)
    except InvalidInput as error:
        raise error.below("/inputs/0/data") from None


def _whole(parameters: Parameters | None, name: str, pointer: str) -> int | None:
    value = (parameters or {}).get(name)
    if value is not None and (type(value) is not int or not 0 <= value < 2**63):
        raise InvalidInput("must be a whole number of 0 or more", f"{pointer}/{name}")
    return value


def _flag(parameters: Parameters | None, name: str, pointer: str, default: bool) -> bool:
    value = (parameters or {}).get(name)
    if value is not None and type(value) is not bool:
        raise InvalidInput("must be true or false", f"{pointer}/{name}")
    return default if value is None else value
