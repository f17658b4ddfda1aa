"""SECURITY.md: its links and its tests are there; and of what it claims, that which no other test shows."""

import io
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.bundle.files import describe, read_bundle, read_manifest, write_manifest
from app.errors import BundleError
from app.settings import Settings
from tests.conftest import MODELS, ROOT, servers
from tests.repo.test_docs import anchors, defined

TEXT = (ROOT / "SECURITY.md").read_text()
NPY = {"Content-Type": "application/x-npy"}


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 15
    assert [f"{path}::{name}" for path, name in named if name not in defined(ROOT / path)] == []


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        assert not anchor or anchor in anchors(ROOT / path), link


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(path: Path) -> bytes:
    """An npy file of one object, which creates the file when it is read."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([[Trap(path)]], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def test_the_trap_works(tmp_path: Path) -> None:
    np.load(io.BytesIO(pickled(tmp_path / "sprung")), allow_pickle=True)
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("path", ["/encode/npy", "/decode/npy", "/reconstruct/npy", "/score/npy"])
def test_nothing_is_unpickled(client: TestClient, path: str, tmp_path: Path) -> None:
    answer = client.post(path, content=pickled(tmp_path / "sprung"), headers=NPY)
    assert answer.status_code in (400, 422)
    assert not (tmp_path / "sprung").exists()


def test_a_bundle_is_not_unpickled(models_copy: Path, tmp_path: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    (directory / "label_means.npy").write_bytes(pickled(tmp_path / "sprung"))
    manifest = read_manifest(directory)
    entry = manifest.arrays["label_means"].model_copy(update=describe(directory / "label_means.npy"))
    write_manifest(directory, manifest.model_copy(update={"arrays": manifest.arrays | {"label_means": entry}}))
    with pytest.raises(BundleError, match=r"label_means\.npy is not an npy file"):
        read_bundle(directory)
    assert not (tmp_path / "sprung").exists()


def test_no_address_is_visited(client: TestClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/digit.png"
        for image in (address, f"url:{address}", f"data:image/png,{address}", f"file://{ROOT}/README.md"):
            assert client.post("/encode", json={"images": [image]}).status_code == 422
            assert client.post("/interpolate", json={"points": [{"image": image}, {"label": 3}]}).status_code == 422
            files = [("images", ("x.png", image.encode(), "image/png"))]
            assert client.post("/encode/files", files=files).status_code == 422
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    ("trusted", "addresses", "statuses"),
    [
        ("", ["192.0.2.1", "192.0.2.2", "192.0.2.3"], [200, 200, 429]),
        ("127.0.0.1", ["192.0.2.1", "192.0.2.2", "192.0.2.3"], [200, 200, 200]),
        ("127.0.0.1", ["x" * 20_000, "not an address", "192.0.2.1:x"], [200, 200, 429]),
        ("10.0.0.0/8", ["192.0.2.1", "192.0.2.2", "192.0.2.3"], [200, 200, 429]),
    ],
)
def test_no_proxy_is_believed_unless_it_is_named(trusted: str, addresses: list[str], statuses: list[int]) -> None:
    settings = {"trusted_proxies": trusted, "rate_limit": "2/hour", "models": "mnist-2d", "default_model": "mnist-2d"}
    with servers() as start:
        _, client = start(models_dir=MODELS, log_level="warning", **settings)
        answers = [client.get("/models", headers={"X-Forwarded-For": address}) for address in addresses]
    assert [answer.status_code for answer in answers] == statuses


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "127.0.0.1;10.0.0.1", "*,10.0.0.1"])
def test_what_names_no_proxy_stops_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="a proxy is an address"):
        Settings(trusted_proxies=text)
