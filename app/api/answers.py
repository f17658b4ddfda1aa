"""What the operations answer with: JSON models, pictures, arrays."""

from base64 import b64encode
from typing import Any

import anyio.to_thread
from fastapi import Response
from pydantic import BaseModel, Field

from app.api.raw import Raw
from app.arrays import NPY, NPZ, write_npy, write_npz
from app.gaussian import Floats
from app.images import WRITERS, Pixels, tile, write_animation, write_image
from app.vae import Vae

LatentList = list[list[float]]

# Below this many pixels, writing a picture costs less than the hop to a thread.
_INLINE_PIXELS = 16_384


class Answer(BaseModel):
    """Which model answered."""

    model: str = Field(description="Name of the model that answered.", examples=["mnist"])
    version: int = Field(description="Its version.", examples=[1])


class Images(Answer):
    """Decoded images."""

    images: list[str] = Field(description="Base64 PNG pictures, in the order of the latents.")


class LatentImages(Images):
    """Decoded images and the latents that they were decoded from."""

    latents: LatentList = Field(description="The latents, in the order of the images.")


def stamp(vae: Vae) -> dict[str, Any]:
    """The members of every JSON answer."""
    return {"model": vae.manifest.name, "version": vae.manifest.version}


def binary(vae: Vae, content: bytes, media_type: str, seed: int | None = None) -> Response:
    """An answer that is not JSON, with the headers that say of which model it is."""
    named = [(b"x-model", vae.manifest.name.encode()), (b"x-version", b"%d" % vae.manifest.version)]
    seeded = [] if seed is None else [(b"x-seed", b"%d" % seed)]
    return Raw.of(content, media_type.encode(), named + seeded)


async def base64_pictures(images: Pixels) -> list[str]:
    """Base64 PNG of each of `[N, H, W, C]`."""

    def write() -> list[str]:
        return [b64encode(write_image(pixels)).decode() for pixels in images]

    return write() if images.size <= _INLINE_PIXELS else await anyio.to_thread.run_sync(write)


async def picture(
    vae: Vae,
    images: Pixels,
    format: str,
    columns: int | None = None,
    seed: int | None = None,
) -> Response:
    """One picture of `[N, H, W, C]`: the image, or a grid where N > 1."""

    def write() -> bytes:
        return write_image(tile(images, columns), format)

    content = write() if images.size <= _INLINE_PIXELS else await anyio.to_thread.run_sync(write)
    return binary(vae, content, WRITERS[format].media_type, seed)


async def animation(vae: Vae, frames: Pixels, format: str, milliseconds: int) -> Response:
    """An animation of `[N, H, W, C]`."""
    content = await anyio.to_thread.run_sync(write_animation, frames, format, milliseconds)
    return binary(vae, content, WRITERS[format].media_type)


def npy_images(vae: Vae, images: Pixels, seed: int | None = None) -> Response:
    """`[N, H, W, C]` as npy: `[N, H, W]` where the images are grey."""
    array = images[..., 0] if images.shape[-1] == 1 else images
    return binary(vae, write_npy(array), NPY, seed)


def npz(vae: Vae, arrays: dict[str, Any], seed: int | None = None) -> Response:
    """Named arrays as npz."""
    return binary(vae, write_npz(arrays), NPZ, seed)


def nested(latents: Floats) -> LatentList:
    """Latents `[N, d]` as JSON has them."""
    values: LatentList = latents.tolist()
    return values


def documented(description: str, *media_types: str, seeded: bool = False) -> dict[int | str, dict[str, Any]]:
    """OpenAPI of a binary answer, each media type by name, with its headers."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    named = {"X-Model": ("The model that answered.", "string"), "X-Version": ("Its version.", "integer")}
    if seeded:
        named["X-Seed"] = ("The seed of the draws.", "integer")
    return {
        200: {
            "description": description,
            "content": content,
            "headers": {name: {"description": text, "schema": {"type": kind}} for name, (text, kind) in named.items()},
        }
    }


PICTURE_TYPES = ("image/png", "image/webp")
