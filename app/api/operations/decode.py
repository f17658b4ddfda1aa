"""`/decode`: latents to images."""

from typing import Annotated

from pydantic import Field

from app.api.forms.latents import check_latents
from app.api.forms.readers import LATENT_READERS
from app.api.forms.route import in_forms
from app.api.forms.writers import Images, Result
from app.api.routing.operation import Operation
from app.api.routing.queries import ModelQuery, QueryFloat
from app.api.routing.state import State
from app.maths.gaussian import Floats
from app.vae.vae import Vae


class DecodeOneQuery(ModelQuery):
    """One latent to decode."""

    latent: list[QueryFloat] = Field(
        min_length=1, description="The latent; the parameter is repeated for each value.", examples=[[0.5, -1.2]]
    )
    latent_shape: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="Shape of the latent; needed if the model's latents are maps [c, h, w] of any size."
    )


async def _decode(server: State, vae: Vae, query: ModelQuery, latents: Floats) -> Result:
    """The image of each latent: the decoder's mean."""
    return Result({"images": await vae.decode(latents)})


async def _decode_one(server: State, vae: Vae, query: DecodeOneQuery) -> Result:
    """The image of one latent, as a GET request that can be linked."""
    shape = vae.geometry.shape_asked(query.latent_shape, "/query/latent_shape")
    return await _decode(server, vae, query, check_latents([query.latent], shape, vae, "/query/latent"))


_FORMS = {
    "": ("json", "json"),
    "/image": ("json", "grid"),
    "/npy": ("npy", "npy"),
    "/safetensors": ("safetensors", "safetensors"),
}
OPERATIONS = (
    *in_forms(
        Operation(
            path="/decode",
            query=ModelQuery,
            compute=_decode,
            answer=Images,
            min_rows=lambda query: ("decoder", 1),
        ),
        _FORMS,
        LATENT_READERS,
    ),
    *in_forms(
        Operation(
            path="/decode/image",
            operation_id="decode_one_image",
            query=DecodeOneQuery,
            compute=_decode_one,
        ),
        {"": (None, "image")},
    ),
)
