"""Stored amounts of tenants, on real servers and a clock of our own."""

from collections.abc import Sequence

import pytest
from pyroaring import BitMap
from redis.asyncio import Redis

from logservice.accounting.stored_counter import REWRITE_S, WRITTEN_HOURS, StoredCounter
from logservice.trimming.seal import Sealer
from logservice.trimming.trim import Trimmer
from shared.catalog import Catalog, Collection, Database
from shared.catalog.damage import DamageReporter, Damages
from shared.catalog.history import Histories
from shared.log.log import Log
from shared.log.state import Pointer
from shared.manifest.model import SegmentRef
from shared.manifest.store import ManifestStore
from shared.objects.keys import manifest_key, segment_path
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.keys import Keys
from shared.segment.format import FileInfo, SegmentInfo
from shared.tenancy.stored import StoredAmounts, StoredSums, StoredTable
from shared.tenancy.usage import Subject, UsageTotals, hour_of
from shared.vectors.space import Space
from tests.logservice.compacting import publish
from tests.logservice.conftest import SteppedClock
from tests.shared.log.appending import append, make_collection

BYTES = 4000


@pytest.fixture
def counter(
    redis: Redis, keys: Keys, catalog: Catalog, log: Log, objects: ObjectStore, clock: SteppedClock
) -> StoredCounter:
    return StoredCounter(StoredTable(redis, keys), catalog, log, objects, clock)


@pytest.fixture
def table(redis: Redis, keys: Keys) -> StoredTable:
    return StoredTable(redis, keys)


def segment(collection: str, shard: int, rows: int, dead: Sequence[int] = ()) -> SegmentRef:
    files = [FileInfo("records.arrow", BYTES, "0"), FileInfo("ids.index", 10**6, "0")]
    info = SegmentInfo("s", segment_path(collection, shard, "s"), rows, 2, Space.L2, False, files, "a", "z")
    return SegmentRef.of(info, BitMap(dead))


async def commit(
    log: Log, objects: ObjectStore, collection: Collection, rows: int, dead: Sequence[int] = (), shard: int = 0
) -> Pointer:
    """A compaction of all that was written in a shard, into one segment of so many rows."""
    [state] = await log.states([(collection.id, shard)])
    assert state is not None
    segments = [segment(collection.id, shard, rows, dead)]
    for file in segments[0].info.files:
        await objects.put(segments[0].info.key(file.name), b"\0" * file.bytes)
    pointer = await publish(objects, collection.id, shard, state.head, state.pointer, segments)
    assert await log.commit(collection.id, shard, state.pointer, pointer, 0)
    return pointer


def trimmer_of(
    redis: Redis, keys: Keys, log: Log, objects: ObjectStore, clock: SteppedClock, counter: StoredCounter
) -> Trimmer:
    sealer = Sealer(log, objects, Histories(redis, keys, 0.0))
    return Trimmer(log, objects, clock, 0, sealer, DamageReporter(Damages(redis, keys), "me", clock), counter.trimmed)


async def amounts_of(table: StoredTable, tenant: str = "default_tenant") -> StoredAmounts:
    found = await table.read(tenant)
    assert found is not None
    return found


async def test_nothing_is_known_before_the_first_look(table: StoredTable, catalog: Catalog) -> None:
    assert await table.read("default_tenant") is None


async def test_amounts_are_those_of_manifests_and_of_the_backlog(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, counter: StoredCounter, table: StoredTable
) -> None:
    made = await make_collection(catalog, database)
    await append(log, made, ["a", "b", "c", "d"])
    await commit(log, objects, made, rows=4, dead=[1])
    await append(log, made, ["e", "f"])
    await counter.sweep()
    found = await amounts_of(table)
    [state] = await log.states([(made.id, 0)])
    assert state is not None
    # What is compacted and not trimmed yet counts with the rest of the log, which is settled by the trim.
    size = BYTES * 3 // 4 + state.bytes_backlog
    assert found.sums == StoredSums(3 + 6, size, 1, 6, state.bytes_backlog, 0)
    assert found.by_database == {"default_database": StoredSums(9, size, 1)}


