"""The table of architectures: one self-contained file each, with its options, its size checks and its nets.

Every encoder maps images `[N, C, H, W]`, float in [0, 1], to a tuple of heads `[N, latent]`: `(mean, log_std)`, or
`(mean,)` without a posterior. Every decoder maps latents `[N, latent]` to the likelihood's parameters
`[N, outputs, H, W]`: for binary pixels their logits.
"""

from typing import Annotated

from pydantic import Field

from training.architectures.article import ArticleOptions
from training.architectures.mlp import MlpOptions
from training.architectures.residual import ResidualOptions

ArchitectureOptions = Annotated[ArticleOptions | MlpOptions | ResidualOptions, Field(discriminator="name")]
"""The table. To add an architecture, add one file beside these, and its options here."""
