"""From the log of a real server to manifests in a directory, and back to records."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from redis.asyncio import Redis

from compactor import compaction
from compactor.build import Source, build
from compactor.cancellation import Abandoned, CancellationToken
from compactor.checkpoints import Step
from compactor.compaction import Ending
from compactor.policy import Plan
from shared.cluster.placement import shard_of
from shared.errors import Corrupt, Gone, Unavailable
from shared.manifest.store import ManifestStore
from shared.objects.open import open_store
from shared.objects.port import ObjectStore
from shared.records import digest
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.segment.cache import SegmentCache
from shared.segment.reader import open_segment
from tests.compactor.conftest import DIMENSION, Shop
from tests.compactor.steps import DiesAt, Stop, WaitsAt, row
from tests.shared.log.appending import make_collection


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
        extended_with_dead_rows += planned.base is not None and len(sources[planned.base].dead) > 0
        return real(directory, segment_id, path, sources, planned, *rest)

    monkeypatch.setattr(compaction, "build", noting)
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
    # A page of the log holds all three: the limit ends the fold behind a page, never inside an append.
    assert await compactor.compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model


async def test_pages_of_the_log_never_cut_an_append(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compactor.fold.PAGE_BYTES", 1)
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
    for shard in (0, 1):
        assert await shop.compactor().compact(shop.collection.id, shard) is Ending.PUBLISHED
        assert (await shop.published(shard)).covers == 51
        found = await shop.records(shard)
        assert found == {name: value for name, value in shop.model.items() if shard_of([name], 2)[0] == shard}


@pytest.mark.parametrize("step", [Step.READ, Step.FOLDED, Step.BUILT, Step.UPLOADED, Step.CREATED, Step.COMMITTED])
async def test_dying_at_any_step_loses_nothing_and_the_next_compactor_goes_on(shop: Shop, step: Step) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(30)})
    await shop.compactor().compact(shop.collection.id, 0)
    await shop.write(Op.UPSERT, {f"id{n}": row(random.Random(n)) for n in range(20, 60)})
    await shop.delete(["id1"])
    with pytest.raises(Stop):
        await shop.compactor(DiesAt(step)).compact(shop.collection.id, 0)
    expected = {Step.CREATED: [Ending.COMPLETED, Ending.NOTHING], Step.COMMITTED: [Ending.NOTHING]}
    survivor = shop.compactor()
    endings = [await survivor.compact(shop.collection.id, 0)]
    while endings[-1] is not Ending.NOTHING:
        endings.append(await survivor.compact(shop.collection.id, 0))
    assert endings == expected.get(step, [Ending.PUBLISHED, Ending.NOTHING])
    assert (await shop.published()).version == 2
    assert await shop.records() == shop.model


async def test_a_first_manifest_without_a_pointer_is_completed(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    with pytest.raises(Stop):
        await shop.compactor(DiesAt(Step.CREATED)).compact(shop.collection.id, 0)
    assert await shop.manifest() is None
    await shop.write(Op.ADD, {"b": row(random.Random(2))})
    compactor = shop.compactor()
    assert await compactor.compact(shop.collection.id, 0) is Ending.COMPLETED
    assert (await shop.published()).rows == 1
    assert await compactor.compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model


async def test_a_second_compactor_cannot_publish_the_same_version(shop: Shop) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(30)})
    waiting = [WaitsAt(Step.UPLOADED) for _ in range(4)]
    racing = [asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0)) for wait in waiting]
    for wait in waiting:
        await wait.there.wait()
    for wait in waiting:
        wait.go.set()
    endings = await asyncio.gather(*racing)
    # Whoever finds the winner's manifest before its pointer moved sets the same pointer: one publication all the same.
    assert endings.count(Ending.PUBLISHED) == 1
    assert set(endings) <= {Ending.PUBLISHED, Ending.COMPLETED, Ending.LOST}
    assert (await shop.published()).version == 1
    assert await shop.records() == shop.model


async def test_a_compactor_that_slept_through_another_ones_publication_throws_its_work_away(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.UPLOADED)
    slow = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    for number in range(2):
        await shop.write(Op.UPSERT, {f"b{number}": row(random.Random(number))})
        assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    wait.go.set()
    assert await slow is Ending.LOST
    assert (await shop.published()).version == 2
    assert await shop.records() == shop.model


async def test_a_compactor_that_creates_after_the_pointer_moved_on_cannot_commit(shop: Shop) -> None:
    """As when old manifests were collected already: the name is free again, the pointer decides."""
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.UPLOADED)
    slow = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    for number in range(2):
        await shop.write(Op.UPSERT, {f"b{number}": row(random.Random(number))})
        await shop.compactor().compact(shop.collection.id, 0)
    await shop.objects.delete([f"{shop.collection.id}/0/manifests/{1:020d}.json"])
    wait.go.set()
    assert await slow is Ending.LOST
    assert (await shop.published()).version == 2
    newest = await ManifestStore(shop.objects).newest(shop.collection.id, 0)
    assert newest is not None
    assert newest[0].version == 2


async def test_a_fold_that_is_overtaken_stops(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.READ)
    slow = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    wait.go.set()
    assert await slow is Ending.LOST


async def test_an_unfinished_manifest_whose_segment_is_gone_is_never_committed_and_stops_nobody(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    with pytest.raises(Stop):
        await shop.compactor(DiesAt(Step.CREATED)).compact(shop.collection.id, 0)
    files = [info.key async for info in shop.objects.list(f"{shop.collection.id}/0/segments/")]
    await shop.objects.delete(files[:1])
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert (await shop.published()).version == 2
    assert await shop.records() == shop.model
    await shop.write(Op.ADD, {"b": row(random.Random(2))})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    parent = (await shop.published()).parent
    assert parent is not None
    assert parent.version == 2
    assert await shop.records() == shop.model


async def test_a_lost_log_entry_is_reported_and_nothing_is_published(shop: Shop) -> None:
    for number in range(3):
        await shop.write(Op.ADD, {f"id{number}": row(random.Random(number))})
    await shop.redis.xdel(shop.keys.log(shop.collection.id, 0), "2-0")
    with pytest.raises(Corrupt, match="follows"):
        await shop.compactor().compact(shop.collection.id, 0)
    await shop.redis.xdel(shop.keys.log(shop.collection.id, 0), "3-0")
    with pytest.raises(Corrupt, match="gap"):
        await shop.compactor().compact(shop.collection.id, 0)
    assert await shop.manifest() is None


async def test_a_log_that_was_cut_at_its_beginning_is_reported(shop: Shop) -> None:
    for number in range(3):
        await shop.write(Op.ADD, {f"id{number}": row(random.Random(number))})
    await shop.redis.xdel(shop.keys.log(shop.collection.id, 0), "1-0")
    with pytest.raises(Corrupt, match="gap"):
        await shop.compactor().compact(shop.collection.id, 0)


async def test_a_segment_damaged_in_the_bucket_is_never_built_upon(shop: Shop) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(30)})
    await shop.compactor().compact(shop.collection.id, 0)
    [ref] = (await shop.published()).segments
    key = f"{ref.info.path}/records.arrow"
    content = bytearray(await shop.objects.get(key))
    content[len(content) // 2] ^= 1
    await shop.objects.put(key, bytes(content))
    await shop.write(Op.ADD, {"new": row(random.Random(1))})
    with pytest.raises(Corrupt, match="checksum"):
        await shop.compactor().compact(shop.collection.id, 0)
    assert (await shop.published()).version == 1


@pytest.mark.parametrize("mistake", ["drops", "invents", "changes"])
async def test_a_compaction_that_does_not_prove_is_not_published(
    shop: Shop, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = build

    def wrong(*arguments: Any) -> Any:
        *before, tail, params, check, indexing = arguments
        if mistake == "drops":
            tail = tail.slice(1)
        elif mistake == "invents":
            tail = pa.concat_tables([tail, tail.slice(0, 1)])
        else:
            place = tail.schema.get_field_index("document")
            changed = pa.array(["changed"] * tail.num_rows, pa.large_string())
            tail = tail.set_column(place, tail.schema.field(place), changed)
        return real(*before, tail, params, check, indexing)

    monkeypatch.setattr(compaction, "build", wrong)
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(5)})
    refused = compaction.UNPROVEN._value.get()
    with pytest.raises(Corrupt):
        await shop.compactor().compact(shop.collection.id, 0)
    assert compaction.UNPROVEN._value.get() == refused + 1
    assert await shop.manifest() is None
    assert [info async for info in shop.objects.list("")] == []


async def test_a_deleted_collection_is_gone(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.CREATED)
    late = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    database = await shop.db()
    await shop.catalog.delete_collection(database, "shop")
    with pytest.raises(Gone):
        await shop.compactor().compact(shop.collection.id, 0)
    wait.go.set()
    with pytest.raises(Gone):
        await late


async def test_an_abandoned_job_stops_at_the_next_step_and_leaves_scratch_empty(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    token = CancellationToken()
    wait = WaitsAt(Step.FOLDED)
    compactor = shop.compactor(wait)
    job = asyncio.create_task(compactor.compact(shop.collection.id, 0, token))
    await wait.there.wait()
    token.cancel()
    wait.go.set()
    with pytest.raises(Abandoned):
        await job
    assert await shop.manifest() is None
    assert list(shop.folder.glob("compactor-*/building/*")) == []


async def test_object_storage_that_is_away_ends_the_job_without_harm(shop: Shop) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            if name == "put":
                return self.fail
            return getattr(shop.objects, name)

        async def fail(self, *_: object) -> None:
            raise Unavailable("object storage: away")

    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    with pytest.raises(Unavailable):
        await shop.compactor(objects=cast(ObjectStore, Away())).compact(shop.collection.id, 0)
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model


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


async def test_the_same_over_s3(shop: Shop, s3_bucket: str) -> None:
    """Two compactors by turns, one of them dying, on an S3-compatible server."""
    async with open_store(f"s3://{s3_bucket}/{shop.keys.prefix}") as objects:
        shop.objects = objects
        for number in range(3):
            await shop.write(Op.UPSERT, {f"id{n}": row(random.Random(n + number)) for n in range(10 * number, 50)})
            with pytest.raises(Stop):
                await shop.compactor(DiesAt(Step.CREATED if number % 2 else Step.UPLOADED)).compact(
                    shop.collection.id, 0
                )
            survivor = shop.compactor()
            while await survivor.compact(shop.collection.id, 0) is not Ending.NOTHING:
                pass
            assert (await shop.published()).version == number + 1
            assert await shop.records() == shop.model