async def test_a_compaction_is_counted_once_its_log_is_trimmed(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore,
    clock: SteppedClock, counter: StoredCounter, table: StoredTable,
) -> None:  # fmt: skip
    made = await make_collection(catalog, database)
    await counter.sweep()
    assert (await amounts_of(table)).sums == StoredSums(collections=1)
    await append(log, made, ["a", "b"])
    pointer = await commit(log, objects, made, rows=2)
    trimmer = trimmer_of(redis, keys, log, objects, clock, counter)
    trimmer.add((made.id, 0), pointer)
    await trimmer.trim_waiting()
    assert await counter.refresh() == 1
    assert (await amounts_of(table)).sums == StoredSums(2, BYTES, 1)
    assert await counter.refresh() == 0


async def test_tenants_databases_and_shards_add_up_and_what_is_deleted_goes(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, counter: StoredCounter, table: StoredTable
) -> None:
    await catalog.tenants.create("other")
    theirs = await catalog.databases.create("other", "a:b {c}")
    more = await catalog.databases.create("other", "empty")
    sharded = await make_collection(catalog, theirs, "sharded", shards=2)
    plain = await make_collection(catalog, theirs, "plain")
    mine = await make_collection(catalog, database)
    for shard in (0, 1):
        await commit(log, objects, sharded, rows=5, shard=shard)
    await commit(log, objects, plain, rows=7)
    await commit(log, objects, mine, rows=1)
    await counter.sweep()
    found = await amounts_of(table, "other")
    assert found.sums == StoredSums(17, 3 * BYTES, 2)
    assert found.of_database("a:b {c}") == StoredSums(17, 3 * BYTES, 2)
    assert found.by_database.keys() == {"a:b {c}", more.name}
    assert (await amounts_of(table)).sums == StoredSums(1, BYTES, 1)
    await catalog.collections.delete(theirs, "sharded")
    await catalog.databases.delete("other", "empty")
    await counter.sweep()
    found = await amounts_of(table, "other")
    assert (found.sums, found.by_database) == (StoredSums(7, BYTES, 1), {"a:b {c}": StoredSums(7, BYTES, 1)})


async def test_a_manifest_is_read_once(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, counter: StoredCounter, table: StoredTable
) -> None:
    made = await make_collection(catalog, database)
    pointer = await commit(log, objects, made, rows=3)
    await counter.sweep()
    manifest = manifest_key(made.id, 0, pointer.version)
    await objects.delete([manifest])
    await counter.sweep()
    assert (await amounts_of(table)).sums == StoredSums(3, BYTES, 1)


async def test_a_damaged_manifest_is_said_and_costs_no_other_collection(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore,
    clock: SteppedClock, counter: StoredCounter, table: StoredTable,
) -> None:  # fmt: skip
    first, second = await make_collection(catalog, database), await make_collection(catalog, database, "second")
    await commit(log, objects, first, rows=3)
    await counter.sweep()
    pointer = await commit(log, objects, first, rows=4)
    await commit(log, objects, second, rows=5)
    await objects.put(manifest_key(first.id, 0, pointer.version), b"damaged")
    await counter.sweep()
    assert (await amounts_of(table)).sums == StoredSums(3 + 5, 2 * BYTES, 2, 0, 0, 1)
    await StoredCounter(StoredTable(redis, keys), catalog, log, objects, clock).sweep()  # one that never knew more
    assert (await amounts_of(table)).sums == StoredSums(5, BYTES, 2, 0, 0, 1)


async def test_amounts_that_do_not_change_are_written_rarely(
    catalog: Catalog, counter: StoredCounter, table: StoredTable, clock: SteppedClock
) -> None:
    await counter.sweep()
    first = await amounts_of(table)
    clock.time_s += 60
    await counter.sweep()
    assert await amounts_of(table) == first
    clock.time_s += REWRITE_S
    await counter.sweep()
    assert (await amounts_of(table)).at_s == clock.time_s


