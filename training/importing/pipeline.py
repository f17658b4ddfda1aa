"""Import a foreign autoencoder: complete its options, run it, compare it with the bundle's graphs, write the bundle.

    python -m training import encoder.onnx decoder.onnx --name mine --images my-images/

Torch is imported only for sources that need it.
"""

from pathlib import Path

from training.importing.answers import find_answers
from training.importing.checks.latents import probe_latents
from training.importing.checks.reference import Reference
from training.importing.checks.round_trip import RoundTrip, measure_round_trip
from training.importing.checks.samples import read_samples
from training.importing.options import Answers, BundleInfo, ImportOptions
from training.importing.prompt import Ask
from training.importing.source import Source
from training.importing.write import write_bundle


def import_model(
    source: Source, options: ImportOptions, info: BundleInfo, *, images: Path | None, ask: Ask, force: bool
) -> tuple[Answers, RoundTrip]:
    """Write the bundle of a source to `info.directory`, and return its answers and the measured round trip.

    An existing bundle is replaced.

    Raises:
        BundleError: ONNX Runtime cannot load a graph.
        DataError, ImportRefused, ParityError: the import fails, and no bundle is written; the message says why.
    """
    answers = find_answers(source, options, ask)
    reference = Reference(source, answers)
    latents = probe_latents(reference)
    round_trip = measure_round_trip(reference, read_samples(images, answers, latents), latents)
    write_bundle(info, reference, latents, round_trip, force=force)
    return answers, round_trip
