"""What the operations share: query parameters and request bodies."""

import binascii
import secrets
from base64 import b64decode
from functools import lru_cache
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.api.state import Limits, Server, State
from app.arrays import NPY
from app.errors import BadRequest, InvalidInput
from app.images import PictureFormat, Pixels, Reading, parse_color, read_images, read_plain_pngs
from app.vae import Vae

LARGEST_SEED = 2**31 - 1

_INLINE_PIXELS = 16_384
"""Plain pictures of so many pixels are read in less time than the hop to a thread and back takes under load."""


def _not_bool_or_str(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("Input should be a valid integer")
    return value


# Strict integers would refuse 1.0, which JSON Schema allows; lax ones would take false and "1".
JsonInt = Annotated[int, Field(ge=0), BeforeValidator(_not_bool_or_str)]
JsonFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]
QueryFloat = Annotated[float, Field(allow_inf_nan=False)]

Latent = Annotated[list[JsonFloat], Field(min_length=1, fail_fast=True, examples=[[0.5, -1.2]])]


class Strict(BaseModel):
    """A JSON body or a set of query parameters: what it does not name is refused."""

    model_config = ConfigDict(extra="forbid")


class ModelQuery(Strict):
    """Which model answers."""

    model: str | None = Field(None, description="A model's name; the default model if absent.", examples=["mnist"])
    version: int | None = Field(None, ge=1, description="A version of it; the newest if absent.")


class SeedQuery(ModelQuery):
    """Which model answers, and the seed of its draws."""

    seed: int | None = Field(
        None,
        ge=0,
        le=LARGEST_SEED,
        description="The same seed gives the same bytes; without one the server picks one and answers it.",
    )

    def seed_or_new(self) -> int:
        return secrets.randbelow(LARGEST_SEED + 1) if self.seed is None else self.seed


class ReadingQuery(BaseModel):
    """How pictures are read into a model's images."""

    background: Annotated[str, AfterValidator(lambda text: _color(text) and text)] = Field(
        "black", max_length=40, description="Colour under transparent pixels: a CSS name, #rgb or #rrggbb."
    )
    invert: bool = Field(False, description="For black on white, where the model learnt white on black.")
    strict: bool = Field(False, description="Refuse another size or mode than the model's instead of converting.")

    def reading(self, vae: Vae, limits: Limits) -> Reading:
        """For the images of `vae`."""
        return _reading(vae, limits.max_pixels, self.background, self.invert, self.strict)


@lru_cache(256)
def _reading(vae: Vae, max_pixels: int, background: str, invert: bool, strict: bool) -> Reading:
    height, width, _ = vae.image_shape
    return Reading(
        height=height,
        width=width,
        mode=vae.manifest.image.mode,
        max_pixels=max_pixels,
        background=parse_color(background),
        invert=invert,
        strict=strict,
    )


def _color(text: str) -> tuple[int, int, int]:
    try:
        return parse_color(text)
    except InvalidInput as error:
        raise ValueError(error.detail) from None


class PictureQuery(BaseModel):
    """How several pictures become one."""

    format: PictureFormat = Field("png", description="The picture's format.")
    columns: int | None = Field(None, ge=1, description="Columns of the grid; ceil(sqrt(N)) if absent.")


def binary_body(media_type: str, description: str) -> dict[str, Any]:
    """OpenAPI of a required binary request body."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "description": description, "content": content}}


NPY_IMAGES = binary_body(NPY, "uint8, or float in [0, 1]; [N, H, W] or [N, H, W, C] of the model's size.")
NPY_LATENTS = binary_body(NPY, "float32 [N, *latent].")

IMAGE_FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "PNG, JPEG, WebP or still GIF files; the field is repeated for each.",
                        }
                    },
                }
            }
        },
    }
}


async def image_files(request: Request, server: Server) -> list[bytes]:
    """The contents of the repeated form field `images`."""
    limit = server.limits.max_rows
    try:
        form = await MultiPartParser(request.headers, request.stream(), max_files=limit, max_fields=limit).parse()
    except (MultiPartException, KeyError, UnicodeError) as error:
        if "Too many" in str(getattr(error, "message", "")):
            raise InvalidInput(f"1 to {limit} are allowed", "/images") from None
        raise BadRequest("the body is not multipart/form-data") from None
    try:
        unknown = set(form) - {"images"}
        files = form.getlist("images")
        if unknown or not all(isinstance(file, UploadFile) for file in files):
            raise InvalidInput("the form takes files in the field `images`, and nothing else", "/images")
        check_count(len(files), limit, "/images")
        return [await file.read() for file in files if isinstance(file, UploadFile)]
    finally:
        await form.close()


ImageFiles = Annotated[list[bytes], Depends(image_files)]


async def raw_body(request: Request) -> bytes:
    """The whole body."""
    return await request.body()


RawBody = Annotated[bytes, Depends(raw_body)]


def check_count(count: int, limit: int, pointer: str) -> None:
    """Refuse none and too many."""
    if not 1 <= count <= limit:
        raise InvalidInput(f"1 to {limit} are allowed", pointer)


def decode_base64(texts: list[str], pointer: str = "/images") -> list[bytes]:
    """Bytes of base64 texts, each perhaps a `data:` URL."""
    contents = []
    for index, text in enumerate(texts):
        if text.startswith("data:"):
            text = text.partition(",")[2]
        try:
            contents.append(b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidInput("not base64", f"{pointer}/{index}") from None
    return contents


async def decode_pictures(server: State, contents: list[bytes], reading: Reading, pointer: str = "/images") -> Pixels:
    """Pixels `[N, H, W, C]` of pictures: at once where they are few and plain, else off the event loop, because a few
    bytes can hold millions of pixels."""
    pixels = len(contents) * reading.height * reading.width
    if pixels <= _INLINE_PIXELS and (images := read_plain_pngs(contents, reading)) is not None:
        return images
    try:
        return await anyio.to_thread.run_sync(read_images, contents, reading, limiter=server.decoding)
    except InvalidInput as error:
        raise error.below(pointer) from None
