"""Processes that sleep while Redis is lost and restored: what they began changes nothing any more."""

from __future__ import annotations

import asyncio
import base64
import random
from dataclasses import dataclass
from typing import Any, cast

import pytest

from compactor.checkpoints import Step
from compactor.compaction import Ending
from logservice.catalog.snapshots import Snapshots
from logservice.restoring.reconcile import Reconciler
from shared.catalog import Catalog
from shared.catalog.image import Images
from shared.cluster.placement import Layout
from shared.log.lifecycle import Lifecycle
from shared.log.rebuild import Rebuilds
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.records.model import Op
from tests.compactor.conftest import Shop
from tests.compactor.steps import WaitsAt, row


class SleepsBeforeCreating:
    """A store whose user sleeps before it creates a manifest, from when `asleep` is set until `awake` is."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.asleep, self.awake = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def create(self, key: str, data: bytes) -> bool:
        if "/manifests/" in key:
            self.asleep.set()
            await self.awake.wait()
        return await self._objects.create(key, data)

    @property
    def store(self) -> ObjectStore:
        return cast("ObjectStore", self)


@dataclass
class Losing:
    """A shop whose Redis is lost and restored from the bucket."""

    shop: Shop

    def __post_init__(self) -> None:
        catalog = Catalog(self.shop.redis, self.shop.keys)
        self.catalog = catalog
        self.images = Images(self.shop.redis, self.shop.keys, catalog)
        self.snapshots = Snapshots(self.shop.objects, 10)

    async def snapshot(self) -> None:
        cluster = await self.catalog.mark.read()
        assert cluster is not None
        assert await self.snapshots.write(await self.images.take(cluster), await self.snapshots.next_number())

    async def lose(self) -> None:
        """Loses and restores everything."""
        found = [key async for key in self.shop.redis.scan_iter(f"{self.shop.keys.prefix}:*")]
        await self.shop.redis.delete(*found)
        await self.reconcile()
        await self.shop.refresh()

    async def reconcile(self) -> None:
        shop = self.shop
        await Reconciler(self.catalog, self.images, shop.log, shop.objects, self.snapshots, SystemClock()).run()


@pytest.fixture
async def losing(shop: Shop) -> Losing:
    made = Losing(shop)
    await made.snapshot()
    return made


async def _ids(shop: Shop) -> set[str]:
    return set(await shop.records())


@pytest.mark.parametrize("step", [Step.READ, Step.APPLIED, Step.BUILT, Step.UPLOADED])
async def test_a_compaction_that_began_before_a_restoration_brings_nothing_back(
    shop: Shop, losing: Losing, step: Step
) -> None:
    rng = random.Random(1)
    await shop.write(Op.UPSERT, {"kept": row(rng)})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    await shop.write(Op.UPSERT, {"lost": row(rng)})
    waits = WaitsAt(step)
    sleeping = asyncio.create_task(shop.compactor(waits).compact(shop.collection.id, 0))
    await waits.there.wait()
    await losing.lose()
    await shop.write(Op.UPSERT, {"new": row(rng)})  # on the ground that there is no such record as "lost"
    waits.go.set()
    assert await sleeping is Ending.LOST
    assert await _ids(shop) == {"kept"}
    while await shop.compactor().compact(shop.collection.id, 0) is not Ending.NOTHING:
        pass
    assert await _ids(shop) == {"kept", "new"}
    await losing.lose()
    assert await _ids(shop) == {"kept", "new"}


async def test_a_manifest_that_was_created_in_an_earlier_epoch_is_not_completed(shop: Shop, losing: Losing) -> None:
    """Its compactor slept before the last command: creating the object."""
    rng = random.Random(2)
    await shop.write(Op.UPSERT, {"lost": row(rng)})
    sleepy = SleepsBeforeCreating(shop.objects)
    sleeping = asyncio.create_task(shop.compactor(objects=sleepy.store).compact(shop.collection.id, 0))
    await sleepy.asleep.wait()
    await losing.lose()
    sleepy.awake.set()
    assert await sleeping is Ending.LOST
    await shop.write(Op.UPSERT, {"new": row(rng)})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await _ids(shop) == {"new"}
    assert (await shop.published()).version == 2


async def test_a_compaction_of_writes_that_a_restart_lost_without_a_sign_brings_nothing_back(
    shop: Shop, losing: Losing
) -> None:
    """A Redis that lost the newest writes alone shows no sign of it; what it does at every restart must do."""
    rng = random.Random(3)
    await shop.write(Op.UPSERT, {"kept": row(rng)})
    state, stream = shop.keys.state(shop.collection.id), shop.keys.log(shop.collection.id, 0)
    before = [(key, await shop.redis.dump(key)) for key in (state, stream)]
    await shop.write(Op.UPSERT, {"lost": row(rng)})
    waits = WaitsAt(Step.BUILT)
    sleeping = asyncio.create_task(shop.compactor(waits).compact(shop.collection.id, 0))
    await waits.there.wait()
    for key, content in before:
        assert content is not None
        await shop.redis.restore(key, 0, content, replace=True)
    await losing.catalog.mark.mark_verified("an earlier run", (await losing.catalog.mark.standing()).cluster.epoch)
    await losing.reconcile()
    await shop.write(Op.UPSERT, {"new": row(rng)})
    waits.go.set()
    assert await sleeping is Ending.LOST
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await _ids(shop) == {"kept", "new"}


async def test_a_flipped_bit_of_a_tombstone_is_noticed_when_redis_is_lost(shop: Shop, losing: Losing) -> None:
    rng = random.Random(6)
    await shop.write(Op.UPSERT, {str(number): row(rng) for number in range(60)})
    await shop.compactor().compact(shop.collection.id, 0)
    await shop.delete(["5"])
    await shop.compactor().compact(shop.collection.id, 0)
    manifest = await shop.published()
    [ref] = [ref for ref in manifest.segments if ref.dead]
    tombstones = bytearray(base64.b64decode(ref.tombstones))
    tombstones[-2] ^= 1  # the only row of the only container
    flipped = base64.b64encode(tombstones)
    data = await shop.objects.get(manifest.key)
    assert flipped != ref.tombstones.encode()
    await shop.objects.put(manifest.key, data.replace(ref.tombstones.encode(), flipped))
    await losing.lose()
    assert (await shop.published()).version == 1, "the one before it, which the report names with what is missing"
    assert await _ids(shop) == {str(number) for number in range(60)}


async def test_a_rebuild_that_began_before_a_restoration_takes_no_step(shop: Shop, losing: Losing) -> None:
    rng = random.Random(4)
    await shop.write(Op.UPSERT, {str(number): row(rng) for number in range(8)})
    await shop.compactor().compact(shop.collection.id, 0)
    await Lifecycle(shop.redis, shop.keys).want_shards(shop.collection.id, 2)
    sleepy = SleepsBeforeCreating(shop.objects)
    sleeping = asyncio.create_task(shop.rebuilder(objects=sleepy.store).step(shop.collection.id))
    await sleepy.asleep.wait()
    await losing.lose()
    state, layout = await shop.state(), Layout(1, 2)
    rebuilds = Rebuilds(shop.redis, shop.keys)
    assert await rebuilds.begin(shop.collection.id, state.epoch, state.routing.layout, layout) == layout
    sleepy.awake.set()
    await sleeping
    assert (await shop.state()).routing.copied is None, "the new rebuild was given the old one's manifests"
