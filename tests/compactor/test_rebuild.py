"""From one layout of shards to the next: on a real server and a directory, step by step."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from compactor.checkpoints import RebuildStep
from compactor.compaction import Ending
from compactor.initial_manifests import has_foreign_segments
from compactor.rebuild import Rebuilder
from shared.cluster.placement import Layout, shard_of
from shared.errors import Gone, StaleGeneration
from shared.log.jobs import REBUILD, Jobs
from shared.log.lifecycle import Lifecycle
from shared.log.rebuild import Rebuilds
from shared.log.state import FIRST_ID, Routing
from shared.records.model import Op
from tests.compactor.conftest import Records, Shop
from tests.compactor.steps import DiesAt, Stop, WaitsAt, row
from tests.shared.log.appending import make_collection
from tests.shared.log.rounds import begin_round


async def want(shop: Shop, shards: int) -> None:
    await Lifecycle(shop.redis, shop.keys).want_shards(shop.collection.id, shards)


async def routing(shop: Shop) -> Routing:
    found = (await shop.state(REBUILD)).routing
    assert found is not None
    return found


async def compact_all(shop: Shop, layout: Layout) -> None:
    await begin_round(shop.redis, shop.keys, shop.collection.id)
    for shard in layout.numbers:
        while await shop.compactor().compact(shop.collection.id, shard) not in (Ending.NOTHING, Ending.LOST):
            pass


async def rebuild(shop: Shop, rebuilder: Rebuilder | None = None) -> None:
    """As the processes do it: steps, and the jobs that they queue."""
    jobs = Jobs(shop.redis, shop.keys)
    for _ in range(20):
        await (rebuilder or shop.rebuilder()).step(shop.collection.id)
        now = await routing(shop)
        if not now.unfinished:
            await shop.refresh()
            return
        while job := await jobs.claim("test", 60):
            await shop.compactor().compact(job.collection_id, job.shard)
            await jobs.finish(job, "test")
    pytest.fail("the rebuild does not end")


async def churn(shop: Shop, rng: random.Random, writes: int, rows: int = 40) -> None:
    """Inserts, updates and deletions."""
    for _ in range(writes):
        known = sorted(shop.model)
        await shop.write(Op.UPSERT, {f"id{rng.randrange(400)}": row(rng) for _ in range(rows)})
        if known:
            await shop.write(Op.UPDATE, {i: row(rng) for i in rng.sample(known, min(5, len(known)))})
            await shop.delete(rng.sample(known, min(3, len(known))))


async def everything(shop: Shop) -> Records:
    """All records of the present layout once all is compacted; each in the shard that its id hashes to."""
    layout = shop.collection.layout
    await compact_all(shop, layout)
    found: Records = {}
    for shard in layout.numbers:
        if await shop.manifest(shard) is not None:
            records = await shop.records(shard)
            assert not found.keys() & records.keys()
            homes = shard_of(list(records), layout.count)
            assert all(layout.first + home == shard for home in homes)
            found |= records
    return found


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 5)])
async def test_a_collection_gets_more_shards_with_all_it_holds_and_in_its_order(
    shop: Shop, before: int, after: int
) -> None:
    rng = random.Random(before)
    database = await shop.db()
    shop.collection = await make_collection(shop.catalog, database, "several", shards=before)
    for _ in range(3):
        await churn(shop, rng, 2)
        await compact_all(shop, shop.collection.layout)
    await churn(shop, rng, 2)
    appended, version = (shop.collection.appended, shop.collection.version)
    await shop.refresh()
    appended, version = shop.collection.appended, shop.collection.version
    await want(shop, after)
    await rebuild(shop)
    assert shop.collection.layout == Layout(before, after)
    assert shop.collection.appended == appended
    assert shop.collection.version > version
    assert await everything(shop) == shop.model
    await churn(shop, rng, 2)
    assert await everything(shop) == shop.model


async def test_writes_go_on_while_the_shards_are_built(shop: Shop) -> None:
    rng = random.Random(3)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    await want(shop, 3)
    for _ in range(4):
        await shop.rebuilder().step(shop.collection.id)
        await shop.refresh()
        if shop.collection.rebuild is None:
            break
        await churn(shop, rng, 1)
        await compact_all(shop, shop.collection.layout)
        await compact_all(shop, shop.collection.rebuild.layout)
    await rebuild(shop)
    assert shop.collection.shards == 3
    assert await everything(shop) == shop.model


@pytest.mark.parametrize(
    "step", [RebuildStep.INITIALIZED, RebuildStep.COPIED, RebuildStep.APPENDS_STOPPED, RebuildStep.SWITCHED]
)
async def test_whoever_comes_after_a_step_that_died_goes_on(shop: Shop, step: RebuildStep) -> None:
    rng = random.Random(5)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    await churn(shop, rng, 1)
    await want(shop, 4)
    with pytest.raises(Stop):
        await rebuild(shop, shop.rebuilder(DiesAt(step)))
    await shop.refresh()
    await churn(shop, rng, 1)  # past the stop of appends, by whatever layout there is now
    await rebuild(shop)
    assert shop.collection.shards == 4
    assert await everything(shop) == shop.model


async def test_two_that_rebuild_at_once_do_no_harm(shop: Shop) -> None:
    rng = random.Random(6)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    await want(shop, 3)
    waits = WaitsAt(RebuildStep.APPENDS_STOPPED)
    slow = asyncio.create_task(rebuild(shop, shop.rebuilder(waits)))
    await waits.there.wait()
    await rebuild(shop)
    assert shop.collection.shards == 3
    await churn(shop, rng, 1)
    waits.go.set()
    await slow
    assert await everything(shop) == shop.model


async def test_a_sower_that_slept_does_not_undo_what_came_after(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    await want(shop, 2)
    slow = shop.rebuilder()
    create, asleep, awake = slow._create, asyncio.Event(), asyncio.Event()

    async def sleepy(*args: Any) -> Any:
        asleep.set()
        await awake.wait()
        return await create(*args)

    monkeypatch.setattr(slow, "_create", sleepy)
    sleeping = asyncio.create_task(slow.step(shop.collection.id))
    await asleep.wait()
    await rebuild(shop)
    await churn(shop, rng, 1)
    assert await everything(shop) == shop.model
    awake.set()
    await sleeping
    await churn(shop, rng, 1)
    assert await everything(shop) == shop.model


async def test_a_writer_with_the_old_layout_is_told_so(shop: Shop) -> None:
    await churn(shop, random.Random(8), 1)
    await want(shop, 2)
    old = shop.collection
    await rebuild(shop)
    new, shop.collection = shop.collection, old
    with pytest.raises(StaleGeneration):
        await shop.write(Op.ADD, {"late": row(random.Random(9))})
    shop.collection = new
    await shop.write(Op.ADD, {"late": row(random.Random(9))})
    assert await everything(shop) == shop.model


async def test_nothing_is_trimmed_that_is_still_to_be_copied(shop: Shop) -> None:
    rng = random.Random(10)
    await churn(shop, rng, 2)
    await compact_all(shop, shop.collection.layout)
    await churn(shop, rng, 1)
    await want(shop, 2)
    with pytest.raises(Stop):
        await shop.rebuilder(DiesAt(RebuildStep.INITIALIZED)).step(shop.collection.id)
    await compact_all(shop, shop.collection.layout)
    pointer = (await shop.state()).pointer
    assert pointer is not None
    await shop.log.trim(shop.collection.id, 0, pointer, 0)
    state = await shop.state()
    assert state.trimmed == state.kept_from
    assert state.trimmed < pointer.covers
    assert not state.trimmable
    await rebuild(shop)
    assert await everything(shop) == shop.model
    assert (await shop.log.read(shop.collection.id, 0)).entries == []


async def test_the_backlog_counts_what_the_streams_hold(shop: Shop) -> None:
    rng = random.Random(11)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    await churn(shop, rng, 1)
    await want(shop, 3)
    await rebuild(shop)
    await compact_all(shop, shop.collection.layout)
    for shard in shop.collection.layout.numbers:
        pointer = (await shop.state(shard)).pointer
        if pointer is not None:
            await shop.log.trim(shop.collection.id, shard, pointer, 0)
    name = shop.keys.state(shop.collection.id)
    assert await shop.redis.hmget(name, "backlog_ops", "backlog_bytes") == [b"0", b"0"]


async def test_a_collection_without_records_gets_its_shards_too(shop: Shop) -> None:
    await want(shop, 3)
    await rebuild(shop)
    assert shop.collection.shards == 3
    await churn(shop, random.Random(12), 1)
    assert await everything(shop) == shop.model


async def test_what_is_asked_for_meanwhile_comes_next(shop: Shop) -> None:
    await churn(shop, random.Random(13), 2)
    await want(shop, 2)
    await shop.rebuilder().step(shop.collection.id)
    await want(shop, 5)
    await rebuild(shop)
    assert shop.collection.shards == 5
    assert await everything(shop) == shop.model


async def test_a_deleted_collection_is_left_alone(shop: Shop) -> None:
    await churn(shop, random.Random(14), 1)
    await want(shop, 2)
    await shop.rebuilder().step(shop.collection.id)
    await shop.catalog.collections.delete(await shop.db(), shop.collection.name)
    with pytest.raises(Gone):
        await shop.rebuilder().step(shop.collection.id)
    await Lifecycle(shop.redis, shop.keys).collect(shop.collection.id)
    assert not [key async for key in shop.redis.scan_iter(f"{shop.keys.prefix}:{{{shop.collection.id}}}:log:*")]


async def test_people_see_how_far_it_is(shop: Shop) -> None:
    await churn(shop, random.Random(16), 2)
    jobs, rebuilds = Jobs(shop.redis, shop.keys), Rebuilds(shop.redis, shop.keys)
    assert await jobs.rebuilds() == []
    await want(shop, 3)
    await jobs.put(shop.collection.id, REBUILD, 1.0)
    await jobs.put(shop.collection.id, 0, 1.0)
    await rebuilds.begin(shop.collection.id, 0, Layout(0, 1), Layout(1, 3))
    assert await jobs.rebuilds() == [shop.collection.id]
    assert await rebuilds.progress(shop.collection.id) == "1 -> 3 shards, 0 built"
    await rebuild(shop)
    assert await rebuilds.progress(shop.collection.id) is None


async def test_new_shards_first_see_the_old_segments_and_then_have_their_own(shop: Shop) -> None:
    rng = random.Random(15)
    await churn(shop, rng, 3)
    await compact_all(shop, shop.collection.layout)
    await want(shop, 3)
    with pytest.raises(Stop):
        await shop.rebuilder(DiesAt(RebuildStep.INITIALIZED)).step(shop.collection.id)
    assert all([has_foreign_segments(await shop.published(shard)) for shard in (1, 2, 3)])
    found = [await shop.records(shard) for shard in (1, 2, 3)]
    assert {**found[0], **found[1], **found[2]} == shop.model
    await compact_all(shop, Layout(1, 3))
    assert not any([has_foreign_segments(await shop.published(shard)) for shard in (1, 2, 3)])
    assert (await shop.log.read(shop.collection.id, 1, FIRST_ID)).state.building


@pytest.mark.parametrize("trimmed", [False, True])
async def test_a_shard_is_never_copied_from_before_its_seed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, trimmed: bool
) -> None:
    """One shard was compacted much further than the other, whose log takes several copies: replaying operations on
    records that have them already would, for one, apply an update that came before its record was there.
    """
    rng = random.Random(9)
    database = await shop.db()
    shop.collection = await make_collection(shop.catalog, database, "uneven", shards=2)
    behind, ahead = ([i for i in map(str, range(400)) if shard_of([i], 2)[0] == shard] for shard in (0, 1))
    for n in range(20):
        await shop.write(Op.UPSERT, {i: row(rng) for i in behind[10 * n : 10 * n + 10]})
        await shop.write(Op.UPDATE, {ahead[n]: row(rng)})  # changes nothing
        await shop.write(Op.ADD, {ahead[n]: row(rng)})
    await compact_all(shop, Layout(1, 1))
    if trimmed:
        pointer = (await shop.state(1)).pointer
        assert pointer is not None
        assert await shop.log.trim(shop.collection.id, 1, pointer, 0)
    monkeypatch.setattr("compactor.rebuild.COPY_BYTES", 20_000)
    await want(shop, 3)
    await rebuild(shop)
    assert await everything(shop) == shop.model
