"""NVIDIA's client library, unchanged, against a live server."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.bundle.files import read_manifest
from app.bundle.manifest import Manifest
from app.maths.likelihood import PARAMETERS
from tests.conftest import MODELS, Pixels, Start, load_npy, load_npz, npy

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    triton: Any = importlib.import_module("tritonclient.http")
    ServerError: Any = importlib.import_module("tritonclient.utils").InferenceServerException

SHIPPED = sorted((path.parent.name, path.name) for path in MODELS.glob("*/[1-9]*"))
KEY = "a-key-of-16-chars"


@pytest.fixture(scope="module")
def foreign(live: httpx2.Client) -> Iterator[Any]:
    """The library's client."""
    client = client_of(live)
    yield client
    client.close()


def client_of(ours: httpx2.Client) -> Any:
    return triton.InferenceServerClient(f"{ours.base_url.host}:{ours.base_url.port}", concurrency=4)


def tensor(name: str, array: NDArray[Any], binary: bool = True) -> Any:
    kind = {"uint8": "UINT8", "float16": "FP16", "float32": "FP32", "float64": "FP64"}[str(array.dtype)]
    return triton.InferInput(name, list(array.shape), kind).set_data_from_numpy(array, binary_data=binary)


def outputs(*names: str, binary: bool = True) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def encoded(live: httpx2.Client, model: str, version: str, images: Pixels) -> dict[str, NDArray[Any]]:
    answer = live.post(
        "/encode/npy",
        params={"model": model, "version": version},
        content=npy(images),
        headers={"Content-Type": "application/x-npy"},
    )
    return load_npz(answer.content)


def decoded(live: httpx2.Client, model: str, version: str, latents: NDArray[Any]) -> NDArray[Any]:
    answer = live.post(
        "/decode/npy",
        params={"model": model, "version": version},
        content=npy(latents),
        headers={"Content-Type": "application/x-npy"},
    )
    return load_npy(answer.content)


def test_the_server_and_its_models(foreign: Any) -> None:
    assert foreign.is_server_live()
    assert foreign.is_server_ready()
    assert foreign.get_server_metadata()["name"] == "vaeserve"
    assert "binary_tensor_data" in foreign.get_server_metadata()["extensions"]
    listed = {(it["name"], it["version"]) for it in foreign.get_model_repository_index() if it["state"] == "READY"}
    assert listed == {(f"{name}.{graph}", version) for name, version in SHIPPED for graph in ("encoder", "decoder")}
    for name, version in listed:
        assert foreign.is_model_ready(name, version)
    assert not foreign.is_model_ready("mnist")
    assert not foreign.is_model_ready("mnist.encoder", "99")


def test_metadata_and_configuration(foreign: Any) -> None:
    metadata = foreign.get_model_metadata("mnist.encoder")
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 28, 28]}]
    assert metadata["outputs"][1] == {"name": "log_std", "datatype": "FP32", "shape": [-1, 32]}
    (only,) = foreign.get_model_metadata("digits-ae.encoder", "1")["outputs"]  # it has no posterior
    assert only["name"] == "mean"
    config = foreign.get_model_config("mnist-2d.decoder", "1")
    assert config["platform"] == "onnxruntime_onnx"
    assert config["max_batch_size"] == 256
    assert config["input"] == [{"name": "latent", "data_type": "TYPE_FP32", "dims": [2]}]
    assert [output["name"] for output in config["output"]] == ["image", "logits"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("model", "version"), SHIPPED)
