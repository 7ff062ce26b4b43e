"""The server that the outside tests talk to: the shared cluster, or the server named by TEST_SERVER_URL.

A real Chroma server can be named there to check the tests themselves (`allow_reset: true`), and TEST_CORS_SERVER_URL
names another one with `cors_allow_origins: ["http://example.com"]`.
"""

import os
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster.harness import Cluster


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """A server with reset switched on."""
    given = os.environ.get("TEST_SERVER_URL")
    if given:
        return given
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.url


@pytest.fixture(scope="session")
def server_client(server_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server_url, timeout=60.0, follow_redirects=False) as client:
        yield client
