"""Scale-out that a small machine can't show, by simulation: `python -m bench.simulation [folder]` writes simulation.md.

Placement: 1,000,000 shards over 10, 100 and 1,000 workers, by the very function that frontends use.
Catalog and scheduling: 100,000 collections with 10 shards each in a real Redis-protocol server, the real catalog, and
the log service's real scheduler with its policy.
"""

import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from redis.asyncio import Redis

from logservice.scheduling.policy import Policy
from logservice.scheduling.rounds import Rounds
from logservice.scheduling.scheduler import Scheduler
from polychrome.local.process import Process
from polychrome.local.redis_server import answers, redis_server
from shared.catalog import Catalog, Collection, Database, NewCollection
from shared.cluster.placement import hashes, weights
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.cuts import Cuts
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.objects.memory import MemoryStore
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from shared.vectors.arrays import Hashes, Indices

SHARDS: Final = 1_000_000
WORKERS: Final = (10, 100, 1000)
AT_ONCE: Final = 4_000_000
"""Weights in memory at once."""

COLLECTIONS: Final = (10_000, 100_000)
SHARDS_EACH: Final = 10
DIRTY: Final = (100, 1000, 10_000)
CREATORS: Final = 8
RESOLVED: Final = 2000
PAGE: Final = 100
START_S_MAX: Final = 20.0

T = TypeVar("T")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([_placement(), asyncio.run(_catalog())])
    (folder / "simulation.md").write_text(text + "\n", encoding="utf-8")
    print(text)


# ---- placement


@dataclass(frozen=True)
class Balance:
    """The fullest worker against the mean; the shares of all shards that move."""

    workers: int
    most: float
    most_of_two: float
    joined: float
    left: float


def _placement() -> str:
    shards = hashes([f"{uuid.UUID(int=number)}/0" for number in range(SHARDS)])
    rows = [_balance(shards, count) for count in WORKERS]
    lines = [
        f"{SHARDS:,} shards on workers by `shared.cluster.placement` (rendezvous hashing):",
        "",
        "| workers | fullest / mean | with 2 replicas | moved when one joins (ideal) | when one leaves (ideal) |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.workers:,} | {row.most:.3f} | {row.most_of_two:.3f} "
        f"| {row.joined:.3%} ({1 / (row.workers + 1):.3%}) | {row.left:.3%} ({1 / row.workers:.3%}) |"
        for row in rows
    ]
    return "\n".join([*lines, "", "Only shards of the worker that joins or leaves move, in every case: checked."])


def _balance(shards: Hashes, count: int) -> Balance:
    workers = hashes([f"queryworker-{number}" for number in range(count + 1)])
    first, second = _best_two(shards, workers[:count])
    joined, _ = _best_two(shards, workers)
    left, _ = _best_two(shards, workers[: count - 1])
    # Who moves, moves to the worker that joined, or from the one that left.
    assert set(np.unique(joined[joined != first])) == {count}
    assert set(np.unique(first[left != first])) == {count - 1}
    mean = len(shards) / count
    return Balance(
        workers=count,
        most=float(np.bincount(first, minlength=count).max() / mean),
        most_of_two=float(np.bincount(np.concatenate([first, second]), minlength=count).max() / (2 * mean)),
        joined=float(np.mean(joined != first)),
        left=float(np.mean(left != first)),
    )