def test_encoding_and_decoding_equal_our_own(
    foreign: Any, live: httpx2.Client, digits: Pixels, model: str, version: str, binary: bool
) -> None:
    manifest = read_manifest(MODELS / model / version)
    images = digits[:7, None] if manifest.image.channels == 1 else noise(manifest, 7)
    expected = encoded(live, model, version, images.transpose(0, 2, 3, 1))
    result = foreign.infer(
        f"{model}.encoder",
        [tensor("image", images, binary)],
        model_version=version,
        outputs=outputs(*expected, binary=binary),
        request_id="seven",
    )
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == version
    for name, array in expected.items():
        assert result.as_numpy(name).dtype == array.dtype
        assert np.array_equal(result.as_numpy(name), array)
    latents, parameter = expected["mean"], PARAMETERS[manifest.likelihood][0]
    result = foreign.infer(
        f"{model}.decoder",
        [tensor("latent", latents, binary)],
        model_version=version,
        outputs=outputs(parameter, "image", binary=binary),
    )
    assert [output["name"] for output in result.get_response()["outputs"]] == [parameter, "image"]
    pictures = result.as_numpy("image")
    own = decoded(live, model, version, latents)
    assert np.array_equal(pictures.transpose(0, 2, 3, 1).reshape(own.shape), own)
    means = result.as_numpy(parameter).astype(np.float64)
    levels = 255 / (1 + np.exp(-means)) if parameter == "logits" else 255 * means.clip(0, 1)
    assert np.abs(levels - pictures).max() < 0.51


