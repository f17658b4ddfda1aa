"""How operations read their input: one table, a row for each form that a request's body may have."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from app.api.forms.latents import DecodeRequest, latents_of_array, latents_of_json, latents_of_tensors
from app.api.forms.pictures import (
    PicturesRequest,
    ReadingQuery,
    images_of_array,
    images_of_files,
    images_of_json,
    images_of_tensors,
)
from app.api.routing.queries import (
    IMAGE_FILES,
    NPY_IMAGES,
    NPY_LATENTS,
    SAFETENSORS_IMAGES,
    SAFETENSORS_LATENTS,
    ImageFiles,
    RawBody,
)
from app.api.routing.state import State
from app.codecs.images import Pixels
from app.errors import InvalidInput
from app.vae.vae import Vae

Read = Callable[[State, Vae, Any, Any], Awaitable[Any]]
"""From the server, the model that is asked, the query and the body to the operation's input."""


@dataclass(frozen=True)
class Reader:
    """One form of a request's body."""

    body: Any
    """Annotation of the endpoint's parameter: a pydantic model of JSON, or what FastAPI's `Depends` reads."""
    read: Read
    query: type[BaseModel] | None = None
    """Query parameters that it takes beside the operation's own."""
    words: str = ""
    """Completes `As encode, ...` in the documentation."""
    openapi: dict[str, Any] | None = None
    """What the documentation has to be told of the body, where it is not JSON."""


READERS: dict[str, dict[str, Reader]] = {
    "images": {
        "json": Reader(PicturesRequest, images_of_json, ReadingQuery),
        "files": Reader(ImageFiles, images_of_files, ReadingQuery, "of uploaded files", IMAGE_FILES),
        "npy": Reader(RawBody, images_of_array, None, "of an npy array of the model's size", NPY_IMAGES),
        "safetensors": Reader(RawBody, images_of_tensors, None, "of a safetensors file", SAFETENSORS_IMAGES),
    },
    "latents": {
        "json": Reader(DecodeRequest, latents_of_json),
        "npy": Reader(RawBody, latents_of_array, None, "of an npy array", NPY_LATENTS),
        "safetensors": Reader(RawBody, latents_of_tensors, None, "of a safetensors file", SAFETENSORS_LATENTS),
    },
}
"""What an operation takes, then the form that it comes in."""


async def _one_image(server: State, vae: Vae, query: Any, body: PicturesRequest) -> Pixels:
    if len(body.images) != 1:
        raise InvalidInput("exactly one picture", "/images")
    return await images_of_json(server, vae, query, body)


ONE_IMAGE = Reader(PicturesRequest, _one_image, ReadingQuery)
"""JSON with exactly one picture."""


def json_of(model: type[BaseModel]) -> Reader:
    """A reader of JSON that the operation itself makes sense of."""

    async def as_it_is(server: State, vae: Vae, query: Any, body: BaseModel) -> BaseModel:
        return body

    return Reader(model, as_it_is)
