"""Which model a request names."""

import pytest

from app.cluster.messages import ReplicaRequest
from app.cluster.routing import model_of


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("/encode", b"model=mnist-2d&seed=1", "mnist-2d"),
        ("/encode", b"seed=1", None),
        ("/encode", b"model=", ""),
        ("/encode", b"model=a%2Db", "a-b"),
        ("/encode", b"model=a&model=b", "a"),
        ("/encode", b"&".join([b"x=1"] * 5000) + b"&model=a", None),
        ("/models", b"", None),
        ("/models/mnist", b"version=1", "mnist"),
        ("/models/mnist", b"model=other", "mnist"),
        ("/models/mnist/load", b"", "mnist"),
        ("/v2/models/mnist.encoder", b"", "mnist"),
        ("/v2/models/a.b.decoder/versions/2/infer", b"", "a.b"),
        ("/v2/models/mnist", b"", None),
        ("/v2/models/stats", b"", None),
        ("/vae/models/mnist", b"", "mnist"),
    ],
)
def test_the_path_names_a_model_or_the_query_does(path: str, query: bytes, name: str | None) -> None:
    root = "/vae" if path.startswith("/vae") else ""
    assert model_of(ReplicaRequest({"path": path, "root_path": root, "query_string": query})) == name
