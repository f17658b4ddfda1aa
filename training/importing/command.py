"""`python -m training import`: its options, and what it says."""

from pathlib import Path
from typing import Annotated, Any

import typer

_CLASS, _GRAPHS, _BUNDLE = "A class of your own", "What the graphs do not say", "The bundle"

Sources = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="SOURCE...",
        help="Two files, encoder and decoder: ONNX, TorchScript or torch.export programs. Or a directory: Optimum's, "
        "diffusers', or one with both files. TorchScript and torch.export programs are code, and are run.",
        show_default=False,
    ),
]


def option(panel: str, words: str, *names: str, **more: Any) -> Any:
    """An option of a group."""
    return typer.Option(*names, help=words, rich_help_panel=panel, show_default=False, **more)


def import_(
    source: Sources = None,
    name: Annotated[str, option(_BUNDLE, "What requests call the model.")] = ...,  # type: ignore[assignment]
    version: Annotated[int | None, option(_BUNDLE, "Without: the next that is free.", min=1)] = None,
    description: Annotated[str | None, option(_BUNDLE, "One sentence about the model.")] = None,
    license: Annotated[str, option(_BUNDLE, "Of the weights, an SPDX identifier.", "--license")] = "LicenseRef-unknown",
    dataset: Annotated[str, option(_BUNDLE, "Name of what it was trained on.")] = "unknown",
    binarization: Annotated[
        str, option(_BUNDLE, "How its grey pixels became binary: dynamic, static or none.")
    ] = "none",
    models: Annotated[Path, option(_BUNDLE, "Bundles lie here.")] = Path("models"),
    replace: Annotated[bool, option(_BUNDLE, "Replace the version if it is there.", "--replace")] = False,
    images: Annotated[
        Path | None, option(_BUNDLE, "Images to try it with: a folder of pictures, an npz or an IDX file.")
    ] = None,
    force: Annotated[bool, option(_BUNDLE, "Write it though its images come back badly.", "--force")] = False,
    class_: Annotated[
        str | None,
        option(_CLASS, "package.module:Class, or what else makes a torch module. Its code is run.", "--class"),
    ] = None,
    arguments: Annotated[
        list[str] | None, option(_CLASS, "name=value for the class, the value as JSON; may be repeated.", "--arg")
    ] = None,
    weights: Annotated[Path | None, option(_CLASS, "Its state dict: safetensors, or torch's format.")] = None,
    encoder: Annotated[str | None, option(_CLASS, "Method or part that encodes. Without: encode or encoder.")] = None,
    decoder: Annotated[str | None, option(_CLASS, "Method or part that decodes. Without: decode or decoder.")] = None,
    image: Annotated[str | None, option(_GRAPHS, "Channels, height and width: 1x28x28, 3xanyxany.")] = None,
    layout: Annotated[str | None, option(_GRAPHS, "nchw, nhwc, nhw, flat or flat-nhwc.")] = None,
    bgr: Annotated[bool | None, option(_GRAPHS, "The channels' order.", "--bgr/--no-bgr")] = None,
    range_: Annotated[
        str | None, option(_GRAPHS, "Values of black and white: 0,1 or -1,1 or 0,255.", "--range")
    ] = None,
    output: Annotated[
        str | None, option(_GRAPHS, "What the decoder gives: image, or logits or probabilities of a Bernoulli.")
    ] = None,
    output_range: Annotated[str | None, option(_GRAPHS, "Of the decoder's images. Without: that of --range.")] = None,
    picture: Annotated[str | None, option(_GRAPHS, "Name of the decoder's output that is the picture.")] = None,
    heads: Annotated[
        str | None, option(_GRAPHS, "Names of the encoder's outputs: mean,spread, or the one that is both or the mean.")
    ] = None,
    posterior: Annotated[
        str | None, option(_GRAPHS, "What the spread is: log-variance, log-std, variance, std; none without one.")
    ] = None,
    prior: Annotated[str | None, option(_GRAPHS, "What latents were made to follow: standard-normal or none.")] = None,
    scaling_factor: Annotated[float | None, option(_GRAPHS, "Of latents on the wire: (z - shift) * scaling.")] = None,
    shift_factor: Annotated[float | None, option(_GRAPHS, "See --scaling-factor.")] = None,
) -> None:
    """Make a bundle of a VAE or autoencoder that was trained elsewhere, and prove that it computes the same."""
    parameters = dict(locals())
    from training.importing.passed import Passed, run

    run(Passed(**parameters))
