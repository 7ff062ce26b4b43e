"""Tenants and databases that Redis lost alone come back by themselves, and no snapshot forgets them meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest
from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshotter
from logservice.restoring.tenant_recovery import TenantRecovery
from polychrome.loss_report import decode_report, json_of, lines_of
from shared.catalog.image import CatalogImage
from shared.errors import Unavailable
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.restoring.test_epoch import World, world
from tests.logservice.restoring.test_lost_alone import database_of, recover_lost
from tests.redis_server import RedisServer
from tests.shared.log.appending import make_collection

__all__ = ["world"]

TENANT: Final = "default_tenant"
LOST: Final[dict[str, Callable[[Keys], list[str]]]] = {
    "tenants": lambda keys: [keys.tenants],
    "resources": lambda keys: [keys.resources],
    "tenants and resources": lambda keys: [keys.tenants, keys.resources],
    "databases": lambda keys: [keys.databases(TENANT)],
    "order": lambda keys: [keys.database_order(TENANT)],
    "databases and order": lambda keys: [keys.databases(TENANT), keys.database_order(TENANT)],
    "everything": lambda keys: [keys.tenants, keys.resources, keys.databases(TENANT), keys.database_order(TENANT)],
}


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


async def _settle(world: World, *tenants: str) -> None:
    """As the journal does: nothing is pending any more, and a snapshot has everything."""
    await world.redis.delete(world.keys.catalog_pending, *map(world.keys.tenant_pending, [TENANT, *tenants]))
    await world.snapshot()


async def _is_whole(world: World, collection_id: str) -> bool:
    found = await world.catalog.databases.get(TENANT, "default_database")
    owner = await world.catalog.tenants.find_by_resource_name("acme")
    listed = [each.name for each in await world.catalog.databases.of_tenant(TENANT)]
    if found is None or owner is None or owner.name != TENANT or listed != ["default_database"]:
        return False
    return await world.catalog.collections.get_by_id(found, collection_id) is not None


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("sweep", [True, False])
async def test_what_is_lost_of_tenants_comes_back_before_a_snapshot_forgets_it(
    world: World, lost: str, sweep: bool
) -> None:
    made = await make_collection(world.catalog, await database_of(world), "hit")
    assert await world.catalog.tenants.set_resource_name(TENANT, "acme")
    await _settle(world)
    snapshotter = Snapshotter(world.images, world.snapshots, await world.cluster(), SystemClock(), rest_ratio=0)
    assert await snapshotter.step(1)
    await world.redis.delete(*LOST[lost](world.keys))
    if lost != "resources" and not sweep:
        with pytest.raises(Unavailable):
            await snapshotter.step(2)
    await recover_lost(world, sweep=sweep or lost == "resources")
    assert await _is_whole(world, made.id)
    await snapshotter.step(3)
    assert snapshotter.written is not None
    assert made.id in {each.id for each in snapshotter.written.collections}
    report = decode_report(await world.catalog.mark.read_report())
    assert any("which Redis had lost" in line for line in lines_of(report, []))
    assert json_of(report, [])["restored_rows"]


@pytest.mark.parametrize("lost", LOST)
async def test_what_is_lost_of_tenants_comes_back_in_a_redis_that_restarts(world: World, lost: str) -> None:
    made = await make_collection(world.catalog, await database_of(world), "hit")
    assert await world.catalog.tenants.set_resource_name(TENANT, "acme")
    await _settle(world)
    await world.redis.delete(*LOST[lost](world.keys))
    await world.redis.hdel(world.keys.cluster, "verified")
    await world.reconciler().run()
    assert await _is_whole(world, made.id)


async def test_a_tenant_that_is_missed_is_unavailable_and_not_gone(world: World) -> None:
    await world.catalog.tenants.create("other")
    await world.catalog.databases.create("other", "main")
    await _settle(world, "other")
    await world.redis.hdel(world.keys.tenants, "other")
    with pytest.raises(Unavailable):
        await world.catalog.databases.get("other", "main")
    await recover_lost(world)
    assert await world.catalog.databases.get("other", "main") is not None
    await world.redis.hdel(world.keys.databases("other"), "main")
    with pytest.raises(Unavailable):
        await world.catalog.databases.create("other", "main")
    await recover_lost(world)
    assert await world.catalog.databases.get("other", "main") is not None


async def test_a_log_service_that_slept_brings_back_no_database_that_was_deleted_meanwhile(world: World) -> None:
    await world.catalog.databases.create(TENANT, "doomed")
    await _settle(world)
    recovery = TenantRecovery(world.catalog, world.images, SystemClock())
    reads = 0

    async def sleep_over_a_deletion() -> CatalogImage | None:
        nonlocal reads
        reads += 1
        stored = await world.snapshots.newest()
        if reads == 1:
            await world.catalog.databases.delete(TENANT, "doomed")
            await world.redis.delete(world.keys.tenant_pending(TENANT), world.keys.database_trash(TENANT))
            await world.snapshot()
        return stored

    assert await recovery.recover(sleep_over_a_deletion)
    assert reads == 2, "it looked again"
    assert [each.name for each in await world.catalog.databases.of_tenant(TENANT)] == ["default_database"]


async def test_what_a_reset_removed_does_not_come_back(world: World) -> None:
    await world.catalog.tenants.create("other")
    await world.catalog.databases.create("other", "main")
    await _settle(world, "other")
    await world.catalog.reset()
    await recover_lost(world, sweep=True)
    assert [each.name for each in await world.catalog.tenants.all()] == [TENANT]
