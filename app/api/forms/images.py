"""The images of a request, from image files or arrays to uint8 `[N, H, W, C]` as the model takes them."""

from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

from app.api.forms.bodies import MAX_ITEMS
from app.api.routing.queries import Strict, check_count
from app.api.routing.state import State
from app.codecs.base64 import read_base64
from app.codecs.images import Pixels, Reading, decode_all, parse_color, read_plain_pngs, stack, survey
from app.errors import InvalidInput
from app.inference.offload import INLINE_ELEMENTS
from app.vae.vae import Vae

# An 8 x 8 gray PNG of the digit 0; any size is resized to the model's.
EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAIklEQVR42mNggAJG"
    "Bob/EIrh/38Ghv//GZhgUpgMJMVQAAARsgYFwKk0sQAAAABJRU5ErkJggg=="
)

Base64Image = Annotated[str, Field(min_length=1, description="Base64 of a PNG, JPEG, WebP or still GIF.")]


class PicturesRequest(Strict):  # the name of its schema, which clients are generated from
    """Images."""

    images: list[Base64Image] = Field(
        min_length=1,
        max_length=MAX_ITEMS,
        fail_fast=True,
        description="Images; each may carry a `data:` prefix, line breaks, no padding, and the URL-safe alphabet.",
        examples=[[EXAMPLE_IMAGE]],
    )


_INLINE_BYTES, _INLINE_FILE_BYTES = 2**16, 2**13
"""Maximum bytes of base64 that are decoded, and of files that are surveyed, on the event loop: a few milliseconds."""
_SECONDS_PER_CHARACTER, _SECONDS_PER_BYTE, _IMAGE_SECONDS = 1e-8, 1e-8, 1e-4
"""Estimates: for base64, for the structure of files, and for each image beside its pixels."""
_PLAIN_SECONDS, _SECONDS_PER_PLAIN_PIXEL = 1e-5, 5e-9
"""Estimates for plain images: for each, and for each of its pixels."""
_PIECE_SECONDS = 0.02
"""Estimated seconds of images that are decoded in one turn."""

_reading = lru_cache(256)(Reading)  # a request takes one of a few


Fit = TypeAliasType("Fit", Literal["stretch", "crop"])


def _check_color(text: str) -> str:
    try:
        parse_color(text)
    except InvalidInput as error:
        raise ValueError(error.detail) from None
    return text


class ReadingQuery(Strict):
    """How image files are converted to the model's images."""

    background: Annotated[str, AfterValidator(_check_color)] | None = Field(
        None,
        max_length=40,
        description="Color under transparent pixels: a CSS name, #rgb or #rrggbb. The model's `image.background` if"
        " absent, which is black for most models.",
    )
    invert: bool = Field(
        False, description="Invert the image, such as black on white for a model that was trained on white on black."
    )
    fit: Fit = Field(
        "stretch",
        description="How an image of another shape is fitted: `stretch` keeps all of it, `crop` keeps its middle."
        " Models of any size round both sides down to a multiple of their stride.",
    )
    strict: bool = Field(
        False, description="Refuse an image without the model's size and mode, instead of converting it."
    )

    def reading(self, server: State, vae: Vae) -> Reading:
        """The conversion to the images of `vae`."""
        height, width = vae.geometry.size or (None, None)
        return _reading(
            height=height,
            width=width,
            multiple=vae.geometry.stride,
            mode=vae.manifest.image.mode,
            max_pixels=server.limits.max_pixels,
            background=parse_color(self.background or vae.manifest.image.background),
            invert=self.invert,
            crop=self.fit == "crop",
            strict=self.strict,
            resampling=vae.manifest.image.resampling,
        )


async def images_of_json(server: State, vae: Vae, query: ReadingQuery, body: PicturesRequest) -> Pixels:
    """Images uint8 `[N, H, W, C]` of a JSON body with base64 image files.

    Raises:
        InvalidInput: there are too many images, or one cannot be read; the pointer says which.
    """
    check_count(len(body.images), server.limits.max_rows, "/images")
    contents = await decode_base64(vae, body.images)
    body.images.clear()  # the texts, which may take tens of megabytes, are no longer needed
    return await images_of_files(server, vae, query, contents)


