"""The log of a shard in the bucket before a write is acknowledged, and what a restoration finds of it there."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from frontend.parse.durability import Durability
from frontend.write.bucket_log import BucketLog
from frontend.write.durable import Durable
from shared.cluster.placement import Layout
from shared.errors import LessDurable, Unavailable
from shared.history.archive import SealedLogs
from shared.history.bucket_tail import read_bucket_tail
from shared.log.append import Appended
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.keys import Keys
from tests.frontend.fakes import new_collection
from tests.history.keeping import random_operations
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer
from tests.shared.log.appending import ids_of

BUCKET = Durability(in_bucket=True)


class CountedStore:
    """A store that counts what is created, holds it while `gate` is closed, and refuses it while it is `away`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.created = 0
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, key: str, data: bytes) -> bool:
        await self.gate.wait()
        if self.away:
            raise Unavailable("the bucket is away")
        self.created += 1
        return await self._store.create(key, data)


def bucket_log(world: World, store: Any = None) -> BucketLog:
    return BucketLog(world.log, store or world.objects)


async def in_bucket(world: World) -> dict[int, str]:
    """Position -> id of all operations that the bucket has behind the manifests."""
    found: dict[int, str] = {}
    for shard in range(world.shards):
        [state] = await world.log.states([(world.collection, shard)])
        covers = state.pointer.covers if state is not None and state.pointer is not None else 1
        tail = await read_bucket_tail(world.objects, world.collection, shard, covers)
        assert tail.reach >= world.head
        found |= ids_of(tail.entries)
    return found


async def in_log(world: World) -> dict[int, str]:
    """Position -> id of all operations in the streams."""
    found: dict[int, str] = {}
    for shard in range(world.shards):
        found |= ids_of((await world.log.read(world.collection, shard)).entries)
    return found


@pytest.mark.parametrize("shards", [1, 3])
async def test_all_of_the_log_is_in_the_bucket_when_it_returns(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, shards: int
) -> None:
    chance = random.Random(shards)
    async with open_world(valkey_server.url, keys, tmp_path, shards=shards) as world:
        frontends = [bucket_log(world) for _ in range(2)]
        for number in range(12):
            for _ in range(chance.randint(1, 3)):
                await world.write(random_operations(chance))
            await chance.choice(frontends).reach(world.collection, Layout(0, shards))
            assert await in_bucket(world) == await in_log(world)
            if number % 4 == 3:
                await world.compact()


async def test_writes_at_once_share_objects(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        store = CountedStore(world.objects)
        frontend = bucket_log(world, store)

        async def write(number: int) -> None:
            await world.write(random_operations(random.Random(number)))
            await frontend.reach(world.collection, Layout(0, 1))

        store.gate.clear()
        writes = [asyncio.create_task(write(number)) for number in range(20)]
        await asyncio.sleep(0.2)
        assert not any(each.done() for each in writes)
        store.gate.set()
        await asyncio.gather(*writes)
        assert store.created <= 2
        assert await in_bucket(world) == await in_log(world)


async def test_a_bucket_that_is_away_is_an_error_and_catches_up_later(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        store = CountedStore(world.objects)
        durable = Durable(world.log, bucket_log(world, store), SystemClock())
        collection = new_collection(id=world.collection)
        store.away = True
        await world.write(random_operations(random.Random(1)))
        with pytest.raises(LessDurable) as error:
            await durable.reach(collection, Appended(1, world.head), BUCKET)
        assert error.value.reached == "disk"
        store.away = False
        await world.write(random_operations(random.Random(2)))
        await durable.reach(collection, Appended(1, world.head), BUCKET)
        assert await in_bucket(world) == await in_log(world)


async def test_a_gap_ends_what_is_found_and_nothing_behind_it_is_taken(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        frontend, heads = bucket_log(world), list[int]()
        for number in range(3):
            heads.append(await world.write(random_operations(random.Random(number))))
            await frontend.reach(world.collection, Layout(0, 1))
        ranges = await SealedLogs(world.objects).ranges(world.collection, 0)
        await world.objects.delete([ranges[1].key])
        tail = await read_bucket_tail(world.objects, world.collection, 0, 1)
        assert (tail.reach, tail.damage) == (heads[0], None)
        await world.objects.put(ranges[0].key, b"nothing of the kind")
        tail = await read_bucket_tail(world.objects, world.collection, 0, 1)
        assert (tail.reach, tail.entries) == (1, [])
        assert tail.damage is not None
        assert tail.damage.name == ranges[0].key
