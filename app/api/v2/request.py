"""Inference requests: JSON, optionally followed by binary tensors, or the one binary tensor alone."""

import math
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field, PrivateAttr
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from app.api.forms.bodies import NOT_NULL, JsonBody, JsonInt, parse_json, read_bytes
from app.api.forms.images import pixels_of_values
from app.api.forms.latents import latents_of_array
from app.api.routing.queries import check_count
from app.api.routing.state import State, caller_of
from app.api.v2.content_encoding import inflate, wanted_coding
from app.api.v2.graphs import GraphModel
from app.codecs.tensors import DATATYPES, NAMES, of_bytes, of_json, split_header, split_tensors
from app.errors import BodyTooLarge, InvalidInput

_KNOWN = {"timeout", "binary_data_output", "binary_data_size", "binary_data"}

# The protocol accepts unknown parameters. They are dropped, because queued requests would hold them in memory.
Parameters = Annotated[
    dict[str, Any], AfterValidator(lambda given: {name: given[name] for name in given if name in _KNOWN})
]

_MAX_REST, _MAX_NUMBER = 2**16, 25
"""Maximum bytes of JSON: of everything that is not data, and of one number with its separator."""
_MIN_SECONDS, _SECONDS_PER_BYTE = 1e-4, 3e-8
"""Estimated seconds to decompress a body, and for each of its bytes, which usually become ten."""
_LENGTH = "inference-header-content-length"
_EXAMPLE = {"name": "latent", "shape": [1, 2], "datatype": "FP32", "data": [0.5, -1.2]}
_TAKEN = {"encoder": list(DATATYPES), "decoder": [name for name in DATATYPES if name.startswith("FP")]}
"""Data types that the input of each graph may have."""


class InputTensor(BaseModel):
    """One input: `image` or `latent`."""

    name: str = Field(description="`image` for an encoder, `latent` for a decoder.")
    shape: list[JsonInt] = Field(
        min_length=1, max_length=8, description="[N, C, H, W] or [N, *latent], with the sizes of the model."
    )
    datatype: str = Field(description="FP16, FP32 or FP64; for `image` also UINT8. Floats of an image are in [0, 1].")
    parameters: Annotated[Parameters | None, NOT_NULL] = Field(
        None, description="`binary_data_size`, instead of `data`."
    )
    data: Annotated[list[Any] | None, NOT_NULL] = Field(
        None, description="The numbers in row-major order, flat or nested."
    )


class WantedOutput(BaseModel):
    """One requested output."""

    name: str = Field(description="`mean` or `log_std`; `image`, or a parameter of the likelihood, such as `logits`.")
    parameters: Annotated[Parameters | None, NOT_NULL] = Field(
        None, description="`binary_data`: whether the output is returned in binary."
    )


class InferRequest(BaseModel):
    """Rows for one graph."""

    id: Annotated[str | None, NOT_NULL] = Field(None, description="Repeated in the response.")
    parameters: Annotated[Parameters | None, NOT_NULL] = Field(
        None,
        description="`binary_data_output`; `timeout`, the maximum microseconds to wait for a slot; others are ignored.",
    )
    inputs: list[InputTensor] = Field(min_length=1, max_length=16, examples=[[_EXAMPLE]])
    outputs: Annotated[list[WantedOutput] | None, NOT_NULL] = Field(
        None, max_length=16, description="If absent, all outputs of the encoder, or `image` of the decoder."
    )

    _binary: memoryview = PrivateAttr()
    _accepted: str | None = PrivateAttr()

    @property
    def accepted(self) -> str | None:
        """The content encoding of the response, or None."""
        return self._accepted

    def seconds(self) -> float | None:
        """Maximum wait for a slot in seconds; None if the parameter `timeout` is absent or 0.

        Raises:
            InvalidInput: `timeout` is not a whole number of 0 or more.
        """
        timeout = _whole(self.parameters, "timeout", "/parameters")
        return timeout / 1e6 if timeout else None

    def wanted(self, graph: GraphModel) -> dict[str, bool]:
        """The requested outputs, and whether each is returned in binary.

        Raises:
            InvalidInput: the graph does not have an output, an output is named twice, or a parameter is invalid.
        """
        binary = _flag(self.parameters, "binary_data_output", "/parameters", default=False)
        if not self.outputs:
            return dict.fromkeys(graph.default_outputs, binary)
        wanted: dict[str, bool] = {}
        for index, output in enumerate(self.outputs):
            if output.name not in graph.outputs or output.name in wanted:
                raise InvalidInput(f"name each of {', '.join(graph.outputs)} at most once", f"/outputs/{index}/name")
            wanted[output.name] = _flag(output.parameters, "binary_data", f"/outputs/{index}/parameters", binary)
        return wanted

    async def rows(self, server: State, graph: GraphModel) -> NDArray[Any]:
        """The graph's input: uint8 `[N, C, H, W]` or float32 `[N, *latent]`.

        Raises:
            InvalidInput: the inputs are not exactly the graph's one input, or its shape, data type or data are invalid;
                or a raw binary request is not a whole number of rows.
            BadRequest: the number of bytes after the JSON is not the sum of the inputs' sizes.
        """
        if not self.inputs:
            self.inputs = [_raw_input(graph, len(self._binary))]
            try:
                return await self.rows(server, graph)
            except InvalidInput as error:
                raise InvalidInput(error.detail) from None  # there is no JSON that a pointer could point into
        sizes = [_binary_size(tensor, f"/inputs/{index}") for index, tensor in enumerate(self.inputs)]
        pieces = split_tensors(self._binary, [size or 0 for size in sizes])
        tensor = self.inputs[0]
        if len(self.inputs) > 1 or tensor.name != graph.input:
            raise InvalidInput(f"this model has one input, {graph.input}", "/inputs")
        if tensor.datatype not in _TAKEN[graph.kind]:
            raise InvalidInput(f"{graph.input} is sent as {', '.join(_TAKEN[graph.kind])}", "/inputs/0/datatype")
        check_count(tensor.shape[0], server.limits.max_rows, "/inputs/0/shape/0")
        if graph.kind == "encoder":
            graph.vae.geometry.check_images(tensor.shape, "/inputs/0/shape", planes=True)
        else:
            graph.vae.geometry.check_latents(tensor.shape, "/inputs/0/shape")
            graph.vae.check_pixels(tensor.shape[0], graph.vae.geometry.image_of(tensor.shape[1:]), "/inputs/0/shape")
        array = await graph.vae.computed(len(tensor.data or ()), _array, tensor, pieces[0])
        try:
            if graph.kind == "encoder":
                return np.ascontiguousarray(pixels_of_values(array))
            return await latents_of_array(server, graph.vae, None, array)
        except InvalidInput as error:
            raise error.below("/inputs/0/data") from None


