"""Layouts of shards when Redis is lost or goes back, and the garbage that earlier ones leave."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshots
from logservice.garbage.collector import GarbageCollector
from logservice.garbage.plan import CatalogView, LayoutChange, Listing, Periods, plan_manifests
from logservice.restoring.reconcile import Reconciler
from logservice.scheduling.policy import Policy
from logservice.scheduling.rounds import Rounds
from logservice.scheduling.scheduler import Scheduler
from shared.catalog import SHARDS_KEY, Catalog, Collection
from shared.catalog.image import Images
from shared.cluster.placement import Layout
from shared.log.cuts import Cuts
from shared.log.jobs import REBUILD, Job, Jobs
from shared.log.log import Log
from shared.log.rebuild import Rebuilds
from shared.objects.port import ObjectInfo, ObjectStore
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact, lay, switch
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, everything, make_collection

NEXT = Layout(1, 3)


@dataclass
class World:
    server: RedisServer
    redis: Redis
    keys: Keys
    objects: ObjectStore
    copy: Path

    def __post_init__(self) -> None:
        self.catalog = Catalog(self.redis, self.keys)
        self.images = Images(self.redis, self.keys, self.catalog)
        self.log = Log(self.redis, self.keys)
        self.jobs = Jobs(self.redis, self.keys)
        self.rebuilds = Rebuilds(self.redis, self.keys)
        self.snapshots = Snapshots(self.objects, 10)

    async def reconcile(self) -> None:
        await Reconciler(self.catalog, self.images, self.log, self.objects, self.snapshots, SystemClock()).run()

    async def snapshot(self) -> None:
        cluster = await self.catalog.mark.read()
        assert cluster is not None
        number = await self.snapshots.next_number()
        assert await self.snapshots.write(await self.images.take(cluster), number)

    async def collection(self) -> Collection:
        [found] = [one async for one in self.catalog.collections.all()]
        return found

    async def remember(self) -> None:
        await asyncio.to_thread(self.server.kill)
        shutil.copytree(self.server.directory, self.copy)
        await asyncio.to_thread(self.server.start)

    async def go_back(self) -> None:
        await asyncio.to_thread(self.server.kill)
        shutil.rmtree(self.server.directory)
        shutil.copytree(self.copy, self.server.directory)
        await asyncio.to_thread(self.server.start)

    def scheduler(self) -> Scheduler:
        policy, clock = Policy(1, 1, 0.0, 0.0), SystemClock()
        rounds = Rounds(Cuts(self.redis, self.keys), self.objects, clock)
        return Scheduler(self.catalog, self.log, self.jobs, rounds, policy, clock, lambda *_: None)


@pytest.fixture
async def world(own_server: RedisServer, keys: Keys, objects: ObjectStore, tmp_path: Path) -> AsyncIterator[World]:
    async with open_redis(own_server.url) as redis:
        made = World(own_server, redis, keys, objects, tmp_path / "copy")
        await made.reconcile()
        database = await made.catalog.databases.get("default_tenant", "default_database")
        assert database is not None
        await make_collection(made.catalog, database)
        yield made


async def laid(world: World) -> Collection:
    collection = await world.collection()
    await lay(world.rebuilds, world.log, world.objects, collection, NEXT)
    await switch(world.rebuilds, world.log, collection)
    return await world.collection()


async def test_a_lost_redis_gets_the_layout_of_the_snapshot(world: World) -> None:
    collection = await laid(world)
    assert collection.layout == NEXT
    await append(world.log, collection, [str(i) for i in range(20)])
    for shard in NEXT.numbers:
        await compact(world.log, world.objects, collection.id, shard)
    pointers = (await world.collection()).pointers
    await world.snapshot()
    await asyncio.to_thread(world.server.lose_everything)
    await world.reconcile()
    restored = await world.collection()
    assert restored.layout == NEXT
    assert restored.pointers == pointers
    await append(world.log, restored, ["x"])


async def test_a_rebuild_that_a_lost_redis_knew_of_is_begun_anew_with_other_shards(world: World) -> None:
    collection = await world.collection()
    database = await world.catalog.databases.get("default_tenant", "default_database")
    assert database is not None
    await world.catalog.collections.update(database, collection, metadata={SHARDS_KEY: 3})
    await world.snapshot()
    await lay(world.rebuilds, world.log, world.objects, await world.collection(), NEXT)
    await asyncio.to_thread(world.server.lose_everything)
    await world.reconcile()
    restored = await world.collection()
    assert restored.layout == collection.layout
    assert restored.rebuild is None
    scheduler = world.scheduler()
    await scheduler.sweep()
    await scheduler.tick()
    assert await world.jobs.claim("me", 60) == Job(collection.id, REBUILD)
    [state] = await world.log.states([(collection.id, REBUILD)])
    assert state is not None
    assert state.routing.wanted == 3


@pytest.mark.parametrize("begun", [True, False])
async def test_a_redis_that_went_back_behind_a_switch_gets_the_later_layout(world: World, begun: bool) -> None:
    collection = await world.collection()
    await append(world.log, collection, ["old"])
    if begun:
        await lay(world.rebuilds, world.log, world.objects, collection, NEXT)
    await world.remember()
    if not begun:
        await lay(world.rebuilds, world.log, world.objects, collection, NEXT)
    await switch(world.rebuilds, world.log, collection)
    collection = await world.collection()
    await append(world.log, collection, [str(i) for i in range(20)])
    pointers = [await compact(world.log, world.objects, collection.id, shard) for shard in NEXT.numbers]
    await world.snapshot()
    await world.go_back()
    await world.reconcile()
    restored = await world.collection()
    assert restored.layout == NEXT
    assert restored.rebuild is None
    assert list(restored.pointers) == pointers
    first = (await append(world.log, restored, ["x"])).first
    assert first > max(pointer.covers for pointer in pointers)
    assert first in await everything(world.log, restored)
    report = await world.images.read_report()
    assert report is not None
    assert [one["collection"] for one in report["missing"]] == [collection.id]


async def test_a_redis_that_went_back_in_a_rebuild_forgets_it(world: World) -> None:
    collection = await world.collection()
    await lay(world.rebuilds, world.log, world.objects, collection, NEXT)
    await world.remember()
    await append(world.log, collection, ["a"])
    await compact(world.log, world.objects, collection.id)
    await world.go_back()
    await world.reconcile()
    found = await world.collection()
    assert (found.layout, found.rebuild) == (collection.layout, None)
    await append(world.log, found, ["b"])


async def test_a_rebuild_survives_an_ordinary_restart(world: World) -> None:
    collection = await world.collection()
    await lay(world.rebuilds, world.log, world.objects, collection, NEXT)
    await asyncio.to_thread(world.server.kill)
    await asyncio.to_thread(world.server.start)
    await world.reconcile()
    found = await world.collection()
    assert found.rebuild is not None
    assert found.rebuild.layout == NEXT


def test_manifests_of_a_layout_that_is_no_more_go_after_the_retention() -> None:
    def manifest(shard: int) -> ObjectInfo:
        return ObjectInfo(f"c/{shard}/manifests/{1:020d}.json", 1, 0.0)

    found = [manifest(shard) for shard in (0, 1, 9)]
    shards = {("c", 1): None}
    periods = Periods(grace_s=100.0, retention_s=10.0)

    def deleted(layout_changes: dict[str, LayoutChange]) -> list[str]:
        view = CatalogView(shards, {}, layout_changes)
        return plan_manifests(Listing(found, 1000.0), view, periods).deleted

    assert deleted({}) == []  # no snapshot knows the new layout
    assert deleted({"c": LayoutChange(1, 995.0)}) == []
    assert deleted({"c": LayoutChange(1, 980.0)}) == [manifest(0).key]


async def test_garbage_collection_keeps_what_is_being_built(world: World) -> None:
    await lay(world.rebuilds, world.log, world.objects, await world.collection(), NEXT)
    collection = await world.collection()
    assert collection.rebuild is not None
    pointers = dict(zip(NEXT.numbers, collection.rebuild.pointers, strict=True))
    shards = {(collection.id, 0): None} | {(collection.id, shard): pointer for shard, pointer in pointers.items()}
    collector = GarbageCollector(world.objects, SystemClock(), Periods(0.0, 0.0))
    collected = await collector.collect(CatalogView(shards, {}), world.catalog.mark.require)
    assert collected.manifests == 0


async def test_the_end_of_a_rebuild_counts_as_a_change_of_the_catalog(world: World) -> None:
    await world.jobs.mark_dirty([((await world.collection()).id, REBUILD)])
    before = await world.catalog.changes.number()
    await world.scheduler().tick()
    assert await world.catalog.changes.number() == before + 1
