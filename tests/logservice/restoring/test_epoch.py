"""What was begun in an earlier epoch is refused: appends, trims, garbage, restorations."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis.exceptions as failures
from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshots
from logservice.restoring.reconcile import Reconciler
from shared.catalog import Catalog, Cluster
from shared.catalog.image import CatalogImage, Images
from shared.errors import StaleEpoch, Unavailable, UnknownOutcome
from shared.log import log as log_module
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.log import Log
from shared.log.outputs import ProvenanceChange
from shared.log.witness import Witness
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact
from tests.logservice.garbage.test_collector import RETENTION_S
from tests.logservice.garbage.test_collector import World as Garbage
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, everything, make_collection


class World:
    """A cluster whose Redis is emptied and restored."""

    def __init__(self, redis: Redis, keys: Keys, objects: ObjectStore) -> None:
        self.redis, self.keys, self.objects = redis, keys, objects
        self.catalog = Catalog(redis, keys)
        self.images = Images(redis, keys, self.catalog)
        self.log = Log(redis, keys)
        self.snapshots = Snapshots(objects, 10)

    def reconciler(self, snapshots: Snapshots | None = None) -> Reconciler:
        snapshots = snapshots or self.snapshots
        return Reconciler(self.catalog, self.images, self.log, self.objects, snapshots, SystemClock())

    async def cluster(self) -> Cluster:
        found = await self.catalog.mark.read()
        assert found is not None
        return found

    async def snapshot(self) -> None:
        number = await self.snapshots.next_number()
        assert await self.snapshots.write(await self.images.take(await self.cluster()), number)

    async def lose(self) -> None:
        await self.redis.delete(*[key async for key in self.redis.scan_iter(f"{self.keys.prefix}:*")])

    async def restore(self) -> None:
        await self.lose()
        await self.reconciler().run()


@pytest.fixture
async def world(redis: Redis, keys: Keys, objects: ObjectStore) -> World:
    made = World(redis, keys, objects)
    await made.reconciler().run()
    database = await made.catalog.databases.get("default_tenant", "default_database")
    assert database is not None
    await make_collection(made.catalog, database)
    await made.snapshot()
    return made


@pytest.fixture
async def fenced(world: World, redis_server: RedisServer, keys: Keys) -> AsyncIterator[Redis]:
    """The client of another process, whose connections are open before anything is lost."""
    async with open_verified_redis(redis_server.url, keys) as redis:
        yield redis


class LosesAnAnswer:
    """APPEND whose first attempt is applied, and whose answer is lost; then `meanwhile` happens."""

    def __init__(self, world: World, *, restored: bool) -> None:
        self._world = world
        self._restored = restored
        self._script = log_module.APPEND
        self.attempts = 0

    async def attempt(self, redis: Redis, keys: Sequence[str], args: Sequence[Any]) -> Any:
        self.attempts += 1
        reply = await self._script.attempt(redis, keys, args)
        if self.attempts > 1:
            return reply
        if self._restored:
            await self._world.restore()
        raise failures.ConnectionError("the answer was lost")


async def test_an_append_whose_answer_was_lost_is_not_repeated_after_a_restoration(
    world: World, fenced: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in a manifest, or in a log that is put back: it could be applied twice."""
    [collection] = [one async for one in world.catalog.collections.all()]
    losing = LosesAnAnswer(world, restored=True)
    monkeypatch.setattr(log_module, "APPEND", losing)
    with pytest.raises(UnknownOutcome):
        await append(Log(fenced, world.keys), collection, ["a"])
    assert losing.attempts == 2
    assert (await world.log.read(collection.id, 0)).entries == []


