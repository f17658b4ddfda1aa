"""The proof that a bundle's graphs compute what the source does, in batches of every size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceFailed
from app.inference.session import Session
from app.maths.gaussian import Floats, Posterior
from training.errors import ImportRefused
from training.importing.checks.reference import Pixels, Reference, picture
from training.importing.source import Half

BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4
"""Largest difference of a float output from the source's, absolute plus relative; a grey level may differ by one."""
HALF_TOLERANCE = 4e-3
"""Of a net in half precision: ONNX Runtime keeps more digits where it joins its operators with the edits."""
MOST_VALUES = 2**22
"""Pixels times channels of a batch: larger ones are left out, and said to be."""


def check_parity(
    encoder: Session, decoder: Session, reference: Reference, images: Pixels, most: int
) -> tuple[int, ...]:
    """Run both graphs and the source on images uint8 `[N, C, H, W]`, and return the batch sizes that were tried.

    Those of more than `most` rows are left out.

    Raises:
        ImportRefused: an output differs by more than TOLERANCE, is not finite, or its batch is not free.
    """
    sizes = tuple(size for size in BATCHES if size == 1 or size <= min(most, MOST_VALUES // images[0].size))
    rows = np.resize(images, (max(sizes), *images.shape[1:]))
    posterior = reference.encode(rows)
    latents = posterior.mean if posterior.log_std is None else posterior.draw(seed=0)
    decoded = reference.decode(latents)
    for size in sizes:
        heads = _run(encoder, {"image": rows[:size]})
        wanted = Posterior(*(_first(part, size) for part in (posterior.mean, posterior.log_std)))
        _compare_heads(heads, wanted, _tolerance(reference.source.encoder), size)
        _compare_decoded(_run(decoder, {"latent": latents[:size]}), decoded[:size], reference, size)
    return sizes


def _first(part: Floats | None, size: int) -> Any:
    return None if part is None else part[:size]


def _run(session: Session, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    size = len(next(iter(inputs.values())))
    try:
        return session.run(inputs)
    except InferenceFailed as error:
        raise ImportRefused(
            f"{session.name} does not run in a batch of {size}: {str(error.__cause__).splitlines()[0]}"
        ) from error


def _tolerance(half: Half) -> float:
    return HALF_TOLERANCE if half.dtype == np.float16 else TOLERANCE


def _compare_heads(heads: dict[str, NDArray[Any]], wanted: Posterior, tolerance: float, size: int) -> None:
    _compare("mean", heads["mean"], wanted.mean, tolerance, size)
    if wanted.log_std is not None:
        _compare("log_std", heads["log_std"], wanted.log_std, tolerance, size)


def _compare_decoded(outputs: dict[str, NDArray[Any]], wanted: Floats, reference: Reference, size: int) -> None:
    if not np.isfinite(wanted).all():
        raise ImportRefused(f"{reference.source.decoder.name} gives values that are not finite")
    tolerance = _tolerance(reference.source.decoder)
    _compare("image", outputs["image"], picture(wanted, reference.answers), tolerance, size)
    if "logits" in outputs:
        logits = outputs["logits"]
        if reference.answers.output == "probabilities":
            logits = np.float32(1) / (1 + np.exp(-logits))
        _compare("logits", logits, wanted, tolerance, size)


def _compare(name: str, given: NDArray[Any], wanted: NDArray[Any], tolerance: float, size: int) -> None:
    """`tolerance` is absolute plus relative; of grey levels one may be missed, and two in half precision."""
    if given.shape != wanted.shape:
        raise ImportRefused(
            f"`{name}` is {list(given.shape)} in a batch of {size}, and the source's {list(wanted.shape)}"
        )
    if not np.isfinite(wanted).all():
        raise ImportRefused(f"the source's `{name}` is not finite for images: is it trained, and --posterior right?")
    difference = np.abs(given.astype(np.float64) - wanted)
    levels = 1 if tolerance == TOLERANCE else 2
    allowed = levels if given.dtype == np.uint8 else tolerance * (1 + np.abs(wanted))
    if not (difference <= allowed).all():  # and not `>`, which a NaN would pass
        raise ImportRefused(
            f"`{name}` in a batch of {size} differs from the source's by up to {difference.max():.3g}: a row's "
            "answer must not depend on the batch"
        )
