"""From a foreign autoencoder to a bundle: read, asked about, tried, wrapped, proven, written.

    python -m training import encoder.onnx decoder.onnx --name mine --images my-images/

Torch is imported for torch's sources alone.
"""

from dataclasses import dataclass
from pathlib import Path

from training.errors import ImportRefused
from training.importing.answers import Ask, settle
from training.importing.checks.latents import probe
from training.importing.checks.reference import Reference
from training.importing.checks.round_trip import RoundTrip, round_trip
from training.importing.checks.samples import read_samples
from training.importing.options import Answers, Options
from training.importing.source import Source
from training.importing.write import Label, write_bundle

__all__ = ["ImportRefused", "Imported", "Label", "import_model"]


@dataclass(frozen=True)
class Imported:
    """A written bundle, and what it is known by."""

    directory: Path
    answers: Answers
    trip: RoundTrip


def import_model(
    source: Source, options: Options, label: Label, *, models: Path, images: Path | None, ask: Ask, force: bool
) -> Imported:
    """Write a source's bundle to `models/<name>/<version>`, replacing what is there.

    Raises:
        ImportRefused: what is wrong and where; no bundle was written.
    """
    answers = settle(source, options, ask)
    reference = Reference(source, answers)
    latents = probe(reference)
    trip = round_trip(reference, read_samples(images, answers, latents))
    directory = models / label.name / str(label.version)
    write_bundle(directory, label, reference, latents, trip, force=force)
    return Imported(directory, answers, trip)
