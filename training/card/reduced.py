"""The card's section on smaller weights: how they change the metrics, and how the change was measured."""

from collections.abc import Iterator
from pathlib import Path

from app.bundle.manifest import Manifest, Reduced

HEADING = "## Smaller weights"

RUN_BY = {"any": "every provider", "cpu": "the CPU", "cuda": "CUDA"}

LEGEND = """\
A change stays within its bound with twice its standard error. Beside it stand the largest change of a mean, in standard
deviations of its posterior, and of a pixel of a reconstruction, in grey levels; and how many times as fast a row alone,
and 32 together, went through the reduced graphs on one thread of the machine that made them."""

EMULATED = """\
The change by fp16 was measured on a CPU, which has no such arithmetic: in float32, with every result rounded to half
precision. How fast it is only a GPU can tell."""

OLD_METRICS = """\
The metrics above were measured through the graphs of version {version}, before their weights were reduced."""


def reduced_section(manifest: Manifest) -> Iterator[str]:
    """The section's paragraphs; none if no weights were reduced."""
    if not manifest.reduced:
        return
    yield HEADING
    rows = [_row(RUN_BY[provider], reduced) for provider, reduced in manifest.reduced.items()]
    heading = ("weights", "run by", "size of the graphs", "change", "bound", "of means", "of pixels", "times as fast")
    yield "\n".join(f"| {' | '.join(row)} |" for row in (heading, ("---",) * len(heading), *rows))
    yield " ".join(_measured(reduced, manifest) for reduced in manifest.reduced.values())
    yield LEGEND
    if any(reduced.precision == "fp16" and reduced.measured_on == "cpu" for reduced in manifest.reduced.values()):
        yield EMULATED
    if "version" in manifest.metrics:
        yield OLD_METRICS.format(version=manifest.metrics["version"])


def add_reduced_section(path: Path, manifest: Manifest) -> None:
    """Append the section to a card that `write_card` cannot render, replacing an existing section."""
    kept = path.read_text().partition(f"\n{HEADING}\n")[0] if path.exists() else f"# {manifest.name}"
    path.write_text("\n\n".join([kept.rstrip(), *reduced_section(manifest)]) + "\n")


def change_in_words(reduced: Reduced) -> str:
    """`-ELBO +0.012 ± 0.003 nats`."""
    what, unit = ("-ELBO", "nats") if reduced.measure == "negative_elbo" else ("PSNR", "dB")
    return f"{what} {reduced.change:+.4f} ± {reduced.standard_error:.4f} {unit}"


def speed_in_words(reduced: Reduced) -> str:
    """`1.52, 1.83`: the speedup for one row, and for a batch."""
    speeds = (reduced.speed_alone, reduced.speed_batched)
    return ", ".join(f"{speed:.2f}" for speed in speeds if speed is not None) or "not measured"


def _row(run_by: str, reduced: Reduced) -> tuple[str, ...]:
    return (
        reduced.precision,
        run_by,
        f"{reduced.size / 1e6:.2f} MB of {reduced.size_before / 1e6:.2f}",
        change_in_words(reduced),
        f"{reduced.bound:g}",
        f"{reduced.mean_change:.3f}",
        str(reduced.pixel_change),
        speed_in_words(reduced),
    )


def _measured(reduced: Reduced, manifest: Manifest) -> str:
    source = "that they replaced" if reduced.source == manifest.version else f"of version {reduced.source}"
    images = "1 image" if reduced.images == 1 else f"{reduced.images:,} images"
    return (
        f"`{reduced.precision}` was measured beside the graphs {source}, on {images} of `{reduced.split}`, with the "
        f"same draws (seed {reduced.seed})."
    )
