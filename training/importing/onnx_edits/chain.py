"""A chain of ONNX nodes, to put before or behind a foreign graph."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

PREFIX = "source."
"""Prefix of every name from the foreign graph."""


class Chain:
    """A chain of nodes that starts at one tensor. Every name in it begins with `name`."""

    def __init__(self, tensor: str, name: str) -> None:
        self.tensor, self._name = tensor, name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def then(self, operator: str, *constants: object, **attributes: Any) -> "Chain":
        """Append a node that takes the chain's last tensor, and constants as its further inputs."""
        output = f"{self._name}.{len(self.nodes)}"
        names = [f"{output}.{index}" for index in range(len(constants))]
        for name, constant in zip(names, constants, strict=True):
            self.constants.append(numpy_helper.from_array(np.asarray(constant), name))
        self.nodes.append(helper.make_node(operator, [self.tensor, *names], [output], **attributes))
        self.tensor = output
        return self

    def repeat(self, node: onnx.NodeProto) -> "Chain":
        """Append a node of the foreign graph that takes the chain's last tensor, and its own further inputs."""
        output = f"{self._name}.{len(self.nodes)}"
        repeated = onnx.NodeProto(op_type=node.op_type, domain=node.domain, attribute=node.attribute, output=[output])
        repeated.input.extend([self.tensor, *(name and PREFIX + name for name in node.input[1:])])
        self.nodes.append(repeated)
        self.tensor = output
        return self

    def minus(self, other: "Chain") -> "Chain":
        """Append the nodes of another chain, of another name, and the difference of both last tensors."""
        output = f"{self._name}.difference"
        difference = helper.make_node("Sub", [self.tensor, other.tensor], [output])
        self.nodes += [*other.nodes, difference]
        self.constants += other.constants
        self.tensor = output
        return self

    def renamed(self, name: str) -> "Chain":
        """Give the chain's last tensor a name."""
        self.nodes.append(helper.make_node("Identity", [self.tensor], [name]))
        self.tensor = name
        return self
