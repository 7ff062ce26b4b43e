"""A Redis that came back from an older copy of itself: what shows it, what is done about positions (promise 5)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from logservice.catalog.snapshots import NewestSnapshot, Snapshots
from logservice.restoring.reconcile import Reconciler
from shared import limits
from shared.catalog import Catalog, Collection, Database
from shared.catalog.image import Images
from shared.errors import Unavailable
from shared.log.log import Log
from shared.log.naming import state_name
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, make_collection


@dataclass
class Rolling:
    """A cluster whose Redis can be set back."""

    server: RedisServer
    catalog: Catalog
    images: Images
    log: Log
    objects: ObjectStore
    snapshots: Snapshots
    copy: Path

    async def reconcile(self) -> None:
        await Reconciler(self.catalog, self.images, self.log, self.objects, self.snapshots, SystemClock()).run()

    async def snapshot(self) -> None:
        cluster = await self.catalog.mark.read()
        assert cluster is not None
        number = await self.snapshots.next_number()
        assert await self.snapshots.write(await self.images.take(cluster), number)

    async def remember(self) -> None:
        await asyncio.to_thread(self.server.kill)
        shutil.copytree(self.server.directory, self.copy)
        await asyncio.to_thread(self.server.start)

    async def go_back(self) -> None:
        await asyncio.to_thread(self.server.kill)
        shutil.rmtree(self.server.directory)
        shutil.copytree(self.copy, self.server.directory)
        await asyncio.to_thread(self.server.start)

    async def database(self) -> Database:
        found = await self.catalog.databases.get("default_tenant", "default_database")
        assert found is not None
        return found

    async def missing(self) -> set[str]:
        report = await self.images.read_report()
        return {one["collection"] for one in report["missing"]} if report else set()


@pytest.fixture
async def rolling(valkey: RedisServer, keys: Keys, objects: ObjectStore, tmp_path: Path) -> AsyncIterator[Rolling]:
    async with open_redis(valkey.url) as redis:
        catalog = Catalog(redis, keys)
        images, log = Images(redis, keys, catalog), Log(redis, keys)
        yield Rolling(valkey, catalog, images, log, objects, Snapshots(objects, 10), tmp_path / "copy")


@pytest.fixture
def valkey(own_server: RedisServer) -> RedisServer:
    return own_server


async def _appended(world: Rolling, collection: Collection, count: int) -> int:
    return (await append(world.log, collection, [str(i) for i in range(count)])).head


async def test_positions_that_only_a_snapshot_knows_of_are_not_handed_out_again(rolling: Rolling) -> None:
    """Nothing was compacted since, no row was changed: the heads alone show that Redis went back."""
    await rolling.reconcile()
    made = await make_collection(rolling.catalog, await rolling.database())
    await rolling.remember()
    await _appended(rolling, made, 10)
    await rolling.snapshot()
    later = await _appended(rolling, made, 5)
    await rolling.go_back()
    await rolling.reconcile()
    assert (await append(rolling.log, made, ["x"])).first >= later
    assert await rolling.missing() == {made.id}


async def test_where_one_collection_shows_that_redis_went_back_no_other_one_is_trusted(rolling: Rolling) -> None:
    await rolling.reconcile()
    shown = await make_collection(rolling.catalog, await rolling.database(), "shown")
    silent = await make_collection(rolling.catalog, await rolling.database(), "silent")
    await rolling.snapshot()
    await rolling.remember()
    for _ in range(2):
        await _appended(rolling, shown, 1)
        await compact(rolling.log, rolling.objects, shown.id)
    later = await _appended(rolling, silent, 7)
    await rolling.go_back()
    await rolling.reconcile()
    assert (await append(rolling.log, silent, ["x"])).first >= later
    assert await rolling.missing() == {shown.id, silent.id}


async def test_heads_that_a_rollback_raised_are_in_a_snapshot_before_anything_is_appended(rolling: Rolling) -> None:
    """Otherwise a loss right after would begin from the old heads, and the gap would be handed out twice."""
    await rolling.reconcile()
    made = await make_collection(rolling.catalog, await rolling.database())
    await rolling.remember()
    for _ in range(2):
        await _appended(rolling, made, 1)
        await compact(rolling.log, rolling.objects, made.id)
    await rolling.snapshot()
    await rolling.go_back()
    await rolling.reconcile()
    late = await make_collection(rolling.catalog, await rolling.database(), "late")
    after = await _appended(rolling, made, 10)
    assert late.id != made.id
    await asyncio.to_thread(rolling.server.lose_everything)
    await rolling.reconcile()
    assert (await append(rolling.log, made, ["x"])).first >= after


async def test_a_shard_whose_manifest_cannot_be_read_does_not_keep_the_others_from_being_compared(
    rolling: Rolling,
) -> None:
    await rolling.reconcile()
    broken = await make_collection(rolling.catalog, await rolling.database(), "broken")
    sound = await make_collection(rolling.catalog, await rolling.database(), "sound")
    for one in (broken, sound):
        await append(rolling.log, one, ["a"])
    await rolling.remember()
    await rolling.reconcile()
    pointer = await compact(rolling.log, rolling.objects, sound.id)
    await rolling.objects.put(f"{broken.id}/0/manifests/{1:020d}.json", b"not a manifest")
    await rolling.go_back()
    await rolling.reconcile()
    assert (await rolling.log.read(sound.id, 0)).state.pointer == pointer


async def test_a_restoration_from_a_snapshot_that_is_not_the_newest_any_more_is_given_up(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another log service may have restored and gone on meanwhile; the older catalog must not follow its newer one."""
    await rolling.reconcile()
    await make_collection(rolling.catalog, await rolling.database())
    await rolling.snapshot()
    await asyncio.to_thread(rolling.server.lose_everything)
    newest = rolling.snapshots.newest_readable

    async def overtaken() -> NewestSnapshot | None:
        found = await newest()
        assert found is not None
        assert await rolling.snapshots.write(found.image, await rolling.snapshots.next_number())
        return found

    with monkeypatch.context() as patched:
        patched.setattr(rolling.snapshots, "newest_readable", overtaken)
        with pytest.raises(Unavailable):
            await rolling.reconcile()
    assert await rolling.catalog.mark.read() is None
    await rolling.reconcile()


