"""Writers of responses: one table, with one row per format."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from fastapi import Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.api.routing.operation import Writer
from app.api.routing.queries import Strict
from app.api.routing.response import Header, RawResponse
from app.codecs.decimals import json_of
from app.codecs.images import WRITERS as IMAGE_FORMATS
from app.codecs.images import (
    AnimationFormat,
    ImageFormat,
    Pixels,
    enlarge,
    grid_shape,
    tile,
    write_animation,
    write_image,
)
from app.codecs.npy import NPY, NPZ, write_npy, write_npz
from app.codecs.safetensors import SAFETENSORS, write_safetensors
from app.errors import InvalidInput
from app.vae.points import Decoded
from app.vae.vae import Vae

_SECONDS_PER_VALUE = {"gif": 6e-7, "webp": 2e-8}
"""Estimates for values of the frames of an animation."""
MAX_JSON_NUMBERS = 2**20
"""Maximum numbers in a JSON response, which take a fifth of a second."""
_NUMBER_WORK = 8
"""How many times as long a number takes to be written as a value of an image."""


@dataclass(frozen=True)
class Result:
    """The result of an operation, before it is written."""

    images: Mapping[str, Pixels] = field(default_factory=dict)
    """uint8 `[N, H, W, C]` each, by name. Responses that are an image or npy contain only `images`."""
    arrays: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)
    """Arrays by name; the response leaves out None."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Single values by name, such as `seed`, `method` and `k`."""
    columns: int | None = None
    """Columns of the grid of images; ceil(sqrt(N)) if None."""


class ModelResponse(BaseModel):
    """Base of the JSON responses of a model."""

    model: str = Field(description="Name of the model.", examples=["mnist"])
    version: int = Field(description="Version of the model.", examples=[1])


LatentShape = Annotated[
    list[int] | None,
    Field(description="If latents are maps: the shape [c, h, w] of each, which is one flat list in row-major order."),
]


class Images(ModelResponse):
    """Decoded images."""

    images: list[str] = Field(description="Base64 PNG images, in the order of the latents.")


class LatentImages(Images):
    """Decoded images and the latents that they were decoded from."""

    latents: list[list[float]] = Field(description="The latents, in the order of the images.")
    latent_shape: LatentShape = None
    latent_percentile: list[float] | None = Field(
        None, description="With `percentile=true`: percentage of prior draws nearer to the origin than each latent."
    )


class SeededImages(LatentImages):
    """Decoded draws, their latents and their seed."""

    seed: int = Field(description="The seed of the draws.")


def latent_images(decoded: Decoded, columns: int | None = None, **facts: Any) -> Result:
    """The result of an operation that decodes latents."""
    arrays = {"latents": decoded.latents, "latent_percentile": decoded.latent_percentile}
    return Result({"images": decoded.images}, arrays, facts, columns)


class ScaleQuery(Strict):
    """The size of an image."""

    scale: int = Field(1, ge=1, le=32, description="Factor of both sides of each image.")
    smooth: bool = Field(False, description="Whether an enlarged image is interpolated. If not, pixels are squares.")

    def enlarged(self, images: Pixels) -> Pixels:
        """The images `[N, H, W, C]`, enlarged as the query asks; to be called in the thread that writes them, so that
        only what is being written takes memory."""
        return images if self.scale == 1 else enlarge(images, self.scale, smooth=self.smooth)


_UNSCALED = ScaleQuery(scale=1, smooth=False)


class FormatQuery(ScaleQuery):
    """The format of an image."""

    format: ImageFormat = Field("png", description="The image's format.")


class GridQuery(FormatQuery):
    """The layout of several images as one."""

    columns: int | None = Field(None, ge=1, description="Columns of the grid; ceil(sqrt(N)) if absent.")


class AnimationQuery(ScaleQuery):
    """The format of the images of a path: a strip or an animation."""

    format: AnimationFormat = Field("png", description="A strip (png), or an animation (gif, webp).")
    duration: int = Field(80, ge=20, le=10_000, description="Milliseconds per frame of an animation.")


def _scale(query: ScaleQuery) -> int:
    return query.scale


async def _json(vae: Vae, query: None, result: Result, answer: type[ModelResponse]) -> Response:
    arrays = {name: array for name, array in result.arrays.items() if array is not None}
    count = sum([array.size for array in arrays.values()])
    if count > MAX_JSON_NUMBERS:
        raise InvalidInput(f"more than {MAX_JSON_NUMBERS} numbers for JSON: ask for fewer, or for npy or safetensors")
    facts = {**result.facts}
    for name, pixels in result.images.items():
        facts[name] = await _base64_images(vae, pixels)
    for array in arrays.values():
        if array.ndim > 2:
            facts["latent_shape"] = array.shape[1:]
    members = [_json_of_names(vae.manifest.name, vae.manifest.version)]
    members += await vae.computed(_NUMBER_WORK * count, _json_of_arrays, arrays)
    for name, fact in facts.items():
        if fact is not None and name in answer.model_fields:
            members.append(b'"%b":%b' % (name.encode(), to_json(fact)))
    return RawResponse.of(b"{%b}" % b",".join(members), b"application/json")


def _json_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> list[bytes]:
    return [b'"%b":%b' % (name.encode(), json_of(array)) for name, array in arrays.items()]


@lru_cache(256)
def _json_of_names(model: str, version: int) -> bytes:
    return to_json({"model": model, "version": version})[1:-1]


async def _image(vae: Vae, query: FormatQuery, result: Result, _: Any) -> Response:
    columns = query.columns if isinstance(query, GridQuery) else None
    images = result.images["images"]
    vae.check_scale(images.shape)
    content = await write_grid(vae, images, query.format, columns or result.columns, query)
    return _binary(vae, content, IMAGE_FORMATS[query.format].media_type, result)


