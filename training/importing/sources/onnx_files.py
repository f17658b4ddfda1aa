"""Read untrusted ONNX files: no weights from outside their folder, no NaN, only known operators."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, inliner, numpy_helper, version_converter

from app.errors import InferenceFailed
from app.inference.session import Session
from training.errors import ImportRefused
from training.importing.onnx_edits.dynamic_batch import make_batch_dynamic, run_in_portions
from training.importing.onnx_edits.random_operators import remove_random_operators
from training.importing.source import DTYPES, SourceGraph, file_name
from training.onnx_graph import all_graphs, all_tensors, replace_field

MAX_BYTES = 2**31 - 2**20
"""Maximum size of an ONNX file, in bytes: protobuf's limit is 2 GiB, and the edits need some room."""
MIN_OPSET = 11
"""Oldest opset that the edits work with. Older graphs are converted."""
IR_VERSION = 10
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of the operators that ONNX Runtime may have. It reports an operator that it lacks when it loads the graph."""


def read_graph(path: Path, *, is_encoder: bool) -> SourceGraph:
    """Read the encoder or the decoder from an ONNX file. ONNX Runtime runs it.

    Raises:
        BundleError: ONNX Runtime cannot load it.
        ImportRefused: it is not an ONNX file, or cannot be served.
    """
    return to_source_graph(read_model(path), file_name(path), is_encoder=is_encoder)


def read_model(path: Path) -> onnx.ModelProto:
    """Read a model, with the weights that lie in other files of its folder.

    Raises:
        ImportRefused: it is absent, not an ONNX file, too large, or takes weights from outside its folder.
    """
    name = file_name(path)
    if not path.is_file():
        raise ImportRefused(f"{path} is absent, or is not a file")
    _check_size(path.stat().st_size, name)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's decoders raise errors of their own
        raise ImportRefused(f"{name} is not an ONNX file") from error
    if not model.graph.node or not model.opset_import:
        raise ImportRefused(f"{name} is not an ONNX file: it has no nodes")
    _merge_external_data(model, path)
    return model


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise ImportRefused(f"{name} is too large: one ONNX file holds at most 2 GiB, external data included")


def _merge_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read weights that lie in other files of the model's folder into the model."""
    name, folder, total = file_name(path), path.parent.resolve(), path.stat().st_size
    external = [tensor for tensor in all_tensors(model.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = (folder / entries.get("location", "")).resolve()
        if not location.is_relative_to(folder) or not location.is_file():
            raise ImportRefused(f"{name} takes the weights `{tensor.name}` from a file outside its folder, or absent")
        length = entries.get("length", "")
        total += int(length) if length.isdigit() else location.stat().st_size
        _check_size(total, name)
    for tensor in external:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            raise ImportRefused(f"{name}: the weights `{tensor.name}` cannot be read from their file") from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def to_source_graph(model: onnx.ModelProto, name: str, *, is_encoder: bool) -> SourceGraph:
    """Check and normalize a model that ONNX Runtime runs, and make its batch size dynamic.

    Raises:
        BundleError: ONNX Runtime cannot load it.
        ImportRefused: it cannot be served; the message says what is wrong and where.
    """
    model = remove_random_operators(normalize(model, name), name, is_encoder=is_encoder)
    session = Session(model.SerializeToString(), name=name)
    rows = make_batch_dynamic(model)
    return SourceGraph(name, model, run_in_portions(lambda batch: list(run_session(session, batch).values()), rows))


def run_session(session: Session, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Run a graph of one input.

    Raises:
        ImportRefused: ONNX Runtime fails, or an output is not finite.
    """
    try:
        return session.run({session.inputs[0]: batch})
    except InferenceFailed as error:
        raise ImportRefused(
            f"{session.name} does not run in a batch of {len(batch)}: {str(error.__cause__).splitlines()[0]}"
        ) from error


def normalize(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Inline functions, convert an old opset, and remove weights from the inputs; then check the model.

    Raises:
        ImportRefused: it is too large, has an unknown operator or a NaN, or not one input of a known rank.
    """
    _check_size(model.ByteSize(), name)  # a graph that torch exported was not read from a file
    if model.functions:
        model = inliner.inline_local_functions(model)
    _check_operators(model, name)
    model = _convert_opset(model, name)
    model.ir_version = IR_VERSION
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    replace_field(model.graph.input, inputs)
    for tensor in all_tensors(model.graph):
        if tensor.data_type in DTYPES and np.isnan(numpy_helper.to_array(tensor)).any():
            raise ImportRefused(f"{name} has NaN among its weights: `{tensor.name or 'a constant'}`")
    _check_input(model, name)
    return model


def _convert_opset(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), MIN_OPSET)
    if version >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, MIN_OPSET)
    except Exception as error:  # the converter's exceptions have no other common base
        raise ImportRefused(
            f"{name} is of opset {version}, which cannot be converted: export it with 13 to 20"
        ) from error


def _check_operators(model: onnx.ModelProto, name: str) -> None:
    for node in chain.from_iterable(graph.node for graph in all_graphs(model.graph)):
        is_known = node.domain in DOMAINS[2:] or (node.domain in DOMAINS and onnx.defs.has(node.op_type))
        if not is_known:
            where = f", node `{node.name}`" if node.name else ""
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ImportRefused(f"{name} uses the operator `{operator}`, which ONNX Runtime does not have{where}")


def _check_input(model: onnx.ModelProto, name: str) -> None:
    inputs = model.graph.input
    if len(inputs) != 1:
        listed = ", ".join(f"`{value.name}`" for value in inputs) or "none"
        raise ImportRefused(f"{name} must have one input, the images or the latents, and has {listed}")
    tensor_type = inputs[0].type.tensor_type
    if tensor_type.elem_type not in DTYPES:
        known = ", ".join(map(str, DTYPES.values()))
        raise ImportRefused(f"{name} takes `{inputs[0].name}` of an element type that is none of {known}")
    if not tensor_type.HasField("shape"):
        raise ImportRefused(f"{name} takes `{inputs[0].name}` of any rank: export it with a fixed number of axes")
