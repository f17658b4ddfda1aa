"""Captions of the card's figures."""

from app.bundle.manifest import Manifest
from training.data.subjects import subject_of


def captions(manifest: Manifest) -> dict[str, str]:
    """The caption of each figure that a bundle can have, in the order of the card."""
    subject = subject_of(manifest.training.dataset)
    stochastic, planar = manifest.stochastic, manifest.latent.shape[0] == 2
    circle = "The dashed circle holds 95 % of N(0, I)."
    plane = "" if planar else " The plane is that of the two dimensions of highest "
    plane += "" if planar else "KL." if stochastic else "variance."
    prior = "the prior N(0, I), unselected," if stochastic else "N(0, I), where nothing in the training put anything,"
    means = "posterior means" if stochastic else "encodings"
    spread = "the aggregated posterior" if stochastic else "where the encodings lie"
    picks = ", and `label=` picks a row of" if "label_means" in manifest.arrays else ""
    return {
        "samples.png": f"Decoded draws from {prior} at three temperatures: the same draws, scaled.",
        "aggregate.png": (
            f"Decoded draws from {spread}, as a mixture fitted to the training images has it: what `source=aggregate` "
            f"samples{picks}."
        ),
        "reconstructions.png": f"Test {subject.many}, and below each what encoder and decoder make of it.",
        "manifold.png": "The latent plane decoded, spaced evenly under the prior.",
        "traversals.png": (
            f"One latent dimension a row, in order of falling KL: the posterior mean of one test {subject.one}, with "
            "that dimension alone moved. The frame is about where it was."
        ),
        "posterior.png": f"Where the encoder puts the test {subject.many}. {circle}{plane}",
        "contrast.png": f"The same beside a plain autoencoder's, each at equal aspect. {circle}",
        "encoding.png": f"The encoding of one {subject.one}; the ellipses are one and two standard deviations.{plane}",
        "interpolation.png": f"Straight lines between the {means} of two test {subject.many}, decoded.",
        "active_units.png": (
            "KL of each latent dimension, and how far its posterior means spread over the test images. One whose "
            "variance is below 0.01 is switched off: it tells the decoder nothing."
        ),
        "rate_distortion.png": (
            "Rate and distortion over the training, an epoch a point. They add up to the negative ELBO, which is the "
            "same along a faint line. The first epochs may lie outside."
        ),
        "training.png": "Loss terms over the epochs; the first ones may lie outside.",
    }
