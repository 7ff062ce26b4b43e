"""Two servers: one as it comes, one with CORS. On the shared cluster that is one more frontend, without CORS."""

import os
from collections.abc import Iterator

import httpx
import pytest

from polychrome.local.process import Process, ProcessSpec, free_port
from tests.cluster.harness import Cluster


@pytest.fixture(scope="session")
def plain_url(request: pytest.FixtureRequest) -> Iterator[str]:
    given = os.environ.get("TEST_SERVER_URL")
    if given:
        yield given
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    (with_cors,) = cluster.role("frontend")
    port = free_port()
    environ = {**with_cors.spec.environ, "POLYCHROME_FRONTEND_PORT": str(port)}
    del environ["POLYCHROME_FRONTEND_CORS_ALLOW_ORIGINS"]
    spec = ProcessSpec("frontend-plain", "frontend", with_cors.spec.argv, environ)
    process = Process(spec, cluster.directory / "logs" / "frontend-plain.log")
    process.start()
    try:
        cluster.wait_ready(process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


@pytest.fixture(scope="session")
def cors_url(request: pytest.FixtureRequest) -> str:
    given = os.environ.get("TEST_CORS_SERVER_URL")
    if given:
        return given
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.url


@pytest.fixture(scope="session")
def plain_client(plain_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=plain_url, timeout=60.0, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="session")
def cors_client(cors_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cors_url, timeout=60.0, follow_redirects=False) as client:
        yield client