def _best_two(shards: Hashes, workers: Hashes) -> tuple[Indices, Indices]:
    first, second = [], []
    for some in np.array_split(shards, max(1, len(shards) * len(workers) // AT_ONCE)):
        weight = weights(some, workers)
        best = weight.argmax(axis=1)
        weight[np.arange(len(some)), best] = 0
        first.append(best)
        second.append(weight.argmax(axis=1))
    return np.concatenate(first), np.concatenate(second)


# ---- catalog and scheduling


async def _catalog() -> str:
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as url:
        async with open_redis(url) as redis:
            return await _measure(redis, Keys())


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    server = redis_server(folder / "redis", durable=False)  # what is measured is ours, not the disk
    process = Process(server.prepare(), folder / "log")
    process.start()
    try:
        deadline = time.monotonic() + START_S_MAX
        while not answers(server.url):
            if time.monotonic() > deadline:
                raise TimeoutError(process.log_tail())
            time.sleep(0.02)
        yield server.url
    finally:
        process.kill()


async def _measure(redis: Redis, keys: Keys) -> str:
    catalog, log, jobs = Catalog(redis, keys), Log(redis, keys), Jobs(redis, keys)
    await catalog.mark.open()
    await catalog.bootstrap()
    database = await catalog.databases.get("default_tenant", "default_database")
    assert database is not None
    catalog_rows, tick_rows = [], []
    made: list[Collection] = []
    for size in COLLECTIONS:
        create_ms = await _create(catalog, database, made, size)
        pages = range(0, size - PAGE, size // 20)
        list_ms = await _each(pages, lambda offset: catalog.collections.of_database(database, PAGE, offset))
        ids = [made[number].id for number in range(0, size, size // RESOLVED)]
        resolve_ms = await _each(ids, lambda one: catalog.collections.get_by_id(database, one))
        scheduler = _scheduler(redis, keys)
        sweep_s = await _timed(scheduler.sweep())
        memory = (await redis.info("memory"))["used_memory"] / 2**20
        catalog_rows.append(
            f"| {size:,} | {size * SHARDS_EACH:,} | {create_ms:.2f} ms | {list_ms:.1f} ms | {resolve_ms:.2f} ms "
            f"| {sweep_s:.1f} s | {memory:,.0f} MiB |"
        )
        for dirty in DIRTY:
            first_s, again_s, jobs_put = await _ticks(redis, keys, log, jobs, made[:dirty])
            tick_rows.append(
                f"| {size * SHARDS_EACH:,} | {dirty:,} | {1e6 * first_s / dirty:.0f} us "
                f"| {1e6 * again_s / dirty:.0f} us | {jobs_put:,} |"
            )
    return "\n".join(
        [
            "The catalog in a real server, requests one after the other; a page is of 100 collections:",
            "",
            "| collections | shards | create | list a page | find by id | sweep of everything | Redis' memory |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *catalog_rows,
            "",
            "A tick of the log service's scheduler, per dirty shard: the one that hears of them, and the next one:",
            "",
            "| shards in all | dirty | first tick | next tick | jobs queued |",
            "| --- | --- | --- | --- | --- |",
            *tick_rows,
        ]
    )


async def _create(catalog: Catalog, database: Database, made: list[Collection], size: int) -> float:
    """Up to `size` collections; milliseconds per collection of several creators together."""
    fixed = {"space": "l2", "shards": SHARDS_EACH, "ef_construction": 100, "max_neighbors": 16}
    names = iter(range(len(made), size))
    count, began_s = size - len(made), time.monotonic()

    async def creator() -> None:
        for name in names:
            new = NewCollection(f"collection-{name}", None, {"hnsw": {"ef_search": 100}}, {"keys": {}}, fixed)
            made.append((await catalog.collections.create(database, new, get_or_create=True))[0])

    await asyncio.gather(*(creator() for _ in range(CREATORS)))
    return 1000 * (time.monotonic() - began_s) / count


async def _each(items: Sequence[T], ask: Callable[[T], Awaitable[object]]) -> float:
    """Milliseconds per item, one after the other."""
    began_s = time.monotonic()
    for item in items:
        await ask(item)
    return 1000 * (time.monotonic() - began_s) / len(items)


async def _ticks(
    redis: Redis, keys: Keys, log: Log, jobs: Jobs, written: Sequence[Collection]
) -> tuple[float, float, int]:
    """Writes to one shard of each collection and says so; seconds of two ticks, and the jobs they queued."""
    await redis.delete(keys.jobs, keys.dirty)
    batch = build_batch(Op.ADD, ["id"], np.zeros((1, 2), np.float32))
    parts = split_batch(batch, written[0].layout)
    for collection in written:
        request = AppendRequest(
            collection_id=collection.id, request_id=uuid.uuid4().hex, batches=parts, dimension=2, generation=None
        )
        await log.append(request)
    await jobs.mark_dirty((collection.id, shard) for collection in written for shard in parts)
    scheduler = _scheduler(redis, keys)
    first_s, again_s = await _timed(scheduler.tick()), await _timed(scheduler.tick())
    return first_s, again_s, (await jobs.counts())[0]


def _scheduler(redis: Redis, keys: Keys) -> Scheduler:
    clock, objects = SystemClock(), MemoryStore(time.time)
    rounds = Rounds(Cuts(redis, keys), objects, clock)
    policy = Policy(8192, 1 << 26, 0.0, 10.0)
    return Scheduler(Catalog(redis, keys), Log(redis, keys), Jobs(redis, keys), rounds, policy, clock, lambda *_: None)


async def _timed(work: Awaitable[object]) -> float:
    began_s = time.monotonic()
    await work
    return time.monotonic() - began_s


if __name__ == "__main__":
    main()
