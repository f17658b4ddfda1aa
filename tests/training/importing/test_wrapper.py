"""What an imported bundle computes, for every habit that a foreign model may have, against the truth about it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from app.inference.session import Session
from tests.conftest import Pixels
from tests.training.importing.foreign import LATENT, LOG_VARIANCES, Linear, bring, read, save
from training.errors import ImportRefused
from training.importing.options import RANGES, PixelRange, parse_range, range_of
from training.offline import OfflineGraphs


def check(imported_graphs: OfflineGraphs, linear: Linear, images: Pixels) -> None:
    """Means, spreads and pictures are the model's own."""
    posterior = imported_graphs.encode(images)
    np.testing.assert_allclose(posterior.mean, linear.mean(images), atol=1e-3)
    assert posterior.log_std is not None
    np.testing.assert_allclose(posterior.log_std, np.tile(LOG_VARIANCES / 2, (len(images), 1)), atol=1e-5)
    wanted = np.clip(np.rint(255 * linear.decoded(posterior.mean)), 0, 255)
    assert np.abs(imported_graphs.decode(posterior.mean).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "nhw", "flat"])
@pytest.mark.parametrize("values", RANGES, ids=str)
def test_grey_images_of_every_layout_and_range(
    linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path, layout: str, values: PixelRange
) -> None:
    foreign = linear.with_habits(layout=layout, low=values.low, high=values.high)
    source = save(tmp_path, foreign.encoder(), foreign.decoder())
    bundle = read(bring(source, tmp_path, sample_file, range=values, output="image"))
    check(OfflineGraphs(bundle), linear, planes[:70])
    image, latent = bundle.manifest.image, bundle.manifest.latent
    assert (image.channels, image.height, image.width, latent.shape, latent.stride) == (1, 28, 28, (LATENT,), None)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "flat", "flat-nhwc"])
def test_colour_images_of_every_layout_and_order(
    colours: Pixels, colour_file: Path, tmp_path: Path, layout: str, bgr: bool
) -> None:
    linear = Linear.fitted(colours)
    foreign = linear.with_habits(layout=layout, bgr=bgr, low=-1.0)
    source = save(tmp_path, foreign.encoder(), foreign.decoder())
    options = {"image": (3, 28, 28), "layout": layout} if "flat" in layout else {}
    imported = bring(source, tmp_path, colour_file, range=RANGES[1], output="image", bgr=bgr, **options)
    check(OfflineGraphs(read(imported)), linear, colours[:10])


