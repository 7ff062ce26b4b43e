"""Values of the cluster's mark, its report and its counters in Redis that cannot be read any more stop nothing for
long, and lose nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from logservice.leader import Leader
from polychrome.loss_report import decode_report, json_of
from shared.errors import Corrupt, Garbled
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from tests.logservice.restoring.test_epoch import World, world
from tests.logservice.restoring.test_garbled_catalog import TENANT, is_served_elsewhere, make
from tests.logservice.restoring.test_lost_alone import recover_lost
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, everything

__all__ = ["world"]


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


class _DamagedOnce:
    """A reconciler that finds stored data damaged, and then fails in a way that ends the test."""

    def __init__(self) -> None:
        self.errors: list[Exception] = [Corrupt("bad", "thing"), LookupError("the leader went on")]

    async def run(self) -> None:
        raise self.errors.pop(0)


class _NoPause(SystemClock):
    async def sleep(self, seconds: float) -> None:
        del seconds


async def test_damage_that_a_restoration_meets_does_not_end_the_leaders_work() -> None:
    stubs: Any = (_DamagedOnce(), None, None, None, _NoPause(), _Config())
    with pytest.raises(LookupError):
        await Leader(*stubs).run()


class _Config:
    periods = None


@pytest.mark.parametrize("field", ["id", "epoch", "format"])
@pytest.mark.parametrize("value", [None, b"\xff"])
async def test_a_mark_that_cannot_be_read_is_mended_from_the_bucket_and_no_log_is_lost(
    world: World, field: str, value: bytes | None
) -> None:
    [collection] = [one async for one in world.catalog.collections.all()]
    await append(world.log, collection, ["a", "b"])
    before = await world.cluster()
    key = world.keys.cluster
    await (world.redis.hdel(key, field) if value is None else world.redis.hset(key, field, value))
    with pytest.raises(Garbled):
        await world.catalog.mark.require()
    assert not await world.reconciler().reconciled(before)
    after = await world.reconciler().run()
    assert (after.id, after.epoch) == (before.id, before.epoch + 1)
    assert await world.reconciler().reconciled(after)
    assert list((await everything(world.log, collection)).values()) == ["a", "b"]
    assert not await world.catalog.mark.is_doubted()


async def test_counts_and_runs_in_the_mark_that_cannot_be_read_stop_nothing(world: World) -> None:
    for field in ("owed", "raised", "verified"):
        await world.redis.hset(world.keys.cluster, field, b"\xff")
    before = await world.cluster()
    assert not await world.reconciler().reconciled(before)
    assert await world.reconciler().run() == before
    assert await world.reconciler().reconciled(before)


async def test_a_report_that_cannot_be_read_keeps_nothing_from_being_restored(world: World) -> None:
    made = await make(world)
    await world.redis.set(world.keys.report, b"\xff{")
    assert json_of(decode_report(b"\xff{"), [])["unread"]
    assert await world.images.read_report() is None
    await world.redis.hdel(world.keys.tenants, TENANT)
    await recover_lost(world, sweep=True)
    assert await made.read() is not None
    report = await world.images.read_report()
    assert report is not None
    assert report["restored_rows"]


async def test_the_number_of_commits_that_cannot_be_read_stops_no_commit_and_looks_as_if_redis_had_gone_back(
    world: World,
) -> None:
    assert await world.log.draw_commit() == 1
    await world.redis.set(world.keys.commits, b"\xff")
    assert await world.log.commits() == 0
    assert await world.log.draw_commit() == 1
    await world.redis.set(world.keys.commits, b"\xff")
    await world.log.raise_commits(7)
    assert await world.log.draw_commit() == 8


async def test_members_of_sets_that_are_no_text_are_passed_over(world: World) -> None:
    made = await make(world)
    keys = world.keys
    trashes = (keys.tenant_trash, keys.cleared_tenants, keys.database_trash(TENANT), keys.trash(made.database.key))
    for each in (*trashes, keys.families, keys.losses):
        await world.redis.sadd(each, b"\xff")
    await world.redis.zadd(keys.graves, {b"\xff": 1.0})
    await is_served_elsewhere(world)
    await recover_lost(world)
    assert await world.redis.exists(keys.losses) == 0
    assert (await world.images.take(await world.cluster())).families == {}
