"""Reads, writes and compactions all at once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.records.model import Op
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.truth import get_request, query_request
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation

IDS = [f"r{i}" for i in range(25)]


@dataclass
class Progress:
    """How far the run is; it ends when there was enough of everything."""

    acknowledged: int = 0
    published: int = 0
    reads: int = 0

    @property
    def enough(self) -> bool:
        return self.acknowledged >= 40 and self.published >= 6 and self.reads >= 100


async def _write(world: World, progress: Progress) -> None:
    """Every append changes all records at once, and sometimes deletes and re-adds them all."""
    while not progress.enough:
        number = progress.acknowledged + 1
        again = [Operation(Op.DELETE, id_) for id_ in IDS] if number % 7 == 0 else []
        vector = (float(number), 1.0)
        await world.write([*again, *(Operation(Op.UPSERT, id_, vector, str(number)) for id_ in IDS)])
        progress.acknowledged = number


async def _compact(world: World, progress: Progress) -> None:
    while not progress.enough:
        progress.published += await world.compactor.compact(world.collection, 0) == "published"
        [state] = await world.log.states([(world.collection, 0)])
        assert state is not None
        if state.pointer is not None:
            await world.log.trim(world.collection, 0, state.pointer, 0)


async def _read(world: World, progress: Progress, seed: int) -> None:
    random_ = random.Random(seed)
    last = 0
    while not progress.enough:
        before = progress.acknowledged
        answer: messages.GetResponse | messages.QueryResponse
        if random_.random() < 0.5:
            answer = await world.worker.get(get_request(world))
        else:
            answer = await world.worker.query(query_request(world, [(1.0, 1.0)], 100))
        assert answer.columns.documents is not None
        shown = set(answer.columns.documents)
        assert len(shown) == 1, "half of an append"
        assert sorted(answer.columns.ids) == sorted(IDS), "a record is missing or there twice"
        assert int(shown.pop() or 0) >= before, "an acknowledged write was not seen"
        assert answer.position >= last, "the shard went back in time"
        last = answer.position
        progress.reads += 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_read_sees_whole_appends_and_all_that_was_acknowledged(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, seed: int
) -> None:
    """Promise 4, while manifests are replaced and the log is trimmed under the worker."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write([Operation(Op.ADD, id_, (0.0, 1.0), "0") for id_ in IDS])
        progress = Progress()
        async with asyncio.TaskGroup() as group:
            group.create_task(_write(world, progress))
            group.create_task(_compact(world, progress))
            for number in range(4):
                group.create_task(_read(world, progress, seed * 10 + number))
