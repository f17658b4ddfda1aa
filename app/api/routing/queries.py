"""What the operations share: query parameters and request bodies."""

import logging
import secrets
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Tag
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from typing_extensions import TypeAliasType

from app.api.routing.state import Server
from app.codecs.npy import NPY
from app.codecs.safetensors import SAFETENSORS
from app.errors import BadRequest, InvalidInput

LARGEST_SEED = 2**31 - 1


def _not_bool_or_str(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("Input should be a valid integer")
    return value


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("leave it out instead of null")
    return value


NOT_NULL = BeforeValidator(_not_null)  # a member that need not be there is documented without null

# Strict integers would refuse 1.0, which JSON Schema allows; lax ones would take false and "1".
JSON_INT = BeforeValidator(_not_bool_or_str)  # behind the bounds, which would be documented wrongly otherwise
JsonInt = Annotated[int, Field(ge=0), JSON_INT]
JsonFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
QueryFloat = Annotated[float, Field(allow_inf_nan=False)]

MOST = 2**16
"""Items of any list in JSON, whatever the limits are set to: more are refused before they are looked at."""

_Row = Annotated[list[JsonFloat], Field(min_length=1, max_length=MOST, fail_fast=True)]
_Plane = Annotated[list[_Row], Field(min_length=1, max_length=MOST, fail_fast=True)]
Vector = _Row
Map = Annotated[list[_Plane], Field(min_length=1, max_length=MOST, fail_fast=True)]
VECTOR, MAP = Tag("vector"), Tag("map")
BRANCHES = frozenset({VECTOR.tag, MAP.tag})
"""What a union's branches are called in the place of an error, which clients do not see."""
OneLatent = TypeAliasType(
    "OneLatent",
    Annotated[
        Annotated[Vector, VECTOR] | Annotated[Map, MAP],
        Field(union_mode="left_to_right", description="A vector, or a map [c, h, w].", examples=[[0.5, -1.2]]),
    ],
)
"""One of a request. A vector is tried first and costs no more than if there were no maps."""
Latents = TypeAliasType(
    "Latents",
    Annotated[
        Annotated[list[Vector], Field(min_length=1, max_length=MOST, fail_fast=True), VECTOR]
        | Annotated[list[Map], Field(min_length=1, max_length=MOST, fail_fast=True), MAP],
        Field(
            union_mode="left_to_right",
            description="Vectors, or maps [c, h, w], all of one shape.",
            examples=[[[0.5, -1.2]]],
        ),
    ],
)
"""Those of a request, all vectors or all maps."""


class Strict(BaseModel):
    """A JSON body or a set of query parameters: what it does not name is refused."""

    model_config = ConfigDict(extra="forbid")


class ModelQuery(Strict):
    """Which model answers."""

    model: str | None = Field(None, description="A model's name; the default model if absent.", examples=["mnist-2d"])
    version: int | None = Field(None, ge=1, description="A version of it; the newest if absent.")


class PercentileQuery(BaseModel):
    """Whether to say where latents lie."""

    percentile: bool = Field(
        False, description="Also answer each latent's `latent_percentile`, 0 to 100: low is near the origin."
    )


class SeedQuery(ModelQuery):
    """Which model answers, and the seed of its draws."""

    seed: Seed | None = Field(
        None,
        description="The same seed gives the same bytes; without one the server picks one and answers it.",
    )

    def seed_or_new(self) -> int:
        return secrets.randbelow(LARGEST_SEED + 1) if self.seed is None else self.seed


def binary_body(media_type: str, description: str) -> dict[str, Any]:
    """OpenAPI of a required binary request body."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "description": description, "content": content}}


NPY_IMAGES = binary_body(NPY, "uint8, or float in [0, 1]; [N, H, W] or [N, H, W, C] of the model's size.")
NPY_LATENTS = binary_body(NPY, "float32 [N, *latent].")
SAFETENSORS_IMAGES = binary_body(SAFETENSORS, "A tensor `images` as npy has it; others are not looked at.")
SAFETENSORS_LATENTS = binary_body(SAFETENSORS, "A tensor `latents`, floats [N, *latent]; others are not looked at.")

IMAGE_FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "title": "FilesRequest",
                    "description": "Pictures, as uploaded files.",
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",  # bounds of its length would not compile in Go
                            "items": {"type": "string", "format": "binary"},
                            "description": "PNG, JPEG, WebP or still GIF files; the field is repeated for each.",
                        }
                    },
                }
            }
        },
    }
}

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it would log what is wrong with a form: the answer says


class _Form(MultiPartParser):
    """A form of at most `most` parts, which must end as it should: one that is cut off would lose its last part without
    a word. Its files stay in memory, as the body is bounded."""

    def __init__(self, request: Request, most: int, max_bytes: int) -> None:
        super().__init__(request.headers, self._whole(request.stream()), max_files=most, max_fields=most)
        self.spool_max_size = max_bytes
        self._has_ended = False

    def on_end(self) -> None:
        self._has_ended = True

    async def _whole(self, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async for chunk in stream:
            yield chunk
        if not self._has_ended:
            raise MultiPartException("cut off")


async def image_files(request: Request, server: Server) -> list[bytes]:
    """The contents of the repeated form field `images`."""
    limit = server.limits.max_rows
    try:
        form = await _Form(request, limit, server.limits.max_body_bytes).parse()
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


async def raw_body(request: Request, _: Server) -> bytes:
    """The whole body."""
    return await request.body()


RawBody = Annotated[bytes, Depends(raw_body)]


def check_count(count: int, limit: int, pointer: str) -> None:
    """Refuse none and too many."""
    if not 1 <= count <= limit:
        raise InvalidInput(f"1 to {limit} are allowed", pointer)
