"""Work that nobody waits for any more, or whose deadline has passed, ends soon: its thread is free, its memory too."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from queryworker.filter.evaluate import evaluate
from queryworker.query.field_values import value_counts
from shared.errors import Backoff, DeadlineExceeded, LimitExceeded
from shared.process.work import Cancelled, Work
from shared.records.where import AnyOf, DocumentRegex, MetadataIn
from shared.redis.keys import Keys
from shared.rpc import messages
from shared.search.grouping import kept_of_groups
from shared.search.model import GroupBy
from shared.segment.graph import Graph, GraphParams
from shared.vectors.arrays import Vectors
from shared.vectors.codes import encode
from shared.vectors.distance import nearest_many
from shared.vectors.space import Space
from tests.queryworker.filter.columns import RowColumns, columns_of
from tests.queryworker.filter.scalar import Row
from tests.queryworker.world import DirectCall, World, adds, open_world
from tests.redis_server import RedisServer

Computation = Callable[[], object]

ENDS_S = 0.1
"""The promise. Tests allow as much again for each time that the machine takes for a fixed piece of work in Python
beyond what it takes when it is idle (`_patience_s`)."""

BEGUN_S = 0.05
"""Each of the computations here takes many times as long."""


def _patience_s() -> float:
    """The promise, on this machine in its present state: threads compete for it, and for the interpreter."""
    began_s = time.perf_counter()
    sum(range(2_000_000))
    return ENDS_S * max(1.0, (time.perf_counter() - began_s) / 0.02)


def _vectors(rows: int, dimension: int) -> Vectors:
    return np.random.default_rng(7).random((rows, dimension), np.float32)


@functools.cache
def _rows() -> RowColumns:
    text = "the quick brown fox jumps over the lazy dog " * 4
    return columns_of([Row(f"r{i}", f"{text}{i}", {"n": i, "s": f"value {i}"}) for i in range(3000)])


def _scan() -> Computation:
    vectors = _vectors(20_000, 32)
    return lambda: nearest_many(Space.L2, _vectors(20_000, 32), vectors, 3000)


def _scan_of_codes() -> Computation:
    vectors = _vectors(20_000, 32)
    codes = encode(Space.L2, vectors)
    return lambda: nearest_many(Space.L2, _vectors(20_000, 32), vectors, 3000, codes=codes)


def _scan_of_few_rows() -> Computation:
    vectors = _vectors(2000, 32)
    return lambda: nearest_many(Space.L2, _vectors(20_000, 32), vectors, 3000)


def _graph() -> Computation:
    graph = Graph.of(_vectors(4000, 32), GraphParams(Space.L2, 40, 8, 2), 4000)
    return lambda: graph.search(_vectors(100_000, 32), 500)


def _many_values() -> Computation:
    where = MetadataIn("s", [f"value {i}" for i in range(700_000)])
    return lambda: evaluate(where, _rows())


def _many_patterns() -> Computation:
    where = AnyOf([DocumentRegex(f"(?i)x[a-z]{{3,9}}y.*{i}z") for i in range(20_000)])
    return lambda: evaluate(where, _rows()).resolve_all()


def _facets() -> Computation:
    index, mask = _rows().metadata, np.ones(3000, np.bool_)
    return lambda: [list(value_counts(index, "s", mask)) for _ in range(10_000)]


def _groups() -> Computation:
    metadatas = [{"n": i} for i in range(1000)] * 2000
    return lambda: kept_of_groups(
        GroupBy(["n"], ["n"], 1, greatest=False), np.zeros(len(metadatas)).tolist(), metadatas
    )


@pytest.mark.parametrize(
    "prepare", [_scan, _scan_of_codes, _scan_of_few_rows, _graph, _many_values, _many_patterns, _facets, _groups]
)
def test_a_long_computation_ends_soon_after_it_was_given_up(prepare: Callable[[], Computation]) -> None:
    compute = prepare()
    given_up = threading.Event()
    ended: list[tuple[type, float]] = []

    def run() -> None:
        try:
            Work(given_up=given_up.is_set).do(compute)
        except Exception as error:
            ended.append((type(error), time.perf_counter()))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(BEGUN_S)
    patience_s = _patience_s()
    assert thread.is_alive(), "it takes much longer"
    given_up_s = time.perf_counter()
    given_up.set()
    thread.join(60)
    assert [kind for kind, _ in ended] == [Cancelled]
    assert ended[0][1] - given_up_s < patience_s + _patience_s()


def test_a_long_computation_ends_at_its_deadline() -> None:
    compute = _many_values()
    deadline_s = time.monotonic() + BEGUN_S
    with pytest.raises(DeadlineExceeded):
        Work(deadline_s).do(compute)
    assert time.monotonic() - deadline_s < 2 * _patience_s()


# ---- in a worker


def _large_query(world: World, vectors: int, k: int) -> messages.QueryRequest:
    embeddings = _vectors(vectors, 2)
    return messages.QueryRequest(world.shard(), embeddings.astype("<f4").tobytes(), vectors, 2, k, 100)


async def _idle_after_s(world: World) -> float:
    began_s = time.perf_counter()
    async with asyncio.timeout(60):
        while not world.worker.threads.idle:  # noqa: ASYNC110 (nothing tells it)
            await asyncio.sleep(0.005)
    return time.perf_counter() - began_s


async def test_a_call_that_was_given_up_or_has_expired_frees_its_thread_and_its_memory(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 3000))
        await world.count()
        abandoned = DirectCall(_large_query(world, 900, 3000))
        world.worker.methods["query"]([abandoned])
        await asyncio.sleep(4 * BEGUN_S)
        assert not world.worker.threads.idle
        assert world.worker.memory.held > 0
        abandoned.abandon()
        assert await _idle_after_s(world) < 2 * _patience_s()
        assert world.worker.memory.held == 0

        expired = DirectCall(_large_query(world, 900, 3000))
        expired.deadline_s = time.monotonic() + 4 * BEGUN_S
        world.worker.methods["query"]([expired])
        with pytest.raises(DeadlineExceeded):
            await expired.outcome
        assert time.monotonic() - expired.deadline_s < 2 * _patience_s()
        assert world.worker.memory.held == 0


async def test_what_would_take_too_much_memory_is_refused_before_it_is_built(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        world.worker.memory.bytes_max = 8 << 20
        await world.write(adds(0, 3000))
        began_s = time.perf_counter()
        with pytest.raises(LimitExceeded, match=r"work and answer: \d+ bytes of memory, at most 2097152"):
            await world.worker.query(_large_query(world, 20_000, 3000))
        assert time.perf_counter() - began_s < 5, "60 million hits take minutes"
        assert len((await world.worker.query(_large_query(world, 2, 3000))).counts) == 2
        wide = msgspec.structs.replace(_large_query(world, 10, 3000), documents=True, include_embeddings=True)
        with pytest.raises(LimitExceeded):
            await world.worker.query(wide)
        assert world.worker.memory.held == 0


async def test_one_tenant_cannot_take_the_memory_of_others(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 3000))
        memory = world.worker.memory
        memory.take("greedy", memory.bytes_max // 2 - (1 << 20))
        outcomes: dict[str, object] = {}
        for tenant in ("greedy", "modest"):
            call = DirectCall(_large_query(world, 20, 3000))
            call.tenant = tenant
            world.worker.methods["query"]([call])
            [outcomes[tenant]] = await asyncio.gather(call.outcome, return_exceptions=True)
        assert isinstance(outcomes["greedy"], Backoff)
        assert isinstance(outcomes["modest"], bytes)
