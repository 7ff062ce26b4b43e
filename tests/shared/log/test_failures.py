"""The log while its server dies and comes back."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Collection, Database
from shared.errors import Unavailable, UnknownOutcome
from shared.log.log import Log
from shared.redis.client import command, open_redis, translated_errors
from shared.redis.keys import Keys
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, eventually, everything, make_cluster, make_collection

Opened = tuple[Redis, Catalog, Database, Log]


@pytest.fixture
async def opened(own_server: RedisServer, keys: Keys) -> AsyncIterator[Opened]:
    async with open_redis(own_server.url) as redis:
        yield redis, *await make_cluster(redis, keys), Log(redis, keys)


async def test_kill_9_of_the_server_under_load_loses_and_doubles_nothing(
    own_server: RedisServer, keys: Keys, opened: Opened
) -> None:
    _, catalog, database, log = opened
    collection = await make_collection(catalog, database, shards=2)
    acknowledged: dict[int, str] = {}
    sent: set[str] = set()
    stopping = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not stopping.is_set():
            ids = [f"{writer}.{number}.{j}" for j in range(3)]
            number += 1
            sent.update(ids)
            done = await append(log, collection, ids)
            acknowledged.update({done.first + j: record_id for j, record_id in enumerate(ids)})

    async def kill() -> None:
        chance = random.Random(7)
        for _ in range(3):
            goal = len(acknowledged) + chance.randrange(60, 200)

            async def reached(goal: int = goal) -> bool:
                return len(acknowledged) >= goal

            await eventually(reached)
            await asyncio.to_thread(own_server.restart)
        stopping.set()

    await asyncio.gather(kill(), *(write(i) for i in range(8)))
    found = await everything(log, collection)
    assert acknowledged.items() <= found.items()
    assert sorted(found) == list(range(1, len(found) + 1))
    assert set(found.values()) <= sent
    assert len(set(found.values())) == len(found)


async def test_an_append_rides_over_a_restart(own_server: RedisServer, opened: Opened) -> None:
    _, catalog, database, log = opened
    collection = await make_collection(catalog, database)
    own_server.kill()
    writing = asyncio.create_task(append(log, collection, ["a"]))
    await asyncio.sleep(0)
    await asyncio.to_thread(own_server.start)
    assert (await writing).first == 1


async def test_a_server_that_stays_away_is_unavailable_and_nothing_was_written(
    own_server: RedisServer, keys: Keys, opened: Opened
) -> None:
    redis, catalog, database, _ = opened
    # Tries begin after pauses of 20, 40, 80 and 160 ms: the deadline comes in the middle of the last pause, and not in
    # a try, of which it would not be known whether anything was sent.
    log = Log(redis, keys, append_deadline_s=0.2)
    collection = await make_collection(catalog, database)
    own_server.kill()
    # The idle connections, that of scripts and those of the pool, are found dead before an append is written to one.
    with pytest.raises(Unavailable):
        await log.read(collection.id, 0, bytes_max=1)  # a read of the whole log would have a minute
    with pytest.raises(Unavailable), translated_errors():
        await redis.ping()
    with pytest.raises(Unavailable) as refused:
        await append(log, collection, ["a"], request_id="r")
    assert not isinstance(refused.value, UnknownOutcome)
    await asyncio.to_thread(own_server.start)
    assert (await append(log, collection, ["b"])).first == 1  # recovered, scripts and all


async def test_an_answer_that_never_comes_is_an_unknown_outcome_and_the_request_id_settles_it(
    own_server: RedisServer, keys: Keys, opened: Opened
) -> None:
    redis, catalog, database, _ = opened
    log = Log(redis, keys, append_deadline_s=0.3)
    collection = await make_collection(catalog, database)
    request_id = uuid.uuid4().hex
    with own_server.frozen(), pytest.raises(UnknownOutcome):
        await append(log, collection, ["a"], request_id=request_id)
    settled = await append(log, collection, ["a"], request_id=request_id)
    assert (settled.first, settled.head) == (1, 2)
    assert await everything(log, collection) == {1: "a"}


async def test_a_cancellation_is_never_lost(own_server: RedisServer) -> None:
    chance = random.Random(3)
    for _ in range(40):
        async with open_redis(own_server.url) as redis:

            async def ask(client: Redis = redis) -> None:
                while True:
                    await command(client, "PING")

            asking = [asyncio.create_task(ask()) for _ in range(5)]
            await asyncio.sleep(chance.random() * 0.004)
            for task in asking:
                task.cancel()
            async with asyncio.timeout(5):
                ended = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended)


async def test_scripts_are_taught_again_to_a_server_that_forgot_them(opened: Opened) -> None:
    redis, catalog, database, log = opened
    collection = await make_collection(catalog, database)
    await append(log, collection, ["a"])
    await redis.script_flush()
    assert (await append(log, collection, ["b"])).first == 2
    await redis.script_flush()
    assert await catalog.databases.delete("default_tenant", "default_database")


async def test_after_losing_everything_appends_are_refused_until_the_cluster_is_opened_again(
    own_server: RedisServer, opened: Opened
) -> None:
    _, catalog, database, log = opened
    collection: Collection = await make_collection(catalog, database)
    await append(log, collection, ["a"])
    await asyncio.to_thread(own_server.lose_everything)
    for attempt in (
        lambda: append(log, collection, ["b"]),
        lambda: log.read(collection.id, 0),
        lambda: catalog.collections.get(database, "numbers"),
        lambda: catalog.databases.get("default_tenant", "default_database"),
        lambda: catalog.collections.of_database(database),
        lambda: catalog.collections.count(database),
        lambda: catalog.tenants.create("t"),
        lambda: make_collection(catalog, database, "other"),
        catalog.bootstrap,
        catalog.reset,
    ):
        with pytest.raises(Unavailable):
            await attempt()
