"""A frontend as its process opens it, on a real server that goes away and comes back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from frontend.config import FrontendConfig
from frontend.service import Frontend, open_service
from shared.catalog import Catalog
from shared.errors import Unavailable
from shared.process.clock import SystemClock
from shared.process.config import ConfigError, read
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.redis_server import RedisServer

TENANT = "/api/v2/tenants/default_tenant"
ENVIRON = {"REDIS_URL": "redis://x", "POLYCHROME_BUCKET_URL": "memory://"}


async def found(server: RedisServer) -> None:
    async with open_redis(server.url) as redis:
        await Catalog(redis, Keys("pc")).mark.open()


def config(server: RedisServer) -> FrontendConfig:
    return FrontendConfig(redis_url=server.url, bucket_url="memory://", port=0, access_log="off")


async def test_it_answers_503_while_redis_is_away_and_recovers_by_itself(own_server: RedisServer) -> None:
    await found(own_server)
    async with (
        open_service(config(own_server)) as frontend,
        httpx.AsyncClient(base_url=f"http://{frontend.address}", timeout=30) as client,
    ):
        assert (await client.get(TENANT)).status_code == 200
        own_server.kill()
        answer = await client.get(TENANT)
        assert (answer.status_code, answer.json()["error"]) == (503, "ChromaError")
        assert (await client.post("/api/v2/tenants", json={"name": "abc"})).status_code == 503
        assert (await client.get("/api/v2/healthcheck")).status_code == 503
        assert (await client.get("/api/v2/version")).status_code == 200
        own_server.start()
        await found(own_server)
        assert (await client.get(TENANT)).status_code == 200
        assert (await client.get("/api/v2/tenants/abc")).status_code == 404


async def test_it_is_not_ready_without_workers_and_stops_in_order(own_server: RedisServer) -> None:
    await found(own_server)
    async with open_service(config(own_server)) as frontend, httpx.AsyncClient() as client:
        assert not frontend.ready()
        await frontend.drain()
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{frontend.address}/api/v2")


@pytest.mark.parametrize("log_service_away", [False, True])
async def test_draining_ends_in_its_time_and_has_told_the_log_service_before(log_service_away: bool) -> None:
    """Also when the answers are not taken, and the log service's queue does not answer either."""
    told = False

    async def never() -> None:
        await asyncio.Event().wait()

    async def flush() -> None:
        nonlocal told
        told = True
        if log_service_away:
            await never()

    server: Any = SimpleNamespace(drain=never)
    context: Any = SimpleNamespace(
        config=FrontendConfig(redis_url="redis://x", bucket_url="memory://", drain_timeout_s=0.2),
        clock=SystemClock(),
        dirty=SimpleNamespace(flush=flush),
    )
    witness_loop: Any = SimpleNamespace(leave=never)
    draining = asyncio.create_task(Frontend(server, context, witness_loop).drain())
    await asyncio.wait([draining], timeout=30)
    assert draining.done()
    assert isinstance(draining.exception(), TimeoutError)
    assert told


async def test_it_waits_for_a_cluster_that_is_not_open_yet(own_server: RedisServer) -> None:
    with pytest.raises(Unavailable):
        async with open_service(config(own_server)):
            pass


def test_settings_are_read_from_the_environment() -> None:
    given = {
        "POLYCHROME_FRONTEND_PORT": "8001",
        "POLYCHROME_FRONTEND_CORS_ALLOW_ORIGINS": "http://a, http://b",
        "POLYCHROME_FRONTEND_ALLOW_RESET": "true",
        "POLYCHROME_FRONTEND_SHARDS_DEFAULT": "4",
        "POLYCHROME_FRONTEND_BODY_BYTES_MAX": "100",
    }
    found = read(FrontendConfig, ENVIRON | given)
    assert (found.port, found.cors_allow_origins, found.allow_reset) == (8001, ("http://a", "http://b"), True)
    assert (found.shards_default, found.body_bytes_max) == (4, 100)


def test_wrong_settings_are_reported_together() -> None:
    given = {
        "POLYCHROME_FRONTEND_SHARDS_DEFAULT": "257",
        "POLYCHROME_FRONTEND_ACCESS_LOG": "some",
        "POLYCHROME_FRONTEND_BODY_BYTES_MAX": "0",
    }
    with pytest.raises(ConfigError) as caught:
        read(FrontendConfig, ENVIRON | given)
    assert len(caught.value.problems) == 3