async def write_grid(
    vae: Vae, images: Pixels, format: str, columns: int | None = None, size: ScaleQuery = _UNSCALED
) -> bytes:
    """One image file of `[N, H, W, C]`: the image, or a grid of several.

    Raises:
        InvalidInput: the grid is larger than the format can hold.
    """
    across, down = grid_shape(len(images), columns)
    _check_sides(down * images.shape[1] * size.scale, across * images.shape[2] * size.scale, format)
    elements = images.size * size.scale**2
    return await vae.computed(elements, lambda: write_image(tile(size.enlarged(images), columns), format))


def _check_sides(height: int, width: int, format: str) -> None:
    limit = IMAGE_FORMATS[format].max_side
    if max(height, width) > limit:
        raise InvalidInput(f"a {format} image has at most {limit} pixels a side", "/query/format")


async def _animation(vae: Vae, query: AnimationQuery, result: Result, _: Any) -> Response:
    frames, kind = result.images["images"], query.format
    vae.check_scale(frames.shape)
    if kind == "png":
        content = await write_grid(vae, frames, kind, len(frames), query)
    else:
        _check_sides(frames.shape[1] * query.scale, frames.shape[2] * query.scale, kind)
        size = frames.size * query.scale**2
        content = await vae.offloaded(
            size * _SECONDS_PER_VALUE[kind],
            lambda: write_animation(query.enlarged(frames), kind, query.duration),
            memory=4 * size,
            is_first=False,
        )
    return _binary(vae, content, IMAGE_FORMATS[kind].media_type, result)


async def _npy(vae: Vae, query: Any, result: Result, _: Any) -> Response:
    return _binary(vae, write_npy(_without_one_channel(result.images["images"])), NPY, result)


async def _npz(vae: Vae, query: Any, result: Result, _: Any) -> Response:
    facts = {name: np.array(value) for name, value in result.facts.items() if value is not None}
    return _binary(vae, write_npz({**_arrays(result), **facts}), NPZ, result)


async def _safetensors(vae: Vae, query: Any, result: Result, _: Any) -> Response:
    manifest = vae.manifest
    facts = {"model": manifest.name, "version": manifest.version, **result.facts}
    metadata = {name: str(value) for name, value in facts.items() if value is not None}
    return _binary(vae, write_safetensors(_arrays(result), metadata), SAFETENSORS, result)


def _arrays(result: Result) -> dict[str, NDArray[Any]]:
    """All arrays and images of a result, by name."""
    arrays = {name: array for name, array in result.arrays.items() if array is not None}
    return arrays | {name: _without_one_channel(pixels) for name, pixels in result.images.items()}


def _without_one_channel(pixels: Pixels) -> Pixels:
    """`[N, H, W]` if the images are gray, else `[N, H, W, C]`."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _binary(vae: Vae, content: bytes, media_type: str, result: Result) -> Response:
    """A response that is not JSON, with the headers that name the model and the seed."""
    seed = result.facts.get("seed")
    seed_header = [] if seed is None else [(b"x-seed", b"%d" % seed)]
    return RawResponse.of(content, media_type.encode(), model_headers(vae) + seed_header)


def model_headers(vae: Vae) -> list[Header]:
    """The headers that name the model and its version."""
    return [(b"x-model", vae.manifest.name.encode()), (b"x-version", b"%d" % vae.manifest.version)]


MODEL_HEADERS = {"X-Model": ("Name of the model.", "string"), "X-Version": ("Version of the model.", "integer")}
"""Description and JSON type of the headers that name the model."""


def header_entries(headers: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """OpenAPI of response headers, from their description and JSON type."""
    return {name: {"description": text, "schema": {"type": kind}} for name, (text, kind) in headers.items()}


def binary_response(
    description: str, media_types: Sequence[str], headers: Mapping[str, tuple[str, str]]
) -> dict[int | str, dict[str, Any]]:
    """OpenAPI of a response that is not JSON, with each media type by name, and its headers."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    return {200: {"description": description, "content": content, "headers": header_entries(headers)}}


async def _base64_images(vae: Vae, images: Pixels) -> list[str]:
    """Base64 PNG of each of `[N, H, W, C]`."""
    return await vae.computed(images.size, lambda: [b64encode(write_image(pixels)).decode() for pixels in images])


_STILLS = ("image/png", "image/webp")
_GRID_WORDS = "The image, or a grid of several."
_ARRAYS_WORDS = "Arrays by their names in the JSON response, without model and version; single values have no axis."
_TENSORS_WORDS = (
    "Tensors by their names in the JSON response; model, version and single values are in the metadata, as strings."
)

WRITERS: dict[str, Writer] = {
    "json": Writer(_json),
    "image": Writer(_image, FormatQuery, "as one image", _STILLS, "The image.", _scale),
    "grid": Writer(_image, GridQuery, "as one image", _STILLS, _GRID_WORDS, _scale),
    "animation": Writer(
        _animation,
        AnimationQuery,
        "as a strip or an animation",
        ("image/png", "image/gif", "image/webp"),
        "A strip, or an animation.",
        _scale,
    ),
    "npy": Writer(_npy, None, "returned as npy", (NPY,), "uint8 [N, H, W] or [N, H, W, C]."),
    "npz": Writer(_npz, None, "returned as npz", (NPZ,), _ARRAYS_WORDS),
    "safetensors": Writer(_safetensors, None, "returned as safetensors", (SAFETENSORS,), _TENSORS_WORDS),
}
"""Writers by the form of the response."""
