"""The command `python -m training import`: its options and its report. It imports little, so that --help is fast."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from training.errors import ImportRefused
from training.importing.options import (
    Binarization,
    BundleInfo,
    ImportOptions,
    Layout,
    Output,
    PosteriorKind,
    Prior,
    Resampling,
    TorchClass,
    parse_heads,
    parse_image,
    parse_numbers,
    parse_range,
    range_of,
)
from training.importing.prompt import ask

BUNDLE, CLASS, GRAPHS = "The bundle", "A class of your own", "What the graphs do not say"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    """Make an option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def import_(
    source: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="Two files, encoder and decoder: ONNX, TorchScript or torch.export programs. Or a directory: "
            "Optimum's, diffusers', or one with both files. TorchScript and torch.export programs are code, which is "
            "run.",
            show_default=False,
        ),
    ] = None,
    *,
    name: Annotated[str, option(BUNDLE, "The model's name in requests.")],
    version: Annotated[int | None, option(BUNDLE, "Default: the next free version.", min=1)] = None,
    description: Annotated[str | None, option(BUNDLE, "One sentence about the model.")] = None,
    license: Annotated[str, option(BUNDLE, "License of the weights, an SPDX identifier.")] = "LicenseRef-unknown",
    dataset: Annotated[str, option(BUNDLE, "Name of the data set that the model was trained on.")] = "unknown",
    binarization: Annotated[Binarization, option(BUNDLE, "How gray pixels became binary in training.")] = "none",
    models: Annotated[Path, option(BUNDLE, "Directory of the bundles.")] = Path("models"),
    replace: Annotated[bool, option(BUNDLE, "Replace the version if it exists.", "--replace")] = False,
    images: Annotated[
        Path | None, option(BUNDLE, "Images to test the model with: a folder of images, an npz or an IDX file.")
    ] = None,
    force: Annotated[bool, option(BUNDLE, "Write the bundle even if its reconstructions are bad.", "--force")] = False,
    class_: Annotated[
        str | None,
        option(CLASS, "package.module:Class, or any callable that returns a torch module. Its code is run.", "--class"),
    ] = None,
    arguments: Annotated[
        list[str] | None, option(CLASS, "name=value for the class, the value as JSON; may be repeated.", "--arg")
    ] = None,
    weights: Annotated[
        list[Path] | None,
        option(CLASS, "The state dict: safetensors, or torch's format; may be repeated for files of single parts."),
    ] = None,
    encoder: Annotated[
        str | None, option(CLASS, "Method or submodule that encodes. Default: encode or encoder.")
    ] = None,
    decoder: Annotated[
        str | None, option(CLASS, "Method or submodule that decodes. Default: decode or decoder.")
    ] = None,
    image: Annotated[
        Any, option(GRAPHS, "Channels, height and width: 1x28x28, 3xanyxany.", parser=parse_image, metavar="<CxHxW>")
    ] = None,
    resampling: Annotated[
        Resampling | None,
        option(GRAPHS, "Pillow's filter that images were resized with in training. Default: lanczos."),
    ] = None,
    layout: Annotated[Layout | None, option(GRAPHS, "Order of the axes of an image.")] = None,
    bgr: Annotated[bool | None, option(GRAPHS, "Whether channels are in the order BGR.", "--bgr/--no-bgr")] = None,
    range: Annotated[
        Any,
        option(
            GRAPHS,
            "Values of black and white: 0,1 or -1,1 or 0,255; or one pair per channel.",
            parser=parse_range,
            metavar="<low,high>",
        ),
    ] = None,
    output: Annotated[
        Output | None, option(GRAPHS, "What the decoder returns; logits and probabilities are a Bernoulli's.")
    ] = None,
    output_range: Annotated[
        Any,
        option(GRAPHS, "Range of the decoder's images. Default: --range.", parser=parse_range, metavar="<low,high>"),
    ] = None,
    picture: Annotated[str | None, option(GRAPHS, "Name of the decoder's output that is the image.")] = None,
    heads: Annotated[
        Any,
        option(
            GRAPHS,
            "Names of the encoder's outputs: mean,spread, or one output that is both or the mean alone.",
            parser=parse_heads,
            metavar="<mean,spread>",
        ),
    ] = None,
    posterior: Annotated[
        PosteriorKind | None, option(GRAPHS, "Kind of spread that the encoder returns; none if there is no posterior.")
    ] = None,
    prior: Annotated[Prior | None, option(GRAPHS, "Distribution that the latents were trained to follow.")] = None,
    mean: Annotated[
        Any,
        option(
            GRAPHS,
            "With --std instead of --range: images are (x - mean) / std, x from 0 to 1. A number, or one per channel.",
            parser=parse_numbers,
            metavar="<numbers>",
        ),
    ] = None,
    std: Annotated[Any, option(GRAPHS, "See --mean.", parser=parse_numbers, metavar="<numbers>")] = None,
    scaling_factor: Annotated[
        Any,
        option(
            GRAPHS,
            "Scaling of latents in other protocols, (z - shift) * scaling. A number, or one per channel.",
            parser=parse_numbers,
            metavar="<numbers>",
        ),
    ] = None,
    shift_factor: Annotated[
        Any, option(GRAPHS, "Shift of latents: see --scaling-factor.", parser=parse_numbers, metavar="<numbers>")
    ] = None,
) -> None:
    """Make a bundle of a VAE or autoencoder that was trained elsewhere, and check that it computes the same."""
    if not NAME.fullmatch(name):
        raise ImportRefused("--name consists of a-z, 0-9, `.`, `_` and `-`, and begins with a letter or digit")
    if class_ is None and (weights or arguments):
        raise ImportRefused("--weights and --arg go with --class")
    if class_ is not None and source:
        raise ImportRefused("--class goes without a SOURCE: its weights are passed with --weights")
    if (mean is None) != (std is None) or (mean is not None and range is not None):
        raise ImportRefused("--mean and --std go together, and without --range")
    options = ImportOptions(
        image=image,
        layout=layout,
        bgr=bgr,
        range=range if mean is None else range_of(mean, std),
        picture=picture,
        output=output,
        output_range=output_range,
        posterior=posterior,
        heads=heads,
        prior=prior,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        resampling=resampling,
    )
    torch_class = None if class_ is None else TorchClass(class_, arguments or (), weights or (), encoder, decoder)
    from training.importing.pipeline import import_model
    from training.importing.report import figures, warnings
    from training.importing.sources.formats import read_source
    from training.versions import reserve_version

    with reserve_version(models / name, version, replace=replace) as chosen:
        directory = models / name / str(chosen)
        info = BundleInfo(directory, name, chosen, description or f"{name}, imported.", license, dataset, binarization)
        read = read_source(torch_class or source or [], options, ask)
        answers, round_trip = import_model(read, options, info, images=images, ask=ask, force=force)
    for figure, value in figures(round_trip):
        print(f"{figure:<44} {value}")
    for warning in warnings(round_trip, read, answers):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"Imported: {directory}. Next: see its README.md, then VAE_MODELS_DIR={models} python -m app")