async def test_what_was_deleted_after_the_snapshot_and_before_the_older_copy_stays_deleted(rolling: Rolling) -> None:
    await rolling.reconcile()
    database = await rolling.database()
    made = await make_collection(rolling.catalog, database)
    await make_collection(rolling.catalog, database, "doomed")
    await rolling.catalog.databases.create("default_tenant", "doomed")
    await rolling.snapshot()
    assert await rolling.catalog.collections.delete(database, "doomed")
    assert await rolling.catalog.databases.delete("default_tenant", "doomed")
    await rolling.remember()
    for _ in range(2):
        await _appended(rolling, made, 1)
        await compact(rolling.log, rolling.objects, made.id)
    await rolling.go_back()
    await rolling.reconcile()
    assert await rolling.missing() == {made.id}
    assert [one.name for one in await rolling.catalog.collections.of_database(database)] == [made.name]
    assert await rolling.catalog.databases.get("default_tenant", "doomed") is None
    image = await rolling.snapshots.newest()
    assert image is not None
    assert [one.id for one in image.collections] == [made.id]


async def test_a_state_that_cannot_be_read_keeps_no_other_collection_from_being_compared(
    rolling: Rolling, keys: Keys
) -> None:
    await rolling.reconcile()
    damaged = await make_collection(rolling.catalog, await rolling.database(), "damaged")
    sound = await make_collection(rolling.catalog, await rolling.database(), "sound")
    before = await _appended(rolling, damaged, 3)
    async with open_redis(rolling.server.url) as redis:
        await redis.hset(keys.state(damaged.id), "m:0", "no pointer")
    await rolling.snapshot()
    await rolling.remember()
    for _ in range(2):
        await _appended(rolling, sound, 1)
        await compact(rolling.log, rolling.objects, sound.id)
    await rolling.go_back()
    await rolling.reconcile()
    assert await rolling.missing() == {sound.id}
    assert (await rolling.log.read(sound.id, 0)).state.pointer is not None
    [found] = [each for each in await rolling.catalog.damages.all() if each.collection == damaged.id]
    assert found.name == state_name(damaged.id)
    image = await rolling.snapshots.newest()
    assert image is not None
    [known] = [each for each in image.collections if each.id == damaged.id]
    assert known.head > before + limits.BACKLOG_OPS_CEILING
    assert (await append(rolling.log, damaged, ["x"])).first >= known.head
