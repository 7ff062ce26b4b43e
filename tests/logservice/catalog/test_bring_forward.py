"""A Redis that came back older gets the changes of the catalog that were acknowledged since, deletions too."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.catalog import Catalog
from shared.objects.port import ObjectStore
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.catalog.catalog_model import CatalogModel
from tests.logservice.catalog.journaling import JournaledCluster
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, make_collection
from tests.shared.objects.faults import FaultyStore


@pytest.fixture
def server(own_server: RedisServer) -> RedisServer:
    return own_server


@pytest.fixture
async def world(server: RedisServer, keys: Keys, objects: ObjectStore) -> AsyncIterator[JournaledCluster]:
    async with open_redis(server.url) as redis:
        cluster = JournaledCluster(redis, keys, FaultyStore(objects))
        await cluster.reconcile()
        try:
            yield cluster
        finally:
            await cluster.close()


class Copies:
    """A copy of the server's data, to go back to."""

    def __init__(self, server: RedisServer, copy: Path) -> None:
        self._server = server
        self._copy = copy

    async def take(self) -> None:
        await asyncio.to_thread(self._server.kill)
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._server.directory, self._copy)
        await asyncio.to_thread(self._server.start)

    async def go_back(self) -> None:
        await asyncio.to_thread(self._server.kill)
        shutil.rmtree(self._server.directory)
        shutil.copytree(self._copy, self._server.directory)
        await asyncio.to_thread(self._server.start)


@pytest.fixture
def copies(server: RedisServer, tmp_path: Path) -> Copies:
    return Copies(server, tmp_path / "copy")


async def test_every_kind_of_change_comes_back_without_a_snapshot(world: JournaledCluster, copies: Copies) -> None:
    catalog, db = world.catalog, await world.database()
    await catalog.tenants.create("acme")
    await catalog.databases.create("acme", "dropped")
    kept = await make_collection(catalog, db, "before")
    other = await make_collection(catalog, db, "other")
    deleted = await make_collection(catalog, db, "deleted")
    await world.snapshot()
    await copies.take()
    await world.reconcile()

    assert await catalog.tenants.set_resource_name("acme", "res")
    assert await catalog.databases.delete("acme", "dropped")
    await catalog.databases.create("acme", "new")
    assert await catalog.collections.update(db, kept, name="after", metadata={"a": 1})
    assert await catalog.collections.update(db, other, name="before")  # a name that was given up
    assert await catalog.collections.delete(db, "deleted")
    created = await make_collection(catalog, db, "created")
    await copies.go_back()
    await world.reconcile()

    assert [each.name for each in await catalog.databases.of_tenant("acme")] == ["new"]
    found = await catalog.tenants.find_by_resource_name("res")
    assert found is not None
    assert found.name == "acme"
    rows = {each.name: each for each in await catalog.collections.of_database(db)}
    assert {name: each.id for name, each in rows.items()} == {
        "after": kept.id, "before": other.id, "created": created.id,
    }  # fmt: skip
    assert (rows["after"].metadata, rows["after"].generation) == ({"a": 1}, 2)
    assert (await append(world.log, rows["after"], ["x"], generation=2)).first
    await world.collector.collect_deleted()
    assert deleted.id in await world.collector.graves()


async def test_what_nobody_was_told_of_stays_as_redis_has_it(world: JournaledCluster, copies: Copies) -> None:
    """The deletion is in Redis and not in the journal; elsewhere Redis lost a change, which shows that it went back."""
    db = await world.database()
    elsewhere = await world.catalog.databases.create("default_tenant", "elsewhere")
    await make_collection(world.catalog, db, "deleted")
    await world.snapshot()
    dead = Catalog(world.redis, world.keys)
    assert await dead.collections.delete(db, "deleted")
    await copies.take()
    await world.reconcile()
    await make_collection(world.catalog, elsewhere, "lost")
    await copies.go_back()
    await world.reconcile()
    assert await world.catalog.collections.of_database(db) == []
    assert [each.name for each in await world.catalog.collections.of_database(elsewhere)] == ["lost"]


async def test_the_old_server_comes_back_after_its_restoration(
    world: JournaledCluster, server: RedisServer, copies: Copies
) -> None:
    """It has counted changes that nobody was told of; the restored cluster has begun a later epoch all the same."""
    db = await world.database()
    await make_collection(world.catalog, db, "both")
    dead = Catalog(world.redis, world.keys)
    for number in range(5):
        await make_collection(dead, db, f"untold{number}")
    await copies.take()
    await asyncio.to_thread(server.lose_everything)
    await world.reconcile()
    assert await world.catalog.collections.delete(await world.database(), "both")
    await make_collection(world.catalog, await world.database(), "restored")
    await copies.go_back()
    await world.reconcile()
    found = [each.name for each in await world.catalog.collections.of_database(await world.database())]
    assert "restored" in found
    assert "both" not in found


async def test_a_change_after_the_old_server_came_back_outlives_the_next_loss(
    world: JournaledCluster, server: RedisServer, copies: Copies
) -> None:
    """The old server had counted more changes than the catalog of the later epoch, whose number would be drawn again
    then: an entry of the journal that the snapshot seems to contain is not read.
    """
    dead = Catalog(world.redis, world.keys)
    for number in range(20):
        await make_collection(dead, await world.database(), f"untold{number}")
    await copies.take()
    await asyncio.to_thread(server.lose_everything)
    await world.reconcile()
    await copies.go_back()
    await world.reconcile()
    await make_collection(world.catalog, await world.database(), "acknowledged")
    await asyncio.to_thread(server.lose_everything)
    await world.reconcile()
    found = [each.name for each in await world.catalog.collections.of_database(await world.database())]
    assert found == ["acknowledged"]


@pytest.mark.parametrize("seed", range(2))
async def test_random_changes_and_a_server_that_goes_back(world: JournaledCluster, copies: Copies, seed: int) -> None:
    chance = random.Random(seed)
    model = CatalogModel(world.writer(), chance)
    for _ in range(3):
        for _ in range(chance.randint(0, 8)):
            await model.change()
        await copies.take()
        await world.reconcile()
        for _ in range(chance.randint(1, 8)):
            await model.change()
            if chance.random() < 0.2:
                await world.snapshot()
            if chance.random() < 0.2:
                await world.tidy()
        await copies.go_back()
        await world.reconcile()
        await model.check()
        await world.collector.collect_deleted()
    assert model.acknowledged > 5
