"""What is seen of a bundle's graphs before it is served: sizes, strides, rows."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.bundle.files import describe, read_bundle, read_manifest, write_manifest
from app.bundle.manifest import MANIFEST, Reduced
from app.errors import BundleError
from app.inference.batcher import Batcher
from app.vae.vae import Vae
from tests.app.bundle.test_manifest import MEASURED
from tests.maps import write_maps


def serve(directory: Path) -> Vae:
    return Vae(read_bundle(directory), Batcher())


def changed(directory: Path, graph: str, change: Any) -> None:
    """Change a graph of a bundle, and its hash."""
    path, manifest = directory / f"{graph}.onnx", read_manifest(directory)
    model = onnx.load(path)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    parts = {graph: getattr(manifest.graphs, graph).model_copy(update={"sha256": sha256})}
    write_manifest(directory, manifest.model_copy(update={"graphs": manifest.graphs.model_copy(update=parts)}))


def mix(net: Any, share: float) -> None:
    """What the last node before the output gives is less by a share of the batch's mean."""
    node = next(node for node in net.node if node.op_type == "Conv")
    out = node.output[0]
    node.output[0] = "alone"
    net.initializer.append(numpy_helper.from_array(np.array([0]), "batch"))
    net.initializer.append(numpy_helper.from_array(np.float32(share), "share"))
    at = list(net.node).index(node) + 1
    net.node.insert(at, helper.make_node("ReduceMean", ["alone", "batch"], ["average"]))
    net.node.insert(at + 1, helper.make_node("Mul", ["average", "share"], ["part"]))
    net.node.insert(at + 2, helper.make_node("Sub", ["alone", "part"], [out]))


def attribute(node: Any, name: str, value: Any) -> None:
    kept = [it for it in node.attribute if it.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


@pytest.mark.parametrize("size", [None, (16, 24)])
def test_maps_are_served(tmp_path: Path, size: tuple[int, int] | None) -> None:
    vae = serve(write_maps(tmp_path, size=size))
    assert not vae.graphs.sessions.can_score
    assert all(vae.graphs.lanes[lane].latency for lane in ("encoder", "decoder", "parameters"))


@pytest.mark.parametrize(("graph", "told"), [("encoder", "mean"), ("decoder", "image")])
def test_another_stride_than_the_manifests(tmp_path: Path, graph: str, told: str) -> None:
    directory = write_maps(tmp_path)

    def change(net: Any) -> None:
        node = next(node for node in net.node if node.op_type in ("AveragePool", "ConvTranspose"))
        attribute(node, "strides", [4, 4])

    changed(directory, graph, change)
    with pytest.raises(BundleError, match=f"maps/1/{graph}.onnx gives another `{told}` than its manifest says"):
        serve(directory)


def test_an_encoder_for_squares_alone(tmp_path: Path) -> None:
    directory = write_maps(tmp_path)

    def change(net: Any) -> None:
        net.initializer.append(numpy_helper.from_array(np.array([-1, 3, 64, 64]), "square"))
        net.node.insert(0, helper.make_node("Reshape", ["image", "square"], ["squares"]))
        net.node[1].input[0] = "squares"

    changed(directory, "encoder", change)
    with pytest.raises(
        BundleError, match=r"maps/1/encoder\.onnx (does not run as|gives another `mean` than) its manifest"
    ):
        serve(directory)


@pytest.mark.parametrize(("graph", "tensor"), [("encoder", "mean"), ("decoder", "image")])
def test_rows_that_depend_on_their_batch(tmp_path: Path, graph: str, tensor: str) -> None:
    directory = write_maps(tmp_path)
    changed(directory, graph, lambda net: mix(net, 1.0))
    with pytest.raises(BundleError, match=f"maps/1/{graph}.onnx gives another `{tensor}` of a row that is alone"):
        serve(directory)


@pytest.mark.parametrize(("share", "is_served"), [(0.2, True), (1.0, False)])
def test_rows_of_smaller_weights_may_be_rounded_with_their_batch(tmp_path: Path, share: float, is_served: bool) -> None:
    directory = write_maps(tmp_path)
    exact = read_manifest(directory), (directory / "encoder.onnx").read_bytes()
    changed(directory, "encoder", lambda net: mix(net, share))
    with pytest.raises(BundleError, match="of a row that is alone"):
        serve(directory)
    (directory / "encoder.onnx").rename(directory / "rounding.onnx")
    (directory / "encoder.onnx").write_bytes(exact[1])
    graphs = {"encoder": describe(directory / "rounding.onnx"), "decoder": describe(directory / "decoder.onnx")}
    reduced = Reduced.model_validate(MEASURED | graphs)
    write_manifest(directory, exact[0].model_copy(update={"reduced": {"cpu": reduced}}))
    if is_served:
        serve(directory)
    else:
        with pytest.raises(BundleError, match=r"maps/1/rounding\.onnx gives another `mean` of a row that is alone"):
            serve(directory)


def test_arrays_of_vectors_in_a_bundle_of_maps(tmp_path: Path) -> None:
    directory = write_maps(tmp_path)
    np.save(directory / "label_means.npy", np.zeros((10, 4), np.float32))
    sha256 = hashlib.sha256((directory / "label_means.npy").read_bytes()).hexdigest()
    manifest = read_manifest(directory).model_dump()
    entry = {"file": "label_means.npy", "sha256": sha256, "dtype": "float32", "shape": (10, 4)}
    write_manifest(
        directory, type(read_manifest(directory)).model_validate(manifest | {"arrays": {"label_means": entry}})
    )
    with pytest.raises(BundleError, match=r"label_means\.npy is of vectors"):
        serve(directory)
    assert (directory / MANIFEST).exists()
