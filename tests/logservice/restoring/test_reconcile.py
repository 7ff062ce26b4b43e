"""Redis and the bucket brought together again: nothing is handed out twice, what may be missing is said (promise 5)."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshots, Snapshotter
from logservice.restoring.reconcile import Reconciler
from logservice.restoring.recover import Recovery
from shared.catalog import Catalog, Cluster, Database
from shared.catalog.collector import Collector
from shared.catalog.image import Images
from shared.errors import Corrupt, Gone, Unavailable
from shared.log.log import Log
from shared.objects.keys import snapshot_key
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact, publish
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, make_collection


@dataclass
class World:
    server: RedisServer
    redis: Redis
    keys: Keys
    objects: ObjectStore
    catalog: Catalog
    images: Images
    log: Log
    snapshots: Snapshots

    async def reconcile(self) -> Cluster:
        reconciler = Reconciler(self.catalog, self.images, self.log, self.objects, self.snapshots, SystemClock())
        return await reconciler.run()

    async def snapshot(self) -> None:
        cluster = await self.catalog.mark.read()
        assert cluster is not None
        number = await self.snapshots.next_number()
        assert await self.snapshots.write(await self.images.take(cluster), number)

    async def lose_redis(self) -> None:
        await asyncio.to_thread(self.server.lose_everything)

    async def database(self, tenant: str = "default_tenant", name: str = "default_database") -> Database:
        found = await self.catalog.databases.get(tenant, name)
        assert found is not None
        return found


@pytest.fixture
async def world(own_server: RedisServer, keys: Keys, objects: ObjectStore) -> AsyncIterator[World]:
    async with open_redis(own_server.url) as redis:
        catalog = Catalog(redis, keys)
        images, log = Images(redis, keys, catalog), Log(redis, keys)
        yield World(own_server, redis, keys, objects, catalog, images, log, Snapshots(objects, 10))


async def test_a_new_cluster_is_founded_with_its_defaults_and_a_snapshot(world: World) -> None:
    cluster = await world.reconcile()
    assert await world.reconcile() == cluster
    assert (await world.database()).id == "00000000-0000-0000-0000-000000000000"
    image = await world.snapshots.newest()
    assert image is not None
    assert image.cluster == cluster.id


async def test_a_cluster_boots_from_the_bucket_alone(world: World) -> None:
    cluster = await world.reconcile()
    await world.catalog.tenants.create("t}")
    await world.catalog.tenants.set_resource_name("t}", "res")
    other = await world.catalog.databases.create("t}", "base")
    names = ["z", "a", "m"]
    for name in names:
        await make_collection(world.catalog, other, name, shards=2)
    made = await world.catalog.collections.get(other, "a")
    assert made is not None
    await append(world.log, made, [str(i) for i in range(20)])
    pointers = [await compact(world.log, world.objects, made.id, shard) for shard in range(2)]
    await world.catalog.collections.update(other, made, metadata={"f": 2.0})
    await world.snapshot()
    lost = await append(world.log, made, ["lost", "too"])

    await world.lose_redis()
    with pytest.raises(Unavailable):
        await append(world.log, made, ["x"])
    restored = await world.reconcile()
    assert restored == Cluster(cluster.id, cluster.epoch + 1)

    again = await world.catalog.databases.get("t}", "base")
    assert again == other
    assert [one.name for one in await world.catalog.collections.of_database(again)] == names
    tenant = await world.catalog.tenants.find_by_resource_name("res")
    assert tenant is not None
    assert tenant.name == "t}"
    back = await world.catalog.collections.get(other, "a")
    assert back is not None
    assert (back.id, back.metadata, back.dimension, back.generation) == (made.id, {"f": 2.0}, 2, 2)
    assert list(back.pointers) == pointers
    assert back.head >= lost.head
    report = await world.images.read_report()
    assert report is not None
    missing = {one["name"]: one for one in report["missing"]}
    assert missing["a"]["covered"] == [21, 21]
    assert missing["a"]["head"] == back.head
    assert (await append(world.log, back, ["new"], generation=2)).first == back.head
    (entry,) = [e for shard in range(2) for e in (await world.log.read(made.id, shard)).entries]
    assert (entry.previous, entry.first) == ("0-0", back.head)


async def test_no_position_is_handed_out_twice_over_several_losses(world: World) -> None:
    await world.reconcile()
    made = await make_collection(world.catalog, await world.database())
    await world.snapshot()
    seen: set[int] = set()
    for loss in range(3):
        for i in range(3):
            done = await append(world.log, made, [f"{loss}.{i}.{j}" for j in range(4)])
            positions = set(range(done.first, done.head))
            assert not positions & seen
            seen |= positions
            if loss == 1 and i == 1:
                await compact(world.log, world.objects, made.id)
        await world.lose_redis()
        await world.reconcile()
    assert (await append(world.log, made, ["last"])).first > max(seen)


async def test_a_restoration_that_dies_half_way_is_begun_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.reconcile()
    made = await make_collection(world.catalog, await world.database())
    first = await append(world.log, made, ["a"])
    await world.snapshot()
    await world.lose_redis()

    async def die(*_: object) -> None:
        raise Unavailable("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(world.images, "restore_rows", die)
        with pytest.raises(Unavailable):
            await world.reconcile()
    with pytest.raises(Unavailable):
        await world.catalog.collections.get(Database("", "k", "d", "t"), "numbers")
    await world.reconcile()
    assert (await append(world.log, made, ["b"])).first >= first.head


async def test_a_redis_that_went_back_in_time_is_brought_forward(world: World, tmp_path: Path) -> None:
    await world.reconcile()
    base = await world.database()
    made = await make_collection(world.catalog, base)
    await append(world.log, made, ["a"])
    await asyncio.to_thread(world.server.kill)
    shutil.copytree(world.server.directory, tmp_path / "copy")
    await asyncio.to_thread(world.server.start)

    late = await make_collection(world.catalog, base, "late")
    for i in range(3):
        await append(world.log, made, [f"b{i}"])
        newest = await compact(world.log, world.objects, made.id)
    await append(world.log, late, ["x", "y"])
    lost = await append(world.log, made, ["lost"])
    await world.snapshot()

    await asyncio.to_thread(world.server.kill)
    shutil.rmtree(world.server.directory)
    shutil.copytree(tmp_path / "copy", world.server.directory)
    await asyncio.to_thread(world.server.start)
    assert (await world.log.read(made.id, 0)).state.head == 2
    await world.reconcile()

    state = (await world.log.read(made.id, 0)).state
    assert state.pointer == newest
    assert state.head >= lost.head
    back = await world.catalog.collections.get(base, "late")
    assert back is not None
    assert back.id == late.id
    assert back.head >= 3
    report = await world.images.read_report()
    assert report is not None
    assert {one["collection"] for one in report["missing"]} == {made.id, late.id}


async def test_an_unchanged_run_of_the_server_is_not_compared_again(world: World) -> None:
    await world.reconcile()
    assert (await world.catalog.mark.server_run())[1]
    await asyncio.to_thread(world.server.restart)
    assert not (await world.catalog.mark.server_run())[1]
    await world.reconcile()
    assert (await world.catalog.mark.server_run())[1]


async def test_the_bucket_of_another_cluster_is_refused(world: World) -> None:
    await world.reconcile()
    image = await world.snapshots.newest()
    assert image is not None
    await world.redis.hset(world.keys.cluster, "id", "other")
    with pytest.raises(Corrupt, match="cluster"):
        await world.reconcile()


async def test_a_bucket_with_collections_and_no_snapshot_is_not_taken_for_a_new_one(world: World) -> None:
    await publish(world.objects, "0b8f7f1e-6c0c-4a63-9d0c-3f3f2d5f5f5f", 0, 2, None)
    with pytest.raises(Corrupt, match="no snapshot"):
        await world.reconcile()


async def test_collections_that_only_the_bucket_knows_are_reported(world: World) -> None:
    await world.reconcile()
    made = await make_collection(world.catalog, await world.database())
    await append(world.log, made, ["a"])
    await compact(world.log, world.objects, made.id)
    await world.lose_redis()  # before a snapshot had the collection
    await world.reconcile()
    report = await world.images.read_report()
    assert report is not None
    assert report["unlisted"] == [made.id]
    with pytest.raises(Gone):
        await append(world.log, made, ["b"])


async def test_old_snapshots_are_deleted_and_numbers_never_used_again(world: World) -> None:
    cluster = await world.reconcile()
    few = Snapshots(world.objects, 3)
    for number in range(2, 7):
        assert await few.next_number() == number
        assert await few.write(await world.images.take(cluster), number)
    assert not await few.write(await world.images.take(cluster), 6)
    assert [info.key async for info in world.objects.list("catalog/")] == [snapshot_key(n) for n in (4, 5, 6)]


async def test_no_snapshot_is_taken_of_a_catalog_that_was_lost_meanwhile(world: World) -> None:
    cluster = await world.reconcile()
    await make_collection(world.catalog, await world.database())
    await world.snapshot()
    snapshotter = Snapshotter(world.images, world.snapshots, cluster, SystemClock())
    await world.lose_redis()
    with pytest.raises(Unavailable):
        await snapshotter.step(0)
    await world.reconcile()
    with pytest.raises(Unavailable):
        await snapshotter.step(0)  # restored by another leader: this one has to begin anew
    assert await world.catalog.collections.count(await world.database()) == 1


async def test_a_snapshot_follows_a_change_and_nothing_else(world: World) -> None:
    cluster = await world.reconcile()
    clock = SystemClock()
    snapshotter = Snapshotter(world.images, world.snapshots, cluster, clock, rest_ratio=0)
    assert await snapshotter.step(await world.catalog.changes.number())
    assert not await snapshotter.step(await world.catalog.changes.number())
    made = await make_collection(world.catalog, await world.database())
    assert await snapshotter.step(await world.catalog.changes.number())
    assert not await snapshotter.step(await world.catalog.changes.number())
    image = await world.snapshots.newest()
    assert image is not None
    assert [one.id for one in image.collections] == [made.id]


async def test_a_lost_redis_does_not_forget_what_was_deleted(world: World) -> None:
    await world.reconcile()
    made = await make_collection(world.catalog, await world.database())
    await world.catalog.collections.delete(await world.database(), made.name)
    collector = Collector(world.redis, world.keys, world.catalog)
    await collector.collect_deleted()
    graves = await collector.graves()
    assert graves.keys() == {made.id}
    await world.snapshot()
    await world.lose_redis()
    await world.reconcile()
    assert await collector.graves() == graves


async def test_a_row_whose_state_is_gone_gets_it_back_from_the_bucket(world: World) -> None:
    cluster = await world.reconcile()
    database = await world.database()
    made = await make_collection(world.catalog, database)
    await append(world.log, made, ["a", "b"])
    pointer = await compact(world.log, world.objects, made.id)
    await world.snapshot()
    lost = await append(world.log, made, ["c"])
    fresh = await make_collection(world.catalog, database, "fresh")
    await world.redis.delete(world.keys.state(made.id), world.keys.log(made.id, 0), world.keys.state(fresh.id))
    recovery = Recovery(cluster, world.images, world.log, world.snapshots, world.objects, SystemClock())
    collector = Collector(world.redis, world.keys, world.catalog)
    assert await collector.repair_database(database, recovery.recover) == 2
    assert await collector.repair_database(database, recovery.recover) == 0
    (back,) = await world.catalog.collections.of_database(database)  # of the fresh one nobody knows anything
    assert (back.id, back.fixed) == (made.id, made.fixed)
    [restored] = back.pointers
    assert restored is not None
    # A copy under another version: a compactor that sleeps expects the manifest that was there, and commits nothing.
    assert (restored.version, restored.covers) == (pointer.version + 1, pointer.covers)
    assert back.head >= lost.head
    image = await world.snapshots.newest()
    assert image is not None
    assert image.collections[0].head == back.head
