"""A running server, for the clients that are generated from openapi.json."""

import httpx2
import pytest


@pytest.fixture(scope="session")
def address(live: httpx2.Client) -> str:
    """Where a server answers."""
    return str(live.base_url).rstrip("/")
