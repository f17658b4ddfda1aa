"""ONNX Runtime: arrays in, arrays out. The only file that imports onnxruntime."""

import os
from typing import Literal

# ONNX Runtime's telemetry reports the machine and its use, and keeps a database in the home directory. This must be set
# before the import; set it to 0 to allow telemetry.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort

from app.bundle.manifest import ExecutionProvider as ExecutionProvider
from app.errors import BundleError, ExecutionProviderError, InferenceFailed, NotFinite
from app.inference.onnx.cost import follows_from_shapes
from app.inference.onnx.finite import hidden_values, with_outputs
from app.inference.onnx.graph import read_graph
from app.maths.arrays import Arrays

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FLOATS = {"tensor(float)", "tensor(float16)", "tensor(double)"}

VERSION: str = ort.__version__
"""Version of ONNX Runtime."""


def execution_providers(asked: Literal["auto", "cpu", "cuda"]) -> list[ExecutionProvider]:
    """The execution providers to try, in order: `auto` tries CUDA first if this ONNX Runtime has it.

    Raises:
        ExecutionProviderError: `cuda` was asked for, and this ONNX Runtime has no CUDA provider.
    """
    has_cuda = _PROVIDERS["cuda"] in ort.get_available_providers()
    if asked == "cuda" and not has_cuda:
        raise ExecutionProviderError(
            "VAE_EXECUTION_PROVIDER is cuda, but this ONNX Runtime has no CUDA provider: install the extra `gpu` in "
            "place of `cpu`, or set cpu or auto"
        )
    if asked == "auto":
        return ["cuda", "cpu"] if has_cuda else ["cpu"]
    return [asked]


class Session:
    """One loaded graph. `run` may be called from several threads at once."""

    def __init__(
        self,
        model: bytes,
        *,
        name: str,
        execution_provider: ExecutionProvider = "cpu",
        threads: int = 1,
        any_size: bool = False,
    ) -> None:
        """Load the ONNX model in the bytes `model`.

        `name` is its name in errors. With `any_size`, its rows may have many shapes.

        Raises:
            BundleError: ONNX Runtime cannot load it.
            ExecutionProviderError: CUDA was asked for, and ONNX Runtime fell back to the CPU.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread would take a CPU from the Python code of the next request.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # External weights have no sha256, and a graph could name any file below the working directory.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        options.log_severity_level = 3
        options.enable_mem_pattern = not any_size  # it keeps one memory plan for each shape, forever
        provider = _PROVIDERS[execution_provider]
        if execution_provider == "cuda":
            ort.preload_dlls()  # CUDA and cuDNN of the extra `gpu` are in site-packages, on no search path
        graph = read_graph(model)
        hidden = hidden_values(graph)
        model = with_outputs(model, set(hidden.values()) - set(graph.outputs))
        try:
            self._session = ort.InferenceSession(model, options, providers=[provider])
        except Exception as error:  # ONNX Runtime's exceptions have no other common base
            raise BundleError(f"{name} cannot be loaded by ONNX Runtime: {str(error).splitlines()[0]}") from error
        if self._session.get_providers()[0] != provider:
            raise ExecutionProviderError(
                f"{name} was to run on {execution_provider}, but ONNX Runtime fell back to "
                f"{', '.join(self._session.get_providers())}: the CUDA or cuDNN libraries are missing"
            )
        self.name = name
        self.has_known_cost = follows_from_shapes(graph)
        """Whether the graph's latency depends on the number of its rows alone, not on their values."""
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]
        types = {tensor.name: tensor.type for tensor in self._session.get_outputs()}
        self.outputs = [name for name in types if name in graph.outputs]
        self._behind = {output: value for output, value in hidden.items() if types[value] in _FLOATS}
        """For outputs of integers, the float value that shows whether they are made of finite numbers."""

    def run(self, inputs: Arrays, outputs: list[str] | None = None) -> Arrays:
        """Run the graph on named inputs; returns the named outputs, by default all. They are finite.

        Raises:
            NotFinite: an output has a NaN or an infinity, or would have if it were not of integers.
            InferenceFailed: ONNX Runtime fails.
        """
        names = self.outputs if outputs is None else outputs
        behind = [value for name in names if (value := self._behind.get(name)) is not None and value not in names]
        fetched = [*names, *behind]
        try:
            given = dict(zip(fetched, self._session.run(fetched, inputs), strict=True))
        except Exception as error:
            raise InferenceFailed(f"{self.name} failed") from error
        try:
            check_finite(given)
        except FloatingPointError as error:
            raise NotFinite(f"{self.name} failed: {error}") from error
        return {name: given[name] for name in names}


def check_finite(arrays: Arrays) -> None:
    """Raise unless all floats are finite; JSON cannot represent others.

    Raises:
        FloatingPointError: an array has a NaN or an infinity.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FloatingPointError(f"`{name}` is not finite")
