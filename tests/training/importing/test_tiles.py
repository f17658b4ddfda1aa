"""Large images in tiles: how far tiles must overlap is measured, and what is lost stands on the card."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.bundle.files import read_manifest
from tests.training.importing.foreign import Linear, bring, save
from training.importing.options import RANGES

STRIDE = 4


def blurring(reach: int, *, is_global: bool = False) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model of any size: blocks of 4 x 4 pixels are averaged, then cells over `reach` neighbours on each side; the
    decoder repeats them. With `is_global`, the mean of the whole image is taken off."""
    side = 2 * reach + 1
    kernel = np.zeros((3, 3, side, side), np.float32)
    kernel[range(3), range(3)] = 1 / side**2
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, f"{name}_h", f"{name}_w"])
        for name in ("x", "z", "y")
    ]
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["pooled", "kernel"], ["blurred"], pads=[reach] * 4),
    ]
    if is_global:
        nodes.append(helper.make_node("GlobalAveragePool", ["blurred"], ["average"]))
        nodes.append(helper.make_node("Sub", ["blurred", "average"], ["z"]))
    else:
        nodes.append(helper.make_node("Identity", ["blurred"], ["z"]))
    repeat = helper.make_node("Resize", ["z", "", "scales"], ["y"], mode="nearest")
    graphs = (
        helper.make_graph(nodes, "e", [infos[0]], [infos[1]], [numpy_helper.from_array(kernel, "kernel")]),
        helper.make_graph(
            [repeat],
            "d",
            [infos[1]],
            [infos[2]],
            [numpy_helper.from_array(np.array([1, 1, STRIDE, STRIDE], np.float32), "scales")],
        ),
    )
    encoder, decoder = (helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]) for graph in graphs)
    return encoder, decoder


def attention(taken: str, made: str) -> list[onnx.NodeProto]:
    """Attention of all cells to each other: softmax(x^T x) applied to x, `[N, 3, H, W]`."""
    node = helper.make_node
    return [
        node("Shape", [taken], ["shape"]),
        node("Constant", [], ["rows"], value=numpy_helper.from_array(np.array([0, 3, -1]))),
        node("Reshape", [taken, "rows"], ["v"]),
        node("Transpose", ["v"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "v"], ["pairs"]),
        node("Softmax", ["pairs"], ["weights"], axis=1),
        node("MatMul", ["v", "weights"], ["mixed"]),
        node("Reshape", ["mixed", "shape"], [made]),
    ]


@pytest.mark.parametrize("reach", [0, 1, 6, 10])
def test_the_margin_is_how_far_the_graphs_look(tmp_path: Path, reach: int) -> None:
    source = save(tmp_path, *blurring(reach))
    done = bring(source, tmp_path, range=RANGES[0], output="image", image=(3, None, None), posterior="none")
    margin = read_manifest(done.directory).latent.margin
    assert read_manifest(done.directory).latent.tiles is None
    assert margin == 0 if reach <= 1 else reach - 2 <= margin <= reach, margin
    card = (done.directory / "README.md").read_text()
    assert "| large images, in tiles | 0.0% of pixels differ by more than one gray level, the worst by " in card
    assert f"(an image of 128 x 448 in tiles of 256, with a margin of {margin} cells) |" in card


def test_what_depends_on_the_whole_image_stands_on_the_card(tmp_path: Path) -> None:
    source = save(tmp_path, *blurring(1, is_global=True))
    done = bring(source, tmp_path, range=RANGES[0], output="image", image=(3, None, None), posterior="none")
    row = next(line for line in (done.directory / "README.md").read_text().splitlines() if "in tiles" in line)
    assert "| 0.0% of pixels" not in row
    latent = read_manifest(done.directory).latent
    assert latent.margin == 0
    assert latent.tiles is not None
    assert f"the worst by {latent.tiles.levels} " in row
    assert 2 <= latent.tiles.levels <= 255
    assert 3 <= latent.tiles.bytes_per_pixel <= 3000, "the pixels alone are 3 bytes"
    assert latent.tiles.bytes_per_megapixel_squared == 0


def test_the_memory_of_attention_grows_with_the_square_of_the_pixels(tmp_path: Path) -> None:
    encoder, decoder = blurring(0, is_global=True)
    encoder.graph.node[-1].output[0] = "centred"
    encoder.graph.node.extend(attention("centred", "z"))
    source = save(tmp_path, encoder, decoder)
    done = bring(source, tmp_path, range=RANGES[0], output="image", image=(3, None, None), posterior="none")
    tiles = read_manifest(done.directory).latent.tiles
    assert tiles is not None
    cells = 1e6 / STRIDE**2
    assert 4 * cells**2 <= tiles.bytes_per_megapixel_squared <= 20 * cells**2, "a float for each pair of cells"
    assert tiles.bytes_in_one_piece(2 * 10**6) > 3.9 * tiles.bytes_per_megapixel_squared


def test_a_pixel_counts_if_one_channel_differs(tmp_path: Path) -> None:
    encoder, decoder = blurring(1, is_global=True)
    shares = []
    for channels in (1, 3):  # the mean is taken off one channel, or off all
        weights = np.array([1, 0, 0] if channels == 1 else [1, 1, 1], np.float32)[:, None, None]
        changed = onnx.ModelProto.FromString(encoder.SerializeToString())
        changed.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
        difference = changed.graph.node.pop()
        changed.graph.node.append(helper.make_node("Mul", ["average", "weights"], ["weighted"]))
        changed.graph.node.append(helper.make_node("Sub", [difference.input[0], "weighted"], ["z"]))
        source = save(tmp_path, changed, decoder)
        options = {"range": RANGES[0], "output": "image", "image": (3, None, None), "posterior": "none"}
        done = bring(source, tmp_path, name=f"of-{channels}", **options)
        card = (done.directory / "README.md").read_text()
        shares.append(float(card.partition("| large images, in tiles | ")[2].partition("%")[0]))
    assert 0.5 * shares[1] < shares[0] <= shares[1]


def test_images_of_one_size_are_not_tiled(linear: Linear, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder())
    done = bring(source, tmp_path, range=RANGES[0], output="image")
    assert "in tiles" not in (done.directory / "README.md").read_text()
