"""The latents of a request: given as JSON or arrays, or as points that are an image, a latent or a class."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from app.api.forms.bodies import MAX_ITEMS, NOT_NULL, JsonInt, Shape, Vector
from app.api.forms.images import EXAMPLE_IMAGE, Base64Image, ReadingQuery, decode_base64, decode_images
from app.api.routing.queries import ModelQuery, PercentileQuery, Strict, check_count
from app.api.routing.state import State
from app.errors import InvalidInput
from app.maths.gaussian import Floats
from app.vae.points import Points, finite_latents
from app.vae.vae import Vae


class ShapedRequest(Strict):
    """The shape of the latents in a request."""

    latent_shape: Annotated[Shape | None, NOT_NULL] = Field(
        None, description="Shape of each latent; needed if the model's latents are maps [c, h, w] of any size."
    )


class DecodeRequest(ShapedRequest):
    """Latents to decode."""

    latents: list[Vector] = Field(
        min_length=1,
        max_length=MAX_ITEMS,
        fail_fast=True,
        description="Latents, each one flat list; a map in row-major order.",
        examples=[[[0.5, -1.2]]],
    )


class PointsQuery(ModelQuery, ReadingQuery, PercentileQuery):
    """The model of a request, and how the images of points are read."""


class Point(Strict):
    """A point of the latent space: exactly one of an image, a latent and a label."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    image: Annotated[Base64Image | None, NOT_NULL] = Field(None, examples=[EXAMPLE_IMAGE])
    latent: Annotated[Vector | None, NOT_NULL] = Field(
        None, description="A latent of the model's size, as one flat list.", examples=[[0.5, -1.2]]
    )
    label: Annotated[JsonInt | None, NOT_NULL] = Field(None, description="The mean of this class.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Point":
        if sum(place is not None for place in (self.image, self.latent, self.label)) != 1:
            raise ValueError("give exactly one of image, latent and label")
        return self


async def latents_of_json(server: State, vae: Vae, query: Any, body: DecodeRequest) -> Floats:
    """Latents `[N, *latent]` of a JSON body.

    Raises:
        InvalidInput: there are too many latents, or see `check_latents` and `Geometry.shape_asked`.
    """
    check_count(len(body.latents), server.limits.max_rows, "/latents")
    return check_latents(body.latents, vae.geometry.shape_asked(body.latent_shape), vae, "/latents")


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
    server: State, vae: Vae, query: ReadingQuery, body: ShapedRequest, points: Sequence[Point], pointer: str = "/points"
) -> Points:
    """Points of a request: latents as given, class means, and images that are still to be encoded.

    Raises:
        InvalidInput: a point cannot be read, or its size is not that of the first; the pointer says which. Or see
            `Geometry.shape_asked`.
    """
    shape: tuple[int, ...] = ()
    if body.latent_shape or any(point.latent is not None for point in points):
        shape = vae.geometry.shape_asked(body.latent_shape)
    latents: dict[int, Floats] = {}
    image_rows = [index for index, point in enumerate(points) if point.image is not None]
    if len(image_rows) > server.limits.max_rows:
        raise InvalidInput(f"at most {server.limits.max_rows} may be images", pointer)
    for index, point in enumerate(points):
        if point.label is not None:
            latents[index] = vae.tables.label_mean(point.label, f"{pointer}/{index}/label")
        elif point.latent is not None:
            try:
                latents[index] = check_latents([point.latent], shape, vae, "")[0]
            except InvalidInput as error:
                raise InvalidInput(error.detail, f"{pointer}/{index}/latent") from None
    images = None
    if image_rows:
        contents = [point.image for point in points if point.image is not None]
        try:
            files = await decode_base64(vae, contents, "")
            images = await decode_images(vae, files, query.reading(server, vae), "")
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


def check_latents(latents: list[list[float]], shape: tuple[int, ...], vae: Vae, pointer: str) -> Floats:
    """Latents `[N, *shape]`, float32, of flat lists.

    Raises:
        InvalidInput: a latent does not have as many values as the shape, or one that is not finite as float32; the
            pointer says which.
    """
    size = math.prod(shape)
    for index, latent in enumerate(latents):
        if len(latent) != size:
            words = (
                f"this model's latents have {size} values"
                if vae.geometry.size
                else "has another number of values than latent_shape"
            )
            raise InvalidInput(words, f"{pointer}/{index}")
    return finite_latents(np.array(latents, np.float64), pointer).reshape(-1, *shape)
