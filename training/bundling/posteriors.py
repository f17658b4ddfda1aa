"""A bundle's arrays of held-out images' posteriors, as the server's `/encode` computes them.

    python -m training posteriors models/mnist/1

- `held_out_means` `[M, d]`: the posterior means of M images of the test split, not binarized. They are evenly
  spaced, because the split may be sorted: the first half of MNIST's is more legible.
- `held_out_labels` `[M]`: their classes, if the data set has classes.
- `mean_norm_quantiles` and its companions: see `training.bundling.calibration`.
- `directions` `[d, d]`: the principal axes of the means, in order of decreasing variance. The length of each is one
  standard deviation of the means along it.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from app.bundle import files as bundle
from app.bundle.manifest import Array
from app.maths.gaussian import Floats
from training.atomic import whole
from training.bundling.calibration import latent_quantiles
from training.data import Split, load_dataset, read_options
from training.offline import OfflineGraphs

MAX_MEANS = 5000
"""Maximum M: enough for a dense scatter plot, and small beside the graphs."""


def posteriors(directory: Path, *, data_dir: Path) -> dict[str, Array]:
    """Write the arrays into the bundle in `directory`, atomically, and return their entries in the manifest.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the data set is missing or malformed.
    """
    read = bundle.read_bundle(directory)
    test = load_dataset(read_options(directory), data_dir).test
    with whole(directory, copy=directory) as partial:
        written = write_posteriors(partial, OfflineGraphs(read), test)
        bundle.write_manifest(partial, read.manifest.model_copy(update={"arrays": read.manifest.arrays | written}))
    return written


def write_posteriors(directory: Path, graphs: OfflineGraphs, split: Split) -> dict[str, Array]:
    """Write the arrays into `directory`, and return their entries for the manifest."""
    means = graphs.encode(split.images).mean
    some = slice(None, None, math.ceil(len(means) / MAX_MEANS))
    arrays: dict[str, NDArray[Any]] = {"held_out_means": means[some], "directions": directions(means)}
    arrays |= latent_quantiles(means)
    if split.labels is not None:
        arrays["held_out_labels"] = split.labels[some].astype(np.int64)
    return {name: bundle.write_array(directory, name, array) for name, array in arrays.items()}


def directions(means: Floats) -> Floats:
    """The principal axes `[K, d]` of posterior means `[M, d]`, K = min(M, d), each one standard deviation long."""
    fitted = PCA(svd_solver="full").fit(means.astype(np.float64))
    axes: Floats = (fitted.components_ * np.sqrt(fitted.explained_variance_)[:, None]).astype(np.float32)
    return axes
