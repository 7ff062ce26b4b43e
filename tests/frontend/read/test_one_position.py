"""A read of several shards sees one state of the collection: no write without all that were acknowledged before it.

Over a real log, a real worker and a real compactor.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pytest
import pytest_asyncio

from frontend.parse.search import read_search
from frontend.read.gets import Get, Page
from frontend.read.queries import Query
from frontend.read.reader import Reader
from frontend.read.search_requests import searches_of
from shared.cluster.placement import shard_of
from shared.records.include import Wanted
from shared.records.model import Include, Op, ReadLevel
from shared.records.selection import Selection
from shared.redis.keys import Keys
from tests.frontend.fakes import FakeRows
from tests.queryworker.world import World
from tests.redis_server import RedisServer, keys, valkey_server
from tests.search.collection import DirectWorkers, Searched, open_searched
from tests.shared.log.rounds import begin_round
from tests.shared.memtable.model import Operation

__all__ = ["keys", "valkey_server"]

SHARDS: Final = 3
ROWS: Final = 200
"""More records than are ever in the collection."""

KEYS: Final = [f"w{number}" for number in range(ROWS)]
HOMES: Final = shard_of(KEYS, SHARDS).tolist()


def id_in(shard: int, number: int) -> str:
    """The `number`-th id that lies in the shard."""
    return next(itertools.islice((id_ for id_, home in zip(KEYS, HOMES, strict=True) if home == shard), number, None))


class HeldWorkers(DirectWorkers):
    """Workers that are slow for one shard: its calls wait for `released`. `others` is set when all calls for other
    shards that were made are answered.
    """

    def __init__(self, workers: DirectWorkers, held: int) -> None:
        super().__init__(workers._worker)
        self._held = held
        self._open = 0
        self.released = asyncio.Event()
        self.others = asyncio.Event()

    async def _call(self, method: Any, request: Any, begin: Any) -> Any:
        if request.shard.shard == self._held:
            await self.released.wait()
            return await super()._call(method, request, begin)
        self._open += 1
        try:
            return await super()._call(method, request, begin)
        finally:
            self._open -= 1
            if not self._open:
                self.others.set()


class UnevenWorkers(DirectWorkers):
    """Workers that take up calls after some milliseconds, each call after others."""

    def __init__(self, workers: DirectWorkers, seed: int) -> None:
        super().__init__(workers._worker)
        self._chance = random.Random(seed)

    async def _call(self, method: Any, request: Any, begin: Any) -> Any:
        await asyncio.sleep(self._chance.random() * 0.005)
        return await super()._call(method, request, begin)


@dataclasses.dataclass
class Reading:
    """The four kinds of reads of one collection."""

    reader: Reader
    row: Any

    async def get(self) -> set[str]:
        return set(orjson.loads(bytes(await self.reader.get(self.row, Get(Selection(), Page(), Wanted(())))))["ids"])

    async def page(self) -> set[str]:
        """A get in two phases."""
        get = Get(Selection(), Page(0, ROWS), Wanted([Include.DOCUMENTS]))
        return set(orjson.loads(bytes(await self.reader.get(self.row, get)))["ids"])

    async def query(self) -> set[str]:
        vectors = np.zeros((1, 3), np.float32)
        body: Any = await self.reader.query(self.row, Query(Selection(), vectors, ROWS, Wanted(())))
        return set(orjson.loads(bytes(body))["ids"][0])

    async def search(self) -> set[str]:
        """Several searches; with a rank and without one."""
        rank = {"$knn": {"query": [0, 0, 0], "limit": ROWS}}
        limit = {"limit": ROWS}
        body = read_search({"searches": [{"rank": rank, "limit": limit}, {"limit": limit}]})
        answer: Any = await self.reader.search(self.row, searches_of(self.row, body))
        ranked, plain = orjson.loads(bytes(answer))["ids"]
        assert set(ranked) == set(plain), "two searches of a request see different states"
        return set(plain)

    async def count(self) -> int:
        return await self.reader.count(self.row, ReadLevel.INDEX_AND_WAL)


def reading(searched: Searched, workers: DirectWorkers | None = None) -> Reading:
    return Reading(Reader(workers or searched.workers, FakeRows(searched.row), searched.world.log), searched.row)  # type: ignore[arg-type]


async def upsert(world: World, id_: str) -> None:
    await world.write([Operation(Op.UPSERT, id_, (0.0, 0.0, float(KEYS.index(id_))), "text")])


async def delete(world: World, id_: str) -> None:
    await world.write([Operation(Op.DELETE, id_)])


@pytest_asyncio.fixture
async def searched(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> AsyncIterator[Searched]:
    async with open_searched(valkey_server.url, keys, tmp_path, shards=SHARDS) as opened:
        yield opened


READS: Final[dict[str, Callable[[Reading], Coroutine[Any, Any, set[str]]]]] = {
    "get": Reading.get,
    "page": Reading.page,
    "query": Reading.query,
    "search": Reading.search,
}


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("held", range(SHARDS))
async def test_no_shard_shows_a_write_that_came_after_one_which_another_shard_does_not_show(
    searched: Searched, kind: str, held: int
) -> None:
    early, late = id_in((held + 1) % SHARDS, 0), id_in(held, 0)
    await upsert(searched.world, id_in(0, 5))
    await upsert(searched.world, id_in(1, 5))
    workers = HeldWorkers(searched.workers, held)
    read = asyncio.create_task(READS[kind](reading(searched, workers)))
    await workers.others.wait()
    await upsert(searched.world, early)
    await upsert(searched.world, late)
    workers.released.set()
    seen = await read
    assert late not in seen or early in seen
    assert await READS[kind](reading(searched)) == {id_in(0, 5), id_in(1, 5), early, late}


@pytest.mark.parametrize("held", range(SHARDS))
async def test_a_count_is_that_of_one_state(searched: Searched, held: int) -> None:
    """Records are added, then as many are deleted: there are never fewer than at the beginning."""
    for shard in range(SHARDS):
        await upsert(searched.world, id_in(shard, 5))
    workers = HeldWorkers(searched.workers, held)
    read = asyncio.create_task(reading(searched, workers).count())
    await workers.others.wait()
    await upsert(searched.world, id_in((held + 1) % SHARDS, 0))
    await delete(searched.world, id_in(held, 5))
    workers.released.set()
    assert SHARDS <= await read <= SHARDS + 1


async def test_index_only_sees_all_of_a_batch_or_nothing_however_far_its_shards_are_compacted(
    searched: Searched, keys: Keys
) -> None:
    world = searched.world

    async def batch(number: int) -> None:
        ids = [id_in(shard, number) for shard in range(SHARDS)]
        await world.write([Operation(Op.UPSERT, id_, (0.0, 0.0, 1.0), "text") for id_ in ids])

    async def count() -> int:
        return await reading(searched).reader.count(searched.row, ReadLevel.INDEX_ONLY)

    await batch(0)
    assert await count() == 0
    for shard in range(SHARDS):
        await begin_round(world.redis, keys, world.collection)
        await world.compactor.compact(world.collection, shard)
        assert await count() == SHARDS * (shard + 1)
        await batch(shard + 1)
        assert await count() == SHARDS * (shard + 1)


async def test_reads_beside_writes_and_compactions_see_states_that_there_were(searched: Searched) -> None:
    """A writer adds `w0`, `w1` and so on, each when the one before is acknowledged, and deletes from the other end, so
    that every state is a stretch of them of `WIDTH` or one more. What was acknowledged when a read began is there.
    """
    width, world, done = 8, searched.world, asyncio.Event()
    acknowledged = width
    for id_ in KEYS[:width]:
        await upsert(world, id_)

    async def write() -> None:
        nonlocal acknowledged
        for number in range(width, ROWS):
            await upsert(world, KEYS[number])
            acknowledged = number + 1
            await delete(world, KEYS[number - width])
        done.set()

    async def compact() -> None:
        while not done.is_set():
            await world.compact()
            await world.load_newest_manifests()

    async def read(seed: int) -> int:
        chance, reads = random.Random(seed), 0
        mine = reading(searched, UnevenWorkers(searched.workers, seed))
        while not done.is_set():
            before = acknowledged
            kind = chance.choice([*READS, "count"])
            if kind == "count":
                assert width <= await mine.count() <= width + 1
            else:
                seen = sorted(KEYS.index(id_) for id_ in await READS[kind](mine))
                assert seen == list(range(seen[0], seen[-1] + 1)), f"{kind} saw {seen}"
                assert len(seen) in (width, width + 1)
                assert seen[-1] + 1 >= before, f"{kind} does not see what was acknowledged"
            reads += 1
        return reads

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(compact())
        readers = [group.create_task(read(seed)) for seed in range(4)]
    assert sum(reader.result() for reader in readers) > 50
