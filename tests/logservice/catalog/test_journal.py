"""What was acknowledged of the catalog survives the loss of Redis; what was deleted never comes back (promise 5)."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator

import pytest

from shared.catalog import Catalog, NewCollection
from shared.catalog.forking import Forking
from shared.errors import JournalAway, NotJournaled, Unavailable, UnknownOutcome
from shared.objects.port import ObjectStore
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.catalog.catalog_model import CatalogModel
from tests.logservice.catalog.journaling import JournaledCluster
from tests.redis_server import RedisServer
from tests.shared.log.appending import FIXED, append, make_collection
from tests.shared.objects.faults import FaultyStore, Gate


@pytest.fixture
async def world(
    valkey_server: RedisServer, keys: Keys, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[JournaledCluster]:
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # nobody pulls a plug here, and it takes most of the time
    async with open_redis(valkey_server.url) as redis:
        cluster = JournaledCluster(redis, keys, FaultyStore(objects))
        await cluster.wipe()
        await cluster.reconcile()
        try:
            yield cluster
        finally:
            await cluster.close()


async def lose(world: JournaledCluster) -> None:
    world.objects.end_faults()
    await world.wipe()
    await world.reconcile()


async def names(world: JournaledCluster) -> list[str]:
    return [each.name for each in await world.catalog.collections.of_database(await world.database())]


async def test_every_kind_of_change_survives_a_loss_right_after_it(world: JournaledCluster) -> None:
    await world.snapshot()
    catalog, db = world.catalog, await world.database()
    await catalog.tenants.create("acme")
    assert await catalog.tenants.set_resource_name("acme", "res")
    other = await catalog.databases.create("acme", "base")
    await catalog.databases.create("acme", "dropped")
    assert await catalog.databases.delete("acme", "dropped")
    kept = await make_collection(catalog, db, "before")
    assert await catalog.collections.update(db, kept, name="after", metadata={"a": 1})
    await make_collection(catalog, db, "deleted")
    assert await catalog.collections.delete(db, "deleted")
    await make_collection(catalog, other, "there", shards=2)
    forking = Forking(world.redis, world.keys, catalog.collections)
    new = NewCollection("fork", None, {}, {}, FIXED, (kept.id,))
    fork_id = await forking.reserve(kept, new, 10)
    assert await forking.commit(db, fork_id, new)

    await lose(world)
    found = await catalog.tenants.find_by_resource_name("res")
    assert found is not None
    assert found.name == "acme"
    assert [each.name for each in await catalog.databases.of_tenant("acme")] == ["base"]
    assert await names(world) == ["after", "fork"]
    back = await catalog.collections.get(db, "after")
    assert back is not None
    assert (back.id, back.metadata, back.generation) == (kept.id, {"a": 1}, 2)
    there = await catalog.collections.get(other, "there")
    assert there is not None
    assert there.shards == 2
    assert await forking.count(kept) == 1


@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("seed", range(4))
async def test_random_changes_and_a_loss_at_any_point_of_them(world: JournaledCluster, seed: int, point: str) -> None:
    """A wipe falls between two changes, before an entry is written, or after that and before the answer."""
    chance = random.Random(f"{seed} {point}")
    model = CatalogModel(world.writer(), chance)
    for _ in range(40):
        match chance.choice(("change",) * 8 + ("loss", "loss within", "snapshot", "tidy", "collect")):
            case "change":
                await model.change()
            case "loss":
                await lose(world)
                await model.check()
            case "loss within":
                await _lose_within(world, model, point)
            case "snapshot":
                await world.snapshot()
            case "tidy":
                await world.tidy()
            case "collect":
                await world.collector.collect_deleted()
    await lose(world)
    await model.check()
    assert model.acknowledged > 10


async def _lose_within(world: JournaledCluster, model: CatalogModel, point: str) -> None:
    async def wipe(key: str) -> None:
        if key.startswith("catalog/journal/"):
            world.objects.end_faults()
            await world.wipe()

    setattr(world.objects, point, wipe)
    await model.change()
    await lose(world)
    await model.check()


async def test_writers_at_once_share_entries_and_lose_nothing(world: JournaledCluster) -> None:
    writers = [world.writer() for _ in range(3)]
    db = await world.database()
    before = await world.entries()

    async def create(number: int) -> None:
        await make_collection(writers[number % 3], db, f"c{number}")

    await asyncio.gather(*(create(number) for number in range(60)))
    assert 0 < await world.entries() - before < 60
    await lose(world)
    assert sorted(await names(world)) == sorted(f"c{number}" for number in range(60))


async def test_a_change_that_waits_for_its_entry_through_a_restoration_is_not_acknowledged(
    world: JournaledCluster,
) -> None:
    gate = Gate()
    world.objects.before = gate
    paused = world.writer()
    creating = asyncio.create_task(make_collection(paused, await world.database(), "late"))
    await gate.reached.wait()
    await lose(world)
    gate.opened.set()
    with pytest.raises(NotJournaled):
        await creating
    assert await names(world) == []
    await make_collection(world.catalog, await world.database(), "late")  # the name is free
    await lose(world)
    assert await names(world) == ["late"]


async def test_an_entry_that_is_written_after_a_later_deletion_and_its_snapshot_brings_nothing_back(
    world: JournaledCluster,
) -> None:
    db, gate = await world.database(), Gate()
    world.objects.before = gate
    creating = asyncio.create_task(make_collection(world.writer(), db, "gone"))
    await gate.reached.wait()
    world.objects.end_faults()
    assert await world.catalog.collections.delete(db, "gone")
    await world.collector.collect_deleted()
    await world.collector.forget(list(await world.collector.graves()))
    for _ in range(2):
        await world.snapshot()
        await world.tidy()
    assert await world.entries() == 0, "nothing is left of it anywhere"
    gate.opened.set()
    await asyncio.gather(creating, return_exceptions=True)
    await lose(world)
    assert await names(world) == []


async def test_what_a_dead_writer_left_is_durable_as_soon_as_somebody_builds_on_it(world: JournaledCluster) -> None:
    """It had deleted a collection, and died before the entry; the name is taken again by another one."""
    db = await world.database()
    first = await make_collection(world.catalog, db, "name")
    await world.snapshot()
    dead = Catalog(world.redis, world.keys)
    assert await dead.collections.delete(db, "name")
    second = await make_collection(world.catalog, db, "name")
    await lose(world)
    found = await world.catalog.collections.get(db, "name")
    assert found is not None
    assert found.id == second.id
    assert await world.catalog.collections.get_by_id(db, first.id) is None


@pytest.mark.parametrize("again", ["get_or_create", "delete"])
async def test_an_answer_that_rests_on_a_dead_writers_change_makes_it_durable(
    world: JournaledCluster, again: str
) -> None:
    db = await world.database()
    await world.snapshot()
    dead = Catalog(world.redis, world.keys)
    if again == "get_or_create":
        made = await make_collection(dead, db, "name")
        new = NewCollection("name", None, {}, {}, FIXED)
        assert await world.catalog.collections.create(db, new, get_or_create=True) == (made, False)
    else:
        await make_collection(world.catalog, db, "name")
        assert await dead.collections.delete(db, "name")
        assert not await world.catalog.collections.delete(db, "name")
    await lose(world)
    assert await names(world) == (["name"] if again == "get_or_create" else [])


@pytest.mark.parametrize("whole", [False, True])
async def test_objects_of_what_was_deleted_right_before_a_loss_are_garbage_and_not_a_riddle(
    world: JournaledCluster, whole: bool
) -> None:
    """The snapshot does not have the collection any more, and there was no time for its grave."""
    other = await world.catalog.databases.create("default_tenant", "other")
    made = await make_collection(world.catalog, other, "deleted")
    await world.objects.put(f"{made.id}/0/segments/x/records.arrow", b"x")
    if whole:
        assert await world.catalog.databases.delete("default_tenant", "other")
    else:
        assert await world.catalog.collections.delete(other, "deleted")
    await world.snapshot()
    await lose(world)
    assert made.id in await world.collector.graves()
    report = await world.images.read_report()
    assert report is not None
    assert report["unlisted"] == []


async def test_a_collection_is_durable_before_anything_is_written_in_it(world: JournaledCluster) -> None:
    """Another client may find it before its creator has an answer, or after the creator died."""
    await world.snapshot()
    db = await world.database()
    made = await make_collection(Catalog(world.redis, world.keys), db, "made")
    found = await world.catalog.collections.get_durable(db, made.id)
    assert found is not None
    await append(world.log, found, ["a"])
    await lose(world)
    assert await names(world) == ["made"]


async def test_a_deletion_is_durable_before_anything_of_the_collection_is_removed(world: JournaledCluster) -> None:
    await make_collection(world.catalog, await world.database(), "deleted")
    await world.snapshot()
    dead = Catalog(world.redis, world.keys)
    assert await dead.collections.delete(await world.database(), "deleted")
    assert await world.collector.collect_deleted() == 1
    await lose(world)
    assert await names(world) == []


async def test_the_log_service_finishes_what_dead_writers_left(world: JournaledCluster) -> None:
    dead = Catalog(world.redis, world.keys)
    await dead.tenants.create("t")
    other = await dead.databases.create("t", "d")
    await make_collection(dead, other, "left")
    assert await world.collector.settle_journal() == 3
    assert await world.collector.settle_journal() == 0
    await lose(world)
    assert await world.catalog.collections.get(other, "left") is not None


async def test_a_bucket_without_writes_refuses_changes_and_takes_them_when_it_is_back(
    world: JournaledCluster,
) -> None:
    db = await world.database()
    world.objects.read_only = True
    with pytest.raises(UnknownOutcome):
        await make_collection(world.catalog, db, "unknown")
    with pytest.raises(JournalAway):
        await make_collection(world.catalog, db, "refused")
    assert await names(world) == ["unknown"]  # reads go on
    world.objects.end_faults()
    async with asyncio.timeout(10):
        while True:
            try:
                await make_collection(world.catalog, db, "taken")
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    await lose(world)
    assert await names(world) == ["unknown", "taken"]


async def test_a_writer_whose_debt_another_one_has_paid_goes_on(world: JournaledCluster) -> None:
    db, writer = await world.database(), world.writer()
    world.objects.read_only = True
    with pytest.raises(UnknownOutcome):
        await make_collection(writer, db, "unknown")
    world.objects.end_faults()
    await world.collector.settle_journal()
    async with asyncio.timeout(10):
        while True:
            try:
                await make_collection(writer, db, "taken")
                break
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_damaged_entry_is_named_and_the_others_are_applied(world: JournaledCluster) -> None:
    db = await world.database()
    for _ in range(2):
        await world.snapshot()
        await world.tidy()
    await make_collection(world.catalog, db, "one")
    (damaged,) = [info.key async for info in world.objects.list("catalog/journal/")]
    data = await world.objects.get(damaged)
    await world.objects.put(damaged, data.replace(b'"one', b'"two', 1))
    await make_collection(world.catalog, db, "three")
    await lose(world)
    assert await names(world) == ["three"]
    report = await world.images.read_report()
    assert report is not None
    assert report["damaged_journal"] == [damaged]


async def test_entries_that_a_snapshot_contains_are_deleted_and_no_others(world: JournaledCluster) -> None:
    db = await world.database()
    for number in range(5):
        await make_collection(world.catalog, db, f"c{number}")
    await world.snapshot()
    await make_collection(world.catalog, db, "later")
    assert await world.tidy() == 0, "the only snapshot that has them may turn out to be damaged"
    await world.snapshot()
    await make_collection(world.catalog, db, "latest")
    await world.tidy()
    assert await world.entries() == 2
    await lose(world)
    assert {"later", "latest"} <= set(await names(world))


async def test_entries_that_cannot_be_deleted_are_not_read_again(world: JournaledCluster) -> None:
    db = await world.database()
    for number in range(20):
        await make_collection(world.catalog, db, f"c{number}")
    await world.snapshot()
    await make_collection(world.catalog, db, "later")
    await world.wipe()
    read = world.objects.calls.get("get", 0)
    await world.reconcile()
    assert world.objects.calls["get"] - read == 2  # the snapshot and one entry
    assert len(await names(world)) == 21


async def test_a_reset_that_was_acknowledged_stays_done(world: JournaledCluster) -> None:
    await make_collection(world.catalog, await world.database(), "old")
    await world.catalog.databases.create("default_tenant", "more")
    await world.snapshot()
    await world.catalog.reset()
    await lose(world)
    assert [each.name for each in await world.catalog.databases.of_tenant("default_tenant")] == ["default_database"]
    assert await names(world) == []