async def test_a_tenant_of_which_a_part_is_counted_yet_is_not_written(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, counter: StoredCounter, table: StoredTable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await catalog.databases.create("default_tenant", "second")
    made = await make_collection(catalog, database)
    pointer = await commit(log, objects, made, rows=3)
    manifest = await ManifestStore(objects).load(made.id, 0, pointer)
    names_of = catalog.collections.ids

    async def refreshed_meanwhile(db: Database) -> list[str]:
        if db.name == "second":
            counter._turn.release()  # the database before is counted, and another one's turn begins
            counter.trimmed(manifest)
            await counter.refresh()
            assert await table.read("default_tenant") is None
            await counter._turn.acquire()
        return await names_of(db)

    monkeypatch.setattr(catalog.collections, "ids", refreshed_meanwhile)
    await counter.sweep()
    assert (await amounts_of(table)).sums == StoredSums(3, BYTES, 1)


async def used_by(counted: UsageTotals) -> dict[int, dict[Subject, dict[str, int]]]:
    return {hour: counted.take(hour, 1000) for hour in counted.hours_changed}


async def test_what_was_written_is_counted_from_the_log_whichever_leader_looks(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore
) -> None:
    made = await make_collection(catalog, database, shards=2)
    await append(log, made, ["a", "b", "c"], request_id="first")
    await append(log, made, ["a", "b", "c"], request_id="first")  # repeated
    await append(log, made, ["d"])
    size = sum(state.bytes_backlog for state in await log.states([(made.id, 0), (made.id, 1)]) if state)
    for _ in range(2):
        totals = UsageTotals()
        leader = StoredCounter(StoredTable(redis, keys), catalog, log, objects, SystemClock(), totals)
        await leader.sweep()
        found = await used_by(totals)  # of two hours, when one has just begun
        amounts = [of_hour[Subject("default_tenant", made.id)] for of_hour in found.values()]
        assert sum(each["records_written"] for each in amounts) == 4
        assert sum(each["bytes_written"] for each in amounts) == size
        assert leader.tenant_of(made.id) == "default_tenant"


async def test_an_append_in_another_hour_keeps_the_totals_of_the_one_before(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore
) -> None:
    made = await make_collection(catalog, database)
    await append(log, made, ["a"])
    now = hour_of(SystemClock().now())
    await redis.hset(keys.state(made.id), "written", f"{now - 1} 7 700")
    await append(log, made, ["b"])
    totals = UsageTotals()
    await StoredCounter(StoredTable(redis, keys), catalog, log, objects, SystemClock(), totals).sweep()
    found = await used_by(totals)
    assert found[now - 1] == {Subject("default_tenant", made.id): {"records_written": 7, "bytes_written": 700}}
    assert found[now][Subject("default_tenant", made.id)]["records_written"] == 1


async def test_what_is_stored_is_counted_by_the_time_that_it_is(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore, clock: SteppedClock
) -> None:
    made = await make_collection(catalog, database)
    await commit(log, objects, made, rows=3)
    totals = UsageTotals()
    counter = StoredCounter(StoredTable(redis, keys), catalog, log, objects, clock, totals)
    await counter.sweep()
    clock.time_s += 60
    await counter.sweep()
    hour = hour_of(clock.time_s)
    assert totals.take(hour, 10) == {
        Subject("default_tenant"): {"stored_record_s": 3 * 60, "stored_byte_s": BYTES * 60}
    }


async def test_a_new_database_is_counted_as_soon_as_something_is_compacted_in_it(
    catalog: Catalog, log: Log, objects: ObjectStore, counter: StoredCounter, table: StoredTable, clock: SteppedClock
) -> None:
    await counter.sweep_when_due()
    await catalog.tenants.create("new")
    database = await catalog.databases.create("new", "theirs")
    made = await make_collection(catalog, database)
    pointer = await commit(log, objects, made, rows=3)
    await counter.sweep_when_due()
    assert await table.read("new") is None  # no minute has passed
    counter.trimmed(await ManifestStore(objects).load(made.id, 0, pointer))
    await counter.refresh()
    await counter.sweep_when_due()
    assert (await amounts_of(table, "new")).sums == StoredSums(3, BYTES, 1)


async def test_what_was_written_in_an_hour_that_is_too_old_or_to_come_is_damage_and_not_counted(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore, clock: SteppedClock
) -> None:
    made = await make_collection(catalog, database)
    clock.time_s = 1_800_000_000.0
    now = hour_of(clock.time_s)
    await redis.hset(keys.state(made.id), "written", f"{now + 2} 7 700")
    await redis.hset(keys.state(made.id), "written_before", f"{now - WRITTEN_HOURS} 7 700")
    totals = UsageTotals()
    await StoredCounter(StoredTable(redis, keys), catalog, log, objects, clock, totals).sweep()
    assert totals.hours_changed == []