MEANS, STDS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalized(linear: Linear, order: int = 1) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Halves whose images are normalized by the mean and standard deviation of each channel; order -1 is BGR."""
    shape = {"nchw": (3, 1, 1), "nhwc": (3,), "flat-nhwc": (3,)}.get(linear.layout, (3, 1, 1))
    mean, std = (np.array(values[::order], np.float32).reshape(shape) for values in (MEANS, STDS))
    if "flat" in linear.layout:
        planes = (3, 28, 28) if linear.layout == "flat" else (28, 28, 3)
        mean, std = (np.broadcast_to(values, planes).reshape(-1) for values in (mean, std))
    encoder, decoder = linear.encoder(), linear.decoder()
    for node in encoder.graph.node:
        node.input[:] = ["plain" if name == "x" else name for name in node.input]
    before = [helper.make_node("Mul", ["x", "std"], ["scaled"]), helper.make_node("Add", ["scaled", "mean"], ["plain"])]
    for place, node in enumerate(before):
        encoder.graph.node.insert(place, node)
    decoder.graph.node.append(helper.make_node("Sub", ["y", "mean"], ["centered"]))
    decoder.graph.node.append(helper.make_node("Div", ["centered", "std"], ["normal"]))
    decoder.graph.output[0].name = "normal"
    for model in (encoder, decoder):
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
            for name, values in (("mean", mean), ("std", std))
        )
    return encoder, decoder


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "flat", "flat-nhwc"])
def test_channels_that_are_normalized_apart(
    colours: Pixels, colour_file: Path, tmp_path: Path, layout: str, bgr: bool
) -> None:
    linear = Linear.fitted(colours)
    source = save(tmp_path, *normalized(linear.with_habits(layout=layout, bgr=bgr)))
    options = {"image": (3, 28, 28), "layout": layout} if "flat" in layout else {}
    told = range_of(MEANS, STDS)
    imported = bring(source, tmp_path, colour_file, range=told, output="image", bgr=bgr, **options)
    check(OfflineGraphs(read(imported)), linear, colours[:10])
    assert f"| range of images | {told} |" in (imported.directory / "README.md").read_text()
    assert parse_range(str(told)).low == pytest.approx(told.low, rel=1e-5)


@pytest.mark.parametrize(("bgr", "options"), [(False, r"-2\.1179,2\.24891/\S+"), (True, r"-1\.80444,2\.64/\S+ --bgr")])
def test_imagenets_normalization_is_recommended(
    colours: Pixels, colour_file: Path, tmp_path: Path, bgr: bool, options: str
) -> None:
    foreign = normalized(Linear.fitted(colours, bgr=bgr), -1 if bgr else 1)
    foreign[1].graph.output[0].name = "y"  # of images in [0, 1]
    source = save(tmp_path, *foreign)
    with pytest.raises(ImportRefused, match=f"with --range {options} .*it would be"):
        bring(source, tmp_path, colour_file, range=RANGES[0], output="image")


def test_a_range_of_other_channels_is_refused(linear: Linear, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    with pytest.raises(ImportRefused, match="--range or --mean is for 3 channels, and the images have 1"):
        bring(source, tmp_path, range=range_of(MEANS, STDS), output="image")


def test_factors_of_each_channel_are_the_manifests(linear: Linear, tmp_path: Path) -> None:
    source, factors = save(tmp_path, linear.encoder(), linear.decoder()), tuple(map(float, range(1, LATENT + 1)))
    options = {"range": RANGES[0], "output": "image", "shift_factor": -1.0}
    imported = bring(source, tmp_path, scaling_factor=factors, **options)
    latent = read(imported).manifest.latent
    assert (latent.scaling_factor, latent.shift_factor) == (factors, -1)
    assert "| (z - -1) * [1, 2, 3, " in (imported.directory / "README.md").read_text()
    with pytest.raises(ImportRefused, match="the latents have 32 channels, and a factor is one of 2"):
        bring(source, tmp_path, scaling_factor=(1.0, 2.0), **options)


@pytest.mark.parametrize("opset", [9, 11, 13, 20, 21])
def test_graphs_of_any_opset(linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path, opset: int) -> None:
    foreign = linear.with_habits(opset=opset)
    source = save(tmp_path, foreign.encoder(), foreign.decoder())
    bundle = read(bring(source, tmp_path, sample_file, range=RANGES[0], output="image"))
    check(OfflineGraphs(bundle), linear, planes[:7])
    model = onnx.load_model_from_string(bundle.encoder)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_that_was_frozen_is_freed(
    linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path, batch: int
) -> None:
    foreign = linear.with_habits(batch=batch)
    source = save(tmp_path, foreign.encoder(), foreign.decoder())
    check(
        OfflineGraphs(read(bring(source, tmp_path, sample_file, range=RANGES[0], output="image"))), linear, planes[:64]
    )


def test_one_tensor_of_moments_is_split(linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder("moments"), linear.decoder())
    imported = bring(source, tmp_path, sample_file, range=RANGES[0], output="image")
    assert imported.answers.is_split
    check(OfflineGraphs(read(imported)), linear, planes[:7])


@pytest.mark.parametrize(
    ("posterior", "log_std"),
    [("log-variance", LOG_VARIANCES / 2), ("log-std", LOG_VARIANCES)],
)
def test_a_spread_is_read_as_told(
    linear: Linear, planes: Pixels, tmp_path: Path, posterior: str, log_std: Pixels
) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    imported = bring(source, tmp_path, posterior=posterior, range=RANGES[0], output="image")
    given = OfflineGraphs(read(imported)).encode(planes[:2]).log_std
    assert given is not None
    np.testing.assert_allclose(given, np.tile(log_std, (2, 1)), atol=1e-5)


@pytest.mark.parametrize(("posterior", "factor"), [("variance", 0.5), ("std", 1.0)])
def test_a_spread_that_is_no_logarithm(
    linear: Linear, planes: Pixels, tmp_path: Path, posterior: str, factor: float
) -> None:
    encoder = linear.encoder()
    encoder.graph.node.append(helper.make_node("Exp", ["log_var"], ["spread"]))
    encoder.graph.output[1].name = "spread"
    imported = bring(
        save(tmp_path, encoder, linear.decoder()), tmp_path, posterior=posterior, range=RANGES[0], output="image"
    )
    given = OfflineGraphs(read(imported)).encode(planes[:2]).log_std
    assert given is not None
    np.testing.assert_allclose(given, np.tile(factor * LOG_VARIANCES, (2, 1)), atol=1e-4)


def test_a_draw_inside_the_encoder_gives_way_to_its_parameters(
    linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path
) -> None:
    encoder = linear.encoder()
    half = onnx.numpy_helper.from_array(np.float32(0.5), "half")
    encoder.graph.initializer.append(half)
    encoder.graph.node.extend(
        [
            helper.make_node("Mul", ["log_var", "half"], ["log_std"]),
            helper.make_node("Exp", ["log_std"], ["std"]),
            helper.make_node("RandomNormalLike", ["std"], ["eps"]),
            helper.make_node("Mul", ["eps", "std"], ["noise"]),
            helper.make_node("Add", ["mu", "noise"], ["drawn"]),
        ]
    )
    del encoder.graph.output[1]
    encoder.graph.output[0].name = "drawn"
    imported = bring(save(tmp_path, encoder, linear.decoder()), tmp_path, sample_file, range=RANGES[0], output="image")
    assert imported.answers.posterior == "std"
    check(OfflineGraphs(read(imported)), linear, planes[:7])
    operators = {node.op_type for node in onnx.load_model_from_string(read(imported).encoder).graph.node}
    assert not {name for name in operators if name.startswith("Random")}


def test_a_deterministic_encoder_has_no_log_std(
    linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path
) -> None:
    source = save(tmp_path, linear.encoder("mu"), linear.decoder())
    bundle = read(bring(source, tmp_path, sample_file, range=RANGES[0], output="image"))
    assert not bundle.manifest.stochastic
    assert bundle.manifest.latent.prior is None
    posterior = OfflineGraphs(bundle).encode(planes[:7])
    np.testing.assert_allclose(posterior.mean, linear.mean(planes[:7]), atol=1e-3)


@pytest.mark.parametrize(("output", "end"), [("logits", None), ("probabilities", "Sigmoid"), ("image", "Sigmoid")])
def test_a_bernoulli_decoder_has_logits_if_it_is_told_to_be_one(
    linear: Linear, sample_file: Path, tmp_path: Path, output: str, end: str | None
) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder(end))
    imported = bring(source, tmp_path, sample_file, range=RANGES[0], output=output, force=True)
    bundle = read(imported)
    session = Session(bundle.decoder, name="decoder")
    latents = np.random.default_rng(0).normal(size=(7, LATENT)).astype(np.float32)
    logits = linear.decoded(latents)
    outputs = session.run({"latent": latents})
    wanted = np.rint(255 / (1 + np.exp(-logits)))
    assert np.abs(outputs["image"].astype(int) - wanted).max() <= 1
    if output == "image":
        assert set(outputs) == {"image", "mean"}
        np.testing.assert_allclose(outputs["mean"], 1 / (1 + np.exp(-logits)), atol=1e-5)
        return
    assert set(outputs) == {"image", "logits"}
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    assert bundle.manifest.likelihood == "bernoulli"


def clamped(decoder: onnx.ModelProto, *nodes: tuple[str, list[str], dict[str, Any]]) -> onnx.ModelProto:
    """Put operators behind the sigmoid at the end of a decoder: each takes the last values and constants."""
    last = "y"
    for place, (operator, constants, attributes) in enumerate(nodes):
        decoder.graph.node.append(helper.make_node(operator, [last, *constants], [f"y{place}"], **attributes))
        last = f"y{place}"
    for name, value in (("low", 0.01), ("high", 0.98), ("one", 1.0)):
        decoder.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    decoder.graph.output[0].name = last
    return decoder


CLAMPS = {
    "clip": [("Clip", ["low", "high"], {})],
    "clip below": [("Clip", ["low"], {})],
    "clip above": [("Clip", ["", "high"], {})],
    "max and min": [("Max", ["low"], {}), ("Min", ["high"], {})],
    "twice": [("Clip", ["low", "one"], {}), ("Identity", [], {}), ("Clip", ["", "high"], {})],
    "turned over": [("Sub", ["one"], {}), ("Neg", [], {})],  # 1 - p
}


@pytest.mark.parametrize("kind", CLAMPS)
def test_probabilities_behind_a_clamp_have_logits(linear: Linear, tmp_path: Path, kind: str) -> None:
    source = save(tmp_path, linear.encoder(), clamped(linear.decoder("Sigmoid"), *CLAMPS[kind]))
    bundle = read(bring(source, tmp_path, range=RANGES[0], output="probabilities"))
    latents = 8 * np.random.default_rng(0).normal(size=(7, LATENT)).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-linear.decoded(latents).astype(np.float64)))
    if kind == "turned over":
        probabilities = 1 - probabilities
    bounded = np.clip(
        probabilities,
        0 if kind in ("clip above", "turned over") else np.float32(0.01),
        1 if kind in ("clip below", "turned over") else np.float32(0.98),
    )
    given = Session(bundle.decoder, name="decoder").run({"latent": latents})["logits"]
    np.testing.assert_allclose(given, np.log(bounded) - np.log1p(-bounded), atol=2e-3)
    assert bundle.manifest.likelihood == "bernoulli"


def test_probabilities_of_transposed_images_have_the_sigmoids_logits(linear: Linear, tmp_path: Path) -> None:
    certain = linear.with_habits(center=linear.center + 15)
    turned = [("Transpose", [], {"perm": [0, 1, 3, 2]}), ("Clip", ["low", ""], {})]
    decoder = clamped(certain.decoder("Sigmoid"), *turned, ("Squeeze", ["first"], {}), ("Unsqueeze", ["first"], {}))
    decoder.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "first"))
    bundle = read(bring(save(tmp_path, linear.encoder(), decoder), tmp_path, range=RANGES[0], output="probabilities"))
    latents = np.random.default_rng(0).normal(size=(7, LATENT)).astype(np.float32)
    given = Session(bundle.decoder, name="decoder").run({"latent": latents})["logits"]
    np.testing.assert_allclose(given, certain.decoded(latents).transpose(0, 1, 3, 2), atol=1e-4)


def test_logits_of_certain_pixels_are_finite(linear: Linear, tmp_path: Path) -> None:
    certain = [("Clip", ["one", "one"], {})]
    source = save(tmp_path, linear.encoder(), clamped(linear.decoder("Sigmoid"), *certain))
    bundle = read(bring(source, tmp_path, range=RANGES[0], output="probabilities"))
    given = Session(bundle.decoder, name="decoder").run({"latent": np.zeros((2, LATENT), np.float32)})["logits"]
    np.testing.assert_allclose(given, np.full_like(given, np.log(2**24 - 1)), rtol=1e-6)


def test_probabilities_may_be_rounded_to_more_than_one(linear: Linear, tmp_path: Path) -> None:
    decoder = clamped(linear.with_habits(center=linear.center + 30).decoder("Sigmoid"), ("Mul", ["rounded"], {}))
    decoder.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1 + 5e-5), "rounded"))
    bundle = read(bring(save(tmp_path, linear.encoder(), decoder), tmp_path, range=RANGES[0], output="probabilities"))
    assert bundle.manifest.likelihood == "bernoulli"


def test_values_that_are_no_probabilities_are_refused(linear: Linear, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.with_habits(low=-1.0).decoder())
    with pytest.raises(ImportRefused, match=r"from -[0-9.]+ to [0-9.]+, which are not probabilities"):
        bring(source, tmp_path, range=RANGES[0], output="probabilities")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1)])
def test_a_clamp_shows_the_range(linear: Linear, planes: Pixels, tmp_path: Path, low: int, high: int) -> None:
    foreign = linear.with_habits(low=low)
    decoder = foreign.decoder()
    decoder.graph.node.append(helper.make_node("Clip", ["y", "low", "high"], ["clamped"]))
    decoder.graph.output[0].name = "clamped"
    for name, value in (("low", low), ("high", high)):
        decoder.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    imported = bring(save(tmp_path, foreign.encoder(), decoder), tmp_path)
    assert (imported.answers.output, imported.answers.range) == ("image", PixelRange(low, high))
    check(OfflineGraphs(read(imported)), linear, planes[:7])


def test_weights_beside_the_file_are_merged_into_one(
    linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path
) -> None:
    paths = tmp_path / "encoder.onnx", tmp_path / "decoder.onnx"
    for path, model in zip(paths, (linear.encoder(), linear.decoder()), strict=True):
        onnx.save_model(model, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=0)
    bundle = read(bring(list(paths), tmp_path, sample_file, range=RANGES[0], output="image"))
    check(OfflineGraphs(bundle), linear, planes[:7])
    assert not any(weight.external_data for weight in onnx.load_model_from_string(bundle.encoder).graph.initializer)


def test_a_half_precision_model_takes_and_gives_float32(
    linear: Linear, planes: Pixels, sample_file: Path, tmp_path: Path
) -> None:
    models = []
    for model in (linear.encoder(), linear.decoder()):
        for weight in model.graph.initializer:
            array = onnx.numpy_helper.to_array(weight)
            if array.dtype == np.float32:
                weight.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), weight.name))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        models.append(model)
    graphs = OfflineGraphs(read(bring(save(tmp_path, *models), tmp_path, sample_file, range=RANGES[0], output="image")))
    posterior = graphs.encode(planes[:7])
    assert posterior.mean.dtype == np.float32
    np.testing.assert_allclose(posterior.mean, linear.mean(planes[:7]), atol=0.05)
