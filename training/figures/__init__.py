"""A bundle's figures: PNG files beside its manifest, drawn through its own graphs.

python -m training figures models/mnist/1
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from training.card import captions, write_card
from training.figures.charts import draw_active_units, draw_rate_distortion, draw_training
from training.figures.images import (
    draw_aggregate,
    draw_interpolation,
    draw_manifold,
    draw_reconstructions,
    draw_samples,
    draw_traversals,
)
from training.figures.planes import draw_contrast, draw_encoding, draw_posterior
from training.figures.plots import STYLE, save
from training.figures.scene import Scene, load_scene

Draw = Callable[[Scene], Figure]


def figures(directory: Path, *, data_dir: Path, models: Path) -> list[Path]:
    """Draw the figures of the bundle in `directory` into it, render its card again, and return the figures' paths.

    If the recipe names an autoencoder for contrast, its newest version in `models` is used. Figures that this kind of
    bundle does not have are removed.

    Raises:
        BundleError: this bundle or the autoencoder's cannot be read, or their latent spaces differ in size.
        DataError: the data set is missing or malformed.
    """
    scene = load_scene(directory, data_dir=data_dir, models=models)
    drawings = choose(scene)
    with mpl.rc_context(STYLE):
        for name, draw in drawings.items():
            save(draw(scene), directory / name)
    for name in captions(scene.manifest).keys() - drawings.keys():
        (directory / name).unlink(missing_ok=True)
    write_card(directory)
    return [directory / name for name in drawings]


def choose(scene: Scene) -> dict[str, Draw]:
    """File name and drawing function of every figure for this kind of bundle."""
    size, stochastic = len(scene.kl), scene.manifest.stochastic
    chosen: dict[str, Draw] = {
        "samples.png": draw_samples,
        "reconstructions.png": draw_reconstructions,
        "interpolation.png": draw_interpolation,
        "training.png": draw_training,
    }
    if scene.mixture is not None:
        chosen["aggregate.png"] = draw_aggregate
    if size > 1:
        chosen["posterior.png"] = draw_posterior
    if not stochastic:
        return chosen
    chosen |= {"active_units.png": draw_active_units, "rate_distortion.png": draw_rate_distortion}
    chosen |= {"manifold.png": draw_manifold} if size == 2 else {"traversals.png": draw_traversals}
    if size > 1:
        chosen["encoding.png"] = draw_encoding
        if scene.contrast is not None and scene.test.labels is not None:
            chosen["contrast.png"] = draw_contrast
    return chosen
