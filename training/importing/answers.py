"""From what was passed, what the source says and what the graphs show to answers; what is still open is asked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from training.errors import ImportRefused
from training.importing.onnx_edits.decoder_outputs import PASSING, choose_picture, ending
from training.importing.onnx_edits.encoder_outputs import choose_heads
from training.importing.options import (
    RANGES,
    Answers,
    Layout,
    Options,
    Output,
    Range,
    choices,
    read_image,
    read_range,
)
from training.importing.source import Half, Shape, Source

Ask = Callable[[str, str, Sequence[str]], str]
"""Asks for an option by its name, in words, with what may be answered; raises where nobody can be asked."""

ENDS = {"Sigmoid": RANGES[0], "Tanh": RANGES[1]}
"""What a decoder's last operator says about the range of its output. A sigmoid's may be probabilities of a Bernoulli,
but as often they are grey values that were trained with a squared error, so that is for a person to say."""


def settle(source: Source, passed: Options, ask: Ask) -> Answers:
    """All answers. An option that was passed goes before what the source says, and that before what the graphs show.

    Raises:
        ImportRefused: an answer is open and nobody can be asked, or it does not fit the graphs.
    """
    options = _merged(source, passed)
    layout = options.layout or _layout(source.encoder.input, options.image, source.encoder.name)
    channels, height, width = options.image or _image(source.encoder, layout, ask)
    _check_image(source.encoder, layout, (channels, height, width))
    picture = choose_picture(source.decoder, options.picture)
    last = ending(source.decoder, picture, (*PASSING, "Transpose"))
    end = ENDS.get(last.op_type) if last is not None else None
    output = options.output or ("image" if end else None) or _ask_output(ask)
    given = options.range or end or _ask_range(ask)
    mean, spread, posterior = choose_heads(source, options, layout, ask)
    return Answers(
        channels=channels,
        height=height,
        width=width,
        layout=layout,
        bgr=_bgr(options, channels),
        range=given,
        picture=picture,
        output=output,
        output_range=options.output_range or end or given,
        posterior=posterior,
        mean=mean,
        spread=spread,
        clip=options.clip if posterior == "log-variance" else None,
        prior=options.prior or ("none" if posterior == "none" else "standard-normal"),
        scaling_factor=1.0 if options.scaling_factor is None else options.scaling_factor,
        shift_factor=0.0 if options.shift_factor is None else options.shift_factor,
    )


def _merged(source: Source, passed: Options) -> Options:
    values: dict[str, Any] = dict(source.known)
    values |= {part.name: value for part in fields(Options) if (value := getattr(passed, part.name)) is not None}
    return Options(**values)


def _layout(shape: Shape, image: tuple[int, int | None, int | None] | None, name: str) -> Layout:
    """How the encoder takes its images, by the shape of its input."""
    if len(shape) == 2:
        if image is not None and image[0] == 3:
            raise ImportRefused(
                f"{name} takes colour images as vectors: pass --layout flat (planes) or flat-nhwc (pixels)"
            )
        return "flat"
    if len(shape) == 3:
        return "nhw"
    if len(shape) != 4:
        raise ImportRefused(f"{name} takes a tensor of {len(shape)} axes: images have 2 (flat), 3 or 4")
    if shape[1] in (1, 3):
        return "nchw"
    if shape[3] in (1, 3):
        return "nhwc"
    if shape[1] is None and (shape[3] is None or shape[3] > 3):
        return "nchw"
    raise ImportRefused(f"{name} takes images of neither 1 nor 3 channels: its input is {_words(shape)}")


def _image(encoder: Half, layout: Layout, ask: Ask) -> tuple[int, int | None, int | None]:
    """Channels, height and width, where the encoder's input tells them."""
    shape = encoder.input
    if layout == "flat" and shape[1] is not None and math.isqrt(shape[1]) ** 2 == shape[1]:
        return 1, math.isqrt(shape[1]), math.isqrt(shape[1])
    places = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}.get(layout)
    if places is not None:
        channels, height, width = (shape[place] for place in places)
        if channels is not None and (height is None) == (width is None):
            return channels, height, width
    if layout == "nhw" and shape[1] is not None and shape[2] is not None:
        return 1, shape[1], shape[2]
    return read_image(ask("image", "Channels, height and width of the images, such as 3x64x64", ()))


def _check_image(encoder: Half, layout: Layout, image: tuple[int, int | None, int | None]) -> None:
    channels, height, width = image
    if layout not in ("nchw", "nhwc") and (height is None or width is None):
        raise ImportRefused(f"{encoder.name} takes images of one size: pass their height and width with --image")
    if layout == "nhw" and channels != 1:
        raise ImportRefused(f"{encoder.name} takes images without an axis for channels: they are grey, 1 channel")
    flat = None if height is None or width is None else channels * height * width
    wanted: Shape = {
        "nchw": (None, channels, height, width),
        "nhwc": (None, height, width, channels),
        "nhw": (None, height, width),
    }.get(layout, (None, flat))
    shape = encoder.input
    fits = len(shape) == len(wanted) and all(
        size in (None, want) for size, want in zip(shape[1:], wanted[1:], strict=True)
    )
    if not fits:
        raise ImportRefused(f"{encoder.name} takes {_words(shape)}, and images as told would be {_words(wanted)}")


def _words(shape: Shape) -> str:
    return f"[{', '.join(['N', *('?' if size is None else str(size) for size in shape[1:])])}]"


def _bgr(options: Options, channels: int) -> bool:
    if options.bgr and channels != 3:
        raise ImportRefused("--bgr is of colour images, and these are grey")
    return bool(options.bgr)


def _ask_output(ask: Ask) -> Output:
    return ask("output", "What the decoder gives", choices(Output))  # type: ignore[return-value]


def _ask_range(ask: Ask) -> Range:
    return read_range(
        ask("range", "The values of black and white that the encoder was trained with", [str(r) for r in RANGES])
    )
