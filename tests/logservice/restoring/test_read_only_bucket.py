"""Redis restarts while the bucket takes no writes: reads and writes go on, and no position is handed out twice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from logservice.restoring.owed_snapshot import OwedSnapshot
from shared import limits
from shared.catalog import Collection
from shared.errors import Unavailable
from shared.objects.port import ObjectStore
from shared.redis.client import open_redis
from shared.redis.keys import Keys
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


@pytest.fixture
async def made(world: JournaledCluster) -> Collection:
    collection = await make_collection(world.catalog, await world.database())
    await world.snapshot()
    return collection


async def restart(server: RedisServer) -> None:
    await asyncio.to_thread(server.restart)


async def test_a_cluster_opens_after_a_restart_and_owes_the_snapshot(
    world: JournaledCluster, server: RedisServer, made: Collection
) -> None:
    before = (await append(world.log, made, ["a"])).head
    world.objects.read_only = True
    await restart(server)
    await world.reconcile()
    assert (await world.catalog.mark.server_run()).verified
    assert (await world.catalog.mark.owed_raises()).owed == 1
    assert (await append(world.log, made, ["b"])).first >= before + limits.BACKLOG_OPS_CEILING
    assert [entry.count for entry in (await world.log.read(made.id, 0)).entries] == [1, 1]

    world.objects.end_faults()
    run = (await world.catalog.mark.server_run()).id
    await world.snapshot()
    await world.catalog.mark.settle_raises(run)
    assert (await world.catalog.mark.owed_raises()).owed == 0


async def test_no_position_is_handed_out_twice_when_redis_is_lost_while_snapshots_are_owed(
    world: JournaledCluster, server: RedisServer, made: Collection
) -> None:
    world.objects.read_only = True
    for _ in range(limits.OWED_RAISES_MAX):
        await restart(server)
        await world.reconcile()
        last = (await append(world.log, made, ["a"])).head
    world.objects.end_faults()
    await asyncio.to_thread(server.lose_everything)
    await world.reconcile()
    assert (await append(world.log, made, ["b"])).first >= last + limits.BACKLOG_OPS_CEILING - limits.OWED_RAISES_MAX


async def test_more_raises_than_a_restoration_allows_for_wait_for_the_bucket(
    world: JournaledCluster, server: RedisServer, made: Collection
) -> None:
    world.objects.read_only = True
    for _ in range(limits.OWED_RAISES_MAX):
        await restart(server)
        await world.reconcile()
    await restart(server)
    head = (await append(world.log, made, ["a"])).head  # this connection asks nobody
    for _ in range(3):
        with pytest.raises(Unavailable):
            await world.reconcile()
    assert not (await world.catalog.mark.server_run()).verified
    assert (await append(world.log, made, ["b"])).first == head, "heads were raised over and over"
    world.objects.end_faults()
    await world.reconcile()
    assert (await world.catalog.mark.owed_raises()).owed == 0


async def test_a_log_service_that_begins_again_raises_heads_once_for_a_run(
    world: JournaledCluster, server: RedisServer, made: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restart(server)

    async def dies(*_: object) -> None:
        raise Unavailable("it dies")

    with monkeypatch.context() as patched:
        patched.setattr(OwedSnapshot, "write", dies)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await world.reconcile()
    await world.reconcile()
    head = (await append(world.log, made, ["a"])).first
    assert limits.BACKLOG_OPS_CEILING <= head < 2 * limits.BACKLOG_OPS_CEILING


async def test_an_empty_redis_is_not_opened_before_the_bucket_takes_its_new_epoch(
    world: JournaledCluster, server: RedisServer, made: Collection
) -> None:
    world.objects.read_only = True
    await asyncio.to_thread(server.lose_everything)
    with pytest.raises(Unavailable):
        await world.reconcile()
    assert await world.catalog.mark.read() is None
    world.objects.end_faults()
    await world.reconcile()
    assert await world.catalog.collections.get_by_id(await world.database(), made.id) is not None


async def test_a_bucket_that_cannot_be_read_keeps_a_restarted_redis_closed(
    world: JournaledCluster, server: RedisServer, made: Collection
) -> None:
    """It may be an older one, and nothing is there to compare it with."""
    world.objects.away = True
    await restart(server)
    with pytest.raises(Unavailable):
        await world.reconcile()
    assert not (await world.catalog.mark.server_run()).verified


async def test_a_process_that_owes_a_snapshot_knows_a_redis_that_went_back_behind_it(
    world: JournaledCluster, server: RedisServer, made: Collection, tmp_path: Path
) -> None:
    """The bucket does not show it: it has no snapshot with the heads that were raised."""
    reconciler = world.reconciler()
    await asyncio.to_thread(server.kill)
    shutil.copytree(server.directory, tmp_path / "copy")
    await asyncio.to_thread(server.start)
    world.objects.read_only = True
    await reconciler.run()
    last = (await append(world.log, made, ["a"])).head
    await asyncio.to_thread(server.kill)
    shutil.rmtree(server.directory)
    shutil.copytree(tmp_path / "copy", server.directory)
    await asyncio.to_thread(server.start)
    with pytest.raises(Unavailable):
        await reconciler.run()  # it went back: not without a new epoch in the bucket
    world.objects.end_faults()
    await reconciler.run()
    assert (await append(world.log, made, ["b"])).first >= last
    report = await world.images.read_report()
    assert report is not None
    assert [missing["collection"] for missing in report["missing"]] == [made.id]
