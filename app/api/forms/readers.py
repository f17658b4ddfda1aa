"""Readers of request bodies: one table for images and one for latents, with one row per format."""

from functools import partial
from typing import Any

from app.api.forms.bodies import BytesBody, FilesBody, JsonBody
from app.api.forms.images import (
    PicturesRequest,
    ReadingQuery,
    images_of_array,
    images_of_files,
    images_of_json,
)
from app.api.forms.latents import DecodeRequest, latents_of_array, latents_of_json
from app.api.routing.operation import Reader
from app.api.routing.state import State
from app.codecs.images import Pixels
from app.codecs.npy import NPY, read_npy
from app.codecs.safetensors import SAFETENSORS, read_safetensors
from app.errors import InvalidInput
from app.vae.vae import Vae

_NPY_IMAGES = BytesBody(NPY, "uint8, or float in [0, 1]; [N, H, W] or [N, H, W, C] of the model's size.", read_npy)
_NPY_LATENTS = BytesBody(NPY, "float32 [N, *latent].", read_npy)
_TENSORS_OF_IMAGES = BytesBody(
    SAFETENSORS,
    "A tensor `images`, as for npy; other tensors are ignored.",
    partial(read_safetensors, name="images"),
)
_TENSORS_OF_LATENTS = BytesBody(
    SAFETENSORS,
    "A tensor `latents`, floats [N, *latent]; other tensors are ignored.",
    partial(read_safetensors, name="latents"),
)

IMAGE_READERS = {
    "json": Reader(JsonBody(PicturesRequest), images_of_json, ReadingQuery),
    "files": Reader(FilesBody(), images_of_files, ReadingQuery, "of uploaded files"),
    "npy": Reader(_NPY_IMAGES, images_of_array, None, "of an npy array of the model's size"),
    "safetensors": Reader(_TENSORS_OF_IMAGES, images_of_array, None, "of a safetensors file"),
}
"""Readers of images, as uint8 `[N, H, W, C]`, by the form of the body."""

LATENT_READERS = {
    "json": Reader(JsonBody(DecodeRequest), latents_of_json),
    "npy": Reader(_NPY_LATENTS, latents_of_array, None, "of an npy array"),
    "safetensors": Reader(_TENSORS_OF_LATENTS, latents_of_array, None, "of a safetensors file"),
}
"""Readers of latents, as float32 `[N, *latent]`, by the form of the body."""


async def _one_image(server: State, vae: Vae, query: Any, body: PicturesRequest) -> Pixels:
    if len(body.images) != 1:
        raise InvalidInput("exactly one image", "/images")
    return await images_of_json(server, vae, query, body)


ONE_IMAGE_READERS = {"json": Reader(JsonBody(PicturesRequest), _one_image, ReadingQuery)}
"""Reader of JSON with exactly one image."""
