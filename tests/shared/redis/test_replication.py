"""Appends that replicas have to have, with two real servers: the log's, and one that follows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from frontend.parse.durability import DISK, Durability
from frontend.write.durable import Durable
from shared.errors import InvalidArgument, LessDurable
from shared.log.append import Appended, AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.log import Log
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.redis import replication
from shared.redis.client import command, open_redis
from shared.redis.keys import Keys
from shared.redis.replication import online_replicas
from tests.frontend.fakes import new_collection
from tests.redis_server import BINARIES, RedisServer, keys
from tests.shared.log.appending import eventually, make_cluster, make_collection

__all__ = ["keys"]


@pytest.fixture(scope="module", params=["valkey", "redis"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RedisServer, RedisServer]]:
    """The log's server and its replica."""
    binary = BINARIES[request.param]
    if binary is None:
        pytest.skip(f"no {request.param}-server here")
    folder = tmp_path_factory.mktemp("replicated")
    pair = RedisServer(binary, folder / "first"), RedisServer(binary, folder / "second")
    for server in pair:
        server.start()
    yield pair
    for server in pair:
        server.kill()


@pytest.fixture
async def clients(servers: tuple[RedisServer, RedisServer]) -> AsyncIterator[tuple[Redis, Redis]]:
    """Clients of both, once the second follows the first."""
    async with open_redis(servers[0].url) as first, open_redis(servers[1].url) as second:
        await command(first, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
        await command(second, "REPLICAOF", "127.0.0.1", servers[0].port)

        async def follows() -> bool:
            return await online_replicas(first) == 1

        await eventually(follows)
        yield first, second


def durable_over(redis: Redis) -> Durable:
    no_bucket: Any = None
    return Durable(Log(redis, Keys("t")), no_bucket, SystemClock())


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "WAIT_MS", 150)


class Writer:
    """Appends to one collection."""

    def __init__(self, redis: Redis, keys: Keys, collection: Any) -> None:
        self.log = Log(redis, keys)
        self.collection = collection

    async def append(self, request_id: str, replicas: int) -> Appended:
        batch = build_batch(Op.DELETE, [request_id])
        request = AppendRequest(
            collection_id=self.collection.id, request_id=request_id,
            batches=split_batch(batch, self.collection.layout), dimension=None, generation=None, replicas=replicas,
        )  # fmt: skip
        return await self.log.append(request)


@pytest.fixture
async def writer(clients: tuple[Redis, Redis], keys: Keys) -> Writer:
    catalog, database = await make_cluster(clients[0], keys)
    return Writer(clients[0], keys, await make_collection(catalog, database))


async def test_an_append_is_on_the_replica_when_it_returns(
    clients: tuple[Redis, Redis], writer: Writer, keys: Keys
) -> None:
    for number in range(20):
        appended = await writer.append(f"r{number}", 1)
        assert appended.replicas == 1
        assert await clients[1].xlen(keys.log(writer.collection.id, 0)) == number + 1


async def test_an_append_does_not_wait_where_none_was_asked_for(
    servers: tuple[RedisServer, RedisServer], writer: Writer
) -> None:
    with servers[1].frozen():
        async with asyncio.timeout(1.0):
            assert (await writer.append("r", 0)).replicas == 0


@pytest.mark.usefixtures("short_wait")
async def test_a_replica_that_does_not_answer_is_not_counted(
    servers: tuple[RedisServer, RedisServer], writer: Writer
) -> None:
    with servers[1].frozen():
        assert (await writer.append("r", 1)).replicas == 0
    assert (await writer.append("s", 1)).replicas == 1


@pytest.mark.usefixtures("short_wait")
async def test_an_append_that_is_repeated_waits_for_what_it_had_written(
    servers: tuple[RedisServer, RedisServer], clients: tuple[Redis, Redis], writer: Writer
) -> None:
    """The server remembers it, so nothing is written, and the connection that asks may never have written anything."""
    with servers[1].frozen():
        first = await writer.append("r", 1)
        await clients[0].connection_pool.disconnect()
        again = await writer.append("r", 1)
    assert (again.first, again.head) == (first.first, first.head)
    assert (first.replicas, again.replicas) == (0, 0)


async def test_a_class_that_cannot_be_reached_is_refused_before_anything_is_written(
    clients: tuple[Redis, Redis],
) -> None:
    durable = durable_over(clients[0])
    await durable.check(Durability(replicas=1))
    with pytest.raises(InvalidArgument, match="needs 2 replicas of the log's server, which has 1"):
        await durable.check(Durability(replicas=2))


async def test_too_few_confirmations_are_an_error_that_says_what_was_reached(clients: tuple[Redis, Redis]) -> None:
    durable, collection = durable_over(clients[0]), new_collection()
    await durable.reach(collection, Appended(1, 2, 1), Durability(replicas=1))
    await durable.reach(collection, Appended(1, 2), DISK)
    with pytest.raises(LessDurable) as error:
        await durable.reach(collection, Appended(1, 2, 1), Durability(replicas=2))
    assert error.value.reached == "disk"
