"""ONNX files read with suspicion: no weights from elsewhere, no NaN, nothing that ONNX Runtime lacks."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, inliner, numpy_helper, version_converter

from app.errors import BundleError, InferenceFailed
from app.inference.session import Session
from training.errors import ImportRefused
from training.importing.onnx_edits.dynamic_batch import free_batch, in_batches
from training.importing.onnx_edits.random_operators import without_draws
from training.importing.source import TYPES, Arrays, Half, file_name
from training.onnx_graph import all_nodes, tensors

MOST_BYTES = 2**31 - 2**20
"""What one ONNX file can hold, nearly: protobuf ends at 2 GiB."""
OLDEST_OPSET = 11
"""The edits are written for this and all later ones; older graphs are converted."""
IR_VERSION = 10
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Of operators that ONNX Runtime may have; it has the last word itself."""


def read_half(path: Path, *, is_encoder: bool) -> Half:
    """One half from an ONNX file, which ONNX Runtime runs.

    Raises:
        ImportRefused: it is no ONNX file, or one that cannot be served.
    """
    return as_half(read_model(path), file_name(path), is_encoder=is_encoder)


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file, with the weights that lie beside it.

    Raises:
        ImportRefused: it is absent, no ONNX file, too large, or takes weights from outside its folder.
    """
    name = file_name(path)
    if not path.is_file():
        raise ImportRefused(f"{path} is absent, or is no file")
    if path.stat().st_size > MOST_BYTES:
        raise ImportRefused(f"{name} is too large: one ONNX file holds at most 2 GiB")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's decoders raise their own, which is no part of onnx
        raise ImportRefused(f"{name} is not an ONNX file") from error
    if not model.graph.node or not model.opset_import:
        raise ImportRefused(f"{name} is not an ONNX file: it has no nodes")
    _merge_external(model, path)
    return model


def _merge_external(model: onnx.ModelProto, path: Path) -> None:
    """Read the weights that lie in other files of the model's folder into the model."""
    folder, total = path.parent.resolve(), path.stat().st_size
    outside = [tensor for tensor in tensors(model.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in outside:
        told = {entry.key: entry.value for entry in tensor.external_data}
        location = (folder / told.get("location", "")).resolve()
        if not location.is_relative_to(folder) or not location.is_file():
            raise ImportRefused(
                f"{file_name(path)} takes the weights `{tensor.name}` from a file outside its folder, or absent"
            )
        length = told.get("length", "")
        total += int(length) if length.isdigit() else location.stat().st_size
        if total > MOST_BYTES:
            raise ImportRefused(
                f"{file_name(path)} is too large with its external data: one ONNX file holds at most 2 GiB"
            )
    for tensor in outside:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            raise ImportRefused(
                f"{file_name(path)}: the weights `{tensor.name}` cannot be read from their file"
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def as_half(model: onnx.ModelProto, name: str, *, is_encoder: bool) -> Half:
    """A checked model as a half that ONNX Runtime runs, in batches of any size.

    Raises:
        ImportRefused: it cannot be served; the message says what is wrong with it and where.
    """
    model = normal_form(model, name)
    model = without_draws(model, name, is_encoder=is_encoder)
    session, rows = load(model, name), free_batch(model)

    def run(batch: NDArray[Any]) -> Arrays:
        try:
            return list(session.run({session.inputs[0]: batch}).values())
        except InferenceFailed as error:
            raise ImportRefused(f"{name} does not run: {str(error.__cause__).splitlines()[0]}") from error

    return Half(name, model, in_batches(run, rows))


def load(model: onnx.ModelProto, name: str) -> Session:
    """The model in ONNX Runtime.

    Raises:
        ImportRefused: it cannot be loaded.
    """
    try:
        return Session(model.SerializeToString(), name=name)
    except BundleError as error:
        raise ImportRefused(str(error)) from error


def normal_form(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Without functions, of an opset that the edits are written for, its weights no inputs; checked.

    Raises:
        ImportRefused: too large, an operator that nobody knows, a weight that is NaN, not one input of a known rank.
    """
    if model.ByteSize() > MOST_BYTES:  # what torch exported was in no file yet
        raise ImportRefused(f"{name} is too large: one ONNX file holds at most 2 GiB")
    if model.functions:
        model = inliner.inline_local_functions(model)
    _check_operators(model, name)
    model = _new_enough(model, name)
    model.ir_version = IR_VERSION
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _check_weights(model, name)
    _check_input(model, name)
    return model


def _new_enough(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), OLDEST_OPSET)
    if version >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # the converter's exceptions have no common base but this one
        raise ImportRefused(
            f"{name} is of opset {version}, which cannot be converted: export it with 13 to 20"
        ) from error


def _check_operators(model: onnx.ModelProto, name: str) -> None:
    for node in all_nodes(model.graph):
        is_known = node.domain in DOMAINS[2:] or (node.domain in DOMAINS and onnx.defs.has(node.op_type))
        if not is_known:
            where = f", node `{node.name}`" if node.name else ""
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ImportRefused(f"{name} uses the operator `{operator}`, which ONNX Runtime does not have{where}")


def _check_weights(model: onnx.ModelProto, name: str) -> None:
    for tensor in tensors(model.graph):
        if tensor.data_type in TYPES and np.isnan(numpy_helper.to_array(tensor)).any():
            raise ImportRefused(f"{name} has NaN among its weights: `{tensor.name or 'a constant'}`")


def _check_input(model: onnx.ModelProto, name: str) -> None:
    inputs = model.graph.input
    if len(inputs) != 1:
        listed = ", ".join(f"`{value.name}`" for value in inputs) or "none"
        raise ImportRefused(f"{name} must have one input, the images or the latents, and has {listed}")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in TYPES:
        raise ImportRefused(f"{name} takes `{inputs[0].name}` of an element type that is none of {_types()}")
    if not kind.HasField("shape"):
        raise ImportRefused(f"{name} takes `{inputs[0].name}` of any rank: export it with a fixed number of axes")


def _types() -> str:
    return ", ".join(str(dtype) for dtype in TYPES.values())
