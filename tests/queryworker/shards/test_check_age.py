"""Reads that need no currency check of their own while the last one is new, and reads that need one all the same."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from queryworker.shards.shard import CHECK_AGE_MAX_S
from shared.errors import Gone
from shared.records.model import Op, ReadLevel
from shared.redis.keys import Keys
from shared.rpc import messages
from shared.segment.cache import SegmentCache
from tests.queryworker.clocks import StillClock
from tests.queryworker.truth import get_request
from tests.queryworker.world import Worker, World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

ROWS = [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(9)]


@contextlib.asynccontextmanager
async def another_worker(world: World, directory: Path) -> AsyncIterator[Worker]:
    cache = SegmentCache(world.objects, directory / "another", 1 << 40)
    await cache.open()
    worker = Worker(world.log, world.objects, cache, world.damages)
    try:
        yield worker
    finally:
        await worker.close()


async def test_a_position_at_hand_is_read_without_a_check_while_the_last_one_is_new(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        world.worker.clock = clock = StillClock()
        position = await world.write(ROWS)
        await world.worker.get(get_request(world))
        for later_s, reads in ((CHECK_AGE_MAX_S, 0), (0.1, 1), (CHECK_AGE_MAX_S, 0)):
            clock.time_s += later_s
            world.worker.log.reads = 0
            answer = await world.worker.get(get_request(world, as_of=position))
            assert (answer.position, len(answer.columns.ids), world.worker.log.reads) == (position, 9, reads)


async def test_a_deleted_collection_is_read_no_longer_than_the_last_check_is_new(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        world.worker.clock = clock = StillClock()
        position = await world.write(ROWS)
        await world.worker.get(get_request(world))
        await world.lifecycle.mark_deleted([world.collection])
        clock.time_s += CHECK_AGE_MAX_S + 0.1
        with pytest.raises(Gone):
            await world.worker.get(get_request(world, as_of=position))


async def test_index_only_of_a_deleted_collection_is_refused_while_the_log_answers(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(ROWS)
        await world.compact()
        compacted = messages.CountRequest(world.shard(read_level=ReadLevel.INDEX_ONLY))
        assert (await world.worker.count(compacted)).count == 9
        await world.lifecycle.mark_deleted([world.collection])
        with pytest.raises(Gone):
            await world.worker.count(compacted)


@pytest.mark.parametrize("other", ["cold", "behind", "ahead"])
async def test_the_two_phases_of_a_page_may_be_answered_by_two_workers(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, other: str
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world, another_worker(world, tmp_path) as second:
        await world.write(ROWS[:3])
        await world.compact()
        if other == "behind":
            await second.get(get_request(world))
        await world.write(ROWS[3:])
        first = await world.worker.get(get_request(world, ids=False, limit=5))
        await world.write([Operation(Op.DELETE, "r1"), Operation(Op.UPDATE, "r4", document="another")])
        if other == "ahead":
            await second.get(get_request(world))
        positions = np.frombuffer(first.inserted, "<i8")[1:]
        page = get_request(world, as_of=first.position, inserted=positions.tobytes())
        found = await second.get(page)
        assert found.columns.ids == ["r1", "r2", "r3", "r4"]
        assert found.columns.documents == ["doc 1", "doc 2", "doc 3", "doc 4"]
