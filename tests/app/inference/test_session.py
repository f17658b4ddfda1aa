"""ONNX Runtime behind its door."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from app.bundle.files import read_bundle
from app.errors import BundleError, ExecutionProviderError, InferenceFailed
from app.inference.session import Session, execution_providers
from tests.conftest import MODELS, ROOT


@pytest.fixture(scope="module")
def decoder() -> Session:
    return Session(read_bundle(MODELS / "mnist-2d" / "1").decoder, name="decoder")


def test_a_session_gives_the_outputs_asked_for(decoder: Session) -> None:
    assert decoder.inputs == ["latent"]
    latents = np.zeros((3, 2), np.float32)
    assert set(decoder.run({"latent": latents})) == {"image", "logits"}
    only = decoder.run({"latent": latents}, ["image"])
    assert list(only) == ["image"]
    assert (only["image"].shape, only["image"].dtype) == ((3, 1, 28, 28), np.uint8)


def test_rows_have_the_same_bits_in_every_batch(decoder: Session) -> None:
    latents = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    together = decoder.run({"latent": latents})["logits"]
    for size in (1, 2, 7, 32):
        assert np.array_equal(decoder.run({"latent": latents[:size]})["logits"], together[:size])


def test_wrong_inputs_are_an_inference_error(decoder: Session) -> None:
    with pytest.raises(InferenceFailed, match="decoder failed"):
        decoder.run({"latent": np.zeros((1, 3), np.float32)})


def test_nobody_is_told_that_it_is_used(tmp_path: Path) -> None:
    places = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | places
    subprocess.run([sys.executable, "-c", "import app.inference.session"], cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []  # neither an identifier nor a database of what is to be sent


def test_the_cost_of_shipped_graphs_is_known(decoder: Session) -> None:
    assert decoder.has_known_cost


def test_what_is_no_model_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="encoder of x cannot be loaded"):
        Session(b"junk", name="encoder of x")


def with_weights_in(location: str) -> bytes:
    """A model whose only weights are the first four bytes of a file."""
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, dims=[4], data_location="EXTERNAL")
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        weights.external_data.add(key=key, value=value)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


@pytest.mark.parametrize("location", ["keys", "./keys", "link", "folder/keys", "../outside", "/etc/passwd"])
def test_a_graph_reads_no_file_of_its_own(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    working = tmp_path / "working"
    (working / "folder").mkdir(parents=True)
    for path in (working / "keys", working / "folder/keys", tmp_path / "outside"):
        path.write_text("a secret")
    (working / "link").symlink_to(working / "keys")
    monkeypatch.chdir(working)
    with pytest.raises(BundleError, match="cannot be loaded by ONNX Runtime"):
        Session(with_weights_in(location), name="decoder")


def test_nothing_is_told_to_the_makers_of_onnx_runtime(tmp_path: Path) -> None:
    """It would keep what it has to tell in a database in the home directory."""
    program = (
        "from pathlib import Path; from app.bundle.files import read_bundle; "
        "from app.inference.session import Session; "
        "Session(read_bundle(Path('models/mnist-2d/1')).decoder, name='decoder')"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=inherited | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_execution_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert execution_providers("auto") == ["cpu"]
    assert execution_providers("cpu") == ["cpu"]
    with pytest.raises(ExecutionProviderError, match="VAE_EXECUTION_PROVIDER is cuda"):
        execution_providers("cuda")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert execution_providers("auto") == ["cuda", "cpu"]
    assert execution_providers("cuda") == ["cuda"]


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_silent_fall_back_to_the_cpu_is_an_error() -> None:
    model = read_bundle(MODELS / "mnist-2d" / "1").decoder
    with pytest.raises(ExecutionProviderError, match="fell back to CPUExecutionProvider"):
        Session(model, name="decoder", execution_provider="cuda")
