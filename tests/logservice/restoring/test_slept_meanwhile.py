"""What is lost alone, and deleted or restored by others in the moments between two looks at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from logservice.catalog.stored import StoredCatalog, StoredImage
from shared.catalog import Collection, Database
from shared.catalog.collector import Collector
from shared.catalog.image import CatalogImage, Images
from shared.catalog.losses import Losses
from shared.errors import Unavailable
from shared.redis.client import open_redis
from tests.logservice.restoring.test_epoch import World, world
from tests.logservice.restoring.test_lost_alone import database_of, recover_lost
from tests.redis_server import RedisServer
from tests.shared.log.appending import make_collection

__all__ = ["world"]


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


async def _forget(world: World, database: Database, *doomed: Collection) -> None:
    """Deletes collections until nothing in Redis knows them any more."""
    collector = Collector(world.redis, world.keys, world.catalog)
    for each in doomed:
        assert await world.catalog.collections.delete(database, each.name)
    await collector.collect_deleted()
    await collector.forget([each.id for each in doomed])


@pytest.mark.parametrize("asleep_after", [2, 3])
async def test_a_log_service_that_slept_brings_back_no_collection_that_was_forgotten_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, asleep_after: int
) -> None:
    database = await database_of(world)
    doomed, kept = [await make_collection(world.catalog, database, name) for name in ("doomed", "kept")]
    await world.snapshot()
    await world.redis.hdel(world.keys.rows(database.key), kept.id)
    # Uploaded by a compactor that slept as well: with it, a row without a state is never removed again.
    await world.objects.put(f"{doomed.id}/0/segments/late/rows", b"late")
    read_bucket, reads = StoredCatalog.newest, 0

    async def slow(journaled: StoredCatalog) -> StoredImage | None:
        nonlocal reads
        reads += 1
        stored = await read_bucket(journaled)
        if reads == asleep_after:
            assert stored is not None
            await _forget(world, database, doomed)
            left = [each for each in stored.image.collections if each.id != doomed.id]
            later = msgspec.structs.replace(stored.image, collections=left)
            assert await world.snapshots.write(later, await world.snapshots.next_number())
        return stored

    monkeypatch.setattr(StoredCatalog, "newest", slow)
    await recover_lost(world, sweep=True)
    assert reads >= asleep_after
    listed = [each.name for each in await world.catalog.collections.of_database(database)]
    assert "doomed" not in listed
    assert "kept" in listed


Look = Callable[[World, Database, Collection], Awaitable[object]]


async def _by_id(world: World, database: Database, collection: Collection) -> object:
    return await world.catalog.collections.get_by_id(database, collection.id)


async def _by_name(world: World, database: Database, collection: Collection) -> object:
    return await world.catalog.collections.get(database, collection.name)


async def _listed(world: World, database: Database, collection: Collection) -> object:
    return collection.id in {each.id for each in await world.catalog.collections.of_database(database)}


async def _some(world: World, database: Database, collection: Collection) -> object:
    return await world.catalog.collections.some(database, [collection.id])


async def _imaged(world: World, _database: Database, collection: Collection) -> object:
    """Raises Unavailable, which is as good: an image is taken again."""
    try:
        image = await world.images.take(await world.cluster())
    except Unavailable:
        return True
    return collection.id in {each.id for each in image.collections}


@pytest.mark.parametrize("look", [_by_id, _by_name, _listed, _some, _imaged])
async def test_a_state_that_comes_back_while_it_is_missed_is_not_taken_for_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch, look: Look
) -> None:
    """Between the look at the collection and the look whether something was lost the log service has restored it."""
    database = await database_of(world)
    made = await make_collection(world.catalog, database, "hit")
    state = await world.redis.dump(world.keys.state(made.id))
    assert state is not None
    await world.redis.delete(world.keys.state(made.id))
    has_row_alone = Losses.has_row_alone

    async def late(losses: Losses, *names: str) -> bool:
        if not await world.redis.exists(world.keys.state(made.id)):
            await world.redis.restore(world.keys.state(made.id), 0, state)
        return await has_row_alone(losses, *names)

    monkeypatch.setattr(Losses, "has_row_alone", late)
    assert await look(world, database, made)


async def test_a_state_of_a_collection_that_was_deleted_meanwhile_is_not_put_into_a_snapshot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await database_of(world)
    doomed = await make_collection(world.catalog, database, "doomed")
    await world.snapshot()
    await world.redis.delete(world.keys.state(doomed.id))
    take = Images.take

    async def late(images: Images, *args: Any) -> CatalogImage:
        assert await world.catalog.collections.delete(database, doomed.name)
        return await take(images, *args)

    monkeypatch.setattr(Images, "take", late)
    with pytest.raises(Unavailable):
        await recover_lost(world, sweep=True)
    newest = await world.snapshots.newest()
    assert newest is not None
    assert doomed.id in {each.id for each in newest.collections}, "the snapshot of before"


async def test_a_database_that_lost_names_says_neither_that_they_are_gone_nor_how_many_there_are(world: World) -> None:
    database = await database_of(world)
    made = await make_collection(world.catalog, database, "hit")
    await world.redis.delete(world.keys.names(database.key))
    with pytest.raises(Unavailable):
        await world.catalog.collections.delete(database, made.name)
    with pytest.raises(Unavailable):
        await world.catalog.collections.count(database)
