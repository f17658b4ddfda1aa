"""Foreign models made on the spot: linear autoencoders, fitted by PCA, in ONNX files of many habits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from app.bundle.files import Bundle, read_bundle
from tests.conftest import Pixels
from training.errors import ImportRefused
from training.importing.checks.round_trip import RoundTrip
from training.importing.options import Answers, BundleInfo, ImportOptions, TorchClass
from training.importing.pipeline import import_model
from training.importing.source import Source
from training.importing.sources.formats import read_source

LATENT = 32
LOG_VARIANCES = np.linspace(-4, -1, LATENT, dtype=np.float32)
"""Of every image's posterior, one a dimension."""
FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Linear:
    """x = center + basis z, planes of pixels in [0, 1]; and the habits of who exported it."""

    center: NDArray[np.float32]
    """`[C, H, W]`"""
    basis: NDArray[np.float32]
    """`[LATENT, C * H * W]`, orthonormal rows."""
    layout: str = "nchw"
    low: float = 0.0
    high: float = 1.0
    bgr: bool = False
    batch: int | None = None
    opset: int = 17

    @classmethod
    def fitted(cls, images: Pixels, **habits: Any) -> "Linear":
        """Fitted to images uint8 `[N, C, H, W]`."""
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        center = flat.mean(axis=0)
        basis = np.linalg.svd(flat - center, full_matrices=False)[2][:LATENT]
        return cls(center.reshape(images.shape[1:]), np.ascontiguousarray(basis), **habits)

    def mean(self, images: Pixels) -> NDArray[np.float32]:
        """The truth about the posterior means."""
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        return (flat - self.center.ravel()) @ self.basis.T

    def decoded(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """The truth about the images, in [0, 1] but for what a linear map overshoots."""
        return (latents @ self.basis + self.center.ravel()).reshape(-1, *self.center.shape)

    @property
    def _order(self) -> NDArray[np.int64]:
        """Which place of the planes each value of a flat image of this habit comes from."""
        places = np.arange(self.center.size).reshape(self.center.shape)
        places = places[::-1] if self.bgr else places
        return (places.transpose(1, 2, 0) if "nhwc" in self.layout else places).ravel()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image of this habit."""
        channels, height, width = self.center.shape
        flat = (channels * height * width,)
        shapes = {"nchw": (channels, height, width), "nhwc": (height, width, channels), "nhw": (height, width)}
        return shapes.get(self.layout, flat)

    def encoder(self, heads: str = "log_var") -> onnx.ModelProto:
        """`x` -> `mu` and `log_var`, or with `heads` `mu` alone, or `moments` in one tensor."""
        scale = self.high - self.low
        weights = self.basis[:, self._order] / scale
        bias = -(self.low / scale) * self.basis.sum(axis=1) - self.basis @ self.center.ravel()
        tensors = {"w": weights.T, "b": bias, "zeros": np.zeros_like(weights.T), "v": LOG_VARIANCES}
        nodes = [
            helper.make_node("Reshape", ["x", "rows"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["mu"]),
            helper.make_node("Gemm", ["flat", "zeros", "v"], ["log_var"]),
            helper.make_node("Concat", ["mu", "log_var"], ["moments"], axis=1),
        ]
        outputs = {"mu": ["mu"], "moments": ["moments"]}.get(heads, ["mu", "log_var"])
        sizes = {"mu": LATENT, "log_var": LATENT, "moments": 2 * LATENT}
        rows = np.array([self.batch or -1, -1 if self.batch else self.center.size])
        return self._model(
            nodes, tensors | {"rows": rows}, {"x": self.shape}, {name: (sizes[name],) for name in outputs}
        )

    def decoder(self, end: str | None = None) -> onnx.ModelProto:
        """`z` -> `y` in the habit's range, or with the operator `end` behind the values as they are."""
        scale = self.high - self.low if end is None else 1.0
        low = self.low if end is None else 0.0
        weights = self.basis[:, self._order] * scale
        bias = self.center.ravel()[self._order] * scale + low
        shape = np.array([self.batch or -1, *self.shape])
        nodes = [helper.make_node("Gemm", ["z", "w", "b"], ["flat"])]
        nodes += [helper.make_node(end, ["flat"], ["ended"])] if end else []
        nodes.append(helper.make_node("Reshape", ["ended" if end else "flat", "shape"], ["y"]))
        return self._model(nodes, {"w": weights, "b": bias, "shape": shape}, {"z": (LATENT,)}, {"y": self.shape})

    def _model(
        self, nodes: list[Any], tensors: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> onnx.ModelProto:
        def infos(told: dict[str, Any]) -> list[onnx.ValueInfoProto]:
            batch = self.batch or "N"
            return [helper.make_tensor_value_info(name, FLOAT, [batch, *shape]) for name, shape in told.items()]

        weights = [
            numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
            for name, value in tensors.items()
        ]
        read = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes, "foreign", infos(inputs), infos(outputs), [w for w in weights if w.name in read]
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def with_habits(self, **habits: Any) -> "Linear":
        return replace(self, **habits)


def halving() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """An autoencoder of colour images of 32 x 32 pixels whose latents are the same images at half the resolution."""
    x, z, y = (helper.make_tensor_value_info(n, FLOAT, ["N", 3, s, s]) for n, s in (("x", 32), ("z", 16), ("y", 32)))
    pool = helper.make_node("AveragePool", ["x"], ["z"], kernel_shape=[2, 2], strides=[2, 2])
    double = helper.make_node("Resize", ["z", "", "scales"], ["y"], mode="nearest")
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    graphs = helper.make_graph([pool], "half", [x], [z]), helper.make_graph([double], "double", [z], [y], [scales])
    encoder, decoder = (helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]) for graph in graphs)
    return encoder, decoder


def never(option: str, words: str, answers: Any) -> str:
    """Nobody to ask."""
    raise ImportRefused(f"asked for {option}")


def save(folder: Path, encoder: onnx.ModelProto, decoder: onnx.ModelProto) -> list[Path]:
    """Write both files."""
    paths = [folder / "encoder.onnx", folder / "decoder.onnx"]
    for path, model in zip(paths, (encoder, decoder), strict=True):
        path.write_bytes(model.SerializeToString())
    return paths


class Imported(NamedTuple):
    """A written bundle, and what was found on the way to it."""

    directory: Path
    round_trip: RoundTrip
    source: Source
    answers: Answers


def bring(
    source: list[Path] | TorchClass,
    folder: Path,
    images: Path | None = None,
    *,
    force: bool = False,
    name: str = "mine",
    **options: Any,
) -> Imported:
    """Import two files, a directory or a class into `folder/models`."""
    info = BundleInfo(folder / "models" / name / "1", name, 1, "A test.", "CC0-1.0", "unknown", "none")
    passed = ImportOptions(**options)
    foreign = read_source(source, passed, never)
    answers, trip = import_model(foreign, passed, info, images=images, ask=never, force=force)
    return Imported(info.directory, trip, foreign, answers)


def read(imported: Imported) -> Bundle:
    return read_bundle(imported.directory)
