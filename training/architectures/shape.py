"""The sizes of images and latents from which an architecture builds its nets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NetShape:
    """Sizes of the inputs and outputs of encoder and decoder."""

    channels: int
    """Channels of an image: 1 or 3."""
    outputs: int
    """Channels of the decoder's output: the likelihood's parameters."""
    size: int
    """Height and width of an image, in pixels."""
    latent: int
    """Latent dimensions."""
    heads: int
    """Outputs of the encoder: 2, mean and log_std, or 1, the mean alone."""
