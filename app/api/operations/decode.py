"""`/decode`: latents to images."""

from fastapi import APIRouter
from pydantic import Field

from app.api.forms.latents import check_latents
from app.api.forms.route import offer
from app.api.forms.writers import Images, Result
from app.api.routing.operation import Operation
from app.api.routing.queries import ModelQuery, QueryFloat
from app.api.routing.state import State
from app.maths.gaussian import Floats
from app.vae.vae import Vae

router = APIRouter(tags=["decode"], route_class=Operation)


class DecodeOneQuery(ModelQuery):
    """One latent to decode."""

    latent: list[QueryFloat] = Field(min_length=1, description="The latent, one value each.", examples=[[0.5, -1.2]])


async def _decode(server: State, vae: Vae, query: ModelQuery, latents: Floats) -> Result:
    """The image of each latent: the decoder's mean."""
    return Result({"images": await vae.decode(latents)})


async def _decode_one(server: State, vae: Vae, query: DecodeOneQuery) -> Result:
    """The image of one latent, by a link."""
    return await _decode(server, vae, query, check_latents([query.latent], vae, 1, "/query/latent"))


FORMS = {
    "": ("json", "json"),
    "/image": ("json", "grid"),
    "/npy": ("npy", "npy"),
    "/safetensors": ("safetensors", "safetensors"),
}
offer(
    router,
    "/decode",
    _decode,
    query=ModelQuery,
    reads="latents",
    answer=Images,
    forms=FORMS,
    least=lambda query: ("decoder", 1),
)
offer(
    router,
    "/decode/image",
    _decode_one,
    query=DecodeOneQuery,
    forms={"": (None, "picture")},
    operation_id="decode_one_image",
)
