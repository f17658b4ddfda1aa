"""Bundles that nobody trained: linear graphs of any size, for what the tiny trained ones don't have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.bundle import files as bundle
from app.bundle.manifest import Array, Manifest

TRAIN_IMAGES, TEST_IMAGES = 40, 60
EPOCHS = 12


@dataclass(frozen=True)
class Linear:
    """What a linear bundle is like. Its data set is an `.npz` file beside it."""

    latent: int = 3
    channels: int = 3
    size: int = 8
    labels: tuple[int, ...] | None = (0, 1, 2)
    """The labels of its images, evenly; None, if they have none."""
    likelihood: str = "gaussian"
    stochastic: bool = True
    mixture: bool = True
    watched: str = "test"
    extra_columns: tuple[str, ...] = ()
    recipe: str = ""
    """Further lines of the recipe, after the table of the data."""

    def write(self, folder: Path) -> Path:
        """Write `folder/odd.npz` and the bundle in `folder/models/odd/1`; returns that."""
        directory = folder / "models" / "odd" / "1"
        directory.mkdir(parents=True)
        np.savez(folder / "odd.npz", **self._data())
        (directory / "recipe.toml").write_text(f'[data]\ndataset = "npz"\npath = "odd.npz"\n{self.recipe}')
        (directory / "training.csv").write_text(self._log())
        onnx.save(self._encoder(), directory / "encoder.onnx")
        onnx.save(self._decoder(), directory / "decoder.onnx")
        bundle.write_manifest(directory, self._manifest(directory))
        return directory

    @property
    def image(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("logits",) if self.likelihood == "bernoulli" else ("mean", "log_scale")

    def _data(self) -> dict[str, Any]:
        rng, arrays = np.random.default_rng(0), {}
        for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, self.size, self.size, self.channels), np.uint8)
            if self.labels is not None:
                arrays[f"{split}_labels"] = np.resize(np.array(self.labels, np.uint8), count)
        return arrays

    def _log(self) -> str:
        names = ["reconstruction", "kl", "negative_elbo", *self.extra_columns]
        columns = [f"{split}/{name}" for split in ("train", self.watched) for name in names]
        rows = [f"{epoch}," + ",".join(f"{100 / epoch + i:.3f}" for i in range(len(columns))) for epoch in self._epochs]
        return "\n".join([",".join(["epoch", *columns]), *rows]) + "\n"

    @property
    def _epochs(self) -> range:
        return range(1, EPOCHS + 1)

    def _encoder(self) -> onnx.ModelProto:
        pixels = int(np.prod(self.image))
        weights = {"mean": self._matrix(pixels, self.latent), "log_std": 0.1 * self._matrix(pixels, self.latent)}
        heads = ["mean", "log_std"] if self.stochastic else ["mean"]
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["float", "range"], ["pixels"]),
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            *(helper.make_node("MatMul", ["flat", f"{head}_weight"], [head]) for head in heads),
        ]
        constants = {"range": np.float32(255)} | {f"{head}_weight": weights[head] for head in heads}
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *self.image])
        return _model(nodes, constants, image, [_floats(head, ["n", self.latent]) for head in heads])

    def _decoder(self) -> onnx.ModelProto:
        shape = np.array([-1, *self.image], np.int64)
        first, *others = self.parameters
        nodes = [
            helper.make_node("MatMul", ["latent", "weight"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], [first]),
            helper.make_node("Sigmoid", [first], ["unit"]),
            helper.make_node("Mul", ["unit", "range"], ["levels"]),
            helper.make_node("Cast", ["levels"], ["image"], to=TensorProto.UINT8),
            *(helper.make_node("Neg", ["unit"], [name]) for name in others),
        ]
        constants = {"weight": self._matrix(self.latent, shape[1:].prod()), "shape": shape, "range": np.float32(255)}
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *self.image])
        outputs = [image, *(_floats(name, ["n", *self.image]) for name in self.parameters)]
        return _model(nodes, constants, _floats("latent", ["n", self.latent]), outputs)

    @staticmethod
    def _matrix(rows: int, columns: int) -> np.ndarray:
        return np.random.default_rng(1).normal(0, rows**-0.5, (rows, columns)).astype(np.float32)

    def _arrays(self, directory: Path) -> dict[str, Array]:
        if not self.mixture:
            return {}
        labels = np.array([-1] if self.labels is None else sorted(set(self.labels)), np.int64)
        count, d = len(labels), self.latent
        arrays = {
            "aggregate_weights": np.full(count, 1 / count, np.float32),
            "aggregate_means": np.random.default_rng(2).normal(size=(count, d)).astype(np.float32),
            "aggregate_cholesky": np.tile(0.1 * np.eye(d, dtype=np.float32), (count, 1, 1)),
            "aggregate_labels": labels,
        }
        if self.labels is not None:
            arrays["label_means"] = arrays["aggregate_means"]
        return {name: bundle.write_array(directory, name, array) for name, array in arrays.items()}

    def _manifest(self, directory: Path) -> Manifest:
        def tensor(dtype: str, *shape: int) -> dict[str, Any]:
            return {"dtype": dtype, "shape": (None, *shape)}

        image, latent = tensor("uint8", *self.image), tensor("float32", self.latent)
        heads = {"mean": latent} | ({"log_std": latent} if self.stochastic else {})
        pictures = {"image": image} | {name: tensor("float32", *self.image) for name in self.parameters}
        graphs = {"encoder": ({"image": image}, heads), "decoder": ({"latent": latent}, pictures)}
        return Manifest.model_validate(
            {
                "name": "odd",
                "version": 1,
                "description": "Linear, and trained by nobody.",
                "license": "Apache-2.0",
                "created": "2026-01-01T00:00:00+00:00",
                "image": dict(zip(("channels", "height", "width"), self.image, strict=True))
                | {"mode": {1: "L", 3: "RGB"}[self.channels]},
                "latent": {"shape": (self.latent,)},
                "likelihood": self.likelihood,
                "graphs": {
                    name: bundle.describe(directory / f"{name}.onnx") | {"inputs": inputs, "outputs": outputs}
                    for name, (inputs, outputs) in graphs.items()
                },
                "arrays": self._arrays(directory),
                "training": {
                    "dataset": "odd.npz",
                    "binarization": "none",
                    "recipe": "recipe.toml",
                    "epochs": EPOCHS,
                    "seed": 0,
                },
            }
        )


def _floats(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], given: onnx.ValueInfoProto, outputs: list[Any]
) -> onnx.ModelProto:
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "linear", [given], outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
