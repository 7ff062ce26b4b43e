"""The process: announced while it serves, refused while it leaves, gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from queryworker.config import QueryWorkerConfig
from queryworker.service import QueryWorker, open_service
from shared.cluster.membership import Membership
from shared.errors import Gone, InvalidArgument, PolychromeError, Unavailable
from shared.process.config import ConfigError, read
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.rpc import messages
from shared.rpc.client import RpcClient
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

COUNT = "count"


def _environ(world_dir: Path, server: RedisServer, keys: Keys, **more: str) -> dict[str, str]:
    return {
        "REDIS_URL": server.url,
        "POLYCHROME_REDIS_PREFIX": keys.prefix,
        "POLYCHROME_BUCKET_URL": f"file://{world_dir}/bucket",
        "POLYCHROME_QUERYWORKER_CACHE_DIR": str(world_dir / "cache"),
        "POLYCHROME_PROCESS_ID": "worker-1",
        **more,
    }


@contextlib.asynccontextmanager
async def _served(
    server: RedisServer, keys: Keys, directory: Path, **more: str
) -> AsyncIterator[tuple[World, QueryWorker, Membership, RpcClient]]:
    async with open_world(server.url, keys, directory) as world:
        config = read(QueryWorkerConfig, _environ(directory, server, keys, **more))
        client = RpcClient()
        async with open_service(config) as worker:
            yield world, worker, Membership(world.redis, keys, "queryworker"), client
        await client.close()


def _count(world: World) -> bytes:
    return msgspec.msgpack.encode(messages.CountRequest(world.shard()))


async def test_a_worker_announces_itself_and_answers(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with _served(valkey_server, keys, tmp_path) as (world, worker, membership, client):
        await world.write([Operation(Op.ADD, "a", (1.0, 2.0))])
        (member,) = await membership.members()
        assert (member.id, member.draining) == ("worker-1", False)
        answer = await client.call(member.address, COUNT, _count(world), timeout_s=5)
        assert msgspec.msgpack.decode(answer, type=messages.CountResponse) == messages.CountResponse(1, world.head)
        assert worker.ready()


async def test_errors_reach_the_caller_as_what_they_are(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with _served(valkey_server, keys, tmp_path) as (world, worker, _, client):
        with pytest.raises(InvalidArgument, match="CountRequest"):
            await client.call(worker.address, COUNT, b"\xc1", timeout_s=5)
        unknown = msgspec.msgpack.encode(messages.CountRequest(messages.Shard("nobody")))
        with pytest.raises(Gone):
            await client.call(worker.address, COUNT, unknown, timeout_s=5)
        await world.lifecycle.mark_deleted([world.collection])
        with pytest.raises(Gone):
            await client.call(worker.address, COUNT, _count(world), timeout_s=5)


async def test_a_draining_worker_says_so_refuses_and_leaves(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with _served(valkey_server, keys, tmp_path) as (world, worker, membership, client):
        await client.call(worker.address, COUNT, _count(world), timeout_s=5)
        await worker.drain()
        assert not worker.ready()
        assert await membership.members() == []
        with pytest.raises(PolychromeError):
            await client.call(worker.address, COUNT, _count(world), timeout_s=5)


async def test_a_worker_on_every_interface_advertises_an_address_that_reaches_it(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    wildcard = {"POLYCHROME_QUERYWORKER_HOST": "0.0.0.0", "POLYCHROME_CLUSTER_AUTH": "off-on-every-address"}
    async with _served(valkey_server, keys, tmp_path, **wildcard) as (world, worker, _, client):
        assert worker.address.startswith("127.0.0.1:")
        await client.call(worker.address, COUNT, _count(world), timeout_s=5)
    named = {"POLYCHROME_QUERYWORKER_ADVERTISE_HOST": "worker.example"}
    async with _served(valkey_server, keys, tmp_path / "named", **named) as (_, worker, _, _):
        assert worker.address.startswith("worker.example:")


async def test_a_worker_does_not_listen_to_others_without_a_secret(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="POLYCHROME_CLUSTER_SECRET_FILE"):
        async with _served(valkey_server, keys, tmp_path, POLYCHROME_QUERYWORKER_HOST="0.0.0.0"):
            pass


def test_wrong_settings_are_all_reported() -> None:
    environ = {"REDIS_URL": "http://x", "POLYCHROME_QUERYWORKER_THREADS": "0", "POLYCHROME_QUERYWORKER_NONSENSE": "1"}
    with pytest.raises(ConfigError) as caught:
        read(QueryWorkerConfig, environ)
    assert len(caught.value.problems) == 4


async def test_the_process_serves_and_stops_on_a_signal(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, "a", (1.0, 2.0))])
        await world.compact()
        membership, client = Membership(world.redis, keys, "queryworker"), RpcClient()
        environ = {**os.environ, **_environ(tmp_path, valkey_server, keys)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "queryworker", env=environ, stderr=asyncio.subprocess.PIPE
        )
        try:
            address = await asyncio.wait_for(_announced(membership), 60)
            for _ in range(2):
                answer = await client.call(address, COUNT, _count(world), timeout_s=20)
                assert msgspec.msgpack.decode(answer, type=messages.CountResponse).count == 1
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0, errors.decode()
            assert b"Traceback" not in errors
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert await membership.members() == []
        with pytest.raises(Unavailable):
            await client.call(address, COUNT, _count(world), timeout_s=5)
        await client.close()


async def _announced(membership: Membership) -> str:
    while not (members := await membership.members()):  # noqa: ASYNC110 (another process is waited for)
        await asyncio.sleep(0.02)
    return members[0].address
