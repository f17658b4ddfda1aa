"""Graphs in half precision: what is computed in it, what is not, and that a CPU shows what it does."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from app.inference.session import Session
from training.errors import ReductionRefused
from training.onnx_graph import beside_products, inputs_of
from training.reducing.half_precision import compute_in_half, emulate_half, store_in_half

ROWS = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


def model_of(nodes: list[Any], weights: dict[str, Any], rank: int = 2) -> ModelProto:
    """A model of `x` `[batch, 8]` and `y`, of that rank."""
    values = [
        numpy_helper.from_array(value if isinstance(value, np.ndarray) else np.float32(value), name)
        for name, value in weights.items()
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph(nodes, "tried", [given], [made], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def weight(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def net() -> ModelProto:
    """Two products, and something before, between and behind them, of which the norm and the exponent are delicate."""
    return model_of(
        [
            helper.make_node("Mul", ["x", "scale"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "first"], ["a"]),
            helper.make_node("Add", ["a", "bias"], ["b"]),
            helper.make_node("LayerNormalization", ["b", "gain"], ["c"]),
            helper.make_node("Sigmoid", ["c"], ["d"]),
            helper.make_node("Mul", ["d", "c"], ["e"]),
            helper.make_node("MatMul", ["e", "second"], ["f"]),
            helper.make_node("Exp", ["f"], ["y"]),
        ],
        {
            "scale": 0.5,
            "first": weight(8, 6),
            "bias": weight(6, seed=2),
            "gain": np.ones(6, np.float32),
            "second": weight(6, 4, seed=3),
        },
    )


def run(model: ModelProto) -> Any:
    onnx.checker.check_model(model, full_check=True)
    return Session(model.SerializeToString(), name="tried").run({"x": ROWS})["y"]


def types(model: ModelProto) -> dict[str, int]:
    """Element type of what each operator gives, by the operator; of several the last one's."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.output)}
    return {node.op_type: known[node.output[0]] for node in model.graph.node if node.op_type != "Cast"}


def test_products_and_what_may_stand_between_them_compute_in_half_precision() -> None:
    half = compute_in_half(net(), "net.onnx")
    assert {operator for operator, type_ in types(half).items() if type_ == TensorProto.FLOAT} == {
        "LayerNormalization",
        "Exp",
    }
    first, *_ = half.graph.node
    assert (first.op_type, list(first.input)) == ("Mul", ["x", "scale"]), "what comes before the first keeps float32"
    stored = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert stored == {
        "scale": TensorProto.FLOAT,
        "gain": TensorProto.FLOAT,
        "first.half": TensorProto.FLOAT16,
        "bias.half": TensorProto.FLOAT16,
        "second.half": TensorProto.FLOAT16,
    }
    assert np.abs(run(half) / run(net()) - 1).max() < 0.02


def test_a_cpu_shows_the_rounding_of_every_result() -> None:
    """The same as an evaluator that has operators of half precision."""
    half = compute_in_half(net(), "net.onnx")
    (expected,) = ReferenceEvaluator(half).run(None, {"x": ROWS})
    bare = run(half)
    half = emulate_half(half)
    emulated, exact = run(half), run(net())
    assert np.abs(emulated / expected - 1).max() < 2e-3
    assert np.abs(emulated - exact).mean() > np.abs(bare - exact).mean()


def test_a_cpu_shows_an_overflow_between_two_products() -> None:
    model = model_of(
        [helper.make_node("MatMul", ["x", "up"], ["a"]), helper.make_node("MatMul", ["a", "down"], ["y"])],
        {"up": np.full((8, 8), 6e4, np.float32), "down": np.full((8, 2), 1e-4, np.float32)},
    )
    half = compute_in_half(model, "net.onnx")
    assert np.isfinite(run(half)).all(), "which ONNX Runtime leaves out"
    half = emulate_half(half)
    with pytest.raises(Exception, match="failed"):
        run(half)


def test_weights_used_on_both_sides_are_there_twice() -> None:
    model = model_of(
        [
            helper.make_node("Add", ["x", "shared"], ["a"]),
            helper.make_node("MatMul", ["a", "first"], ["b"]),
            helper.make_node("Add", ["b", "shared"], ["c"]),
            helper.make_node("MatMul", ["c", "second"], ["d"]),
            helper.make_node("Add", ["d", "b"], ["y"]),
        ],
        {"shared": weight(8), "first": weight(8, 8), "second": weight(8, 8, seed=4)},
    )
    expected = run(model)
    half = compute_in_half(model, "net.onnx")
    names = [tensor.name for tensor in half.graph.initializer]
    assert sorted(names) == ["first.half", "second.half", "shared", "shared.half"]
    assert np.abs(run(half) - expected).max() < 0.05


def test_what_a_subgraph_reads_keeps_float32_for_it() -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["b", "b"], ["twice"])],
        "branch",
        [],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, [None, None])],
    )
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "first"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "second"], ["c"]),
            helper.make_node("If", ["always"], ["d"], then_branch=branch, else_branch=branch),
            helper.make_node("Add", ["c", "d"], ["y"]),
        ],
        {"first": weight(8, 8), "second": weight(8, 8, seed=4), "always": np.array(True)},
    )
    assert "b" in inputs_of(model.graph.node[3])
    expected = run(model)
    half = compute_in_half(model, "net.onnx")
    assert np.abs(run(half) - expected).max() < 0.05


def test_a_resize_keeps_its_scales() -> None:
    model = model_of(
        [
            helper.make_node("Reshape", ["x", "square"], ["a"]),
            helper.make_node("Conv", ["a", "first"], ["b"]),
            helper.make_node("Resize", ["b", "", "scales"], ["c"], mode="nearest"),
            helper.make_node("Conv", ["c", "second"], ["y"]),
        ],
        {
            "square": np.array([0, 1, 2, 4]),
            "first": weight(3, 1, 1, 1),
            "scales": np.array([1, 1, 2, 2], np.float32),
            "second": weight(2, 3, 1, 1, seed=4),
        },
        rank=4,
    )
    expected = run(model)
    half = compute_in_half(model, "net.onnx")
    assert types(half)["Resize"] == TensorProto.FLOAT16
    assert np.abs(run(half) - expected).max() < 0.05


def test_matrices_are_stored_in_half_precision_and_vectors_are_not() -> None:
    model = net()
    store_in_half(model, "net.onnx")
    stored = {tensor.name: tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer}
    assert stored == {"scale": False, "first.half": True, "bias": False, "gain": False, "second.half": True}
    assert np.abs(run(model) / run(net()) - 1).max() < 0.01


def test_there_must_be_something_to_reduce() -> None:
    bare = model_of([helper.make_node("Add", ["x", "bias"], ["y"])], {"bias": weight(8)})
    with pytest.raises(ReductionRefused, match=r"net\.onnx has no float32 weights"):
        store_in_half(bare, "net.onnx")
    with pytest.raises(ReductionRefused, match=r"net\.onnx has no products of float32 weights"):
        compute_in_half(bare, "net.onnx")


def test_before_and_behind_products() -> None:
    after, before = beside_products(net().graph)
    operators = [node.op_type for node in net().graph.node]
    assert [operators[index] for index in sorted(after - before)] == ["MatMul", "Exp"]
    assert [operators[index] for index in sorted(before - after)] == ["Mul", "MatMul"]