def noise(manifest: Manifest, count: int) -> Pixels:
    """Images of a model's size, uint8 `[count, C, H, W]`."""
    image = manifest.image
    assert image.height is not None
    assert image.width is not None
    shape = (count, image.channels, image.height, image.width)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_without_outputs_all_usual_ones_come_back_in_binary(foreign: Any, live: httpx2.Client, digits: Pixels) -> None:
    expected = encoded(live, "mnist", "2", digits[:1])
    for binary in (True, False):
        result = foreign.infer("mnist.encoder", [tensor("image", digits[:1, None], binary)])
        assert [output["name"] for output in result.get_response()["outputs"]] == ["mean", "log_std"]
        assert all("data" not in output for output in result.get_response()["outputs"])
        assert np.array_equal(result.as_numpy("mean"), expected["mean"])
    result = foreign.infer("mnist.decoder", [tensor("latent", expected["mean"], False)])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["image"]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_other_float_types_are_taken_as_our_own_operations_take_them(
    foreign: Any, live: httpx2.Client, digits: Pixels, kind: Any
) -> None:
    scaled = (digits[:3, None] / 255).astype(kind)
    result = foreign.infer("mnist.encoder", [tensor("image", scaled)])
    assert np.array_equal(result.as_numpy("mean"), encoded(live, "mnist", "2", digits[:3])["mean"])
    latents = np.linspace(-1, 1, 64).reshape(2, 32).astype(kind)
    result = foreign.infer("mnist.decoder", [tensor("latent", latents)])
    assert np.array_equal(result.as_numpy("image")[:, 0], decoded(live, "mnist", "2", latents))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compression_of_requests_and_answers(
    foreign: Any, live: httpx2.Client, digits: Pixels, coding: str, binary: bool
) -> None:
    images = digits[:50, None]
    result = foreign.infer(
        "mnist.encoder",
        [tensor("image", images, binary)],
        outputs=outputs("mean", binary=binary),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert np.array_equal(result.as_numpy("mean"), encoded(live, "mnist", "2", digits[:50])["mean"])


def test_many_at_once_get_their_own(foreign: Any, live: httpx2.Client, digits: Pixels) -> None:
    expected = encoded(live, "mnist-2d", "2", digits[:40])["mean"]
    waiting = [foreign.async_infer("mnist-2d.encoder", [tensor("image", digits[i : i + 1, None])]) for i in range(40)]
    for i, one in enumerate(waiting):
        assert np.array_equal(one.get_result().as_numpy("mean"), expected[i : i + 1])


def test_statistics_count_what_ran(start: Start, digits: Pixels) -> None:
    _, ours = start(models_dir=MODELS, log_level="warning")
    foreign = client_of(ours)
    for rows in (1, 5):
        foreign.infer("mnist.encoder", [tensor("image", digits[:rows, None])])
    encoded(ours, "mnist", "2", digits[:3])
    with pytest.raises(ServerError):
        foreign.infer("mnist.encoder", [tensor("image", digits[:5, None])], timeout=1)
    (seen,) = foreign.get_inference_statistics("mnist.encoder", "2")["model_stats"]
    assert (seen["name"], seen["version"]) == ("mnist.encoder", "2")
    assert seen["inference_count"] == 9
    assert 3 <= seen["execution_count"] <= 9  # where the graph was measured on a busy machine, rows are split up
    counted = seen["inference_stats"]
    assert (counted["success"]["count"], counted["fail"]["count"]) == (3, 1)
    assert 0 < counted["compute_infer"]["ns"] <= counted["success"]["ns"] < 10e9
    assert counted["queue"]["count"] == 3
    assert seen["last_inference"] > 1.7e12
    (other,) = foreign.get_inference_statistics("mnist.encoder", "1")["model_stats"]
    assert other["last_inference"] == other["inference_count"] == 0
    assert len(foreign.get_inference_statistics("mnist.encoder")["model_stats"]) == 2
    assert len(foreign.get_inference_statistics()["model_stats"]) == 2 * len(SHIPPED)
    foreign.close()


def test_models_are_unloaded_and_loaded(start: Start) -> None:
    _, ours = start(models_dir=MODELS, admin_key=KEY, log_level="warning")
    foreign, bearer = client_of(ours), {"Authorization": f"Bearer {KEY}"}
    with pytest.raises(ServerError, match="Missing or wrong key"):
        foreign.unload_model("mnist-2d")
    for name in ("mnist-2d", "mnist-2d.encoder"):
        foreign.unload_model(name, headers=dict(bearer))
        assert not foreign.is_model_ready("mnist-2d.decoder")
        states = {it["name"]: it["state"] for it in foreign.get_model_repository_index()}
        assert (states["mnist-2d.encoder"], states["mnist.encoder"]) == ("UNAVAILABLE", "READY")
        foreign.load_model(name, headers=dict(bearer))
        assert foreign.is_model_ready("mnist-2d.decoder", "1")
    with pytest.raises(ServerError, match="the models directory alone"):
        foreign.load_model("mnist-2d", headers=dict(bearer), config="{}")
    with pytest.raises(ServerError, match="no such model"):
        foreign.load_model("nope", headers=dict(bearer))
    foreign.close()


def test_without_an_admin_key_nothing_is_unloaded(foreign: Any) -> None:
    with pytest.raises(ServerError, match="Not found"):
        foreign.unload_model("mnist-2d")
    assert foreign.is_model_ready("mnist-2d.encoder")


def unknown(foreign: Any, digits: Pixels) -> None:
    foreign.infer("nope.encoder", [tensor("image", digits[:1, None])])


def bare(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist", [tensor("image", digits[:1, None])])


def misshapen(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist.encoder", [tensor("image", digits[:1])])


def misnamed(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist.encoder", [tensor("latent", digits[:1, None])])


def mistyped(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist.decoder", [tensor("latent", np.zeros((1, 32), np.uint8))])


def no_such_output(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist.encoder", [tensor("image", digits[:1, None])], outputs=outputs("logits"))


def infinite(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist.decoder", [tensor("latent", np.full((1, 32), np.inf, np.float32))])


def too_many(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist.decoder", [tensor("latent", np.zeros((257, 32), np.float32))])


def too_late(foreign: Any, digits: Pixels) -> None:
    foreign.infer("mnist.encoder", [tensor("image", digits[:256, None])], timeout=1)


@pytest.mark.parametrize(
    ("call", "status", "sentence"),
    [
        (unknown, "404", "no model of this name"),
        (bare, "404", "models end in .encoder or .decoder"),
        (misshapen, "422", r"/inputs/0/shape: images must be \[N, 1, 28, 28\]"),
        (misnamed, "422", "one input, image"),
        (mistyped, "422", "/inputs/0/datatype: latent is sent as FP16, FP32, FP64"),
        (no_such_output, "422", "/outputs/0/name: name each of mean, log_std"),
        (infinite, "422", "/inputs/0/data/0: not finite as float32"),
        (too_many, "422", "1 to 256 are allowed"),
        (too_late, "504", "Deadline exceeded"),
    ],
)
def test_errors_are_our_sentences(
    foreign: Any, digits: Pixels, call: Callable[[Any, Pixels], None], status: str, sentence: str
) -> None:
    with pytest.raises(ServerError, match=sentence) as caught:
        call(foreign, digits)
    assert caught.value.status() == status
