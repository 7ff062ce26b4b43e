"""From the log of a real server to manifests in a directory, and back to records."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from compactor import merge
from compactor.build import build
from compactor.compaction import Ending
from compactor.policy import Plan
from compactor.sources import Source
from shared.cluster.placement import shard_of
from shared.records import digest
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.segment.cache import SegmentCache
from shared.segment.reader import open_segment
from tests.compactor.conftest import DIMENSION, Shop
from tests.compactor.steps import row
from tests.shared.log.appending import make_collection
from tests.shared.log.rounds import begin_round


async def test_an_empty_log_publishes_nothing(shop: Shop) -> None:
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.NOTHING
    assert await shop.manifest() is None


async def test_the_log_becomes_a_manifest_with_its_records(shop: Shop) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n), n) for n in range(50)})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    manifest = await shop.published()
    assert (manifest.version, manifest.covers, manifest.rows, manifest.dimension) == (1, 51, 50, DIMENSION)
    assert manifest.parent is None
    assert await shop.records() == shop.model
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.NOTHING


async def test_a_committed_compaction_whose_segment_cannot_be_cached_has_succeeded(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    compactor = shop.compactor()
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if target.parent == compactor._cache._root:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    assert await compactor.compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model
    assert list(compactor._building.iterdir()) == []


@pytest.mark.parametrize("seed", range(3))
async def test_any_history_over_many_compactions_equals_the_model(
    shop: Shop, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs are wanted from 40 rows on, so that segments are extended, merged and rewritten all the time."""
    monkeypatch.setattr("shared.segment.writer.GRAPH_ROWS_MIN", 40)
    rng = random.Random(seed)
    names = [f"id{number}" for number in range(400)]
    compactor = shop.compactor()
    extended_with_dead_rows = 0
    real = build

    def noting(
        directory: Path, segment_id: str, path: str, sources: Sequence[Source], planned: Plan, *rest: Any
    ) -> Any:
        nonlocal extended_with_dead_rows
        extended_with_dead_rows += planned.extended is not None and len(sources[planned.extended].dead) > 0
        return real(directory, segment_id, path, sources, planned, *rest)

    monkeypatch.setattr(merge, "build", noting)
    for round_number in range(12):
        for _ in range(rng.randint(1, 6)):
            some = rng.sample(names, rng.choice([1, 3, 40, 120]))
            match rng.choice(list(Op)):
                case Op.DELETE:
                    await shop.delete(some[:60])
                case Op.UPDATE if rng.random() < 0.5:
                    await shop.write(Op.UPDATE, {name: row(rng) for name in some}, vectors=False)
                case op:
                    await shop.write(op, {name: row(rng) for name in some})
        fresh = compactor if rng.random() < 0.7 else shop.compactor()
        assert await fresh.compact(shop.collection.id, 0) is Ending.PUBLISHED
        manifest = await shop.published()
        assert manifest.version == round_number + 1
        assert manifest.rows == len(shop.model)
        assert len(manifest.segments) <= 4
        assert await shop.records() == shop.model
    assert extended_with_dead_rows


async def test_the_digest_of_the_manifest_is_that_of_its_records(shop: Shop) -> None:
    rng = random.Random(7)
    await shop.write(Op.UPSERT, {f"id{n}": row(rng) for n in range(30)})
    await shop.compactor().compact(shop.collection.id, 0)
    await shop.write(Op.UPDATE, {f"id{n}": row(rng) for n in range(10, 40)})
    await shop.delete(["id0", "id1"])
    await shop.compactor().compact(shop.collection.id, 0)
    manifest = await shop.published()
    total = 0
    cache = SegmentCache(shop.objects, shop.folder / "again", 1 << 30)
    await cache.open()
    for ref in manifest.segments:
        async with cache.hold(ref.info) as folder:
            records = open_segment(folder, ref.info).records
            live = [number for number in range(records.num_rows) if number not in ref.bitmap()]
            total += digest.total(digest.record_digests(records.take(live)))
    assert digest.to_hex(total % digest.MODULUS) == manifest.digest


async def test_a_log_longer_than_the_limit_is_taken_in_parts(shop: Shop) -> None:
    compactor = shop.compactor(fold_bytes=1)
    for number in range(3):
        await shop.write(Op.ADD, {f"id{number}": row(random.Random(number))})
    # A page of the log holds all three: the limit ends the reading behind a page, never inside an append.
    assert await compactor.compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model


