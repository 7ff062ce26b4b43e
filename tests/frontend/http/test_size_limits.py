"""Limits of requests, over real sockets: what is too long is refused before anything is made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from frontend.config import FrontendConfig
from frontend.http.shown_path import SHOWN_PATH_CHARACTERS_MAX
from shared.process.config import ConfigError
from tests.frontend.fakes import new_config
from tests.frontend.server import COLLECTIONS, Running, running


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running(collection_bytes_max=100, json_containers_max=50) as server:
        yield server


async def test_a_long_path_is_refused_and_its_log_line_shows_its_beginning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as server:
        server.server.edge.access_log._least_status = 0
        for path in ("/api/v2/tenants/" + "x" * 60_000, "/api/v2/version?x=" + "y" * 60_000):
            answer = await server.client.get(path)
            assert (answer.status_code, answer.json()["error"]) == (414, "ChromaError")
            assert f"path: {len(path)} bytes, at most 8192" in answer.json()["message"]
        server.server.edge.access_log.flush()
    lines = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {len(line["path"]) for line in lines if line.get("status") == 414} <= {15, SHOWN_PATH_CHARACTERS_MAX + 3}
    assert all(len(orjson.dumps(line)) < 2000 for line in lines)


async def test_long_headers_are_refused(server: Running) -> None:
    headers = {f"x-{number}": "h" * 30_000 for number in range(3)}
    answer = await server.client.get("/api/v2/version", headers=headers)
    assert answer.status_code == 431
    assert "bytes, at most 65536" in answer.json()["message"]
    assert (await server.client.get("/api/v2/version")).status_code == 200


@pytest.mark.parametrize("nested", [b"{}", b"[]"])
async def test_a_body_of_brackets_is_refused_before_it_is_parsed(server: Running, nested: bytes) -> None:
    body = b'{"name":"abc","metadata":[' + b",".join([nested] * 60) + b"]"  # no JSON: nobody has parsed it
    answer = await server.client.post(COLLECTIONS, content=body)
    assert answer.status_code == 400
    assert answer.json()["message"] == "Limit exceeded: request body: 62 objects and arrays, at most 50"


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("POST", "/api/v2/tenants", {"name": "t" * 513}, "name: 513 bytes of a name, at most 512"),
        ("POST", "/api/v2/tenants", {"name": "\u00e9" * 257}, "name: 514 bytes of a name, at most 512"),
        ("PATCH", "/api/v2/tenants/x", {"resource_name": "t" * 513}, "resource_name: 513 bytes of a name"),
        ("POST", COLLECTIONS, {"name": "abc", "metadata": {"a": "x" * 100}}, "metadata, configuration, schema: 108 by"),
        ("POST", COLLECTIONS, {"name": "abc", "configuration": {"embedding_function": {"n": "x" * 99}}}, "at most 100"),
        ("PUT", f"{COLLECTIONS}/x", {"new_metadata": {"a": "x" * 100}}, "new_metadata, new_configuration: 108 bytes"),
    ],
)
async def test_what_the_catalog_would_keep_is_limited(
    server: Running, method: str, path: str, body: Any, refusal: str
) -> None:
    answer = await server.client.request(method, path, json=body)
    assert answer.status_code == 400
    assert refusal in answer.json()["message"]


def test_limits_that_contradict_each_other_are_told_together() -> None:
    with pytest.raises(ConfigError, match="NAME_BYTES_MAX is above a third") as caught:
        new_config(name_bytes_max=5000, ids_max=10**9)
    assert len(caught.value.problems) == 2
    assert FrontendConfig.problems(new_config()) == []
