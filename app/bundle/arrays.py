"""The arrays of a bundle: class means, aggregated posterior, quantiles, held-out posteriors, directions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.bundle.files import Bundle
from app.bundle.manifest import MANIFEST
from app.errors import BundleError, InvalidInput
from app.maths.bounds import calibration_of
from app.maths.gaussian import Floats, Mixture, Quantiles

_LABELS = ("int64", "uint8")
_TYPES = {"score_k": ("int64",), "aggregate_labels": _LABELS, "held_out_labels": _LABELS}
"""Data types of arrays that are not float32."""
_OF_VECTORS = {"label_means", "held_out_means", "held_out_labels", "directions"} | {
    f"aggregate_{name}" for name in ("weights", "means", "cholesky", "labels")
}
"""Arrays that exist only for vector latents."""


@dataclass(frozen=True)
class Tables:
    """The arrays of one bundle; None for each array that it does not have."""

    label_means: Floats | None
    """`[L, d]`: average of the posterior means of the training images of each class."""
    mixture: Mixture | None
    calibration: dict[int, Quantiles]
    """Quantiles of the IWAE-k bound of held-out images, by k; empty if there are none."""
    prior_norms: Quantiles | None
    """Quantiles of |z|^2 for draws from the prior: chi-square with d degrees of freedom."""
    mean_norms: Quantiles | None
    """Quantiles of |mean|^2 for posteriors of held-out images."""
    held_out_means: Floats | None
    """`[M, d]`: posterior means of images that were not used for training, without binarization."""
    held_out_labels: NDArray[np.int64] | None
    """`[M]`: classes of those images."""
    directions: Floats | None
    """`[K, d]`: principal axes of the latents; the length of each is the standard deviation along it."""

    @classmethod
    def of(cls, bundle: Bundle) -> "Tables":
        """Check and return the arrays of a bundle. If its latents are maps, it must not have arrays of vectors.

        Raises:
            BundleError: an array has a shape that does not fit the other arrays or the latents, an unexpected data
                type, or NaN.
        """
        _check(bundle)
        arrays = bundle.arrays
        return cls(
            label_means=arrays.get("label_means"),
            mixture=Mixture.of(arrays),
            calibration=calibration_of(arrays),
            prior_norms=Quantiles.of(arrays, "prior_norm_quantiles"),
            mean_norms=Quantiles.of(arrays, "mean_norm_quantiles"),
            held_out_means=arrays.get("held_out_means"),
            held_out_labels=arrays.get("held_out_labels"),
            directions=arrays.get("directions"),
        )

    def label_mean(self, label: int, pointer: str = "") -> Floats:
        """Mean `[d]` of one class; `pointer` is the JSON pointer for errors.

        Raises:
            InvalidInput: this bundle has no class means, or no such class.
        """
        return _row(self.label_means, label, "labels", pointer)

    def direction(self, index: int, pointer: str = "") -> Floats:
        """One direction `[d]`; `pointer` is the JSON pointer for errors.

        Raises:
            InvalidInput: this bundle has no directions, or no such direction.
        """
        return _row(self.directions, index, "stored directions", pointer)


def _row(rows: Floats | None, index: int, name: str, pointer: str) -> Floats:
    if rows is None:
        raise InvalidInput(f"this model has no {name}", pointer)
    if index >= len(rows):
        raise InvalidInput(f"this model's {name} are 0 to {len(rows) - 1}", pointer)
    row: Floats = rows[index]
    return row


def _check(bundle: Bundle) -> None:
    """Raise if arrays do not fit each other or the latents, or have values that the server cannot use."""
    directory, d = f"{bundle.manifest.name}/{bundle.manifest.version}", bundle.manifest.latent.shape[0]
    kl = bundle.manifest.metrics.get("kl_per_dimension")
    if len(bundle.manifest.latent.shape) > 1 and (wrong := _OF_VECTORS & bundle.arrays.keys()):
        raise BundleError(
            f"{directory}/{bundle.manifest.arrays[min(wrong)].file} is of vectors, and the latents are maps"
        )
    has_kl = len(bundle.manifest.latent.shape) == 1 and kl is not None
    if has_kl and not (isinstance(kl, list) and len(kl) == d and all(isinstance(v, float | int) for v in kl)):
        raise BundleError(f"{directory}/{MANIFEST} has a kl_per_dimension that is not {d} numbers")

    def count(name: str) -> int:
        array = bundle.arrays.get(name)
        return array.shape[0] if array is not None and array.ndim else 0

    components, levels, ks, held_out = (
        count(name) for name in ("aggregate_weights", "percentiles", "score_k", "held_out_means")
    )
    expected = {
        "label_means": (count("label_means"), d),
        "aggregate_weights": (components,),
        "aggregate_means": (components, d),
        "aggregate_cholesky": (components, d, d),
        "aggregate_labels": (components,),
        "percentiles": (levels,),
        "prior_norm_quantiles": (levels,),
        "mean_norm_quantiles": (levels,),
        "score_k": (ks,),
        "score_quantiles": (ks, levels),
        "held_out_means": (held_out, d),
        "held_out_labels": (held_out,),
        "directions": (count("directions"), d),
    }
    for name, shape in expected.items():
        if (array := bundle.arrays.get(name)) is None:
            continue
        path, types = f"{directory}/{bundle.manifest.arrays[name].file}", _TYPES.get(name, ("float32",))
        if array.shape != shape:
            raise BundleError(f"{path} does not have the shape {shape}")
        if str(array.dtype) not in types:
            raise BundleError(f"{path} does not have the type {' or '.join(types)}")
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise BundleError(f"{path} holds NaN")
