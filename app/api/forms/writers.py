"""How operations write their answers: one table, a row for each form that an answer may have."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from fastapi import Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field, WithJsonSchema

from app.api.openapi.schemas import LIKE
from app.api.routing.response import Header, Raw
from app.codecs.images import WRITERS as PICTURES
from app.codecs.images import AnimationFormat, PictureFormat, Pixels, grid_shape, tile, write_animation, write_image
from app.codecs.npy import NPY, NPZ, write_npy, write_npz
from app.codecs.safetensors import SAFETENSORS, write_safetensors
from app.errors import InvalidInput
from app.vae.points import Decoded
from app.vae.vae import Vae

MOST_NUMBERS = 2**20
"""Numbers of an answer in JSON: more would take the event loop longer than a tenth of a second."""

# Below this many pixels, writing a picture costs less than the hop to a thread.
_INLINE_PIXELS = 16_384


@dataclass(frozen=True)
class Result:
    """What an operation computed, before it has a form."""

    pictures: Mapping[str, Pixels] = field(default_factory=dict)
    """`[N, H, W, C]` each. `images` are those of answers that are a picture or npy."""
    arrays: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)
    """What is None is left out of the answer."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Single values: `seed`, `method`, `k`."""
    columns: int | None = None
    """Of the grid that the images make as one picture; ceil(sqrt(N)) if None."""


class Answer(BaseModel):
    """Which model answered."""

    model: str = Field(description="Name of the model that answered.", examples=["mnist"])
    version: int = Field(description="Its version.", examples=[1])


LatentList = Annotated[list[Any], WithJsonSchema({LIKE: "Latents"})]
"""Vectors, or maps, as numpy gives them; documented as what requests have, so that clients have one type of both."""
Percentiles = list[float]


class Images(Answer):
    """Decoded images."""

    images: list[str] = Field(description="Base64 PNG pictures, in the order of the latents.")


class LatentImages(Images):
    """Decoded images and the latents that they were decoded from."""

    latents: LatentList = Field(description="The latents, in the order of the images.")
    latent_percentile: Percentiles | None = Field(
        None, description="With `percentile=true`: per cent of prior draws nearer to the origin than each latent."
    )


class SeededImages(LatentImages):
    """Decoded draws, their latents and their seed."""

    seed: int = Field(description="The seed of the draws.")


def latent_images(decoded: Decoded, columns: int | None = None, **facts: Any) -> Result:
    """The result of an operation that decodes latents."""
    arrays = {"latents": decoded.latents, "latent_percentile": decoded.latent_percentile}
    return Result({"images": decoded.images}, arrays, facts, columns)


class FormatQuery(BaseModel):
    """The format of a picture."""

    format: PictureFormat = Field("png", description="The picture's format.")


class GridQuery(FormatQuery):
    """How several pictures become one."""

    columns: int | None = Field(None, ge=1, description="Columns of the grid; ceil(sqrt(N)) if absent.")


class AnimationQuery(BaseModel):
    """How to show a path."""

    format: AnimationFormat = Field("png", description="A strip (png), or an animation (gif, webp).")
    duration: int = Field(80, ge=20, le=10_000, description="Milliseconds a frame of an animation.")


async def _json(vae: Vae, query: Any, result: Result, answer: type[Answer]) -> Answer:
    if sum(array.size for array in result.arrays.values() if array is not None) > MOST_NUMBERS:
        raise InvalidInput(f"more than {MOST_NUMBERS} numbers for JSON: ask for fewer, or for npy or safetensors")
    members = {name: await _base64_pictures(pixels) for name, pixels in result.pictures.items()}
    lists = {name: array.tolist() for name, array in result.arrays.items() if array is not None}
    manifest = vae.manifest
    return answer(model=manifest.name, version=manifest.version, **members, **lists, **result.facts)


async def _picture(vae: Vae, query: FormatQuery, result: Result, _: Any) -> Response:
    columns = getattr(query, "columns", None) or result.columns
    content = await one_picture(result.pictures["images"], query.format, columns)
    return _binary(vae, content, PICTURES[query.format].media_type, result)


async def one_picture(images: Pixels, format: str, columns: int | None = None) -> bytes:
    """One picture of `[N, H, W, C]`: the image, or a grid of several.

    Raises:
        InvalidInput: it would be larger than the format can hold.
    """
    across, down = grid_shape(len(images), columns)
    _check_sides(down * images.shape[1], across * images.shape[2], format)

    def write() -> bytes:
        return write_image(tile(images, columns), format)

    return write() if images.size <= _INLINE_PIXELS else await asyncio.to_thread(write)


