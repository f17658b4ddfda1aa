"""ONNX Runtime: arrays in, arrays out. The only file that imports onnxruntime."""

from typing import Any, Literal

import onnxruntime as ort
from numpy.typing import NDArray

from app.errors import BundleError, ExecutionProviderError, InferenceFailed

ExecutionProvider = Literal["cpu", "cuda"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

Arrays = dict[str, NDArray[Any]]


def execution_providers(asked: Literal["auto", "cpu", "cuda"]) -> list[ExecutionProvider]:
    """The execution providers to try, in order: `auto` tries CUDA first where this ONNX Runtime has it.

    Raises:
        ExecutionProviderError: `cuda` was asked for and this ONNX Runtime has none.
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
        """Load the ONNX model in `model`; `name` is what errors call it, and `any_size` tells whether its rows may have
        many shapes.

        Raises:
            BundleError: ONNX Runtime cannot load it.
            ExecutionProviderError: CUDA was asked for, and ONNX Runtime fell back to the CPU.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread takes a CPU from the next request's Python.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        options.enable_mem_pattern = not any_size  # it would remember one for each shape, for ever
        provider = _PROVIDERS[execution_provider]
        if execution_provider == "cuda":
            ort.preload_dlls()  # CUDA and cuDNN of the extra `gpu`, which lie in site-packages and on no search path
        try:
            self._session = ort.InferenceSession(model, options, providers=[provider])
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this one
            raise BundleError(f"{name} cannot be loaded by ONNX Runtime: {str(error).splitlines()[0]}") from error
        if self._session.get_providers()[0] != provider:
            raise ExecutionProviderError(
                f"{name} was to run on {execution_provider}, but ONNX Runtime fell back to "
                f"{', '.join(self._session.get_providers())}: the CUDA or cuDNN libraries are missing"
            )
        self.name = name
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]
        self.outputs = [tensor.name for tensor in self._session.get_outputs()]

    def run(self, inputs: Arrays, outputs: list[str] | None = None) -> Arrays:
        """Run the graph on named inputs; returns the named outputs, all of them by default.

        Raises:
            InferenceFailed: ONNX Runtime refuses or fails.
        """
        names = self.outputs if outputs is None else outputs
        try:
            return dict(zip(names, self._session.run(names, inputs), strict=True))
        except Exception as error:
            raise InferenceFailed(f"{self.name} failed") from error
