"""Nobody but the log service gets in before a server that restarted was compared with the bucket (promises 1, 5)."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from logservice.restoring.evidence import Evidence
from shared.catalog import Catalog
from shared.errors import Unavailable
from shared.log.log import Log
from shared.manifest.commits import CommitNumbers
from shared.manifest.store import ManifestStore
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact, publish
from tests.logservice.restoring.test_rollback import Rolling, rolling, valkey
from tests.shared.log.appending import append, everything, make_collection

__all__ = ["rolling", "valkey"]


@pytest.fixture
async def fenced(rolling: Rolling, keys: Keys) -> AsyncIterator[Redis]:
    """Another process's client, of a cluster that was founded."""
    await rolling.reconcile()
    async with open_verified_redis(rolling.server.url, keys) as redis:
        yield redis


def impatient(redis: Redis, keys: Keys) -> Log:
    return Log(redis, keys, append_deadline_s=0.3)


async def test_a_server_that_was_never_verified_is_as_if_it_was_away(keys: Keys, rolling: Rolling) -> None:
    with pytest.raises(Unavailable, match="not compared"):
        async with open_verified_redis(rolling.server.url, keys):
            pass
    await rolling.reconcile()
    async with open_verified_redis(rolling.server.url, keys) as redis:
        assert await Catalog(redis, keys).tenants.get("default_tenant") is not None


async def test_after_a_restart_nothing_is_appended_or_read_until_it_was_verified(
    fenced: Redis, keys: Keys, rolling: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.catalog.reading.CATALOG_READ_S", 0.3)
    made = await make_collection(rolling.catalog, await rolling.database())
    log, catalog = impatient(fenced, keys), Catalog(fenced, keys)
    await append(log, made, ["a"])  # the small scripts' connection and the pool's are open
    assert await catalog.tenants.get("default_tenant") is not None
    await asyncio.to_thread(rolling.server.restart)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await append(log, made, ["b"])
        with pytest.raises(Unavailable):
            await log.read(made.id, 0, bytes_max=1)
        with pytest.raises(Unavailable):
            await catalog.tenants.get("default_tenant")
    assert (await rolling.log.read(made.id, 0)).state.head == 2
    await rolling.reconcile()
    assert len(await everything(log, made)) == 1
    await append(log, made, ["b"])
    assert len(await everything(log, made)) == 2


async def test_a_server_that_restarts_while_it_is_verified_is_not_verified(
    fenced: Redis, keys: Keys, rolling: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(rolling.server.restart)
    mark = rolling.catalog.mark.mark_verified

    async def too_late(run: str, epoch: int) -> None:
        await asyncio.to_thread(rolling.server.restart)
        await mark(run, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(rolling.catalog.mark, "mark_verified", too_late)
        await rolling.reconcile()
    with pytest.raises(Unavailable):
        await Catalog(fenced, keys).tenants.get("default_tenant")
    await rolling.reconcile()
    assert await Catalog(fenced, keys).tenants.get("default_tenant") is not None


async def test_positions_that_nothing_else_knows_of_are_not_handed_out_again(rolling: Rolling) -> None:
    """Neither the bucket nor a snapshot shows that Redis went back."""
    await rolling.reconcile()
    made = await make_collection(rolling.catalog, await rolling.database())
    await append(rolling.log, made, ["a"])
    await rolling.snapshot()
    shutil.copytree(rolling.server.directory, rolling.copy)  # it writes nothing that it has not fsynced
    lost = await append(rolling.log, made, [str(i) for i in range(9)])
    await rolling.go_back()
    await rolling.reconcile()
    assert (await append(rolling.log, made, ["x"])).first >= lost.head
    assert await rolling.missing() == set()


async def test_a_compaction_of_writes_that_redis_lost_meanwhile_is_not_committed(rolling: Rolling) -> None:
    """Its manifest is created after Redis was verified, so no comparison can have seen it."""
    await rolling.reconcile()
    made = await make_collection(rolling.catalog, await rolling.database())
    await rolling.remember()
    await rolling.reconcile()
    covers = (await append(rolling.log, made, [str(i) for i in range(9)])).head
    begun = (await rolling.log.read(made.id, 0)).state
    await rolling.go_back()
    await rolling.reconcile()
    after = await append(rolling.log, made, [f"new {i}" for i in range(20)])
    pointer = await publish(rolling.objects, made.id, 0, covers, None)
    assert after.first >= pointer.covers
    assert not await rolling.log.commit(made.id, 0, None, pointer, begun.epoch)
    assert (await rolling.log.read(made.id, 0)).state.pointer is None


async def test_a_lost_commit_shows_that_redis_went_back(rolling: Rolling) -> None:
    await rolling.reconcile()
    made = await make_collection(rolling.catalog, await rolling.database())
    await append(rolling.log, made, ["a"])
    await rolling.snapshot()
    await rolling.remember()
    await rolling.reconcile()
    newest = await compact(rolling.log, rolling.objects, made.id)
    await rolling.log.trim(made.id, 0, newest, 0)
    await rolling.go_back()
    await rolling.reconcile()
    assert (await rolling.log.read(made.id, 0)).state.pointer == newest
    assert await rolling.missing() == {made.id}
    await asyncio.to_thread(rolling.server.restart)
    assert await CommitNumbers(rolling.objects).newest() <= await rolling.log.commits()


async def test_an_ordinary_restart_looks_at_no_shard_in_the_bucket(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rolling.reconcile()
    for number in range(5):
        made = await make_collection(rolling.catalog, await rolling.database(), f"c{number}")
        await append(rolling.log, made, ["a"])
        await compact(rolling.log, rolling.objects, made.id)
    await asyncio.to_thread(rolling.server.restart)

    async def looked(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Evidence, "stored", looked)
    monkeypatch.setattr(ManifestStore, "find", looked)
    await rolling.reconcile()
    assert await rolling.missing() == set()
    image = await rolling.snapshots.newest()
    assert image is not None
    heads = {one.id: one.head for one in image.collections}
    for one in await rolling.catalog.collections.of_database(await rolling.database()):
        assert heads[one.id] == one.head, "a loss right after must begin from the raised heads"


async def test_only_the_newest_number_of_a_commit_is_kept(rolling: Rolling) -> None:
    numbers = CommitNumbers(rolling.objects)
    assert await numbers.newest() == 0
    for number in (9, 10, 11):
        await numbers.leave(number)
    assert await numbers.tidy() == 2
    assert await numbers.newest() == 11
    await rolling.objects.put(f"commits/{uuid.uuid4().hex}", b"x")
    assert await numbers.newest() == 11
