"""A value of the catalog in Redis that cannot be read any more counts as lost: it stops its own tenant, database or
collection until the bucket's takes its place, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pytest
from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshotter
from shared.catalog import Catalog, Collection, Database
from shared.catalog.collector import Collector
from shared.catalog.damage import DamageKind
from shared.catalog.journal import BucketJournal
from shared.catalog.row_names import row_name
from shared.catalog.slots import TENANTS, Slot
from shared.errors import Garbled, NotJournaled, Unavailable
from shared.process.clock import SystemClock
from shared.redis.client import command, open_redis
from tests.logservice.restoring.test_epoch import World, world
from tests.logservice.restoring.test_lost_alone import database_of, recover_lost
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, make_collection

__all__ = ["world"]

TENANT: Final = "acme"
GARBLED_JSON: Final = (b"\xff\xfe", b'{"name":"hit"}')


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


@dataclass
class Made:
    """A tenant with a database and a collection, beside those that every cluster has."""

    world: World
    database: Database
    collection: Collection

    async def read(self) -> Collection | None:
        """The collection, as a request comes to it."""
        catalog = self.world.catalog
        if await catalog.tenants.find_by_resource_name("resource") is None:
            return None
        database = await catalog.databases.get(TENANT, "main")
        if database is None or [each.name for each in await catalog.databases.of_tenant(TENANT)] != ["main"]:
            return None
        found = await catalog.collections.get(database, "hit")
        if found is None or [each.id for each in await catalog.collections.of_database(database)] != [found.id]:
            return None
        output = await catalog.collections.get_by_id(database, self.collection.id)
        return output if output == found else None


async def make(world: World) -> Made:
    await world.catalog.tenants.create(TENANT)
    assert await world.catalog.tenants.set_resource_name(TENANT, "resource")
    database = await world.catalog.databases.create(TENANT, "main")
    collection = await make_collection(world.catalog, database, "hit")
    await _settle(world)
    return Made(world, database, collection)


async def _settle(world: World) -> None:
    """As the journal does: nothing is pending any more, and a snapshot has everything."""
    pending = [key async for key in world.redis.scan_iter(f"{world.keys.prefix}:*:pending")]
    await world.redis.delete(*pending)
    await world.snapshot()


Garble = Callable[[Made], Awaitable[Any]]


def _hset(key: Callable[[Made], str], field: Callable[[Made], str | bytes], value: bytes) -> Garble:
    return lambda made: command(made.world.redis, "HSET", key(made), field(made), value)


ROWS: Final[dict[str, tuple[Callable[[Made], str], Callable[[Made], str]]]] = {
    "tenant": (lambda made: made.world.keys.tenants, lambda _: TENANT),
    "database": (lambda made: made.world.keys.databases(TENANT), lambda _: "main"),
    "collection": (lambda made: made.world.keys.rows(made.database.key), lambda made: made.collection.id),
}


async def _another_place(made: Made) -> None:
    key = made.world.keys.order(made.database.key)
    await made.world.redis.zrem(key, made.collection.id)
    await made.world.redis.zadd(key, {b"\xff" + made.collection.id.encode()[1:]: 1})


async def _another_place_of_a_database(made: Made) -> None:
    key = made.world.keys.database_order(TENANT)
    await made.world.redis.zrem(key, "main")
    await made.world.redis.zadd(key, {b"mai\xff": 1})


async def _another_name(made: Made) -> None:
    key = made.world.keys.names(made.database.key)
    await made.world.redis.hdel(key, "hit")
    await made.world.redis.hset(key, b"hi\xff", made.collection.id)


async def _another_id(made: Made) -> None:
    key = made.world.keys.rows(made.database.key)
    row = await made.world.redis.hget(key, made.collection.id)
    await made.world.redis.hdel(key, made.collection.id)
    await made.world.redis.hset(key, b"\xff" + made.collection.id.encode()[1:], row)


async def _another_database(made: Made) -> None:
    key = made.world.keys.databases(TENANT)
    row = await made.world.redis.hget(key, "main")
    await made.world.redis.hdel(key, "main")
    await made.world.redis.hset(key, b"mai\xff", row or b"")


MISLED: Final[dict[str, Garble]] = {
    "owner of a resource name": _hset(lambda made: made.world.keys.resources, lambda _: "resource", b"acm\xff"),
    "id of a name": _hset(
        lambda made: made.world.keys.names(made.database.key),
        lambda _: "hit",
        b"\xff" * 36,
    ),
    "name": _another_name,
    "name of a database": _another_database,
    "id of a row": _another_id,
    "id in the order": _another_place,
    "name in the order": _another_place_of_a_database,
}


async def _number(world: World, key: str) -> int:
    return int(await world.redis.get(key) or 0)


SLOTS: Final[dict[str, Callable[[Made], Slot]]] = {
    "tenants": lambda _: TENANTS,
    "databases": lambda _: Slot(tenant=TENANT),
    "collections": lambda made: Slot(database=made.database.key),
}


async def _change(made: Made, slot: Slot, catalog: Catalog) -> None:
    """Makes something in the slot."""
    if slot.database is not None:
        await make_collection(catalog, made.database, "later")
    elif slot.tenant is not None:
        await catalog.databases.create(slot.tenant, "later")
    else:
        await catalog.tenants.create("later")


async def _later(made: Made, kind: str) -> object:
    """What `_change` made."""
    catalog = made.world.catalog
    if kind == "collections":
        return await catalog.collections.get(made.database, "later")
    if kind == "databases":
        return await catalog.databases.get(TENANT, "later")
    return await catalog.tenants.get("later")


async def is_served_elsewhere(world: World) -> None:
    """What does not belong to the damaged thing goes on."""
    database = await database_of(world)
    other = await make_collection(world.catalog, database, "other")
    await append(world.log, other, ["a"])
    collector = Collector(world.redis, world.keys, world.catalog)
    assert await world.catalog.collections.delete(database, "other")
    assert await collector.collect_deleted() == 1
    await collector.settle_journal()
    async for _ in world.catalog.collections.all({}):
        pass


@pytest.mark.parametrize("garbled", GARBLED_JSON)
@pytest.mark.parametrize("kind", ROWS)
async def test_a_row_that_cannot_be_read_is_named_and_comes_back_from_the_bucket(
    world: World, kind: str, garbled: bytes
) -> None:
    made = await make(world)
    key, field = ROWS[kind]
    before = await world.redis.hget(key(made), field(made))
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    await world.redis.hset(key(made), field(made), garbled)
    with pytest.raises(Garbled):
        await made.read()
    with pytest.raises(Unavailable):
        await snapshotter.step(2)
    await is_served_elsewhere(world)
    await recover_lost(world)
    assert await world.redis.hget(key(made), field(made)) == before
    assert await made.read() is not None
    assert await snapshotter.step(3)
    assert await world.catalog.damages.all() == []


@pytest.mark.parametrize("what", MISLED)
async def test_names_and_places_that_lead_nowhere_are_put_right(world: World, what: str) -> None:
    made = await make(world)
    before = await made.read()
    await MISLED[what](made)
    await is_served_elsewhere(world)
    await recover_lost(world, sweep=True)
    assert await made.read() == before
    await recover_lost(world, sweep=True)
    await world.snapshot()


@pytest.mark.parametrize("what", [each for each in MISLED if each != "name"])
async def test_what_leads_nowhere_is_unavailable_and_not_missing(world: World, what: str) -> None:
    made = await make(world)
    await MISLED[what](made)
    with pytest.raises(Unavailable):
        await made.read()
    await recover_lost(world)
    assert await made.read() is not None


@pytest.mark.parametrize("kind", ROWS)
async def test_a_redis_that_restarts_with_a_row_that_cannot_be_read_is_opened_with_the_buckets(
    world: World, kind: str
) -> None:
    made = await make(world)
    key, field = ROWS[kind]
    await world.redis.hset(key(made), field(made), b"{")
    await world.redis.hdel(world.keys.cluster, "verified")
    await world.reconciler().run()
    assert await made.read() is not None


@pytest.mark.parametrize("kind", SLOTS)
@pytest.mark.parametrize("value", [None, b"\xff"])
async def test_a_redis_that_restarts_without_a_version_counts_on_from_the_buckets(
    world: World, kind: str, value: bytes | None
) -> None:
    made = await make(world)
    for version in (SLOTS[kind](made).keys(world.keys)[1], world.keys.changes):
        await (world.redis.delete(version) if value is None else world.redis.set(version, value))
    await world.redis.hdel(world.keys.cluster, "verified")
    await world.reconciler().run()
    await recover_lost(world, sweep=True)
    journal = BucketJournal(world.redis, world.keys, world.objects)
    catalog = Catalog(world.redis, world.keys, journal)
    await _change(made, SLOTS[kind](made), catalog)
    await journal.close()
    await world.restore()
    assert await _later(made, kind) is not None
    assert await made.world.catalog.collections.get_by_id(made.database, made.collection.id) is not None


async def test_the_newest_row_comes_back_where_the_journal_has_it_and_the_snapshot_does_not(world: World) -> None:
    made = await make(world)
    journal = BucketJournal(world.redis, world.keys, world.objects)
    catalog = Catalog(world.redis, world.keys, journal)
    assert await catalog.collections.update(made.database, made.collection, metadata={"newest": True})
    await journal.close()
    await world.redis.hset(world.keys.rows(made.database.key), made.collection.id, b"{")
    await recover_lost(world, sweep=True)
    found = await world.catalog.collections.get_by_id(made.database, made.collection.id)
    assert found is not None
    assert found.metadata == {"newest": True}


async def test_a_change_that_may_be_on_its_way_to_the_bucket_is_waited_for(world: World) -> None:
    made = await make(world)
    rows = world.keys.rows(made.database.key)
    assert await world.catalog.collections.update(made.database, made.collection, metadata={"newest": True})
    newest = await world.redis.hget(rows, made.collection.id)
    await world.redis.hset(rows, made.collection.id, b"{")
    await recover_lost(world, sweep=True)
    assert await world.redis.hget(rows, made.collection.id) == b"{", "an older row took the place of a newer one"
    [damage] = await world.catalog.damages.all()
    assert (damage.name, damage.kind) == (
        row_name(Slot(database=made.database.key), made.collection.id),
        DamageKind.ROW,
    )
    await world.redis.hset(rows, made.collection.id, newest)
    await _settle(world)
    await world.redis.hset(rows, made.collection.id, b"{")
    await recover_lost(world, sweep=True)
    assert await world.redis.hget(rows, made.collection.id) == newest
    assert await world.catalog.damages.all() == []


async def test_what_is_damaged_before_it_is_durable_is_not_acknowledged_and_others_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(world)
    journal = BucketJournal(world.redis, world.keys, world.objects)
    catalog = Catalog(world.redis, world.keys, journal)
    observe = journal._pending.observe

    async def garbled_before(slots: Any) -> Any:
        await world.redis.hset(world.keys.rows(made.database.key), made.collection.id, b"{")
        return await observe(slots)

    monkeypatch.setattr(journal._pending, "observe", garbled_before)
    with pytest.raises(NotJournaled):
        await catalog.collections.update(made.database, made.collection, metadata={"newest": True})
    await catalog.tenants.create("another")
    await make_collection(catalog, await database_of(world), "another")
    await journal.close()


async def test_a_row_of_which_the_bucket_knows_nothing_stays_and_stops_no_snapshot(world: World) -> None:
    made = await make(world)
    await world.redis.hset(world.keys.tenants, "unknown", b"{")
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    with pytest.raises(Garbled):
        await snapshotter.step(2)
    await recover_lost(world)
    assert await snapshotter.step(3)
    [damage] = await world.catalog.damages.all()
    assert damage.name == row_name(TENANTS, "unknown")
    assert await made.read() is not None
    assert await world.redis.hget(world.keys.tenants, "unknown") == b"{"


@pytest.mark.parametrize("garbled", [b"\xff", b"[1, 2]"])
async def test_a_metadata_key_that_cannot_be_read_stops_nothing_and_comes_back(world: World, garbled: bytes) -> None:
    made = await make(world)
    key = world.keys.metadata_keys(made.collection.id)
    await world.images.add_keys(made.collection.id, [("color", "string"), ("size", "int")])
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    assert await snapshotter.step(1)
    await world.redis.srem(key, orjson.dumps(("color", "string")))
    await world.redis.sadd(key, garbled)
    found = await world.catalog.collections.get_by_id(made.database, made.collection.id)
    assert found is not None
    assert found.keys == {("size", "int")}
    assert await snapshotter.step(2) is False
    await snapshotter.step(2)
    found = await world.catalog.collections.get_by_id(made.database, made.collection.id)
    assert found is not None
    assert found.keys == {("color", "string"), ("size", "int")}
    assert garbled not in await world.redis.smembers(key)


@pytest.mark.parametrize("value", [None, b"1\xff"])
@pytest.mark.parametrize("kind", SLOTS)
async def test_a_version_that_is_lost_alone_does_not_begin_anew(world: World, kind: str, value: bytes | None) -> None:
    made = await make(world)
    slot = SLOTS[kind](made)
    version = slot.keys(world.keys)[1]
    known = await _number(world, version)
    journal = BucketJournal(world.redis, world.keys, world.objects)
    catalog = Catalog(world.redis, world.keys, journal)
    await (world.redis.delete(version) if value is None else world.redis.set(version, value))
    with pytest.raises(Unavailable):
        await _change(made, slot, catalog)
    await recover_lost(world)
    await _change(made, slot, catalog)
    assert await _number(world, version) > known
    await journal.close()
    await world.restore()
    assert await world.catalog.tenants.get(TENANT) is not None
    assert await _later(made, kind) is not None, "a change that was acknowledged was lost with Redis"


async def test_a_version_that_became_a_lower_number_is_raised_by_a_sweep(world: World) -> None:
    made = await make(world)
    version = world.keys.database_version(made.database.key)
    await world.redis.set(version, 5)
    await world.snapshot()
    await world.redis.set(version, 2)
    await recover_lost(world, sweep=True)
    assert await _number(world, version) > 5


@pytest.mark.parametrize("value", [None, b"7\xff"])
async def test_the_number_of_changes_that_is_lost_alone_does_not_begin_anew(world: World, value: bytes | None) -> None:
    journal = BucketJournal(world.redis, world.keys, world.objects)
    catalog = Catalog(world.redis, world.keys, journal)
    for name in ("one", "two"):
        await catalog.tenants.create(name)
    await world.snapshot()
    known = await _number(world, world.keys.changes)
    await (world.redis.delete(world.keys.changes) if value is None else world.redis.set(world.keys.changes, value))
    with pytest.raises(Unavailable):
        await catalog.tenants.create("later")
    await recover_lost(world)
    await catalog.tenants.create("latest")
    assert await _number(world, world.keys.changes) > known
    await journal.close()
    await world.restore()
    assert await world.catalog.tenants.get("latest") is not None


async def test_notes_of_what_is_pending_that_cannot_be_read_stop_no_journal(world: World) -> None:
    made = await make(world)
    journal = BucketJournal(world.redis, world.keys, world.objects)
    catalog = Catalog(world.redis, world.keys, journal)
    pending = world.keys.database_pending(made.database.key)
    await world.redis.hset(pending, mapping={made.collection.id: b"\xff", b"\xff": b"1"})
    await catalog.journal.settle((Slot(database=made.database.key),))
    await make_collection(catalog, made.database, "later")
    assert await world.redis.exists(pending) == 0
    await journal.close()
