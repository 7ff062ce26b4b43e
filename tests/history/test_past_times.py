"""From a time to the position below which all appends at or before it lie."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from frontend.read.past_times import PastTimes
from frontend.write.bucket_log import BucketLog
from shared.cluster.placement import Layout
from shared.errors import StaleRead
from shared.history.archive import SealedLogs
from shared.log.times import EntryTimes
from shared.redis.client import command
from shared.redis.keys import Keys
from tests.frontend.fakes import new_collection
from tests.history.keeping import compact, documents_of, random_operations, records_as_of
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer


async def now_ms(world: World) -> int:
    """The time of the log's server."""
    seconds, microseconds = await command(world.redis, "TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


async def position_at(world: World, keys: Keys, time_ms: int, laid_s: float = 0.0) -> int:
    states = await world.log.states([(world.collection, shard) for shard in range(world.shards)])
    row = new_collection(
        id=world.collection,
        layout=Layout(0, world.shards),
        pointers=tuple(state.pointer if state else None for state in states),
        laid_s=laid_s,
    )
    return await PastTimes(EntryTimes(world.redis, keys), world.objects).position_at(row, time_ms, world.head)


async def write_at_times(
    world: World, chance: random.Random, appends: int, *, sealed: bool, bucket: BucketLog | None = None
) -> dict[int, int]:
    """Appends with times between them; the head as of each of these times. With `bucket` some are in the bucket before
    they are compacted.
    """
    heads: dict[int, int] = {}
    for _ in range(appends):
        await world.write(random_operations(chance))
        heads[await now_ms(world)] = world.head
        await asyncio.sleep(0.003)
        if bucket is not None and chance.random() < 0.5:
            await bucket.reach(world.collection, Layout(0, world.shards))
        if chance.random() < 0.3:
            await compact(world, history_s=3600 if sealed else 0)
    return heads


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("overlapping", [False, True])
async def test_the_state_at_a_time_is_that_of_all_appends_until_then(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, shards: int, seed: int, overlapping: bool
) -> None:
    """Writes of the durability class `bucket` leave objects that overlap, and some without entries."""
    chance = random.Random(seed)
    async with open_world(valkey_server.url, keys, tmp_path, shards=shards) as world:
        before = await now_ms(world)
        await asyncio.sleep(0.003)
        bucket = BucketLog(world.log, world.objects) if overlapping else None
        heads = await write_at_times(world, chance, 20, sealed=True, bucket=bucket)
        assert await position_at(world, keys, before) == 1
        for time_ms, head in heads.items():
            position = await position_at(world, keys, time_ms)
            assert position == head
            assert await records_as_of(world, position) == documents_of(world.states[head])


async def test_a_time_before_what_is_kept_is_stale(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    chance = random.Random(4)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        early = await write_at_times(world, chance, 3, sealed=False)
        await compact(world, history_s=0)
        late = await write_at_times(world, chance, 5, sealed=True)
        for time_ms in list(early)[:-1]:
            with pytest.raises(StaleRead):
                await position_at(world, keys, time_ms)
        for time_ms, head in list(late.items()):
            assert await position_at(world, keys, time_ms) == head


async def test_a_long_pause_between_writes_is_part_of_the_history(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    """Of the objects from before the pause, the garbage collector keeps the newest."""
    chance = random.Random(5)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        for _ in range(3):
            await world.write(random_operations(chance))
            await compact(world)
        *old, _newest = await SealedLogs(world.objects).ranges(world.collection, 0)
        await world.objects.delete([sealed.key for sealed in old])
        before_the_pause, pause = world.head, await now_ms(world)
        await asyncio.sleep(0.003)
        await world.write(random_operations(chance))
        await compact(world)
        assert await position_at(world, keys, pause) == before_the_pause


async def test_a_time_before_the_collection_had_its_shards_is_stale(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(random_operations(random.Random(6)))
        now = await now_ms(world)
        with pytest.raises(StaleRead):
            await position_at(world, keys, now, laid_s=now / 1000 + 1)