class InferBody:
    """The body of an inference request. Its Content-Type is ignored, because clients send any type or none."""

    openapi = JsonBody(InferRequest).openapi

    async def read(self, scope: Scope, receive: Receive, server: State) -> InferRequest:
        """Read the body, and decompress it.

        Raises:
            UnsupportedMediaType, BodyTooLarge, BadRequest, RequestValidationError: the body is not a valid request.
        """
        body, limit, headers = await read_bytes(receive), server.limits.max_body_bytes, Headers(scope=scope)
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":  # in a thread, because a few bytes may become millions
            seconds = _MIN_SECONDS + len(body) * _SECONDS_PER_BYTE
            body = await server.offload.run(caller_of(scope), seconds, partial(inflate, body, coding, limit))
        length = headers.get(_LENGTH)
        head, binary = split_header(body, None if length is None else length.encode("latin-1"))
        if len(head) > _max_json_bytes(server):
            raise BodyTooLarge("more JSON than the rows of one request can take")
        if length is not None and not head:  # a raw binary request, whose outputs are in binary, too
            read = InferRequest.model_construct(inputs=[], parameters={"binary_data_output": True})
        else:
            read = await parse_json(InferRequest, bytes(head), scope)
        read._binary, read._accepted = binary, wanted_coding(headers.get("accept-encoding", ""))
        return read


def _max_json_bytes(server: State) -> int:
    """Maximum bytes of JSON, from the largest input that a model takes.

    A byte of JSON may become a list of 50 bytes in memory. If a model takes any size, only the number of values is
    limited, when they are parsed.
    """
    sizes = [vae.geometry for vae in server.catalog]
    if any(geometry.size is None for geometry in sizes):
        return server.limits.max_body_bytes
    values = max(math.prod(shape) for geometry in sizes for shape in (geometry.image_shape, geometry.latent_shape))
    return _MAX_REST + _MAX_NUMBER * server.limits.max_rows * values


def _raw_input(graph: GraphModel, size: int) -> InputTensor:
    """The input of a raw binary request: as many rows of the graph's own shape and data type as `size` bytes are.

    Raises:
        InvalidInput: not a whole number of rows, or images may be of any size.
    """
    (tensor,) = graph.vae.graphs.tensors(graph.kind)[0].values()
    sizes = [known for known in tensor.shape[1:] if known is not None]
    if len(sizes) < len(tensor.shape) - 1:
        raise InvalidInput("this model takes any size, and a raw binary request does not say which")
    row = math.prod(sizes) * np.dtype(tensor.dtype).itemsize
    if not size or size % row:
        raise InvalidInput(f"a raw binary request has {row} bytes for each row")
    shape, parameters = [size // row, *sizes], {"binary_data_size": size}
    return InputTensor(name=graph.input, shape=shape, datatype=NAMES[tensor.dtype], parameters=parameters)


def _binary_size(tensor: InputTensor, pointer: str) -> int | None:
    """Bytes of a tensor after the JSON; None if it has `data`."""
    size = _whole(tensor.parameters, "binary_data_size", f"{pointer}/parameters")
    if (size is None) == (tensor.data is None):
        raise InvalidInput("must have either data or the parameter binary_data_size", pointer)
    return size


def _array(tensor: InputTensor, piece: memoryview) -> NDArray[Any]:
    dtype, shape, data = DATATYPES[tensor.datatype], tensor.shape, tensor.data
    try:
        return of_bytes(piece, dtype, shape) if data is None else of_json(data, dtype, shape)
    except InvalidInput as error:
        raise error.below(f"/inputs/0/{'parameters/binary_data_size' if data is None else 'data'}") from None


def _whole(parameters: Parameters | None, name: str, pointer: str) -> int | None:
    if not parameters or name not in parameters:
        return None
    value = parameters[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise InvalidInput("must be a whole number of 0 or more", f"{pointer}/{name}")
    return value


def _flag(parameters: Parameters | None, name: str, pointer: str, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if type(value) is not bool:
        raise InvalidInput("must be true or false", f"{pointer}/{name}")
    return value
