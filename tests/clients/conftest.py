"""A running server, for the clients that are generated from openapi.json."""

from collections.abc import Iterator

import pytest

from tests.conftest import MODELS, servers


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    """Where a server answers."""
    with servers() as start:
        _, client = start(models_dir=MODELS)
        yield str(client.base_url).rstrip("/")
