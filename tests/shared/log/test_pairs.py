"""The metadata keys of a collection: how many there may be, and what reading them costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Collection, Database
from shared.limits import NEW_PAIRS_MAX
from shared.log.batch import build_batch, split_batch
from shared.log.log import Log
from shared.log.pairs import Mark, PairsCache, PairsFull
from shared.records.model import Op
from shared.redis.keys import Keys
from tests.shared.log.appending import append, append_batches, make_collection

Pair = tuple[str, str]


@pytest.fixture
def log(redis: Redis, keys: Keys) -> Log:
    return Log(redis, keys, metadata_pairs_max=5)


async def write(log: Log, collection: Collection, pairs: Sequence[Pair], **options: Any) -> None:
    batch = build_batch(Op.UPSERT, ["a"], np.zeros((1, 2), np.float32))
    batches = split_batch(batch, collection.layout)
    await append_batches(log, collection, batches, dimension=2, new_keys=pairs, **options)


def pairs(*names: str) -> list[Pair]:
    return [(name, "string") for name in names]


async def test_a_write_that_brings_too_many_keys_is_refused_and_changes_nothing(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    await write(log, collection, pairs("a", "b", "c"))
    before = await redis.hgetall(keys.state(collection.id))
    with pytest.raises(PairsFull, match=r"^Quota exceeded: .* current usage of 3 exceeds limit of 5$"):
        await write(log, collection, pairs("c", "d", "e", "f"), request_id="refused")
    assert await redis.hgetall(keys.state(collection.id)) == before
    assert await redis.scard(keys.metadata_keys(collection.id)) == 3
    assert not await redis.exists(keys.request(collection.id, "refused"))


async def test_keys_that_are_there_already_do_not_count_again(catalog: Catalog, database: Database, log: Log) -> None:
    collection = await make_collection(catalog, database)
    await write(log, collection, pairs("a", "b", "c"))
    await write(log, collection, pairs("a", "b", "c", "d", "e"))
    await write(log, collection, pairs("a", "b", "c", "d", "e"))
    await append(log, collection, ["x"])
    with pytest.raises(PairsFull):
        await write(log, collection, [("a", "int")])


async def test_a_collection_that_has_too_many_already_takes_writes_that_bring_none(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    await write(Log(redis, keys), collection, pairs(*"abcdefgh"))
    await write(log, collection, pairs("a", "h"))
    with pytest.raises(PairsFull):
        await write(log, collection, pairs("i"))


async def test_as_many_keys_as_one_append_may_bring_hold_the_server_for_a_moment(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys
) -> None:
    collection = await make_collection(catalog, database)
    many = pairs(*(f"{number:0400d}" for number in range(NEW_PAIRS_MAX)))
    await redis.slowlog_reset()
    await write(Log(redis, keys), collection, many)
    slow = [entry for entry in await redis.slowlog_get() if b"EVAL" in entry["command"][:10]]
    assert all(entry["duration"] < 1_000_000 for entry in slow)
    with pytest.raises(ValueError, match="pairs"):
        await write(Log(redis, keys), collection, [*many, ("one", "more")])


async def calls_of(redis: Redis, command: str) -> int:
    stats: dict[str, Any] = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def test_the_keys_are_read_once_and_again_when_they_have_changed(
    catalog: Catalog, database: Database, redis: Redis, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    await write(log, collection, pairs("a", "b"))
    before = await calls_of(redis, "smembers")
    for _ in range(3):
        found = await catalog.collections.get_by_id(database, collection.id)
        assert found is not None
        assert found.keys == set(pairs("a", "b"))
        assert [each.keys for each in await catalog.collections.of_database(database)] == [found.keys]
    assert await calls_of(redis, "smembers") == before + 1
    await write(log, collection, pairs("c"))
    found = await catalog.collections.get_by_id(database, collection.id)
    assert found is not None
    assert found.keys == set(pairs("a", "b", "c"))


async def test_keys_of_a_server_that_went_back_and_grew_otherwise_are_not_confused_with_the_former_ones(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    await write(log, collection, pairs("a"))
    state: Any = await redis.hgetall(keys.state(collection.id))
    await write(log, collection, pairs("lost"))
    assert (await catalog.collections.present(database))[0].keys == set(pairs("a", "lost"))
    await redis.hset(keys.state(collection.id), mapping=state)
    await redis.srem(keys.metadata_keys(collection.id), orjson.dumps(("lost", "string")))
    await redis.delete(keys.log(collection.id, 0))
    await write(log, collection, pairs("other"))
    assert (await catalog.collections.present(database))[0].keys == set(pairs("a", "other"))


def test_a_cache_of_pairs_keeps_those_that_were_used_last() -> None:
    cache = PairsCache(pairs_max=4)
    marks = [Mark(b"r", None, 2), Mark(b"s", None, 2)]
    cache.put("a", marks[0], frozenset(pairs("1", "2")))
    cache.put("b", marks[0], frozenset(pairs("3", "4")))
    assert cache.get("a", marks[0]) == frozenset(pairs("1", "2"))
    assert cache.get("a", marks[1]) is None
    cache.put("c", marks[0], frozenset(pairs("5")))
    assert cache.get("b", marks[0]) is None
    assert cache.get("a", marks[0]) is not None
    cache.put("a", marks[1], frozenset(pairs("1", "2", "3")))
    assert cache.get("a", marks[1]) == frozenset(pairs("1", "2", "3"))
