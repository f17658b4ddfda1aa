"""`/remote`: the remote VAE protocol of the diffusers library (`diffusers.utils.remote_utils`).

Tensors are raw little-endian bytes. The query has the shape and data type of the request's tensor, headers have the
shape and data type of the response's. Latents on the wire are (z - shift) * scale.
"""

import json
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Response
from numpy.typing import NDArray
from pydantic import Field
from starlette.datastructures import Headers
from starlette.types import Receive, Scope
from typing_extensions import TypeAliasType

from app.api.forms.bodies import BytesBody
from app.api.forms.images import ReadingQuery, images_of_files
from app.api.forms.latents import latents_of_array
from app.api.forms.writers import MODEL_HEADERS, binary_response, model_headers, write_grid
from app.api.routing.operation import Operation, Reader
from app.api.routing.queries import ModelQuery, QueryFloat, check_count
from app.api.routing.response import RawResponse
from app.api.routing.state import State
from app.codecs.images import WRITERS, Pixels
from app.codecs.tensors import of_bytes, to_bytes
from app.errors import InvalidInput
from app.maths.gaussian import Floats
from app.vae.vae import Vae

TENSOR = "tensor/binary"
_MAX_SIDE = 2**16
"""Maximum height and width of the images of packed latents."""

FloatType = TypeAliasType("FloatType", Literal["float16", "float32", "bfloat16"])
TensorType = TypeAliasType("TensorType", Literal["float16", "float32", "bfloat16", "uint8"])
TensorForm = TypeAliasType("TensorForm", Literal["binary"])
RemoteOutput = TypeAliasType("RemoteOutput", Literal["pil", "pt"])
RemoteFormat = TypeAliasType("RemoteFormat", Literal["png", "jpg"])
Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=8)]

_MAX_VALUES = {"float16": 65_504.0, "float32": 3.4028235e38, "bfloat16": 3.3895e38}

_HEADERS = {
    "shape": ("Shape of the tensor, as a JSON list.", "string"),
    "dtype": ("Data type of the tensor.", "string"),
} | MODEL_HEADERS


class WireQuery(ModelQuery):
    """Scaling of latents on the wire, none unless the client asks for it; and the form of tensors, of which there is
    one."""

    scaling_factor: QueryFloat | None = Field(None, gt=0, description="Scale: wire latents are (z - shift) * scale.")
    shift_factor: QueryFloat | None = Field(None, description="Shift: wire latents are (z - shift) * scale.")
    do_scaling: bool = Field(False, description="Use the model's own scale or shift for a factor that is absent.")

    input_tensor_type: TensorForm = Field("binary", description="Form of the request's tensor.")
    output_tensor_type: TensorForm = Field("binary", description="Form of the response's tensor.")

    def factors(self, vae: Vae) -> tuple[Floats, Floats]:
        """Scale and shift, float32: `[1]` or `[d]` for vectors, `[1, 1, 1]` or `[c, 1, 1]` for maps."""
        own = vae.manifest.latent
        scale, shift = (own.scaling_factor, own.shift_factor) if self.do_scaling else (1.0, 0.0)
        factors = (
            scale if self.scaling_factor is None else self.scaling_factor,
            shift if self.shift_factor is None else self.shift_factor,
        )
        axes = (-1, *[1] * (len(own.shape) - 1))
        with np.errstate(over="ignore"):  # latents that are not finite are refused later
            scales, shifts = (np.asarray(factor, np.float32).reshape(axes) for factor in factors)
        return scales, shifts


class RemoteDecodeQuery(WireQuery):
    """Shape and data type of the body, and the form of the response."""

    shape: Sizes = Field(
        description="Shape of the latents, [N, *latent], or of packed maps; repeated for each size.", examples=[[1, 2]]
    )
    dtype: FloatType = Field(
        description="Data type of the latents, and of tensors in the response.", examples=["float32"]
    )
    output_type: RemoteOutput = Field("pil", description="An image (pil), or a tensor (pt).")
    image_format: RemoteFormat = Field("jpg", description="The image's format.")
    partial_postprocess: bool = Field(
        False,
        description="The tensor is uint8 [N, H, W, 3], instead of the decoder's floats [N, C, H, W], about -1 to 1.",
    )
    height: int | None = Field(
        None, ge=1, le=_MAX_SIDE, description="Height of the images of packed latents, in pixels."
    )
    width: int | None = Field(None, ge=1, le=_MAX_SIDE, description="Width of the images of packed latents, in pixels.")


class RemoteEncodeQuery(WireQuery, ReadingQuery):
    """Shape and data type of the body, if it is a tensor; without both it is an image file."""

    shape: Sizes | None = Field(
        None, description="Shape of the images, [N, C, H, W] of the model's size; repeated for each size."
    )
    dtype: TensorType | None = Field(None, description="Data type of the images; floats are in [-1, 1].")


class _LatentsBody(BytesBody):
    """Latents, and whether the response is a tensor even if the query asks for an image: the library wants one if it
    has an image processor, and says so only in the header Accept."""

    async def read(self, scope: Scope, receive: Receive, server: State) -> tuple[bytes, bool]:
        return await super().read(scope, receive, server), Headers(scope=scope).get("accept") == TENSOR