async def images_of_files(server: State, vae: Vae, query: ReadingQuery, contents: list[bytes]) -> Pixels:
    """Images uint8 `[N, H, W, C]` of image files.

    Raises:
        InvalidInput: an image cannot be read; the pointer says which.
    """
    return await decode_images(vae, contents, query.reading(server, vae))


async def images_of_array(server: State, vae: Vae, query: Any, array: NDArray[Any]) -> Pixels:
    """Images uint8 `[N, H, W, C]` of an array `[N, H, W]` or `[N, H, W, C]`, uint8 or float in [0, 1].

    Raises:
        InvalidInput: the shape is not the model's, there are too many rows, or a float is not in [0, 1].
    """
    if array.ndim == 3:
        array = array[..., None]
    vae.geometry.check_images(array.shape)
    check_count(len(array), server.limits.max_rows, "")
    return pixels_of_values(array)


def pixels_of_values(array: NDArray[Any]) -> Pixels:
    """Pixels as uint8 of an array of uint8, or of floats in [0, 1].

    Raises:
        InvalidInput: a float is not in [0, 1].
    """
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    floats = array.astype(np.float64)
    if not (np.isfinite(floats).all() and floats.min() >= 0 and floats.max() <= 1):
        raise InvalidInput("a float array must lie in [0, 1]")
    return np.round(floats * 255).astype(np.uint8)


async def decode_base64(vae: Vae, texts: list[str], pointer: str = "/images") -> list[bytes]:
    """Bytes of base64 texts, each of which may be a `data:` URL; long texts are decoded in a thread.

    Raises:
        InvalidInput: a text is not base64; the pointer says which.
    """
    size = sum(map(len, texts))
    if size <= _INLINE_BYTES:
        return _decode_base64(texts, pointer)
    seconds = size * _SECONDS_PER_CHARACTER
    return await vae.offloaded(seconds, partial(_decode_base64, texts, pointer))


def _decode_base64(texts: list[str], pointer: str) -> list[bytes]:
    contents = []
    for index, text in enumerate(texts):
        try:
            contents.append(read_base64(text))
        except InvalidInput as error:
            raise error.below(f"{pointer}/{index}") from None
    return contents


async def decode_images(vae: Vae, contents: list[bytes], reading: Reading, pointer: str = "/images") -> Pixels:
    """Images uint8 `[N, H, W, C]` of image files.

    A few plain images are decoded on the event loop, others in threads: a few bytes can hold millions of pixels.

    Raises:
        InvalidInput: an image cannot be read; the pointer says which.
        Overloaded: the images would wait too long for a thread.
    """
    images, pixels = None, len(contents) * (reading.height or 0) * (reading.width or 0)
    if pixels <= INLINE_ELEMENTS:
        images = read_plain_pngs(contents, reading)
    else:
        seconds = len(contents) * _PLAIN_SECONDS + pixels * _SECONDS_PER_PLAIN_PIXEL
        images = await vae.offloaded(seconds, partial(read_plain_pngs, contents, reading))
    if images is not None:
        return images
    try:
        return await _decoded(vae, contents, reading)
    except InvalidInput as error:
        raise error.below(pointer) from None


async def _decoded(vae: Vae, contents: list[bytes], reading: Reading) -> Pixels:
    """Images decoded in threads, a piece at a time, so that nobody waits long for a turn."""
    if (size := sum(map(len, contents))) <= _INLINE_FILE_BYTES:
        structures = survey(contents, reading)
    else:
        structures = await vae.offloaded(size * _SECONDS_PER_BYTE, partial(survey, contents, reading))
    images: list[Pixels] = []
    while len(images) < len(structures):
        first = stop = len(images)
        seconds = 0.0
        while stop < len(structures) and seconds < _PIECE_SECONDS:
            seconds += structures[stop].seconds + _IMAGE_SECONDS
            stop += 1
        piece = structures[first:stop]
        memory, decode = max(structure.memory for structure in piece), partial(decode_all, piece, reading, first)
        images += await vae.offloaded(seconds, decode, memory=memory, is_first=not first)
    return await vae.computed(sum(image.size for image in images), stack, images)
