"""The table of architectures. Each file holds an encoder, a decoder and their options, and imports none of the others.

Every encoder maps images `[N, C, H, W]`, float in [0, 1], to a tuple of heads `[N, latent]`: `(mean, log_std)`, or
`(mean,)` without a posterior. Every decoder maps latents `[N, latent]` to what its likelihood asks for,
`[N, outputs, H, W]`: for binary pixels their logits.
"""

from typing import Annotated

from pydantic import Field
from torch import nn

from training.architectures import article, mlp, residual

ArchitectureOptions = Annotated[article.Options | mlp.Options | residual.Options, Field(discriminator="name")]


def build(
    options: ArchitectureOptions, *, channels: int, outputs: int, size: int, latent: int, heads: int
) -> tuple[nn.Module, nn.Module]:
    """Make the encoder and the decoder of `channels` x `size` x `size` images, freshly initialised."""
    module = {"article": article, "mlp": mlp, "residual": residual}[options.name]
    encoder: nn.Module = module.Encoder(options, channels=channels, size=size, latent=latent, heads=heads)
    decoder: nn.Module = module.Decoder(options, outputs=outputs, size=size, latent=latent)
    return encoder, decoder