async def _decode(server: State, vae: Vae, query: RemoteDecodeQuery, body: tuple[bytes, bool]) -> Response:
    """As diffusers' `remote_decode` expects: the image of the latents, a grid if there are several, or a tensor."""
    content, wants_tensor = body
    scale, shift = query.factors(vae)
    wire = _unpacked(vae, query, of_bytes(content, query.dtype, query.shape))
    vae.geometry.check_latents(wire.shape)  # factors of each channel would not fit another shape
    with np.errstate(all="ignore"):  # values that are not finite are refused below, with their pointer
        latents = wire.astype(np.float32) / scale + shift
    latents = await latents_of_array(server, vae, query, latents)
    if query.output_type == "pt" and not query.partial_postprocess:
        floats = await vae.decode_floats(latents)
        return await vae.computed(floats.size, lambda: _tensor(vae, floats * 2 - 1, query.dtype))
    images = await vae.decode(latents)
    if query.output_type == "pt":
        return _tensor(vae, _rgb(images), "uint8")
    if wants_tensor:
        return await vae.computed(
            images.size, lambda: _tensor(vae, _rgb(images).transpose(0, 3, 1, 2) / np.float32(255), query.dtype)
        )
    content = await write_grid(vae, images, query.image_format)
    return RawResponse.of(content, WRITERS[query.image_format].media_type.encode(), model_headers(vae))


async def _encode(server: State, vae: Vae, query: RemoteEncodeQuery, body: bytes) -> Response:
    """As diffusers' `remote_encode` expects: the mean of the posterior, float32 unless the images have another float
    type."""
    if query.shape is None and query.dtype is None:
        try:
            images = await images_of_files(server, vae, query, [body])
        except InvalidInput as error:
            raise InvalidInput(error.detail) from None  # the body is the image, so no pointer into it
    else:
        images = _images(server, vae, query, body)
    posterior = await vae.encode(images)
    scale, shift = query.factors(vae)
    dtype = "float32" if query.dtype in (None, "uint8") else query.dtype
    with np.errstate(all="ignore"):
        latents = (posterior.mean - shift) * scale
    if not (np.abs(latents) <= _MAX_VALUES[dtype]).all():  # true for NaN, too
        raise InvalidInput(f"with this scale and shift, latents are not finite as {dtype}", "/query/scaling_factor")
    return _tensor(vae, latents, dtype)


def _unpacked(vae: Vae, query: RemoteDecodeQuery, latents: NDArray[Any]) -> NDArray[Any]:
    """Maps `[N, c, h, w]` of packed latents `[N, h/2 * w/2, 4c]`, as diffusers' Flux has them: each value of a channel
    stands beside the three to its right and below. Other latents are returned unchanged.

    Raises:
        InvalidInput: the height or width is missing, or is not that of the shape.
    """
    if vae.geometry.is_vector or latents.ndim != 3:
        return latents
    if query.height is None or query.width is None:
        raise InvalidInput("packed latents need height and width", "/query")
    step, channels = 2 * vae.geometry.stride, vae.geometry.latent[0] or 0
    height, width = query.height // step, query.width // step
    if latents.shape[1:] != (height * width, 4 * channels):
        raise InvalidInput(
            f"packed latents of this height and width are [N, {height * width}, {4 * channels}]", "/query/shape"
        )
    squares = latents.reshape(len(latents), height, width, channels, 2, 2)
    return squares.transpose(0, 3, 1, 4, 2, 5).reshape(len(latents), channels, 2 * height, 2 * width)


def _images(server: State, vae: Vae, query: RemoteEncodeQuery, content: bytes) -> Pixels:
    """uint8 `[N, H, W, C]` of a tensor `[N, C, H, W]`, uint8 or float in [-1, 1]."""
    if query.shape is None or query.dtype is None:
        raise InvalidInput("a tensor needs both shape and dtype", "/query")
    vae.geometry.check_images(query.shape, "/query/shape", planes=True)
    check_count(query.shape[0], server.limits.max_rows, "/query/shape")
    planes = of_bytes(content, query.dtype, query.shape)
    if planes.dtype != np.uint8:
        if not (np.abs(planes) <= 1).all():  # true for NaN, too
            raise InvalidInput("a float tensor must lie in [-1, 1]")
        planes = np.round((planes.astype(np.float32) + 1) * np.float32(127.5)).astype(np.uint8)
    return planes.transpose(0, 2, 3, 1)


def _rgb(images: Pixels) -> Pixels:
    """Images `[N, H, W, 3]` of gray or RGB images: the library cannot show images of one channel."""
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


def _tensor(vae: Vae, array: NDArray[Any], dtype: str) -> Response:
    described = [(b"shape", json.dumps(array.shape).encode()), (b"dtype", dtype.encode())]
    return RawResponse.of(to_bytes(array, dtype), TENSOR.encode(), model_headers(vae) + described)


OPERATIONS = (
    Operation(
        path="/remote/decode",
        query=RemoteDecodeQuery,
        compute=_decode,
        reader=Reader(_LatentsBody(TENSOR, "Latents of this `shape` and `dtype`.")),
        responses=binary_response("An image or a tensor.", (TENSOR, "image/png", "image/jpeg"), _HEADERS),
    ),
    Operation(
        path="/remote/encode",
        query=RemoteEncodeQuery,
        compute=_encode,
        reader=Reader(
            BytesBody(
                "application/octet-stream", "An image, or a tensor of this `shape` and `dtype`.", takes_any_type=True
            )
        ),
        responses=binary_response("The posterior means, scaled, [N, *latent].", (TENSOR,), _HEADERS),
    ),
)