async def test_an_append_whose_answer_was_lost_is_repeated_while_redis_lives(
    world: World, fenced: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    [collection] = [one async for one in world.catalog.collections.all()]
    monkeypatch.setattr(log_module, "APPEND", LosesAnAnswer(world, restored=False))
    appended = await append(Log(fenced, world.keys), collection, ["a"])
    assert (appended.first, appended.head) == (1, 2)
    assert len(await everything(world.log, collection)) == 1


async def test_an_append_that_begins_after_a_restoration_is_applied_over_old_connections_too(
    world: World, fenced: Redis
) -> None:
    """A server that is emptied and lives keeps its connections, which were made in the epoch before."""
    [collection] = [one async for one in world.catalog.collections.all()]
    log = Log(fenced, world.keys)
    await append(log, collection, ["a"])
    await world.restore()
    await append(log, collection, ["b"])
    assert len(await everything(world.log, collection)) == 1


async def test_an_append_is_refused_while_the_restoration_has_not_ended(world: World, fenced: Redis) -> None:
    [collection] = [one async for one in world.catalog.collections.all()]
    await world.restore()
    await world.redis.delete(world.keys.cluster)
    with pytest.raises(Unavailable):
        await append(Log(fenced, world.keys), collection, ["a"])
    assert (await world.log.read(collection.id, 0)).entries == []


async def test_content_that_a_function_computed_before_a_restoration_is_not_appended(
    world: World, fenced: Redis
) -> None:
    [collection] = [one async for one in world.catalog.collections.all()]
    await world.restore()
    request = AppendRequest(
        collection_id=collection.id,
        request_id=uuid.uuid4().hex,
        batches=split_batch(build_batch(Op.DELETE, ["a"]), collection.layout),
        dimension=None,
        generation=None,
        provenance=ProvenanceChange(b"", b"1", 0),
    )
    with pytest.raises(StaleEpoch):
        await Log(fenced, world.keys).append(request)
    assert (await world.log.read(collection.id, 0)).entries == []


async def test_a_log_service_that_slept_through_a_restoration_trims_nothing(world: World) -> None:
    [collection] = [one async for one in world.catalog.collections.all()]
    await append(world.log, collection, ["a"])
    await compact(world.log, world.objects, collection.id)
    asleep = await world.cluster()
    await world.restore()
    await append(world.log, collection, ["b"])
    newest = await compact(world.log, world.objects, collection.id)
    assert await world.log.trim(collection.id, 0, newest, asleep.epoch) == 0
    assert await world.log.trim(collection.id, 0, newest, (await world.cluster()).epoch) == 1


@pytest.mark.parametrize("checks", [0, 1])
async def test_garbage_collection_ends_where_the_cluster_was_restored(checks: int) -> None:
    garbage = Garbage()
    collection = garbage.collection()
    for name in ("s1", "s2"):
        await garbage.publish(collection, name)
    garbage.clock.time += 2 * RETENTION_S
    garbage.checks_until_restored = checks
    with pytest.raises(Unavailable):
        await garbage.collect()
    versions, _ = await garbage.left(collection)
    assert versions == ([1, 2] if checks == 0 else [2]), "what was deleted before is all that was"
    assert not [info async for info in garbage.objects.list("") if info.key.endswith("condemned")]


async def test_a_mark_is_not_put_back_to_an_earlier_epoch(world: World) -> None:
    earlier = await world.cluster()
    await world.restore()
    later = await world.cluster()
    assert later.epoch == earlier.epoch + 1
    with pytest.raises(Unavailable):
        await world.catalog.mark.open(earlier)
    assert await world.cluster() == later


async def test_a_log_service_that_slept_through_a_restoration_restores_nothing_that_was_deleted_since(
    world: World,
) -> None:
    """It sleeps behind its snapshot; another one restores the cluster, and a client deletes the collection."""
    [collection] = [one async for one in world.catalog.collections.all()]
    asleep, awake = asyncio.Event(), asyncio.Event()

    class Sleepy(Snapshots):
        async def write(self, *args: Any) -> bool:
            written = await super().write(*args)
            asleep.set()
            await awake.wait()
            return written

    await world.lose()
    slow = asyncio.create_task(world.reconciler(Sleepy(world.objects, 10)).run())
    await asleep.wait()
    await world.reconciler().run()
    database = await world.catalog.databases.get("default_tenant", "default_database")
    assert database is not None
    assert await world.catalog.collections.delete(database, collection.name)
    await world.redis.delete(world.keys.trash(database.key), world.keys.state(collection.id))  # collected
    awake.set()
    with pytest.raises(Unavailable):
        await slow
    assert await world.catalog.collections.of_database(database) == []
    assert not await world.redis.exists(world.keys.state(collection.id))


async def test_a_bring_forward_that_died_half_way_shows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All heads and states are brought forward, and nothing but the mark is missing."""
    [collection] = [one async for one in world.catalog.collections.all()]
    await append(world.log, collection, ["a"])
    await world.snapshot()
    await world.redis.hset(world.keys.state(collection.id), "head", 1)
    await world.catalog.mark.mark_verified("an earlier run", (await world.cluster()).epoch)
    opening = world.reconciler()
    with monkeypatch.context() as patched:
        patched.setattr(world.catalog.mark, "open", _die)
        with pytest.raises(RuntimeError):
            await opening.run()
    assert (await world.log.read(collection.id, 0)).state.epoch == 1
    assert (await world.cluster()).epoch == 0
    assert (await opening.run()).epoch == 2
    assert (await world.log.read(collection.id, 0)).state.epoch == 2


async def _die(*_: object) -> None:
    raise RuntimeError


async def test_a_leader_notices_that_another_one_has_restored_the_cluster_once_more(
    redis: Redis, keys: Keys, objects: ObjectStore
) -> None:
    """Both led: the lease was lost with Redis. Found by tests/simulation."""
    world = World(redis, keys, objects)
    reconciler = world.reconciler()
    cluster = await reconciler.run()
    assert await reconciler.reconciled(cluster)
    await world.catalog.mark.open(Cluster(cluster.id, cluster.epoch + 1))
    assert not await reconciler.reconciled(cluster)


async def test_who_wrote_and_who_read_an_append_hold_it_in_one_epoch(
    world: World, redis_server: RedisServer, keys: Keys
) -> None:
    """Of a collection that was made after a restoration, too, whose state has no epoch: what healing is given of
    earlier epochs does not count.
    """
    await world.restore()
    database = await world.catalog.databases.get("default_tenant", "default_database")
    assert database is not None
    made = await make_collection(world.catalog, database, "made since")
    wrote, read = (Witness(SystemClock(), 1 << 20, 60) for _ in range(2))
    async with open_verified_redis(redis_server.url, keys) as redis:
        await append(Log(redis, keys, witness=wrote), made, ["a"])
        await Log(redis, keys, witness=read).read(made.id, 0)
    held = [entry for witness in (wrote, read) for entry in witness.beyond({made.id: 1}).held]
    assert [entry.epoch for entry in held] == [1, 1]


async def test_a_redis_that_is_emptied_within_a_restoration_is_not_opened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states that were back are gone once more: they would be recovered alone, from less."""
    [collection] = [one async for one in world.catalog.collections.all()]
    await append(world.log, collection, ["a"])
    await world.lose()
    restore = Images.restore_rows

    async def lose_again(images: Images, image: CatalogImage, epoch: int) -> None:
        await world.lose()
        await restore(images, image, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(Images, "restore_rows", lose_again)
        with pytest.raises(Unavailable):
            await world.reconciler().run()
    assert await world.catalog.mark.read() is None
    await world.reconciler().run()
    assert [one.id async for one in world.catalog.collections.all()] == [collection.id]


async def test_a_redis_that_is_emptied_while_it_is_brought_forward_is_not_opened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    [collection] = [one async for one in world.catalog.collections.all()]
    await append(world.log, collection, ["a"])
    await world.snapshot()
    await world.redis.hset(world.keys.state(collection.id), "head", 1)
    await world.catalog.mark.mark_verified("an earlier run", 0)
    opened = world.catalog.mark.open

    async def lose_again(*args: Any) -> Cluster:
        await world.lose()
        return await opened(*args)

    with monkeypatch.context() as patched:
        patched.setattr(world.catalog.mark, "open", lose_again)
        with pytest.raises(Unavailable):
            await world.reconciler().run()
    assert await world.catalog.mark.read() is None


async def test_a_log_service_of_an_earlier_epoch_verifies_and_raises_nothing_and_overwrites_no_report(
    world: World,
) -> None:
    earlier = await world.cluster()
    token = await world.catalog.mark.begin()
    await world.restore()
    report, mark = await world.catalog.mark.read_report(), world.catalog.mark
    with pytest.raises(Unavailable):
        await mark.mark_verified("a run", earlier.epoch)
    with pytest.raises(Unavailable):
        await mark.owe_raise(earlier.epoch)
    with pytest.raises(Unavailable):
        await mark.mark_raised("a run", earlier.epoch)
    with pytest.raises(Unavailable):
        await mark.write_report(b"{}", token)
    with pytest.raises(Unavailable):
        await mark.amend_report(b"{}", b"an earlier report")
    assert await mark.read_report() == report
    assert (await mark.server_run()).verified
    assert (await mark.owed_raises()).owed == 0
