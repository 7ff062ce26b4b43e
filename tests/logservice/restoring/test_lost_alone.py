"""A part of a collection that Redis lost alone is unavailable, not gone, until the log service has recovered it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.asyncio import Redis

from frontend.write.bucket_log import BucketLog
from logservice.catalog.snapshots import Snapshotter
from logservice.catalog.stored import StoredCatalog
from logservice.restoring.database_recovery import DatabaseRecovery
from logservice.restoring.recover import Recovery
from logservice.restoring.tenant_recovery import TenantRecovery
from shared.catalog import Collection, Database
from shared.catalog.collector import Collector
from shared.catalog.image import Images
from shared.errors import DimensionMismatch, Gone, Unavailable
from shared.history.archive import SealedLogs
from shared.history.bucket_tail import read_bucket_tail
from shared.log.batch import build_batch, split_batch
from shared.log.required import required_fields
from shared.log.state import Pointer
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.redis.client import command, open_redis
from tests.logservice.compacting import compact
from tests.logservice.restoring.test_epoch import World, world
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, append_batches, everything, ids_of, make_collection

__all__ = ["world"]


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


async def database_of(world: World) -> Database:
    found = await world.catalog.databases.get("default_tenant", "default_database")
    assert found is not None
    return found


async def recover_lost(world: World, *, sweep: bool = False) -> None:
    """As the leader does: what was noted, or everything."""
    cluster, clock = await world.cluster(), SystemClock()
    recovery = Recovery(cluster, world.images, world.log, world.snapshots, world.objects, clock)
    journaled = StoredCatalog(world.objects, world.snapshots, clock)
    collector = Collector(world.redis, world.keys, world.catalog)
    tenants = TenantRecovery(world.catalog, world.images, clock)
    databases = DatabaseRecovery(
        world.catalog, collector, world.log, world.objects, journaled, recovery, tenants, clock
    )
    await (databases.sweep() if sweep else databases.step())


async def made_with_log(world: World, shards: int = 1) -> Collection:
    """A collection with a manifest and a log after it, in a snapshot from before both."""
    made = await make_collection(world.catalog, await database_of(world), "hit", shards)
    await world.snapshot()
    await append(world.log, made, [str(number) for number in range(20)])
    for shard in made.layout.numbers:
        await compact(world.log, world.objects, made.id, shard)
        state = (await world.log.read(made.id, shard)).state
        assert state.pointer is not None
        await world.log.trim(made.id, shard, state.pointer, state.epoch)
    await append(world.log, made, [f"later {number}" for number in range(20)])
    return made


async def _missed(world: World, collection: Collection) -> None:
    with pytest.raises(Unavailable):
        await world.catalog.collections.get_by_id(await database_of(world), collection.id)


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_state_that_is_lost_alone_comes_back_with_its_log(world: World, shards: int) -> None:
    made = await made_with_log(world, shards)
    before = [await world.log.read(made.id, shard) for shard in made.layout.numbers]
    await world.redis.delete(world.keys.state(made.id))
    await _missed(world, made)
    with pytest.raises((Gone, Unavailable)):
        await append(world.log, made, ["refused"])
    await recover_lost(world)
    back = await world.catalog.collections.get_by_id(await database_of(world), made.id)
    assert back is not None
    assert back.head > max(read.state.head for read in before)
    for read in before:
        found = await world.log.read(made.id, read.state.number)
        assert found.entries == read.entries, "the log goes on"
        assert found.state.pointer == read.state.pointer
        assert (found.state.ops_backlog, found.state.bytes_backlog) == (
            read.state.ops_backlog,
            read.state.bytes_backlog,
        )
    await append(world.log, back, ["more"])
    for shard in made.layout.numbers:
        entries = (await world.log.read(made.id, shard)).entries
        assert all(entry.previous == previous.id for previous, entry in itertools.pairwise(entries))


async def test_a_lost_collection_without_any_shard_stops_no_log_service_and_goes(world: World) -> None:
    made = await make_collection(world.catalog, await database_of(world), "hit")
    image = await world.images.take(await world.cluster())
    collections = [
        msgspec.structs.replace(each, shards=(0, 0)) if each.id == made.id else each for each in image.collections
    ]
    image = msgspec.structs.replace(image, collections=collections)
    assert await world.snapshots.write(image, await world.snapshots.next_number())
    await world.redis.delete(world.keys.state(made.id))
    await _missed(world, made)
    await recover_lost(world)
    assert await world.catalog.collections.get_by_id(await database_of(world), made.id) is None


async def test_a_dimension_that_only_the_lost_state_and_the_log_knew_stays_fixed(world: World) -> None:
    made = await make_collection(world.catalog, await database_of(world), "hit")
    await world.snapshot()
    await append_batches(world.log, made, split_batch(build_batch(Op.DELETE, ["without"]), made.layout))
    await append(world.log, made, ["a"], dimension=2)
    await world.redis.delete(world.keys.state(made.id))
    await recover_lost(world, sweep=True)
    with pytest.raises(DimensionMismatch):
        await append(world.log, made, ["b"], dimension=3)


async def test_a_state_and_a_stream_that_are_lost_are_restored_from_the_manifests_and_the_range_is_named(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await made_with_log(world)
    read = await world.log.read(made.id, 0)
    assert read.state.pointer is not None
    await world.redis.delete(world.keys.state(made.id), world.keys.log(made.id, 0))
    await _missed(world, made)
    await recover_lost(world)
    found = (await world.log.read(made.id, 0)).state
    assert found.pointer is not None
    assert found.pointer.covers == read.state.pointer.covers
    assert found.head > read.state.head
    assert f"covered=[{read.state.pointer.covers}]" in capsys.readouterr().out
    report = await world.images.read_report()
    assert report is not None
    assert [each["covered"] for each in report["missing"] if each["collection"] == made.id] == [
        [read.state.pointer.covers]
    ]


@pytest.mark.parametrize("field", required_fields())
async def test_a_state_that_lost_one_field_gets_it_back(world: World, field: str) -> None:
    made = await made_with_log(world)
    before = await world.log.read(made.id, 0)
    await world.redis.hdel(world.keys.state(made.id), field)
    await _missed(world, made)
    await recover_lost(world)
    back = await world.catalog.collections.get_by_id(await database_of(world), made.id)
    assert back is not None
    assert (back.fixed, back.layout, back.generation) == (made.fixed, made.layout, made.generation)
    after = await world.log.read(made.id, 0)
    assert after.entries == before.entries
    assert (after.state.ops_backlog, after.state.pointer) == (before.state.ops_backlog, before.state.pointer)
    assert after.state.head >= before.state.head
    await append(world.log, back, ["more"])
    assert len((await world.log.read(made.id, 0)).entries) == len(before.entries) + 1


@pytest.mark.parametrize("lost", ["state", "rows", "order"])
async def test_no_list_of_collections_leaves_out_what_was_lost_alone(world: World, lost: str) -> None:
    database = await database_of(world)
    made = await made_with_log(world)
    key = world.keys.state(made.id) if lost == "state" else getattr(world.keys, lost)(database.key)
    await world.redis.delete(key)
    with pytest.raises(Unavailable):
        await world.catalog.collections.of_database(database)
    await recover_lost(world)
    assert made.id in {each.id for each in await world.catalog.collections.of_database(database)}


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_pointer_that_is_lost_alone_comes_back_and_no_older_manifest_is_committed(
    world: World, shards: int
) -> None:
    made = await made_with_log(world, shards)
    before = {shard: (await world.log.read(made.id, shard)).state for shard in made.layout.numbers}
    older = Pointer(1, "older", 2)
    for shard in made.layout.numbers:
        await world.redis.hdel(world.keys.state(made.id), f"m:{shard}")
        assert not await world.log.commit(made.id, shard, None, older, 0), "the log was trimmed beyond it"
    await recover_lost(world, sweep=True)
    for shard, state in before.items():
        assert (await world.log.read(made.id, shard)).state.pointer == state.pointer


@pytest.mark.parametrize("lost", ["names", "rows", "order"])
@pytest.mark.parametrize("whole", [True, False])
async def test_names_rows_or_the_order_that_are_lost_alone_come_back(world: World, lost: str, whole: bool) -> None:
    database = await database_of(world)
    made = [await make_collection(world.catalog, database, name) for name in ("one", "two")]
    await world.snapshot()
    key = getattr(world.keys, lost)(database.key)
    if whole:
        await world.redis.delete(key)
    else:
        remove = {"names": ("HDEL", "two"), "rows": ("HDEL", made[1].id), "order": ("ZREM", made[1].id)}[lost]
        await command(world.redis, remove[0], key, remove[1])
    if lost == "names":
        with pytest.raises(Unavailable):
            await world.catalog.collections.get(database, "two")
    if lost == "rows":
        await _missed(world, made[1])
    await recover_lost(world, sweep=lost == "order")
    for each in made:
        found = await world.catalog.collections.get(database, each.name)
        assert found is not None
        assert (found.id, found.metadata) == (each.id, each.metadata)
    listed = [each.id for each in await world.catalog.collections.of_database(database)]
    assert {each.id for each in made} <= set(listed)


async def test_no_snapshot_forgets_what_was_lost_alone(world: World) -> None:
    database = await database_of(world)
    made = await make_collection(world.catalog, database, "hit")
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    assert await snapshotter.step(1)
    for lost in (world.keys.state(made.id), world.keys.rows(database.key), world.keys.order(database.key)):
        content = await world.redis.dump(lost)
        assert content is not None
        await world.redis.delete(lost)
        with pytest.raises(Unavailable):
            await snapshotter.step(2)
        await world.redis.restore(lost, 0, content)
    image = await world.snapshots.newest()
    assert image is not None
    assert made.id in {each.id for each in image.collections}


async def test_metadata_keys_that_are_lost_alone_come_back(world: World) -> None:
    made = await make_collection(world.catalog, await database_of(world), "hit")
    batch = split_batch(build_batch(Op.DELETE, ["a"]), made.layout)
    await append_batches(world.log, made, batch, new_keys=[("color", "string")])
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    assert await snapshotter.step(1)
    await world.redis.delete(world.keys.metadata_keys(made.id))
    await snapshotter.step(2)
    back = await world.catalog.collections.get_by_id(await database_of(world), made.id)
    assert back is not None
    assert back.keys == {("color", "string")}


async def test_a_collection_that_was_deleted_is_not_recovered(world: World) -> None:
    database = await database_of(world)
    made = await make_collection(world.catalog, database, "doomed")
    await world.snapshot()
    assert await world.catalog.collections.delete(database, "doomed")
    assert await world.catalog.collections.get_by_id(database, made.id) is None
    await world.redis.delete(world.keys.order(database.key))
    await recover_lost(world, sweep=True)
    assert await world.catalog.collections.get_by_id(database, made.id) is None


async def test_rows_that_one_database_lost_keep_no_state_of_another_one_from_being_restored(world: World) -> None:
    """A state is restored with a snapshot, and none is taken while rows are missing."""
    made = await made_with_log(world)
    await world.catalog.databases.create("default_tenant", "zzz")
    other = await world.catalog.databases.get("default_tenant", "zzz")
    assert other is not None
    await make_collection(world.catalog, other, "nameless")
    await world.snapshot()
    await world.redis.delete(world.keys.state(made.id))
    await world.redis.delete(world.keys.names(other.key))
    await recover_lost(world, sweep=True)
    assert await world.catalog.collections.get_by_id(await database_of(world), made.id) is not None
    assert await world.catalog.collections.get(other, "nameless") is not None


async def test_a_log_service_that_slept_over_a_state_does_not_clear_what_another_one_has_restored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await made_with_log(world)
    await world.redis.delete(world.keys.state(made.id), world.keys.log(made.id, 0))
    clear = Images.clear_state

    async def overtaken(images: Images, collection_id: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Images, "clear_state", clear)
            await recover_lost(world, sweep=True)
        await append(world.log, made, ["written since"])
        await clear(images, collection_id)

    monkeypatch.setattr(Images, "clear_state", overtaken)
    with pytest.raises(Unavailable):
        await recover_lost(world, sweep=True)
    assert list((await everything(world.log, made)).values()) == ["written since"]


@pytest.mark.parametrize("in_bucket", [True, False])
async def test_the_class_bucket_begins_behind_the_manifest_again_when_a_state_was_restored(
    world: World, in_bucket: bool
) -> None:
    """In the same epoch, with the log that was in the bucket, or without it: what is acknowledged since joins what was
    restored.
    """
    made = await made_with_log(world)
    bucket = BucketLog(world.log, world.objects)
    await bucket.reach(made.id, made.layout)
    kept = list(ids_of((await world.log.read(made.id, 0)).entries).values()) if in_bucket else []
    if not in_bucket:
        await world.objects.delete([each.key for each in await SealedLogs(world.objects).ranges(made.id, 0)])
    await world.redis.delete(world.keys.state(made.id), world.keys.log(made.id, 0))
    await recover_lost(world, sweep=True)
    written = await append(world.log, made, ["written since"])
    await bucket.reach(made.id, made.layout)
    pointer = (await world.log.read(made.id, 0)).state.pointer
    assert pointer is not None
    tail = await read_bucket_tail(world.objects, made.id, 0, pointer.covers)
    assert (list(ids_of(tail.entries).values()), tail.reach) == ([*kept, "written since"], written.head)


async def test_a_log_service_that_slept_over_a_restoration_fills_in_no_pointer_of_the_time_before(world: World) -> None:
    collection, cluster = await made_with_log(world), await world.cluster()
    image = next(each for each in (await world.images.take(cluster)).collections if each.id == collection.id)
    before = (await world.log.read(collection.id, 0)).state.pointer
    state = world.keys.state(collection.id)
    await world.redis.hdel(state, "m:0")
    await world.images.raise_heads({collection.id: 1}, cluster.epoch + 1)  # restored since
    with pytest.raises(Unavailable):
        await world.images.fill_state(image, 1, cluster.epoch, [before], is_open=True)
    assert await world.redis.hget(state, "m:0") is None


async def test_a_database_that_lost_names_rows_and_order_together_gets_them_back(world: World) -> None:
    database, keys = await database_of(world), world.keys
    before = [each.id for each in await world.catalog.collections.of_database(database)]
    made = [await make_collection(world.catalog, database, name) for name in ("one", "deleted")]
    before.append(made[0].id)
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    assert await snapshotter.step(1)
    await world.catalog.collections.delete(database, "deleted")
    await world.redis.delete(keys.names(database.key), keys.rows(database.key), keys.order(database.key))
    with pytest.raises(Unavailable):
        await snapshotter.step(2)
    await recover_lost(world)
    assert {each.id for each in await world.catalog.collections.of_database(database)} == set(before)
    await snapshotter.step(3)
    assert snapshotter.written is not None
    assert {each.id for each in snapshotter.written.collections} == set(before)


async def test_a_database_that_lost_names_rows_and_order_gets_them_back_in_a_redis_that_restarts(world: World) -> None:
    database, keys = await database_of(world), world.keys
    made = await make_collection(world.catalog, database, "one")
    await world.snapshot()
    await world.redis.delete(keys.names(database.key), keys.rows(database.key), keys.order(database.key))
    await world.redis.hdel(keys.cluster, "verified")
    await world.reconciler().run()
    assert made.id in {each.id for each in await world.catalog.collections.of_database(database)}
