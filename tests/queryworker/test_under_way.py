"""Reads, writes and compactions all at once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from shared.model import Op
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.memtable.model import Operation
from tests.queryworker.truth import get_request, query_request
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer

IDS = [f"r{i}" for i in range(25)]
ROUNDS = 60


async def _write(world: World, acknowledged: list[int]) -> None:
    """Every append changes all records at once, and sometimes deletes and re-adds them all."""
    for number in range(1, ROUNDS + 1):
        again = [Operation(Op.DELETE, id_) for id_ in IDS] if number % 7 == 0 else []
        vector = (float(number), 1.0)
        await world.write([*again, *(Operation(Op.UPSERT, id_, vector, str(number)) for id_ in IDS)])
        acknowledged.append(number)


async def _compact(world: World, acknowledged: list[int]) -> None:
    while acknowledged[-1] < ROUNDS:
        outcome = await world.compactor.compact(world.collection, 0)
        assert outcome in ("published", "nothing")
        [state] = await world.log.states([(world.collection, 0)])
        assert state is not None
        if state.pointer is not None:
            await world.log.trim(world.collection, 0, state.pointer)


async def _read(world: World, acknowledged: list[int], seed: int) -> int:
    random_ = random.Random(seed)
    reads = 0
    while acknowledged[-1] < ROUNDS:
        before = acknowledged[-1]
        if random_.random() < 0.5:
            answer = await world.worker.get(get_request(world))
            columns = answer.columns
        else:
            columns = (await world.worker.query(query_request(world, [(1.0, 1.0)], 100))).columns
        assert columns.documents is not None
        shown = set(columns.documents)
        assert len(shown) == 1, "half of an append"
        assert sorted(columns.ids) == sorted(IDS), "a record is missing or there twice"
        assert int(shown.pop() or 0) >= before, "an acknowledged write was not seen"
        reads += 1
    return reads


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_read_sees_whole_appends_and_all_that_was_acknowledged(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, seed: int
) -> None:
    """Promise 4, while manifests are replaced and the log is trimmed under the worker."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, id_, (0.0, 1.0), "0") for id_ in IDS])
        acknowledged = [0]
        async with asyncio.TaskGroup() as group:
            group.create_task(_write(world, acknowledged))
            group.create_task(_compact(world, acknowledged))
            readers = [group.create_task(_read(world, acknowledged, seed * 10 + number)) for number in range(4)]
        assert sum(reader.result() for reader in readers) > ROUNDS


async def test_a_position_once_answered_never_goes_back(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, id_, (0.0, 1.0), "0") for id_ in IDS])
        acknowledged, last = [0], 0
        async with asyncio.TaskGroup() as group:
            group.create_task(_write(world, acknowledged))
            group.create_task(_compact(world, acknowledged))
            while acknowledged[-1] < ROUNDS:
                position = (await world.worker.count(messages.CountRequest(world.shard()))).position
                assert position >= last
                last = position
