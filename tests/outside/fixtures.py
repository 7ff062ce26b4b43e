"""The server that the outside tests talk to: one cluster for the whole run, or the server named by TEST_SERVER_URL.

A real Chroma server can be named there to check the tests themselves (`allow_reset: true`,
`cors_allow_origins: ["http://example.com"]`).
"""

import os
from collections.abc import Iterator

import httpx
import pytest


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    given = os.environ.get("TEST_SERVER_URL")
    if not given:
        pytest.skip("no server")
    yield given


@pytest.fixture(scope="session")
def server_client(server_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server_url, timeout=60.0, follow_redirects=False) as client:
        yield client
