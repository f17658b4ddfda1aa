"""What is refused: in one sentence that says what and where, and without a bundle."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.training.importing.foreign import LATENT, Linear, bring, save
from training.errors import ImportRefused, ParityError
from training.importing.options import RANGES, PixelRange, parse_image, parse_numbers, parse_range, range_of
from training.importing.sources import onnx_files

TOLD = {"range": RANGES[0], "output": "image"}


def refuses(source: list[Path], folder: Path, message: str, images: Path | None = None, **options: Any) -> None:
    """Refused with these words, in one line, and nothing written."""
    with pytest.raises(ImportRefused, match=message) as caught:
        bring(source, folder, images, **(TOLD | options))
    assert "\n" not in str(caught.value)
    assert not list((folder / "models").rglob("manifest.json"))
    assert not list((folder / "models").rglob("*.partial"))


def of_unknown_operator(encoder: onnx.ModelProto) -> None:
    encoder.graph.node[0].op_type = "Frobnicate"


def of_unknown_domain(encoder: onnx.ModelProto) -> None:
    encoder.opset_import.append(helper.make_opsetid("com.acme", 1))
    encoder.graph.node[0].domain = "com.acme"


def with_nan(encoder: onnx.ModelProto) -> None:
    weight = next(weight for weight in encoder.graph.initializer if weight.name == "w")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(array, "w"))


def of_any_rank(encoder: onnx.ModelProto) -> None:
    encoder.graph.input[0].type.tensor_type.ClearField("shape")


def with_two_inputs(encoder: onnx.ModelProto) -> None:
    encoder.graph.input.append(helper.make_tensor_value_info("label", onnx.TensorProto.FLOAT, ["N", 10]))


def of_integers(encoder: onnx.ModelProto) -> None:
    encoder.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


def of_five_channels(encoder: onnx.ModelProto) -> None:
    encoder.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def that_draws_otherwise(encoder: onnx.ModelProto) -> None:
    encoder.graph.node.append(helper.make_node("RandomNormalLike", ["mu"], ["drawn"]))
    del encoder.graph.output[1]
    encoder.graph.output[0].name = "drawn"


def of_three_outputs(encoder: onnx.ModelProto) -> None:
    for name in ("first", "other"):
        encoder.graph.node.append(helper.make_node("Identity", ["mu"], [name]))
        encoder.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", LATENT]))
    del encoder.graph.output[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_unknown_operator, r"encoder\.onnx uses the operator `Frobnicate`, which ONNX Runtime does not have"),
        (of_unknown_domain, r"encoder\.onnx uses the operator `com\.acme\.Reshape`"),
        (with_nan, r"encoder\.onnx has NaN among its weights: `w`"),
        (of_any_rank, r"encoder\.onnx takes `x` of any rank"),
        (with_two_inputs, r"encoder\.onnx must have one input, the images or the latents, and has `x`, `label`"),
        (of_integers, r"encoder\.onnx takes `x` of an element type that is none of float32"),
        (of_five_channels, r"encoder\.onnx takes images of neither 1 nor 3 channels: its input is \[N, 5, 28, 28\]"),
        (that_draws_otherwise, r"encoder\.onnx draws random numbers, by `RandomNormalLike`"),
        (
            of_three_outputs,
            "asked for heads",
        ),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_graph_that_cannot_be_served(
    linear: Linear, tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    encoder = linear.encoder()
    change(encoder)
    refuses(save(tmp_path, encoder, linear.decoder()), tmp_path, message)


def test_latents_that_the_decoder_does_not_take(linear: Linear, tmp_path: Path) -> None:
    other = Linear(linear.center, linear.basis[:4])
    decoder = other.decoder()
    decoder.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    message = r"encoder\.onnx gives latents \[N, 32\] and decoder\.onnx takes \[N, 4\]"
    refuses(save(tmp_path, linear.encoder(), decoder), tmp_path, message)


@pytest.mark.parametrize("place", ["../elsewhere.data", "absent.data", "/etc/hostname"])
def test_weights_from_outside_the_folder(linear: Linear, tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere.data").write_bytes(bytes(2**20))
    folder = tmp_path / "model"
    folder.mkdir()
    encoder = linear.encoder()
    weight = next(weight for weight in encoder.graph.initializer if weight.name == "w")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    source = save(folder, encoder, linear.decoder())
    refuses(source, tmp_path, "takes the weights `w` from a file outside its folder, or absent")


def test_a_link_out_of_the_folder_is_outside(linear: Linear, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save_model(
        linear.encoder(), folder / "encoder.onnx", save_as_external_data=True, location="w.data", size_threshold=0
    )
    (folder / "w.data").rename(tmp_path / "w.data")
    (folder / "w.data").symlink_to(tmp_path / "w.data")
    (folder / "decoder.onnx").write_bytes(linear.decoder().SerializeToString())
    refuses([folder / "encoder.onnx", folder / "decoder.onnx"], tmp_path, "from a file outside its folder")


def test_a_huge_file(linear: Linear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 1000)  # a file of 2 GiB would take as long to write
    refuses(source, tmp_path, r"encoder\.onnx is too large: one ONNX file holds at most 2 GiB")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "encoder.onnx is not an ONNX file"),
        (b"GIF89a, and more of that kind", "encoder.onnx is not an ONNX file"),
        (pickle.dumps({"weights": [1, 2]}), "encoder.onnx holds a pickle, which is not opened"),
    ],
    ids=["empty", "gif", "pickle"],
)
def test_a_wrong_file(linear: Linear, tmp_path: Path, content: bytes, message: str) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    source[0].write_bytes(content)
    refuses(source, tmp_path, message)


def test_a_source_that_is_none(tmp_path: Path) -> None:
    refuses([tmp_path / "nowhere"], tmp_path, "nowhere is absent")
    refuses([tmp_path], tmp_path, "holds no known model")
    refuses([], tmp_path, "pass one directory, or two files")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range": None}, "asked for range"),
        ({"output": None}, "asked for output"),
        ({"heads": ("mu", "sigma")}, r"encoder\.onnx has no output of the name in --heads; it has mu, log_var"),
        ({"bgr": True}, "--bgr is for color images"),
        ({"image": (1, 32, 32)}, r"takes \[N, 1, 28, 28\], and the options describe images \[N, 1, 32, 32\]"),
        ({"image": (1, None, None)}, r"the options describe images \[N, 1, \?, \?\]"),
        ({"picture": "image"}, r"decoder\.onnx has no output of the name in --picture; it has y"),
        ({"range": PixelRange((0, 0, 0), (1, 2, 3))}, "--range or --mean is for 3 channels, and the images have 1"),
    ],
    ids=str,
)
def test_an_answer_that_is_open_or_does_not_fit(
    linear: Linear, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    refuses(save(tmp_path, linear.encoder(), linear.decoder()), tmp_path, message, **options)


def test_a_spread_of_no_told_kind_is_asked_for(linear: Linear, tmp_path: Path) -> None:
    encoder = linear.encoder()
    encoder.graph.node.append(helper.make_node("Identity", ["log_var"], ["second"]))
    encoder.graph.output[1].name = "second"
    refuses(save(tmp_path, encoder, linear.decoder()), tmp_path, "asked for posterior")


def test_a_frozen_batch_that_cannot_be_freed(linear: Linear, tmp_path: Path) -> None:
    encoder = linear.with_habits(batch=1).encoder()
    three = numpy_helper.from_array(np.ones((1, LATENT), np.float32), "ones")
    encoder.graph.initializer.append(three)
    encoder.graph.node.append(helper.make_node("Concat", ["mu", "ones"], ["both"], axis=0))
    encoder.graph.node.append(helper.make_node("ReduceSum", ["both"], ["summed"], keepdims=1))
    encoder.graph.node.append(helper.make_node("Add", ["summed", "mu"], ["mean"]))
    encoder.graph.output[0].name = "mean"
    with pytest.raises(ParityError, match=r"`mean` in a batch of (2|7) differs"):
        bring(save(tmp_path, encoder, linear.decoder()), tmp_path, **TOLD)
    assert not list((tmp_path / "models").rglob("manifest.json"))


@pytest.mark.parametrize("text", ["", "1", "1,0", "a,b", "0,inf", "nan,1", "0,1,2"])
def test_a_range_that_is_none(text: str) -> None:
    with pytest.raises(ImportRefused, match="a range"):
        parse_range(text)


@pytest.mark.parametrize("text", ["0,1/1,0", "0,1/", "0/1"])
def test_a_range_of_channels_that_is_none(text: str) -> None:
    with pytest.raises(ImportRefused, match="a range"):
        parse_range(text)


@pytest.mark.parametrize("text", ["", "a", "1,", "1,nan", "inf"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ImportRefused, match="number"):
        parse_numbers(text)


def test_numbers_of_channels() -> None:
    assert (parse_numbers("0.5"), parse_numbers("[1, 2,3]")) == (0.5, (1, 2, 3))
    assert range_of(0.5, 0.5) == PixelRange(-1, 1)
    assert range_of((0.5, 0.25), 0.5) == PixelRange((-1, -0.5), (1, 1.5))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (123.7, 58.4, "divide those of 0 to 255 by 255"),
        (0.5, 0.0, "those of pixels"),
        ((0.5, 0.5), (0.5, 0.5, 0.5), "different numbers of channels"),
    ],
)
def test_a_normalization_that_is_none(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(ImportRefused, match=message):
        range_of(mean, std)


@pytest.mark.parametrize("text", ["", "28x28", "2x28x28", "1x0x28", "1xanyx28", "axbxc", "1x28x28x1"])
def test_an_image_that_is_none(text: str) -> None:
    with pytest.raises(ImportRefused, match="an image is written"):
        parse_image(text)


def test_a_refusal_leaves_the_old_bundle(linear: Linear, sample_file: Path, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    done = bring(source, tmp_path, sample_file, **TOLD)
    before = {path.name: path.read_bytes() for path in done.directory.iterdir()}
    with pytest.raises(ImportRefused):
        bring(source, tmp_path, sample_file, **(TOLD | {"range": RANGES[1]}))
    assert {path.name: path.read_bytes() for path in done.directory.iterdir()} == before
    assert [path.name for path in done.directory.parent.iterdir()] == ["1"]