def _check_sides(height: int, width: int, format: str) -> None:
    most = PICTURES[format].max_side
    if max(height, width) > most:
        raise InvalidInput(f"a {format} picture has at most {most} pixels a side", "/query/format")


async def _animation(vae: Vae, query: AnimationQuery, result: Result, _: Any) -> Response:
    frames, kind = result.pictures["images"], query.format
    _check_sides(frames.shape[1], frames.shape[2] * (len(frames) if kind == "png" else 1), kind)

    def write() -> bytes:
        return (
            write_image(tile(frames, len(frames))) if kind == "png" else write_animation(frames, kind, query.duration)
        )

    return _binary(vae, await asyncio.to_thread(write), PICTURES[kind].media_type, result)


async def _npy(vae: Vae, query: Any, result: Result, _: Any) -> Response:
    return _binary(vae, write_npy(_without_one_channel(result.pictures["images"])), NPY, result)


async def _npz(vae: Vae, query: Any, result: Result, _: Any) -> Response:
    facts = {name: np.array(value) for name, value in result.facts.items() if value is not None}
    return _binary(vae, write_npz({**_arrays(result), **facts}), NPZ, result)


async def _safetensors(vae: Vae, query: Any, result: Result, _: Any) -> Response:
    manifest = vae.manifest
    facts = {"model": manifest.name, "version": manifest.version, **result.facts}
    told = {name: str(value) for name, value in facts.items() if value is not None}
    return _binary(vae, write_safetensors(_arrays(result), told), SAFETENSORS, result)


def _arrays(result: Result) -> dict[str, NDArray[Any]]:
    """All that a result has, by name."""
    arrays = {name: array for name, array in result.arrays.items() if array is not None}
    return arrays | {name: _without_one_channel(pixels) for name, pixels in result.pictures.items()}


def _without_one_channel(pixels: Pixels) -> Pixels:
    """`[N, H, W]` where the images are grey."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _binary(vae: Vae, content: bytes, media_type: str, result: Result) -> Response:
    """An answer that is not JSON, with the headers that say which model gave it."""
    seed = result.facts.get("seed")
    seeded = [] if seed is None else [(b"x-seed", b"%d" % seed)]
    return Raw.of(content, media_type.encode(), stamp(vae) + seeded)


def stamp(vae: Vae) -> list[Header]:
    """The headers that say which model answered."""
    return [(b"x-model", vae.manifest.name.encode()), (b"x-version", b"%d" % vae.manifest.version)]


async def _base64_pictures(images: Pixels) -> list[str]:
    """Base64 PNG of each of `[N, H, W, C]`."""

    def write() -> list[str]:
        return [b64encode(write_image(pixels)).decode() for pixels in images]

    return write() if images.size <= _INLINE_PIXELS else await asyncio.to_thread(write)


@dataclass(frozen=True)
class Writer:
    """One form of an answer."""

    write: Callable[[Vae, Any, Result, Any], Awaitable[Answer | Response]]
    """From the model, the query, the result, and the operation's JSON model."""
    query: type[BaseModel] | None = None
    """Query parameters that it takes beside the operation's own."""
    words: str = ""
    """Completes `As sample, ...` in the documentation."""
    media_types: tuple[str, ...] = ()
    """None: JSON."""
    description: str = ""
    """What the body is, where it is not JSON."""


_STILL = ("image/png", "image/webp")
_GRID = "The image, or a grid of several."
_ARRAYS = "Arrays by the names of the JSON answer, but for model and version; single values have no axis."
_TENSORS = "Tensors by the names of the JSON answer; model, version and single values are in the metadata, as strings."

WRITERS = {
    "json": Writer(_json),
    "picture": Writer(_picture, FormatQuery, "as one picture", _STILL, "The picture."),
    "grid": Writer(_picture, GridQuery, "as one picture", _STILL, _GRID),
    "animation": Writer(
        _animation,
        AnimationQuery,
        "as a strip or an animation",
        ("image/png", "image/gif", "image/webp"),
        "A strip, or an animation.",
    ),
    "npy": Writer(_npy, None, "answered as npy", (NPY,), "uint8 [N, H, W] or [N, H, W, C]."),
    "npz": Writer(_npz, None, "answered as npz", (NPZ,), _ARRAYS),
    "safetensors": Writer(_safetensors, None, "answered as safetensors", (SAFETENSORS,), _TENSORS),
}
