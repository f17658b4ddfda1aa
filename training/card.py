"""A bundle's card: README.md, made of the manifest, the training log and the figures that are there."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.bundle import Manifest, read_manifest
from app.errors import BundleError

TITLES = {"mnist": "MNIST"}

PURPOSE = """\
For teaching, for demonstrations, and for tests of what serves it. Not for reading digits, and for no decision about
anybody.

It knows {height} x {width} grey pictures of single handwritten digits, white on black, centred and scaled as MNIST's
are. Anything else gets an encoding, too, which means nothing. {limit}"""

LIMITS = {
    True: "Its pictures are the decoder's means, so they are smoother than digits are.",
    False: "It has no posterior and no prior: it cannot score, and draws from N(0, I) need not decode to digits.",
}

DATA = """\
MNIST is the work of Yann LeCun, Corinna Cortes and Christopher J. C. Burges, derived from NIST's Special Databases 1
and 3, and is available under CC BY-SA 3.0. The pictures on this page that show its digits are under that licence. The
weights are under {license}."""

GREY = """\
The training minimised the cross entropy with grey values, as many tutorials do. That is no likelihood: the values in
`training.csv` and in the figure of the training compare with nothing but each other."""

GREY_NLL = " The NLL above was measured on\nbinarized digits, which the model was not trained on."


def write_card(directory: Path) -> None:
    """Render `directory/README.md`.

    Raises:
        BundleError: there is no valid manifest, or no log.
    """
    manifest = read_manifest(directory)
    (directory / "README.md").write_text("\n\n".join(_sections(directory, manifest)) + "\n")


def metric_rows(metrics: dict[str, Any], manifest: Manifest) -> list[tuple[str, str, str]]:
    """Name, value and how it was measured, of every scalar metric; values in nats an image but for the units."""
    if not metrics:
        return []
    kind = "dynamically binarized" if metrics["binarization"] == "dynamic" else "grey"
    data = f"{kind} {_title(manifest)}"
    test = f"{data}, {metrics['split']}, {metrics['images']:,} images"
    train = f"{data}, train, first {metrics['train_images']:,} images"
    if not manifest.stochastic:
        note = "" if metrics["binarization"] == "dynamic" else "; cross entropy with grey values, no likelihood"
        return [
            ("Reconstruction", f"{metrics['reconstruction']:.2f}", test + note),
            ("Reconstruction, training split", f"{metrics['train_reconstruction']:.2f}", train + note),
        ]
    k, draws = metrics["k"], f"{test}, k = {metrics['k']}"
    return [
        ("NLL", f"{metrics['nll']:.2f} ± {metrics['nll_standard_error']:.2f}", f"{draws}: the IWAE-{k} bound"),
        ("-ELBO", f"{metrics['negative_elbo']:.2f}", f"{draws}: reconstruction averaged over the draws, plus KL"),
        ("Reconstruction", f"{metrics['reconstruction']:.2f}", draws),
        ("KL", f"{metrics['kl']:.2f}", f"{test}, in closed form"),
        (
            "Active units",
            f"{metrics['active_units']} of {manifest.latent.shape[0]}",
            f"{test}: variance of means > 0.01",
        ),
        ("-ELBO, training split", f"{metrics['train_negative_elbo']:.2f}", f"{train}, k = {metrics['train_k']}"),
    ]


def _sections(directory: Path, manifest: Manifest) -> Iterator[str]:
    image, encoding = manifest.image, "a Gaussian posterior" if manifest.stochastic else "a point"
    yield f"# {manifest.name}, version {manifest.version}"
    yield manifest.description
    yield (
        f"`encoder.onnx` maps {image.height} x {image.width} grey pictures to {encoding} in "
        f"{manifest.latent.shape[0]} dimensions, `decoder.onnx` latents to pictures; `manifest.json` describes both."
    )
    yield "## Metrics"
    yield _metrics(manifest)
    yield "## Training"
    yield from _training(directory, manifest)
    yield "## Use and limits"
    yield PURPOSE.format(height=image.height, width=image.width, limit=LIMITS[manifest.stochastic])
    yield "## Data and licences"
    yield DATA.format(license=manifest.license)
    figures = {name: text for name, text in captions(manifest).items() if (directory / name).exists()}
    if figures:
        yield "## Figures"
    for name, text in figures.items():
        yield f"![{name.removesuffix('.png').capitalize()}]({name})"
        yield text


def _metrics(manifest: Manifest) -> str:
    rows = metric_rows(manifest.metrics, manifest)
    if not rows:
        return "Not evaluated yet."
    head = "In nats an image; lower is better.\n\n| metric | value | measured on |\n|---|---|---|\n"
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _training(directory: Path, manifest: Manifest) -> Iterator[str]:
    training, bundle = manifest.training, f"models/{manifest.name}/{manifest.version}"
    recipe = manifest.name if training.recipe != "recipe.toml" else f"{bundle}/recipe.toml"
    steps = (f"train {recipe}", f"export {recipe}", f"evaluate {bundle}", f"figures {bundle}")
    commit = f", at commit `{training.commit}`" if training.commit else ""
    yield (
        f"Epochs of {_title(manifest)}: {training.epochs}, with seed {training.seed}{commit}. "
        f"`recipe.toml` is the whole recipe, `training.csv` the loss terms of every epoch{_last_epoch(directory)}. "
        "To do it again:"
    )
    yield "```sh\n" + "\n".join(f"python -m training {step}" for step in steps) + "\n```"
    if training.binarization == "none":
        yield GREY + (GREY_NLL if "nll" in manifest.metrics else "")


def read_log(path: Path) -> dict[str, list[float]]:
    """Columns of the log that the training wrote.

    Raises:
        BundleError: the file is missing.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _last_epoch(directory: Path) -> str:
    """The last row of the log, in words."""
    last = {name: f"{values[-1]:.3f}" for name, values in read_log(directory / "training.csv").items()}
    return f" (the last: {last['train/negative_elbo']} in training, {last['test/negative_elbo']} on the test split)"


def captions(manifest: Manifest) -> dict[str, str]:
    """A sentence for each figure that a bundle can have, in the order of the card."""
    stochastic, planar = manifest.stochastic, manifest.latent.shape[0] == 2
    circle = "The dashed circle holds 95 % of N(0, I)."
    plane = "" if planar else " The plane is that of the two dimensions of highest "
    plane += "" if planar else "KL." if stochastic else "variance."
    rest = "" if planar else " The other dimensions are zero."
    draws = "the prior N(0, I), unselected." if stochastic else "N(0, I): nothing in the training put digits there."
    return {
        "samples.png": f"Decoded draws from {draws}",
        "reconstructions.png": "Test digits, and below each what encoder and decoder make of it.",
        "manifold.png": f"The latent plane decoded, spaced evenly under the prior.{plane}{rest}",
        "posterior.png": f"Where the encoder puts the test digits, by class. {circle}{plane}",
        "contrast.png": f"The same beside a plain autoencoder's, each at equal aspect. {circle}",
        "encoding.png": f"One digit's encoding; the ellipses are one and two standard deviations.{plane}",
        "interpolation.png": "Straight lines between the posterior means of two test digits, decoded.",
        "kl.png": "KL of each latent dimension; one near zero is switched off.",
        "training.png": "Loss terms over the epochs; the first ones may lie outside.",
    }


def _title(manifest: Manifest) -> str:
    dataset = manifest.training.dataset
    return TITLES.get(dataset, dataset)
