"""Complete the options of an import, from the command line, the source's files, and its graphs."""

import math
from dataclasses import replace

from training.errors import ImportRefused
from training.importing.onnx_edits.decoder_outputs import choose_image_output, find_end
from training.importing.onnx_edits.encoder_outputs import choose_posterior_outputs
from training.importing.options import (
    RANGES,
    Answers,
    ImageShape,
    ImportOptions,
    Layout,
    PixelRange,
    each,
    parse_image,
    parse_range,
)
from training.importing.prompt import IMAGE, OUTPUT, RANGE, Ask, Collector
from training.importing.source import Shape, Source, SourceGraph, shape_text

ACTIVATION_RANGES = {"Sigmoid": RANGES[0], "Tanh": RANGES[1]}
"""Range of a decoder's images by its last operator. A sigmoid's values may be probabilities of a Bernoulli likelihood,
or gray values trained with a squared error. So `probabilities` is never chosen automatically."""


def find_answers(source: Source, passed: ImportOptions, ask: Ask) -> Answers:
    """Return complete answers. Passed options take precedence over the source's files, and these over its graphs.

    Raises:
        ImportRefused: an answer is missing and there is no terminal to ask at, or an answer does not fit the graphs.
    """
    asking = Collector(ask)
    options = replace(source.known, **{name: value for name, value in vars(passed).items() if value is not None})
    layout = options.layout or _find_layout(source.encoder, options.image)
    image = options.image or _find_image(source.encoder, layout) or asking.parsed(parse_image, IMAGE)
    image_output = asking.attempt(choose_image_output, source.decoder, options.picture, ask)
    activation = None if image_output is None else _find_range(source.decoder, image_output)
    output = options.output or ("image" if activation else asking(*OUTPUT))
    pixel_range = options.range or activation or asking.parsed(parse_range, RANGE)
    posterior_outputs = asking.attempt(choose_posterior_outputs, source, options, layout, ask)
    asking.check()
    mean, spread, posterior = posterior_outputs
    channels, height, width = image
    _check_image(source.encoder, layout, image)
    if options.bgr and channels != 3:
        raise ImportRefused("--bgr is for color images, and these have 1 channel")
    for option, used in {"--range or --mean": pixel_range, "--output-range": options.output_range}.items():
        if used is not None and len(each(used.low)) not in (1, channels):
            raise ImportRefused(f"{option} is for {len(each(used.low))} channels, and the images have {channels}")
    return Answers(
        channels=channels,
        height=height,
        width=width,
        layout=layout,
        bgr=bool(options.bgr),
        range=pixel_range,
        image_output=image_output,
        output=output,
        output_range=options.output_range or activation or pixel_range,
        posterior=posterior,
        mean=mean,
        spread=spread,
        clip=options.clip if posterior == "log-variance" else None,
        prior=options.prior or ("none" if posterior == "none" else "standard-normal"),
        scaling_factor=1.0 if options.scaling_factor is None else options.scaling_factor,
        shift_factor=0.0 if options.shift_factor is None else options.shift_factor,
        resampling=options.resampling or "lanczos",
    )


def _find_range(decoder: SourceGraph, image_output: int) -> PixelRange | None:
    """Find the range of the decoder's images from a sigmoid, a tanh or a clamp at its end."""
    end = find_end(decoder, image_output)
    clamp = next((known for known in RANGES if (known.low, known.high) == (end.low, end.high)), None)
    return clamp or (ACTIVATION_RANGES.get(end.node.op_type) if end.node is not None else None)


def _find_layout(encoder: SourceGraph, image: ImageShape | None) -> Layout:
    """Find the layout of the images from the shape of the encoder's input."""
    shape = encoder.input
    if len(shape) == 2:
        if image is not None and image[0] == 3:
            raise ImportRefused(
                f"{encoder.name} takes color images as vectors: pass --layout flat (planes) or flat-nhwc (pixels)"
            )
        return "flat"
    if len(shape) == 3:
        return "nhw"
    if len(shape) != 4:
        raise ImportRefused(f"{encoder.name} takes a tensor of {len(shape)} axes: images have 2 (flat), 3 or 4")
    if shape[1] in (1, 3):
        return "nchw"
    if shape[3] in (1, 3):
        return "nhwc"
    if shape[1] is None and (shape[3] is None or shape[3] > 3):
        return "nchw"
    raise ImportRefused(f"{encoder.name} takes images of neither 1 nor 3 channels: its input is {shape_text(shape)}")


def _find_image(encoder: SourceGraph, layout: Layout) -> ImageShape | None:
    """Find channels, height and width from the shape of the encoder's input; None if the shape is ambiguous."""
    shape = encoder.input
    if layout == "flat" and shape[1] is not None and math.isqrt(shape[1]) ** 2 == shape[1]:
        return 1, math.isqrt(shape[1]), math.isqrt(shape[1])
    axes = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}.get(layout)
    if axes is not None:
        channels, height, width = (shape[axis] for axis in axes)
        if channels is not None and (height is None) == (width is None):
            return channels, height, width
    if layout == "nhw" and shape[1] is not None and shape[2] is not None:
        return 1, shape[1], shape[2]
    return None


def _check_image(encoder: SourceGraph, layout: Layout, image: ImageShape) -> None:
    channels, height, width = image
    if layout not in ("nchw", "nhwc") and (height is None or width is None):
        raise ImportRefused(f"{encoder.name} takes images of one size: pass their height and width with --image")
    if layout == "nhw" and channels != 1:
        raise ImportRefused(f"{encoder.name} takes images without an axis for channels, which have 1 channel")
    flat = None if height is None or width is None else channels * height * width
    expected: Shape = {
        "nchw": (None, channels, height, width),
        "nhwc": (None, height, width, channels),
        "nhw": (None, height, width),
    }.get(layout, (None, flat))
    shape = encoder.input
    fits = len(shape) == len(expected) and all(
        size in (None, other) for size, other in zip(shape[1:], expected[1:], strict=True)
    )
    if not fits:
        raise ImportRefused(
            f"{encoder.name} takes {shape_text(shape)}, and the options describe images {shape_text(expected)}"
        )
