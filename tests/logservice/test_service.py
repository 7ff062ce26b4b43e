"""Whole log services, several at once, on real servers."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from logservice.catalog.snapshots import Snapshots
from logservice.config import LogserviceConfig
from logservice.loops import every
from logservice.service import LogService, open_service
from shared.catalog import Catalog
from shared.cluster.membership import Membership
from shared.errors import Corrupt, PolychromeError, Unavailable
from shared.log.jobs import Job, Jobs
from shared.log.log import Log
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.process.config import read
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact
from tests.logservice.conftest import SteppedClock
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, eventually, make_collection


def config_of(server: RedisServer, keys: Keys, bucket: Path, name: str) -> LogserviceConfig:
    return read(
        LogserviceConfig,
        {
            "REDIS_URL": server.url,
            "POLYCHROME_REDIS_PREFIX": keys.prefix,
            "POLYCHROME_BUCKET_URL": f"file://{bucket}",
            "POLYCHROME_PROCESS_ID": name,
            "POLYCHROME_LOGSERVICE_LEASE_S": "1",
            "POLYCHROME_LOGSERVICE_TICK_S": "0.02",
            "POLYCHROME_LOGSERVICE_COMPACT_QUIET_S": "0.05",
            "POLYCHROME_LOGSERVICE_SNAPSHOT_S": "0.02",
        },
    )


@asynccontextmanager
async def running(config: LogserviceConfig) -> AsyncIterator[LogService]:
    """The service with its loops; leaving cancels them without a drain, like a death."""
    async with open_service(config) as service:
        tasks = [asyncio.create_task(loop()) for loop in service.loops]
        try:
            yield service
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def ready(service: LogService) -> None:
    async def check() -> bool:
        return service.ready()

    await eventually(check)


async def test_one_leads_the_other_stands_by_and_takes_over_at_once_after_a_drain(
    redis_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    configs = [config_of(redis_server, keys, tmp_path / "bucket", name) for name in ("one", "two")]
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(redis_server.url))
        first = await stack.enter_async_context(running(configs[0]))
        await ready(first)
        second = await stack.enter_async_context(running(configs[1]))
        await ready(second)
        assert await redis.get(keys.lease("logservice")) == b"one"
        members = await Membership(redis, keys, "logservice").members()
        assert {member.id for member in members} == {"one", "two"}
        await first.drain()
        assert not first.ready()

        async def taken_over() -> bool:
            return bool(await redis.get(keys.lease("logservice")) == b"two")

        await eventually(taken_over)
        await ready(second)


async def test_a_standby_takes_over_from_a_dead_leader(redis_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    configs = [config_of(redis_server, keys, tmp_path / "bucket", name) for name in ("one", "two")]
    async with open_redis(redis_server.url) as redis, running(configs[1]) as second:
        await ready(second)
        await second.drain()
        await redis.set(keys.lease("logservice"), "dead", px=300)
        async with running(configs[0]) as first:
            await ready(first)

            async def leads() -> bool:
                return bool(await redis.get(keys.lease("logservice")) == b"one")

            await eventually(leads)
            await ready(first)


async def test_a_write_becomes_a_job_and_a_commit_a_trimmed_stream(
    redis_server: RedisServer, keys: Keys, tmp_path: Path, objects: ObjectStore
) -> None:
    config = config_of(redis_server, keys, tmp_path / "bucket", "one")
    async with open_redis(redis_server.url) as redis, running(config) as service:
        await ready(service)
        catalog, log, jobs = Catalog(redis, keys), Log(redis, keys), Jobs(redis, keys)
        database = await catalog.databases.get("default_tenant", "default_database")
        assert database is not None
        made = await make_collection(catalog, database)
        await append(log, made, ["a"])
        await jobs.mark_dirty([(made.id, 0)])
        claimed: list[Job] = []

        async def claim() -> bool:
            claimed.extend(job for job in [await jobs.claim("h", 30)] if job)
            return bool(claimed)

        await eventually(claim)
        assert claimed == [Job(made.id, 0)]
        await compact(log, objects, made.id)

        async def trimmed() -> bool:
            return not (await log.read(made.id, 0)).entries

        await eventually(trimmed)
        await jobs.finish(claimed[0], "h")


async def test_a_redis_that_lost_everything_is_restored_without_a_restart(
    own_server: RedisServer, keys: Keys, tmp_path: Path, objects: ObjectStore
) -> None:
    config = config_of(own_server, keys, tmp_path / "bucket", "one")
    async with open_redis(own_server.url) as redis, running(config) as service:
        await ready(service)
        catalog, log = Catalog(redis, keys), Log(redis, keys)
        database = await catalog.databases.get("default_tenant", "default_database")
        assert database is not None
        made = await make_collection(catalog, database)
        first = await append(log, made, ["a"])

        async def in_the_bucket() -> bool:
            newest = await Snapshots(objects, keep=1).newest()
            return newest is not None and [collection.id for collection in newest.collections] == [made.id]

        await eventually(in_the_bucket)
        await asyncio.to_thread(own_server.lose_everything)

        async def restored() -> bool:
            try:
                again = await append(log, made, ["b"])
            except PolychromeError:
                return False
            return again.first >= first.head

        await eventually(restored)


class Defect(Exception):
    pass


class StubLease:
    """Is acquired at once, and fails in keeping it in a way that no one has foreseen."""

    def __init__(self, renewed: Exception | None) -> None:
        self.renewed = renewed

    async def acquire(self) -> bool:
        return True

    async def renew(self) -> bool:
        if self.renewed is not None:
            raise self.renewed
        return True


class StubLeader:
    reconciled = True

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def run(self) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


@pytest.mark.parametrize(("work", "renewed"), [(Defect(), None), (None, Defect())])
async def test_a_defect_in_the_work_or_in_keeping_the_lease_takes_the_process_down(
    redis_server: RedisServer, keys: Keys, tmp_path: Path, work: Exception | None, renewed: Exception | None
) -> None:
    stubs: tuple[Any, Any, Any] = (StubLeader(work), StubLease(renewed), None)
    config = dataclasses.replace(config_of(redis_server, keys, tmp_path, "one"), lease_s=0.03)
    service = LogService(*stubs, SystemClock(), config)
    serve, _ = service.loops
    with pytest.raises(Defect):
        await asyncio.wait_for(serve(), 5)


async def test_a_step_is_repeated_whatever_is_away_or_corrupt(clock: SteppedClock) -> None:
    outcomes: list[Exception | None] = [None, Unavailable("away"), Corrupt("bad"), None]
    seen: list[float] = []

    class Enough(Exception):
        pass

    async def step() -> None:
        seen.append(clock.time_s)
        if len(seen) > len(outcomes):
            raise Enough
        outcome = outcomes[len(seen) - 1]
        if outcome:
            raise outcome

    with pytest.raises(Enough):
        await every("test", 0.1, step, clock)
    pauses = [after - before for before, after in pairwise(seen)]
    assert pauses == pytest.approx([0.1, 1.0, 1.0, 0.1])
