"""A graph as it is read from an ONNX file's bytes: as the library onnx reads it."""

from pathlib import Path

import onnx
import pytest

from app.inference.onnx.graph import Node, read_graph
from tests.conftest import MODELS


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/*.onnx")), ids=lambda path: "/".join(path.parts[-3:]))
def test_nodes_and_outputs_are_those_of_the_library(path: Path) -> None:
    graph, expected = read_graph(path.read_bytes()), onnx.load(path).graph
    assert graph.nodes == [Node(it.op_type, list(it.input), list(it.output)) for it in expected.node]
    assert graph.outputs == [it.name for it in expected.output]
    assert graph.integers == [it.name for it in expected.output if it.name == "image"]
    assert {it.name for it in expected.initializer} <= graph.known
    assert not {"image", "latent", "mean", "logits"} & graph.known
    assert not graph.has_functions


def test_an_output_without_a_type_may_be_of_integers() -> None:
    body = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    body.output.append(onnx.ValueInfoProto(name="y"))
    assert read_graph(onnx.helper.make_model(body).SerializeToString()).integers == ["y"]


def test_an_operator_of_another_domain_has_no_name() -> None:
    body = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"], domain="mine")], "g", [], [])
    assert read_graph(onnx.helper.make_model(body).SerializeToString()).nodes == [Node("", ["x"], ["y"])]


@pytest.mark.parametrize("content", [b"", b"junk", b"\x3b", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x5a\xff"])
def test_what_is_no_model_has_no_nodes(content: bytes) -> None:
    assert read_graph(content).nodes == []
