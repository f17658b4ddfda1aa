"""The latents of a request: given as JSON or arrays, or as points that are an image, a latent or a class."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from app.api.forms.bodies import NOT_NULL, JsonInt, Latents, OneLatent
from app.api.forms.images import EXAMPLE_IMAGE, Base64Image, ReadingQuery, decode_base64, decode_images
from app.api.routing.queries import ModelQuery, PercentileQuery, Strict, check_count
from app.api.routing.state import State
from app.errors import InvalidInput
from app.maths.gaussian import Floats
from app.vae.points import Points, finite_latents
from app.vae.vae import Vae


class DecodeRequest(Strict):
    """Latents to decode."""

    latents: Latents = Field(description="Latents of the model's shape.")


class PointsQuery(ModelQuery, ReadingQuery, PercentileQuery):
    """The model of a request, and how the images of points are read."""


class Point(Strict):
    """A point of the latent space: exactly one of an image, a latent and a label."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    image: Annotated[Base64Image | None, NOT_NULL] = Field(None, examples=[EXAMPLE_IMAGE])
    latent: Annotated[OneLatent | None, NOT_NULL] = Field(None, description="A latent of the model's size.")
    label: Annotated[JsonInt | None, NOT_NULL] = Field(None, description="The mean of this class.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Point":
        if sum(place is not None for place in (self.image, self.latent, self.label)) != 1:
            raise ValueError("give exactly one of image, latent and label")
        return self


async def latents_of_json(server: State, vae: Vae, query: Any, body: DecodeRequest) -> Floats:
    """Latents `[N, *latent]` of a JSON body.

    Raises:
        InvalidInput: see `check_latents`.
    """
    return check_latents(body.latents, vae, server.limits.max_rows)


async def latents_of_array(server: State, vae: Vae, query: Any, array: NDArray[Any]) -> Floats:
    """Latents `[N, *latent]`, float32, of an array.

    Raises:
        InvalidInput: the values are not floats, the shape is not the model's, there are too many latents, or a value is
            not finite as float32.
    """
    if array.dtype.kind != "f":
        raise InvalidInput("latents must be floats")
    vae.geometry.check_latents(array.shape)
    check_count(len(array), server.limits.max_rows, "")
    return finite_latents(array)


async def read_points(
    server: State, vae: Vae, query: ReadingQuery, points: Sequence[Point], pointer: str = "/points"
) -> Points:
    """Points of a request: latents as given, class means, and images that are still to be encoded.

    Raises:
        InvalidInput: a point cannot be read, or its size is not that of the first; the pointer says which.
    """
    latents: dict[int, Floats] = {}
    image_rows = [index for index, point in enumerate(points) if point.image is not None]
    if len(image_rows) > server.limits.max_rows:
        raise InvalidInput(f"at most {server.limits.max_rows} may be images", pointer)
    for index, point in enumerate(points):
        if point.label is not None:
            latents[index] = vae.tables.label_mean(point.label, f"{pointer}/{index}/label")
        elif point.latent is not None:
            try:
                latents[index] = check_latents([point.latent], vae, 1, "")[0]
            except InvalidInput as error:
                raise InvalidInput(error.detail, f"{pointer}/{index}/latent") from None
    images = None
    if image_rows:
        contents = [point.image for point in points if point.image is not None]
        try:
            files = await decode_base64(server, vae, contents, "")
            images = await decode_images(server, vae, files, query.reading(server, vae), "")
        except InvalidInput as error:
            index = image_rows[int(error.pointer.removeprefix("/"))]
            raise InvalidInput(error.detail, f"{pointer}/{index}/image") from None
        latents |= dict.fromkeys(image_rows, np.zeros(vae.geometry.latent_of(*images.shape[1:3]), np.float32))
    for index in range(1, len(points)):
        if latents[index].shape != latents[0].shape:
            raise InvalidInput(
                "has another size than the first: all points must have the same size", f"{pointer}/{index}"
            )
    all_latents = all(point.latent is not None for point in points)
    return Points(np.stack([latents[index] for index in range(len(points))]), images, image_rows, all_latents, pointer)


def check_latents(latents: list[Any], vae: Vae, limit: int, pointer: str = "/latents") -> Floats:
    """Latents `[N, *latent]`, float32, of nested lists: vectors or maps.

    Raises:
        InvalidInput: there are too many latents, or one does not have the model's shape, has another shape than the
            first, or is not finite as float32; the pointer says which.
    """
    check_count(len(latents), limit, pointer)
    first, words = _shape(latents[0]), vae.geometry.latent_words
    for index, shape in enumerate(map(_shape, latents)):
        if not vae.geometry.is_latent(shape):
            kind = f"have {words} values" if vae.geometry.is_vector else f"are [{words}]"
            raise InvalidInput(f"this model's latents {kind}", f"{pointer}/{index}")
        if shape != first:
            raise InvalidInput("has another size than the first", f"{pointer}/{index}")
    return finite_latents(np.array(latents, np.float64), pointer)


def _shape(latent: list[Any]) -> tuple[int, ...]:
    """Shape of a vector or a map; empty if its rows are not all of the same length."""
    if not isinstance(latent[0], list):
        return (len(latent),)
    heights, widths = {len(plane) for plane in latent}, {len(row) for plane in latent for row in plane}
    return (len(latent), *heights, *widths) if len(heights) == len(widths) == 1 else ()
