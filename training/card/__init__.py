"""A bundle's card, README.md, rendered from its manifest, its training record and its figures."""

from collections.abc import Iterator
from pathlib import Path

from app.bundle.files import read_manifest
from app.bundle.manifest import Manifest
from training.card.captions import captions
from training.card.metrics import metric_rows
from training.card.reduced import add_reduced_section, change_in_words, reduced_section, speed_in_words
from training.card.training import training_section
from training.data.subjects import Subject, subject_of

__all__ = ["add_reduced_section", "captions", "change_in_words", "metric_rows", "speed_in_words", "write_card"]

PURPOSE = """\
For teaching, for demonstrations, and for tests of what serves it. Not for {misuse}, and for no decision about anybody.

It knows {height} x {width} {colour} pictures {contents}. Anything else gets an encoding, too, which means nothing.
{limit}"""

LIMITS = {
    True: "Its pictures are the decoder's means, so they are smoother than the {many} it was trained on.",
    False: "It has no posterior and no prior: it cannot score, and draws from N(0, I) need not decode to such {many}.",
}


def write_card(directory: Path) -> None:
    """Render `directory/README.md`.

    Raises:
        BundleError: there is no valid manifest, no recipe or no log.
    """
    manifest = read_manifest(directory)
    (directory / "README.md").write_text("\n\n".join(_sections(directory, manifest)) + "\n")


def _sections(directory: Path, manifest: Manifest) -> Iterator[str]:
    subject = subject_of(manifest.training.dataset)
    yield f"# {manifest.name}, version {manifest.version}"
    yield manifest.description
    yield _graphs(manifest)
    yield "## Metrics"
    yield _metrics(manifest)
    yield from reduced_section(manifest)
    yield "## Training"
    yield from training_section(directory, manifest)
    yield "## Use and limits"
    yield _purpose(manifest, subject)
    yield "## Data and licences"
    yield f"{subject.licence}\nThe weights are under {manifest.license}."
    yield from _figures(directory, manifest)


def _graphs(manifest: Manifest) -> str:
    image, encoding = manifest.image, "a Gaussian posterior" if manifest.stochastic else "a point"
    size, count = manifest.latent.shape[0], "dimension" if manifest.latent.shape[0] == 1 else "dimensions"
    return (
        f"`encoder.onnx` maps {image.height} x {image.width} {_colour(manifest)} pictures to {encoding} in "
        f"{size} {count}, `decoder.onnx` latents to pictures; `manifest.json` describes both."
    )


def _metrics(manifest: Manifest) -> str:
    rows = metric_rows(manifest.metrics, manifest)
    if not rows:
        return "Not evaluated yet."
    head = (
        "Nats are an image's, and fewer are better. They compare only with nats of pixels of the same kind.\n\n"
        "| metric | value | measured on |\n|---|---|---|\n"
    )
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _purpose(manifest: Manifest, subject: Subject) -> str:
    return PURPOSE.format(
        misuse=subject.misuse,
        height=manifest.image.height,
        width=manifest.image.width,
        colour=_colour(manifest),
        contents=subject.contents,
        limit=LIMITS[manifest.stochastic].format(many=subject.many),
    )


def _figures(directory: Path, manifest: Manifest) -> Iterator[str]:
    there = {name: text for name, text in captions(manifest).items() if (directory / name).exists()}
    if there:
        yield "## Figures"
    for name, text in there.items():
        yield f"![{name.removesuffix('.png').capitalize().replace('_', ' ')}]({name})"
        yield text


def _colour(manifest: Manifest) -> str:
    return "grey" if manifest.image.channels == 1 else "colour"
