"""The client that openapi-python-client generates, against a running server."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, Pixels, base64_png, from_base64, load_npz, npy, png
from tests.document import operations
from tests.pages import blocks
from tests.processes import PATIENCE

pytestmark = pytest.mark.slow(reason="generates a client, and imports all of it")

CONFIG = Path(__file__).parent / "python.yml"
PACKAGE = "vaeserve_client"
PAGE = (ROOT / "docs/clients.md").read_text()


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the client, by the command of docs/clients.md; importable as the package `vaeserve_client`."""
    folder = tmp_path_factory.mktemp("python")
    (shown,) = [line for line in PAGE.splitlines() if line.startswith("openapi-python-client ")]
    arguments = [str(ROOT / word) if (ROOT / word).is_file() else word for word in shown.split()[1:]]
    command = [sys.executable, "-m", "openapi_python_client", *arguments, "--fail-on-warning"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def api(generated: Path, address: str) -> Iterator[Any]:
    """Calls operations of the running server: `api("encode.encode_files", body=...)`."""
    with import_module(PACKAGE).Client(base_url=address, raise_on_unexpected_status=True, timeout=PATIENCE) as client:

        def call(operation: str, **arguments: Any) -> Any:
            return import_module(f"{PACKAGE}.api.{operation}").sync_detailed(client=client, **arguments)

        yield call


def model(name: str, **members: Any) -> Any:
    """An instance of a schema of the document."""
    return getattr(import_module(f"{PACKAGE}.models"), name)(**members)


def file(content: bytes, **named: str) -> Any:
    return import_module(f"{PACKAGE}.types").File(payload=io.BytesIO(content), **named)


def test_every_binary_media_type_is_known_to_the_generator() -> None:
    overrides = yaml.safe_load(CONFIG.read_text())["content_type_overrides"]
    document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    binary = {
        media_type
        for operation in operations(document)
        for content in (operation.body, *(answer.get("content", {}) for answer in operation.answers.values()))
        for media_type, described in content.items()
        if described["schema"].get("format") == "binary" and media_type != "application/octet-stream"
    }
    assert binary <= set(overrides)
    assert set(overrides.values()) == {"application/octet-stream"}


def test_every_operation_is_generated(generated: Path) -> None:
    document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    for operation in operations(document):
        (tag,) = operation.raw["tags"]
        assert import_module(f"{PACKAGE}.api.{tag}.{operation.id}").sync_detailed


def test_the_program_of_the_page_runs(generated: Path, address: str) -> None:
    (program,) = blocks(PAGE, "python")
    command = [sys.executable, "-c", program.replace("http://127.0.0.1:8000", address)]
    done = subprocess.run(command, cwd=generated, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == re.findall(r"print\(.*\)  # (.*)", program)[0]


def test_encode_and_decode(api: Any, digits: Pixels) -> None:
    encoded = api("encode.encode", body=model("PicturesRequest", images=[base64_png(digits[0])])).parsed
    assert (encoded.model, np.shape(encoded.mean)) == ("mnist", (1, 32))
    decoded = api("decode.decode", body=model("DecodeRequest", latents=encoded.mean)).parsed
    assert from_base64(decoded.images[0]).shape == (28, 28)


def test_encode_files(api: Any, digits: Pixels) -> None:
    files = [file(png(digit), file_name="digit.png", mime_type="image/png") for digit in digits[:3]]
    encoded = api("encode.encode_files", body=model("FilesRequest", images=files), draw=True, seed=7).parsed
    assert np.shape(encoded.mean) == np.shape(encoded.latents) == (3, 32)
    assert encoded.seed == 7


def test_arrays(api: Any, digits: Pixels) -> None:
    answer = api("encode.encode_npy", body=file(npy(digits[:2])))
    assert load_npz(answer.parsed.payload.read())["mean"].shape == (2, 32)


def test_pictures(api: Any) -> None:
    body = model("DecodeRequest", latents=[[0.5, -1.2]] * 4)
    decoded = api("decode.decode_image", body=body, model="mnist-2d", columns=2)
    assert Image.open(decoded.parsed.payload).size >= (56, 56)
    sampled = api("sample.sample_image", n=4, seed=1)
    assert Image.open(sampled.parsed.payload).format == "PNG"
    assert sampled.headers["x-seed"] == "1"


def test_sample(api: Any) -> None:
    first, again = (api("sample.sample", n=2, seed=5).parsed for _ in range(2))
    assert first == again
    assert np.shape(first.latents) == (2, 32)


def test_interpolate(api: Any, digits: Pixels) -> None:
    points = [model("Point", image=base64_png(digits[0])), model("Point", label=3)]
    path = api("interpolate.interpolate", body=model("InterpolateRequest", points=points, steps=5)).parsed
    assert len(path.images) == len(path.latents) == 5
    assert path.method == "lerp"


def test_score(api: Any, digits: Pixels) -> None:
    scored = api("score.score", body=model("PicturesRequest", images=[base64_png(digits[0])]), k=16, seed=1).parsed
    assert scored.log_likelihood[0] >= scored.elbo[0]
    assert 0 <= scored.score_percentile[0] <= 100


def test_an_error_is_a_problem_with_its_pointer(api: Any, digits: Pixels) -> None:
    images = [base64_png(digits[0]), "AAAA"]
    answer = api("encode.encode", body=model("PicturesRequest", images=images))
    assert answer.status_code == 422
    assert (answer.parsed.type_, answer.parsed.status) == ("urn:vaeserve:problem:invalid-input", 422)
    assert [error.pointer for error in answer.parsed.errors] == ["/images/1"]
    unknown = api("sample.sample", model="nope").parsed
    assert (unknown.status, unknown.title) == (404, "Unknown model or version")