async def test_pages_of_the_log_never_cut_an_append(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compactor.apply_log.PAGE_BYTES", 1)
    monkeypatch.setattr("shared.limits.ENTRY_BYTES_TARGET", 2000)
    compactor = shop.compactor(fold_bytes=1)
    for number in range(3):
        await shop.write(Op.ADD, {f"id{number}-{n}": row(random.Random(n), n) for n in range(60)})
    endings, covered = [], []
    while (ending := await compactor.compact(shop.collection.id, 0)) is not Ending.NOTHING:
        endings.append(ending)
        covered.append((await shop.published()).covers)
    assert endings == [Ending.PARTIAL, Ending.PARTIAL, Ending.PUBLISHED]
    assert covered == [61, 121, 181]
    assert await shop.records() == shop.model


async def test_deletes_and_updates_of_nothing_move_the_position_without_segments(shop: Shop) -> None:
    await shop.delete(["nobody"])
    await shop.write(Op.UPDATE, {"nobody": ([], "text", None, None)}, vectors=False)
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    manifest = await shop.published()
    assert (manifest.covers, manifest.rows, manifest.dimension, manifest.segments) == (3, 0, 0, [])
    await shop.write(Op.ADD, {"somebody": row(random.Random(1))})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model


async def test_a_segment_without_living_rows_is_dropped(shop: Shop) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(20)})
    await shop.compactor().compact(shop.collection.id, 0)
    await shop.delete([f"id{n}" for n in range(20)])
    await shop.compactor().compact(shop.collection.id, 0)
    manifest = await shop.published()
    assert (manifest.rows, manifest.segments, manifest.digest) == (0, [], "0" * 32)


async def test_tombstones_alone_write_no_segment(shop: Shop) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(100)})
    await shop.compactor().compact(shop.collection.id, 0)
    [before] = (await shop.published()).segments
    await shop.delete(["id3"])
    await shop.compactor().compact(shop.collection.id, 0)
    [after] = (await shop.published()).segments
    assert after.info == before.info
    assert list(after.bitmap()) == [3]
    assert await shop.records() == shop.model


async def test_shards_are_compacted_each_with_its_own_chain(redis: Redis, keys: Keys, shop: Shop) -> None:
    database = await shop.db()
    shop.collection = await make_collection(shop.catalog, database, "two", shards=2)
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(50)})
    await begin_round(redis, keys, shop.collection.id)
    for shard in (0, 1):
        assert await shop.compactor().compact(shop.collection.id, shard) is Ending.PUBLISHED
        assert (await shop.published(shard)).covers == 51
        found = await shop.records(shard)
        assert found == {name: value for name, value in shop.model.items() if shard_of([name], 2)[0] == shard}


async def test_the_shards_of_a_collection_are_compacted_up_to_its_cut_and_no_further(
    redis: Redis, keys: Keys, shop: Shop
) -> None:
    shop.collection = await make_collection(shop.catalog, await shop.db(), "two", shards=2)
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(50)})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.NOTHING  # before the first round
    await begin_round(redis, keys, shop.collection.id)
    await shop.write(Op.ADD, {f"later{n}": row(random.Random(n)) for n in range(50)})
    for shard in (0, 1):
        assert await shop.compactor().compact(shop.collection.id, shard) is Ending.PUBLISHED
        assert await shop.compactor().compact(shop.collection.id, shard) is Ending.NOTHING
        assert (await shop.published(shard)).covers == 51
        assert not [name for name in await shop.records(shard) if name.startswith("later")]
    await begin_round(redis, keys, shop.collection.id)
    for shard in (0, 1):
        assert await shop.compactor().compact(shop.collection.id, shard) is Ending.PUBLISHED
        assert (await shop.published(shard)).covers == 101


async def test_a_shard_without_operations_below_the_cut_has_nothing_to_compact(
    redis: Redis, keys: Keys, shop: Shop
) -> None:
    shop.collection = await make_collection(shop.catalog, await shop.db(), "two", shards=2)
    name = next(name for name in map(str, range(50)) if shard_of([name], 2)[0] == 1)
    await shop.write(Op.ADD, {name: row(random.Random(1))})
    await begin_round(redis, keys, shop.collection.id)
    other = next(name for name in map(str, range(50)) if shard_of([name], 2)[0] == 0)
    await shop.write(Op.ADD, {other: row(random.Random(2))})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.NOTHING
    assert await shop.compactor().compact(shop.collection.id, 1) is Ending.PUBLISHED


async def test_a_large_graph_is_extended_from_the_local_copy(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    fetched = []
    real = shop.objects.download

    async def counted(key: str, path: Path) -> None:
        fetched.append(key)
        await real(key, path)

    monkeypatch.setattr(shop.objects, "download", counted)
    compactor = shop.compactor()
    for begin, count in ((0, 3000), (3000, 400)):
        vectors = rng.normal(size=(count, DIMENSION)).round(3)
        await shop.write(Op.ADD, {f"id{begin + n}": (list(vectors[n]), None, None, None) for n in range(count)})
        await compactor.compact(shop.collection.id, 0)
    assert fetched == []
    [ref] = (await shop.published()).segments
    assert (ref.info.rows, ref.info.graph) == (3400, True)
    assert len(await shop.records()) == 3400
