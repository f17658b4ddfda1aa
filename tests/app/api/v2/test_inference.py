"""Inference by the Open Inference Protocol: what the wire may bring, well-formed and hostile."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.absurd import is_not_finite
from tests.conftest import Pixels, full, load_npz, npy, put_bundle

ENCODER, DECODER = "/v2/models/mnist-2d.encoder/infer", "/v2/models/mnist-2d.decoder/infer"
LATENT = {"name": "latent", "shape": [1, 2], "datatype": "FP32"}
LENGTH = "Inference-Header-Content-Length"


def request(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **members}).encode()


def latent(data: Any = (0.5, -1.2), **members: Any) -> dict[str, Any]:
    return LATENT | {"data": data} | members


def raw(size: Any, **members: Any) -> dict[str, Any]:
    return LATENT | {"parameters": {"binary_data_size": size}} | members


def joined(head: bytes, binary: bytes = b"") -> dict[str, Any]:
    return {"content": head + binary, "headers": {LENGTH: str(len(head))}}


def refused(answer: Any, status: int, pointer: str | None = None) -> str:
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    if pointer is not None:
        assert [error["pointer"] for error in body["errors"]] == [pointer]
        assert body["error"].startswith(f"Invalid input: {pointer}: ")
    return str(body["error"])


def test_json_flat_and_nested_without_a_content_type(client: TestClient) -> None:
    flat = client.post(DECODER, content=request(latent()))
    assert flat.headers["content-type"] == "application/json"
    assert {"x-queue-time", "x-inference-time", "x-total-time"} <= set(flat.headers)
    assert flat.headers["x-model"] == "mnist-2d"
    body = flat.json()
    assert (body["model_name"], body["model_version"], "id" in body) == ("mnist-2d.decoder", "2", False)
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("image", "UINT8", [1, 1, 28, 28])
    assert len(output["data"]) == 784
    nested = client.post(DECODER, content=request(latent([[0.5, -1.2]])), headers={"Content-Type": "text/plain"})
    assert nested.json() == body
    older = client.post("/v2/models/mnist-2d.decoder/versions/1/infer", content=request(latent())).json()
    assert older["model_version"] == "1"
    assert older["outputs"] != body["outputs"]


def test_each_output_is_binary_as_it_or_the_request_says(client: TestClient) -> None:
    for default, said, is_binary in [
        (True, None, True),
        (True, False, False),
        (False, True, True),
        (None, None, False),
    ]:
        parameters = {} if default is None else {"binary_data_output": default}
        wanted = {"name": "logits"} if said is None else {"name": "logits", "parameters": {"binary_data": said}}
        body = request(latent(), parameters=parameters, outputs=[wanted], id="x")
        answer = client.post(DECODER, content=body, headers={"Accept-Encoding": "identity"})
        assert (LENGTH in answer.headers) == is_binary
        length = int(answer.headers.get(LENGTH, len(answer.content)))
        head = json.loads(answer.content[:length])
        assert head["id"] == "x"
        (output,) = head["outputs"]
        if is_binary:
            assert answer.headers["content-type"] == "application/octet-stream"
            assert output["parameters"] == {"binary_data_size": 4 * 784}
            assert len(answer.content) == length + 4 * 784
        assert ("data" in output) != is_binary


def test_a_large_batch_is_written_as_a_small_one(client: TestClient, digits: Pixels) -> None:
    image = {"name": "image", "shape": [200, 1, 28, 28], "datatype": "UINT8", "data": digits[:200].ravel().tolist()}
    answer = client.post(ENCODER, content=request(image)).json()
    expected = load_npz(
        client.post(
            "/encode/npy?model=mnist-2d", content=npy(digits[:200]), headers={"Content-Type": "application/x-npy"}
        ).content
    )
    for output in answer["outputs"]:
        assert np.array_equal(np.array(output["data"], np.float32).reshape(200, 2), expected[output["name"]])
    decoded = request(latent([0.0] * 400, shape=[200, 2]), outputs=[{"name": "logits"}])
    assert len(client.post(DECODER, content=decoded).json()["outputs"][0]["data"]) == 200 * 784


def test_parameters_that_are_not_known_pass(client: TestClient) -> None:
    known = {"sequence_id": 1, "priority": 0, "anything": {"a": []}, "timeout": 10_000_000}
    wanted = [{"name": "image", "parameters": {"classification": 0, "x": None}, "extra": 1}]
    body = request(latent(parameters={"x": 1}), parameters=known, outputs=wanted, model_name="mnist-2d")
    assert client.post(DECODER, content=body).status_code == 200
    assert client.post(DECODER + "?anything=1", content=request(latent(), outputs=[])).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (request(), "/inputs"),
        (request(latent(), latent()), "/inputs"),
        (request(latent(name="image")), "/inputs"),
        (request(latent(name=None)), "/inputs/0/name"),
        (request(latent(shape=[2])), "/inputs/0/shape"),
        (request(latent(shape=[])), "/inputs/0/shape"),
        (request(latent(shape=[1] * 9)), "/inputs/0/shape"),
        (request(latent(shape=[1, 3])), "/inputs/0/shape"),
        (request(latent(shape=[1, -2])), "/inputs/0/shape/1"),
        (request(latent(shape=[True, 2])), "/inputs/0/shape/0"),
        (request(latent([], shape=[0, 2])), "/inputs/0/shape/0"),
        (request(latent(shape=[257, 2])), "/inputs/0/shape/0"),
        (request(latent(shape=[10**30, 2])), "/inputs/0/shape/0"),
        (request(latent(datatype="UINT8")), "/inputs/0/datatype"),
        (request(latent(datatype="BYTES")), "/inputs/0/datatype"),
        (request(latent([1, 2, 3])), "/inputs/0/data"),
        (request(latent([[1], [2]])), "/inputs/0/data"),
        (request(latent(["1", 2])), "/inputs/0/data"),
        (request(latent([True, 2])), "/inputs/0/data"),
        (request(latent([float("nan"), 2])), "/inputs/0/data"),
        (request(latent([1e39, 2])), "/inputs/0/data"),
        (request(latent([10**400, 2])), "/inputs/0/data"),
        (request(latent([1e39, 2], datatype="FP64")), "/inputs/0/data/0"),
        (request(latent(7)), "/inputs/0/data"),
        (request(LATENT), "/inputs/0"),
        (request(latent(parameters={"binary_data_size": 8})), "/inputs/0"),
        (request(raw("8")), "/inputs/0/parameters/binary_data_size"),
        (request(raw(-8)), "/inputs/0/parameters/binary_data_size"),
        (request(raw(True)), "/inputs/0/parameters/binary_data_size"),
        (request(raw(None)), "/inputs/0/parameters/binary_data_size"),
        (request(latent(), outputs=None), "/outputs"),
        (request(latent(), outputs=[{"name": "mean"}]), "/outputs/0/name"),
        (request(latent(), outputs=[{"name": "image"}] * 2), "/outputs/1/name"),
        (
            request(latent(), outputs=[{"name": "image", "parameters": {"binary_data": 1}}]),
            "/outputs/0/parameters/binary_data",
        ),
        (request(latent(), parameters={"binary_data_output": "yes"}), "/parameters/binary_data_output"),
        (request(latent(), parameters={"binary_data_output": None}), "/parameters/binary_data_output"),
        (request(latent(), parameters={"timeout": None}), "/parameters/timeout"),
        (request(latent(), parameters={"timeout": -1}), "/parameters/timeout"),
        (request(latent(), parameters={"timeout": 10**30}), "/parameters/timeout"),
        (request(latent(), parameters=[]), "/parameters"),
        (b"[]", ""),
    ],
)
def test_what_is_wrong_is_pointed_at(client: TestClient, body: bytes, pointer: str) -> None:
    answer = client.post(DECODER, content=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("data", "datatype"), [([256] * 784, "UINT8"), ([0.5] * 784, "UINT8"), ([1.5] * 784, "FP32"), ([-1] * 784, "FP64")]
)
def test_pixels_out_of_range(client: TestClient, data: list[float], datatype: str) -> None:
    image = {"name": "image", "shape": [1, 1, 28, 28], "datatype": datatype, "data": data}
    refused(client.post(ENCODER, content=request(image)), 422, "/inputs/0/data")


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"inputs": \xff}', b"[" * 100_000])
def test_what_is_no_json(client: TestClient, body: bytes) -> None:
    refused(client.post(DECODER, content=body), 400)


def test_binary_sizes_must_be_those_of_shape_and_type(client: TestClient) -> None:
    head = request(raw(8))
    assert client.post(DECODER, **joined(head, bytes(8))).status_code == 200
    for binary in (b"", bytes(7), bytes(9), bytes(8) + b"{}"):
        assert "another length" in refused(client.post(DECODER, **joined(head, binary)), 400)
    for size in (4, 12):
        place = "/inputs/0/parameters/binary_data_size"
        refused(client.post(DECODER, **joined(request(raw(size)), bytes(size))), 422, place)
    assert "another length" in refused(client.post(DECODER, **joined(request(latent()), bytes(8))), 400)
    assert "another length" in refused(client.post(DECODER, content=head), 400)


@pytest.mark.parametrize("length", ["-1", "1e3", "", "99999", "9" * 400, "x", "5"])
def test_headers_that_do_not_fit(client: TestClient, length: str) -> None:
    refused(client.post(DECODER, content=request(raw(8)) + bytes(8), headers={LENGTH: length}), 400)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_raw_binary_request_is_the_one_input_alone(
    client: TestClient, digits: Pixels, rows: int, coding: str
) -> None:
    latents, images = np.linspace(-1, 1, 2 * rows, dtype="<f4").reshape(rows, 2), digits[:rows, None]
    for path, array, described in (
        (DECODER, latents, {"name": "latent", "datatype": "FP32"}),
        (ENCODER, images, {"name": "image", "datatype": "UINT8"}),
        (ENCODER.replace("/infer", "/versions/1/infer"), images, {"name": "image", "datatype": "UINT8"}),
    ):
        content = array.tobytes()
        tensor = {**described, "shape": array.shape, "parameters": {"binary_data_size": len(content)}}
        head = request(tensor, parameters={"binary_data_output": True})
        expected = client.post(path, **joined(head, content))
        headers = {LENGTH: "0", "Content-Encoding": coding, "Content-Type": "application/octet-stream"}
        answer = client.post(path, content=gzip.compress(content) if coding == "gzip" else content, headers=headers)
        assert answer.status_code == 200
        assert answer.headers[LENGTH] == expected.headers[LENGTH]
        assert answer.content == expected.content


def test_what_is_wrong_with_a_raw_binary_request(client: TestClient) -> None:
    for path, content, words in (
        (DECODER, b"", "8 bytes for each row"),
        (DECODER, bytes(12), "8 bytes for each row"),
        (ENCODER, bytes(783), "784 bytes for each row"),
        (DECODER, bytes(8 * 257), "1 to 256 are allowed"),
        (DECODER, np.array([0, np.nan], "<f4").tobytes(), "not finite"),
    ):
        answer = client.post(path, content=content, headers={LENGTH: "0"})
        assert words in refused(answer, 422)
        assert [error["pointer"] for error in answer.json()["errors"]] == [""]
    assert client.post(DECODER, content=b"").status_code == 400


HEADS = st.sampled_from(
    [request(raw(8)), request(raw(7)), request(raw(2**62)), request(raw(8), raw(8)), request(latent()), b"", b"{}"]
)
HEADERS = st.none() | st.integers(-10, 400).map(str) | st.text(st.characters(codec="ascii", categories=["L", "N", "P"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(head=HEADS, binary=st.binary(max_size=20), length=HEADERS, cut=st.integers(0, 200))
def test_no_mixture_of_these_is_an_error_of_ours(
    client: TestClient, head: bytes, binary: bytes, length: str | None, cut: int
) -> None:
    headers = {LENGTH: str(len(head)) if length is None else length}
    content = (head + binary)[: -cut or None]
    answer = client.post(DECODER, content=content, headers=headers)
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "timeout"]), inner, max_size=2),
    max_leaves=6,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON | st.just("latent"),
        "shape": JSON | st.just([1, 2]),
        "datatype": JSON | st.sampled_from(["FP32", "FP16"]),
        "data": JSON | st.just([1, 2]),
        "parameters": JSON | st.builds(lambda size: {"binary_data_size": size}, JSON),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSORS, max_size=2) | JSON},
        optional={
            "id": JSON,
            "parameters": JSON,
            "outputs": st.lists(st.fixed_dictionaries({"name": JSON | st.just("image")}), max_size=2) | JSON,
        },
    )
)
def test_no_json_is_an_error_of_ours(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post(DECODER, content=json.dumps(body))
    overflows = answer.status_code == 500 and is_not_finite(answer.content)
    assert overflows or answer.status_code in (200, 400, 422, 504), answer.text


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_are_inflated_under_v2_alone_and_up_to_the_limit(
    make_client: Callable[..., TestClient], coding: str
) -> None:
    client = make_client(max_body_bytes=5000)
    pack = gzip.compress if coding == "gzip" else zlib.compress
    headers = {"Content-Encoding": coding}
    head = request(raw(8))
    packed = client.post(DECODER, content=pack(head + bytes(8)), headers=headers | {LENGTH: str(len(head))})
    assert packed.status_code == 200
    bomb = pack(request(latent()) + b" " * 10_000_000)
    assert len(bomb) > 5000
    refused(client.post(DECODER, content=bomb, headers=headers), 413)
    bomb = pack(request(latent()) + b" " * 5000)
    assert len(bomb) < 500
    assert "inflated" in refused(client.post(DECODER, content=bomb, headers=headers), 413)
    refused(client.post(DECODER, content=pack(request(latent()))[:-3], headers=headers), 400)
    refused(client.post(DECODER, content=request(latent()), headers=headers), 400)
    refused(client.post(DECODER, content=request(latent()), headers={"Content-Encoding": "br"}), 415)
    elsewhere = client.post("/decode", content=pack(b"{}"), headers=headers | {"Content-Type": "application/json"})
    assert elsewhere.status_code == 415


def test_answers_are_compressed_where_asked_and_worth_it(client: TestClient) -> None:
    body = request(latent(), outputs=[{"name": "logits"}])
    for asked, coding in [("gzip", "gzip"), ("deflate", "deflate"), ("gzip;q=0", None), ("br", None)]:
        answer = client.post(DECODER, content=body, headers={"Accept-Encoding": asked})
        assert answer.headers.get("content-encoding") == coding
        assert len(answer.json()["outputs"][0]["data"]) == 784
    image = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "UINT8", "data": [0] * 784}
    small = client.post(ENCODER, content=request(image), headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


def test_methods_paths_and_versions(client: TestClient) -> None:
    answer = client.get(DECODER)
    assert "not allowed" in refused(answer, 405)
    assert answer.headers["allow"] == "POST"
    for path in ("/v2/models/mnist-2d/infer", "/v2/models/nope.encoder/infer", "/v2/models/.encoder/infer"):
        refused(client.post(path, content=request(latent())), 404)
    refused(client.post("/v2/models/mnist-2d.decoder/versions/9/infer", content=request(latent())), 404)
    for version in ("0", "x", "9" * 5000):
        path = f"/v2/models/mnist-2d.decoder/versions/{version}/infer"
        refused(client.post(path, content=request(latent())), 422, "/path/version")
    refused(client.post("/v2/models/a/b/infer", content=b"{}"), 404)


def test_under_a_proxys_prefix(models_copy: Any) -> None:
    with TestClient(create_app(Settings(models_dir=models_copy)), root_path="/vae") as prefixed:
        answer = prefixed.post("/vae" + DECODER, content=request(latent()))
        assert answer.status_code == 200, answer.text
        refused(prefixed.get("/vae/v2/nope"), 404)


def test_limits_and_a_full_queue(make_client: Callable[..., TestClient]) -> None:
    client = make_client(queue_rows=4, max_rows=8)
    with full(client):
        answer = client.post(DECODER, content=request(latent()))
    assert "the queue is full" in refused(answer, 503)
    assert answer.headers["retry-after"] == "1"
    refused(client.post(DECODER, content=request(latent([0] * 18, shape=[9, 2]))), 422, "/inputs/0/shape/0")
    (seen,) = client.get("/v2/models/mnist-2d.decoder/stats").json()["model_stats"]
    assert seen["inference_stats"]["fail"]["count"] == 1
    assert client.get("/v2/models/mnist-2d.decoder/config").json()["max_batch_size"] == 8


def test_requests_are_counted_by_their_operation(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    client.post(DECODER, content=request(latent()))
    client.post(DECODER, content=b"")
    text = client.get("/metrics").text
    assert 'vae_requests_total{operation="v2_model_infer",status="200"} 1.0' in text
    assert 'vae_requests_total{operation="v2_model_infer",status="400"} 1.0' in text


def test_a_stopping_server(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    assert client.portal is not None
    client.portal.call(client.app_state["server"].catalog.batcher.close)
    assert client.get("/v2/health/live").json() == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/mnist-2d.encoder/ready"):
        assert "stopping" in refused(client.get(path), 503)
    refused(client.post(DECODER, content=request(latent())), 503)


def test_the_index_takes_a_body_or_none(client: TestClient) -> None:
    listed = client.post("/v2/repository/index")
    assert listed.json() == client.post("/v2/repository/index", content=b'{"ready": true}').json()
    assert {entry["name"] for entry in listed.json()} >= {"mnist.encoder", "mnist.decoder"}
    refused(client.post("/v2/repository/index", content=b"{"), 400)
    refused(client.post("/v2/repository/index", content=b'{"ready": 0}'), 422, "/ready")
    refused(client.get("/v2/repository/index"), 405)


def test_the_index_tells_what_is_not_served(make_client: Callable[..., TestClient], models_copy: Any) -> None:
    client = make_client()
    put_bundle(models_copy, 7)
    states = {(it["name"], it["version"]): it["state"] for it in client.post("/v2/repository/index").json()}
    assert states["mnist-2d.encoder", "1"] == "READY"
    assert states["mnist-2d.encoder", "7"] == "UNAVAILABLE"
    ready = client.post("/v2/repository/index", content=b'{"ready": true}').json()
    assert {it["version"] for it in ready} == {"1"}


def test_the_examples_of_the_document_work(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    infer = document["paths"]["/v2/models/{name}/infer"]["post"]
    name = infer["parameters"][0]["schema"]["examples"][0]
    inputs = document["components"]["schemas"]["InferRequest"]["properties"]["inputs"]["examples"][0]
    assert client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).status_code == 200
    assert client.get(f"/v2/models/{name}/versions/1").status_code == 200


def test_models_change_with_the_key_and_in_one_process_alone(make_client: Callable[..., TestClient]) -> None:
    bearer = {"Authorization": "Bearer a-key-of-16-chars"}
    client = make_client(admin_key="a-key-of-16-chars")
    for change in ("load", "unload"):
        path = f"/v2/repository/models/mnist-2d.encoder/{change}"
        answer = client.post(path, content=b"{")  # before the body is looked at
        assert "Missing or wrong key" in refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        refused(client.post(path, content=b"{", headers=bearer), 400)
        refused(client.post(path, content=b'{"parameters": 1}', headers=bearer), 422, "/parameters")
        refused(client.post(path, content=b'{"parameters": {"file:x": ""}}', headers=bearer), 422, "/parameters")
        refused(client.post(path.replace("mnist-2d", "nope"), headers=bearer), 404)
    load = client.post("/v2/repository/models/mnist-2d/load", headers=bearer)
    assert load.json() == {"name": "mnist-2d", "load": True}
    assert "default model" in refused(client.post("/v2/repository/models/mnist-2d/unload", headers=bearer), 409)
    several = make_client(admin_key="a-key-of-16-chars", workers=2)
    assert "several workers" in refused(several.post("/v2/repository/models/mnist-2d/load", headers=bearer), 409)


def test_a_model_may_be_called_as_a_graph_is(make_client: Callable[..., TestClient], models_copy: Any) -> None:
    client = make_client(admin_key="a-key-of-16-chars")
    put_bundle(models_copy, 1, name="x.encoder")
    bearer = {"Authorization": "Bearer a-key-of-16-chars"}
    for name in ("x.encoder", "x.encoder.decoder"):
        assert client.post(f"/v2/repository/models/{name}/load", headers=bearer).json()["load"]
        assert client.get("/v2/models/x.encoder.encoder/ready").json() == {"name": "x.encoder.encoder", "ready": True}
        assert client.post(f"/v2/repository/models/{name}/unload", headers=bearer).json()["unload"]
        refused(client.get("/v2/models/x.encoder.encoder"), 404)


def test_json_is_bounded_by_what_the_rows_can_take(client: TestClient) -> None:
    nested = b'{"inputs": [{"name": "latent", "shape": [1, 2], "datatype": "FP32", "data": [' + b"[]," * 3_000_000
    answer = client.post(DECODER, content=gzip.compress(nested + b"[]]}]}"), headers={"Content-Encoding": "gzip"})
    refused(answer, 413)
    whole = {"name": "image", "shape": [256, 1, 28, 28], "datatype": "FP32", "data": [0.12345678901234567] * 256 * 784}
    assert client.post("/v2/models/mnist-2d.encoder/infer", json={"inputs": [whole]}).status_code == 200


def test_json_of_the_repository_is_bounded_too(client: TestClient) -> None:
    refused(client.post("/v2/repository/index", content=b'{"ready": [' + b"[]," * 1_000_000 + b"[]]}"), 413)
