"""Bundles whose graphs load as every other, and fail when they are run on images whose first pixel is not 0; but one
never ends its first run, whatever the image, and of one only the decoder fails.

Their images are grey, 8 x 8; the mean of an image's posterior is its first two pixels by 255.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from app.bundle.files import describe, write_manifest
from app.bundle.manifest import GraphFile, GraphFiles, Image, Latent, Manifest, Tensor, Training

SIZE = 8
Fault = Literal["raises", "gives NaN", "takes long", "counts far", "never ends", "overflows"]
PIXELS = Tensor(dtype="uint8", shape=(None, 1, SIZE, SIZE))
LATENT = Tensor(dtype="float32", shape=(None, 2))
TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
LONG = 4000
"""Rounds of a loop for each grey level of the first pixel: a second or so; minutes in all, were it white."""


def image(first: int = 0) -> NDArray[np.uint8]:
    """An image `[8, 8]` whose first pixel is so."""
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    pixels.flat[:2] = first, 51
    return pixels


def put_faulty_bundle(models: Path, fault: Fault, name: str = "faulty") -> Path:
    """Write a bundle with one fault into a models directory."""
    directory = models / name / "1"
    directory.mkdir(parents=True)
    graphs = GraphFiles(
        encoder=_written(directory / "encoder.onnx", _encoder(fault), {"image": PIXELS}, ("mean", "log_std"), LATENT),
        decoder=_written(directory / "decoder.onnx", _decoder(fault), {"latent": LATENT}, ("image",), PIXELS),
    )
    manifest = Manifest(
        name=name,
        version=1,
        description=f"Its encoder {fault}.",
        license="CC0-1.0",
        created="2026-01-01T00:00:00+00:00",
        image=Image(channels=1, height=SIZE, width=SIZE, mode="L"),
        latent=Latent(shape=(2,)),
        likelihood="bernoulli",
        graphs=graphs,
        training=Training(dataset="none", binarization="none", recipe="none", epochs=0, seed=0),
    )
    write_manifest(directory, manifest)
    return directory


def _written(
    path: Path, model: ModelProto, inputs: dict[str, Tensor], names: tuple[str, ...], like: Tensor
) -> GraphFile:
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return GraphFile(**describe(path), inputs=inputs, outputs=dict.fromkeys(names, like))


def _encoder(fault: Fault) -> ModelProto:
    """`mean` is the first two pixels by 255 plus `trouble`, which is 0 where there is none."""
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["levels"], ["rows"]),
        helper.make_node("Slice", ["rows", "zero", "two", "one"], ["pair"]),
        helper.make_node("Slice", ["rows", "zero", "one", "one"], ["first"]),
        helper.make_node("Div", ["pair", "white"], ["scaled"]),
        *_trouble(fault),
        helper.make_node("Add", ["scaled", "trouble"], ["mean"]),
        helper.make_node("Sub", ["scaled", "scaled"], ["log_std"]),
    ]
    constants: dict[str, Any] = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "white": np.float32(255),
        "half": np.float32(0.5),
        "table": np.zeros(1, np.float32),
        "rounds": np.float32(1e15 if fault == "never ends" else LONG),
        "first_number": np.float32(0),
        "step": np.float32(1),
        "least": np.float32(fault == "never ends"),
        "yes": np.array(True),
        "square": np.full((256, 256), 1e-3, np.float32),
    }
    return _model(nodes, constants, {"image": PIXELS}, {"mean": LATENT, "log_std": LATENT})


def _trouble(fault: Fault) -> list[Any]:
    if fault == "raises":  # beyond the table's one entry
        return [
            helper.make_node("Cast", ["first"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["trouble"]),
        ]
    if fault == "overflows":  # the decoder does
        return [helper.make_node("Sub", ["first", "first"], ["trouble"])]
    if fault == "gives NaN":  # of the logarithm of what is below 0
        return [
            helper.make_node("Sub", ["half", "first"], ["positive"]),
            helper.make_node("Log", ["positive"], ["logarithm"]),
            helper.make_node("Sub", ["logarithm", "logarithm"], ["trouble"]),
        ]
    if fault == "counts far":  # up to the first pixel, without a loop
        return [
            helper.make_node("ReduceMax", ["first"], ["brightest"], keepdims=0),
            helper.make_node("Mul", ["brightest", "rounds"], ["many"]),
            helper.make_node("Range", ["first_number", "many", "step"], ["numbers"]),
            helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
            helper.make_node("Sub", ["sum", "sum"], ["trouble"]),
        ]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "square"], ["next"]),
            helper.make_node("Identity", ["going"], ["goes"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    return [
        helper.make_node("ReduceMax", ["first"], ["brightest"], keepdims=0),
        helper.make_node("Add", ["brightest", "least"], ["times"]),
        helper.make_node("Mul", ["times", "rounds"], ["many"]),
        helper.make_node("Cast", ["many"], ["trips"], to=TensorProto.INT64),
        helper.make_node("Loop", ["trips", "yes", "square"], ["last"], body=body),
        helper.make_node("ReduceMax", ["last"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "most"], ["trouble"]),
    ]


def _decoder(fault: Fault) -> ModelProto:
    """A grey image, whatever the latent; one that overflows multiplies its first element by a weight that is too large
    in the left half, and in the right half by one that is too small, and turns both into pixels."""
    nodes = [
        helper.make_node("MatMul", ["latent", "weights"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["levels"]),
        helper.make_node("Round", ["levels"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["image"], to=TensorProto.UINT8),
    ]
    weights = np.zeros((2, SIZE**2), np.float32)
    if fault == "overflows":
        weights[0] = np.tile(np.repeat(np.float32([3e38, -3e38]), SIZE // 2), SIZE)
    constants = {"weights": weights, "shape": np.array([-1, 1, SIZE, SIZE]), "black": np.float32(0)}
    return _model(nodes, constants | {"white": np.float32(255)}, {"latent": LATENT}, {"image": PIXELS})


def _model(
    nodes: list[Any], constants: dict[str, Any], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> ModelProto:
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "faulty", _infos(inputs), _infos(outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _infos(tensors: dict[str, Tensor]) -> list[Any]:
    return [
        helper.make_tensor_value_info(name, TYPES[tensor.dtype], list(tensor.shape)) for name, tensor in tensors.items()
    ]
