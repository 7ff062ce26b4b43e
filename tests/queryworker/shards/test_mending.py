"""Files of segments that the bucket has damaged: what is derived is done without, and rewritten by a compaction; what
is not is refused; and all is named meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from compactor.checkpoints import Checkpoints
from compactor.compaction import Compactor, Ending, ResourceLimits
from shared.catalog.damage import DamageKind
from shared.errors import Corrupt, Damaged
from shared.limits import GRAPH_ROWS_MIN
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.records.selection import Selection
from shared.records.where import Compare, DocumentContains, MetadataCompare
from shared.redis.keys import Keys
from shared.segment.cache import SegmentCache
from shared.segment.format import CODES, GRAPH, IDS, METADATA, RECORDS, TEXT, verify
from shared.tenancy.erasure_marks import ErasureMarks
from tests.queryworker.truth import assert_get, assert_query
from tests.queryworker.world import Worker, World, adds, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation


def rows(count: int, seed: int) -> list[Operation]:
    vectors = np.random.default_rng(seed).random((count, 2), np.float32).tolist()
    return [
        Operation(Op.ADD, f"r{i}", (x, y), f"text {i % 50} of {i}", {"n": i % 40}) for i, (x, y) in enumerate(vectors)
    ]


async def manifest_of(world: World) -> Manifest:
    [state] = await world.log.states([(world.collection, 0)])
    assert state is not None
    assert state.pointer is not None
    return await ManifestStore(world.objects).load(world.collection, 0, state.pointer)


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


@contextlib.asynccontextmanager
async def cold_worker(world: World, name: str) -> AsyncIterator[None]:
    """The world's worker is one that has nothing cached."""
    cache = SegmentCache(world.objects, world.directory / name, 1 << 40)
    await cache.open()
    worker = Worker(world.log, world.objects, cache, world.damages)
    before, world.worker = world.worker, worker
    try:
        yield
    finally:
        world.worker = before
        await worker.close()


async def cold_compactor(world: World, name: str) -> Compactor:
    cache = SegmentCache(world.objects, world.directory / name, 1 << 40)
    await cache.open()
    clock = SystemClock()
    return Compactor(
        world.log, world.objects, cache, world.directory / "building", Checkpoints(clock), clock,
        ResourceLimits(2, 1 << 30), name, world.damages, ErasureMarks(world.redis, Keys()),
    )  # fmt: skip


async def assert_right(world: World) -> None:
    """Whatever is asked for, by each of the files that a segment has."""
    await assert_get(world, world.state)
    vector = (0.4, 0.6)
    await assert_query(world, world.state, vector, 5)
    few = Selection(where=MetadataCompare("n", Compare.EQ, 7))
    await assert_query(world, world.state, vector, 5, selection=few, keep=lambda _, row: row.metadata["n"] == 7)
    text = Selection(where=DocumentContains("text 13 "))
    await assert_query(
        world, world.state, vector, 5, selection=text, keep=lambda _, row: "text 13 " in (row.document or "")
    )
    ids = ["r1", "r77", "r2000"]
    await assert_query(world, world.state, vector, 5, selection=Selection(ids=ids), keep=lambda id_, _: id_ in ids)


async def test_damaged_derived_files_are_done_without_and_rewritten_though_nothing_is_in_the_log(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(rows(GRAPH_ROWS_MIN, 1))
        await world.compact()
        for number, names in enumerate(([IDS], [GRAPH], [METADATA, TEXT, CODES])):
            before = await manifest_of(world)
            [ref] = before.segments
            damaged = {ref.info.key(name) for name in names}
            for key in damaged:
                await asyncio.to_thread(flip, tmp_path / "bucket" / key, random.Random(number))
            async with cold_worker(world, f"cold-{number}"):
                await assert_right(world)
                reported = await world.reported()
                assert {each.name for each in reported} == damaged
                assert {each.kind for each in reported} == {DamageKind.DERIVED}
                assert await world.compactor.compact(world.collection, 0) is Ending.PUBLISHED
                after = await manifest_of(world)
                assert (after.rows, after.digest, after.covers) == (before.rows, before.digest, before.covers)
                assert after.segments[0].info.id != ref.info.id
                assert await world.damages.all() == []
                await world.load_newest_manifests()
                await assert_right(world)
            await assert_whole(world, after)
            assert await world.compactor.compact(world.collection, 0) is Ending.NOTHING


async def assert_whole(world: World, manifest: Manifest) -> None:
    for ref in manifest.segments:
        await asyncio.to_thread(verify, world.directory / "bucket" / ref.info.path, ref.info)


@pytest.mark.parametrize("name", [GRAPH, IDS])
async def test_a_compaction_that_meets_a_damaged_derived_file_makes_another_segment(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, name: str
) -> None:
    """The segment is too large to be merged for a few rows otherwise."""
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(rows(GRAPH_ROWS_MIN, 1))
        await world.compact()
        [ref] = (await manifest_of(world)).segments
        await asyncio.to_thread((tmp_path / "bucket" / ref.info.key(name)).unlink)
        await world.write([Operation(Op.DELETE, "r5"), Operation(Op.UPDATE, "r6", document="text 13 anew")])
        compactor = await cold_compactor(world, "cold")
        assert await compactor.compact(world.collection, 0) is Ending.PUBLISHED
        after = await manifest_of(world)
        assert ref.info.id not in {each.info.id for each in after.segments}
        await assert_whole(world, after)
        async with cold_worker(world, "cold-worker"):
            await assert_right(world)
            assert await world.reported() == []


async def test_records_that_the_bucket_has_damaged_are_refused_until_a_compactor_with_a_whole_copy_rewrites_them(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 30))
        await world.compact()
        [ref] = (await manifest_of(world)).segments
        await asyncio.to_thread(flip, tmp_path / "bucket" / ref.info.key(RECORDS), random.Random(1))
        with pytest.raises(Damaged, match=ref.info.key(RECORDS)):
            await world.count()
        assert [each.name for each in await world.reported()] == [ref.info.key(RECORDS)]
        with pytest.raises(Corrupt):
            await (await cold_compactor(world, "cold")).compact(world.collection, 0)
        assert await world.compactor.compact(world.collection, 0) is Ending.PUBLISHED
        await assert_get(world, world.state)
        assert await world.reported() == []


async def test_what_was_reported_and_is_whole_is_cleared_and_not_rewritten(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 30))
        await world.compact()
        before = await manifest_of(world)
        key, shard = before.segments[0].info.key(IDS), {"collection": world.collection, "shard": 0}
        for name in (key, key.replace(before.segments[0].info.id, "replaced-meanwhile")):
            world.worker.damage.found(name, "fails its checksum", "nothing", **shard)  # type: ignore[arg-type]
        assert len(await world.reported()) == 2
        assert await world.compactor.compact(world.collection, 0) is Ending.NOTHING
        assert await manifest_of(world) == before
        assert await world.damages.all() == []
