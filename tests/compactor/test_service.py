"""The process around the compactor: jobs, leases, errors, stopping."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol, cast

import pytest

from compactor.cancellation import CancellationToken
from compactor.checkpoints import Checkpoints, Pause, Step, parse_pause
from compactor.compaction import Compactor, Ending
from compactor.config import CompactorConfig
from compactor.functions import FunctionRunner
from compactor.metering import JobMetering
from compactor.service import CompactorService, open_service
from shared.catalog.damage import DamageReporter, Damages
from shared.catalog.erased_segments import ErasedSegments
from shared.cluster.membership import Membership
from shared.errors import Corrupt, Unavailable
from shared.log.jobs import Jobs
from shared.process.clock import Clock, SystemClock
from shared.process.config import ConfigError, read
from shared.records.model import Op
from shared.segment.cache import SegmentCache
from shared.tenancy.erasure_marks import ErasureMarks
from shared.tenancy.usage_table import UsageTable
from tests.compactor.conftest import Shop
from tests.compactor.steps import WaitsAt, row
from tests.redis_server import RedisServer

FULL_DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def environment(shop: Shop, **more: str) -> dict[str, str]:
    return {
        "REDIS_URL": shop.url,
        "POLYCHROME_REDIS_PREFIX": shop.keys.prefix,
        "POLYCHROME_BUCKET_URL": f"file://{shop.folder}/bucket",
        "POLYCHROME_COMPACTOR_SCRATCH_DIR": str(shop.folder / "scratch"),
        "POLYCHROME_COMPACTOR_POLL_S": "0.02",
        **more,
    }


@pytest.fixture
async def jobs(shop: Shop, valkey_server: RedisServer) -> Jobs:
    shop.url = valkey_server.url
    return Jobs(shop.redis, shop.keys)


class Compacting(Protocol):
    """What a service asks of its compactor."""

    async def compact(self, collection: str, shard: int, token: CancellationToken | None = None) -> Ending: ...


class NoFunctions:
    async def follow(self, collection: str) -> None:
        pass


def service_of(
    shop: Shop, jobs: Jobs, compactor: Compacting, clock: Clock | None = None, **more: str
) -> CompactorService:
    clock = clock or SystemClock()
    config = read(CompactorConfig, environment(shop, POLYCHROME_PROCESS_ID="me", **more))
    membership = Membership(shop.redis, shop.keys, "compactor")
    parts = cast(Compactor, compactor), shop.rebuilder(), cast(FunctionRunner, NoFunctions())
    cache = SegmentCache(shop.objects, shop.folder / "erased", 1 << 30)
    erased = ErasedSegments(ErasureMarks(shop.redis, shop.keys), cache, "me", clock)
    damage = DamageReporter(Damages(shop.redis, shop.keys), "me", clock)
    metering = JobMetering(UsageTable(shop.redis, shop.keys), clock, "me")
    return CompactorService(jobs, *parts, Checkpoints(clock), clock, config, membership, damage, metering, erased)


async def test_a_queued_shard_is_compacted_and_its_lease_given_back(shop: Shop, jobs: Jobs) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(30)})
    await jobs.put(shop.collection.id, 0, 1.0)
    async with open_service(read(CompactorConfig, environment(shop))) as service:
        assert service.ready()
        assert await service.run_once("me")
        assert not await service.run_once("me")
    assert await jobs.counts() == (0, 0)
    assert await shop.records() == shop.model


async def test_a_job_goes_on_until_the_log_as_it_was_is_compacted(
    shop: Shop, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compactor.apply_log.PAGE_BYTES", 1)
    for number in range(4):
        await shop.write(Op.ADD, {f"id{number}": row(random.Random(number))})
    await jobs.put(shop.collection.id, 0, 1.0)
    async with open_service(read(CompactorConfig, environment(shop, POLYCHROME_COMPACTOR_FOLD_BYTES="1"))) as service:
        await service.run_once("me")
    assert (await shop.published()).version == 4
    assert await shop.records() == shop.model


async def test_a_shard_that_is_written_faster_than_it_is_compacted_does_not_keep_the_others_waiting(
    shop: Shop, jobs: Jobs
) -> None:
    done: list[int] = []

    class Endless:
        """Shard 0 never comes to its end."""

        async def compact(self, collection: str, shard: int, token: CancellationToken | None = None) -> Ending:
            await asyncio.sleep(0)
            done.append(shard)
            if len(done) == 3:
                await jobs.put(shop.collection.id, 1, 0.1)
            return Ending.PARTIAL if shard == 0 else Ending.PUBLISHED

    await jobs.put(shop.collection.id, 0, 100.0)
    service = service_of(shop, jobs, Endless())
    async with asyncio.timeout(10):
        assert await service.run_once("me")
        assert await service.run_once("me")
    assert done == [0, 0, 0, 1]
    assert await jobs.counts() == (0, 0)


async def test_a_lease_is_kept_while_the_work_takes_longer_than_it(shop: Shop, jobs: Jobs) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    await jobs.put(shop.collection.id, 0, 1.0)
    wait = WaitsAt(Step.UPLOADED)
    service = service_of(shop, jobs, shop.compactor(wait), POLYCHROME_COMPACTOR_LEASE_S="1")
    job = asyncio.create_task(service.run_once("me"))
    await wait.there.wait()
    await asyncio.sleep(1.5)
    assert not await jobs.put(shop.collection.id, 0, 1.0)
    assert await jobs.claim("another", 1) is None
    wait.go.set()
    assert await job
    assert (await shop.published()).version == 1


async def test_a_lost_lease_ends_the_job(shop: Shop, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    await jobs.put(shop.collection.id, 0, 1.0)
    wait = WaitsAt(Step.APPLIED)
    service = service_of(shop, jobs, shop.compactor(wait), POLYCHROME_COMPACTOR_LEASE_S="1")
    job = asyncio.create_task(service.run_once("me"))
    await wait.there.wait()
    lost = asyncio.Event()
    real = jobs.renew

    async def renew(*args: Any) -> bool:
        kept = await real(*args)
        lost.set()
        return kept

    monkeypatch.setattr(jobs, "renew", renew)
    await shop.redis.delete(shop.keys.job_leases)
    await lost.wait()
    wait.go.set()
    assert await job
    assert await shop.manifest() is None


@pytest.mark.parametrize("error", [Corrupt("bad"), KeyError("a defect")])
async def test_shards_that_always_fail_do_not_outrank_the_others_for_ever(
    shop: Shop, jobs: Jobs, error: Exception
) -> None:
    """What cannot be compacted grows old, and the log service queues the old first, again and again."""
    done: list[int] = []

    class Failing:
        async def compact(self, collection: str, shard: int, token: CancellationToken | None = None) -> Ending:
            done.append(shard)
            if shard < 2:
                raise error
            return Ending.PUBLISHED

    class Hurried(SystemClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0)

    service = service_of(shop, jobs, Failing(), clock=Hurried())
    for _ in range(4):
        for shard, priority in ((0, 100.0), (1, 100.0), (2, 1.0)):
            await jobs.put(shop.collection.id, shard, priority)
        await service.run_once("me")
    assert 2 in done


@pytest.mark.parametrize("error", [Corrupt("bad"), Unavailable("away"), FULL_DISK, KeyError("a defect")])
async def test_a_shard_that_fails_does_not_stop_the_others(shop: Shop, jobs: Jobs, error: Exception) -> None:
    done: list[int] = []

    class Failing:
        async def compact(self, collection: str, shard: int, token: CancellationToken | None = None) -> Ending:
            if shard == 0:
                raise error
            done.append(shard)
            return Ending.PUBLISHED

    class Hurried(SystemClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0)

    for shard in (0, 1):
        await jobs.put(shop.collection.id, shard, 2.0 - shard)
    service = service_of(shop, jobs, Failing(), clock=Hurried())
    assert await service.run_once("me")
    assert await service.run_once("me")
    assert done == [1]
    assert await jobs.counts() == (0, 0 if isinstance(error, Unavailable | OSError) else 1)


async def test_draining_finishes_the_job_at_hand_and_takes_no_other(shop: Shop, jobs: Jobs) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.UPLOADED)
    service = service_of(shop, jobs, shop.compactor(wait))
    announcing, *_, loop = service.loops
    heard = asyncio.create_task(announcing())
    membership = Membership(shop.redis, shop.keys, "compactor")
    while not await membership.members():  # noqa: ASYNC110 (the other side is a server)
        await asyncio.sleep(0.01)
    working = asyncio.create_task(loop())
    await jobs.put(shop.collection.id, 0, 1.0)
    await wait.there.wait()
    draining = asyncio.create_task(service.drain())
    await asyncio.sleep(0)
    assert not service.ready()
    assert not draining.done()
    await jobs.put(shop.collection.id, 1, 1.0)
    wait.go.set()
    await draining
    assert (await shop.published()).version == 1
    assert await jobs.counts() == (1, 0)
    assert await membership.members() == []
    for task in (working, heard):
        task.cancel()
    await asyncio.gather(working, heard, return_exceptions=True)


async def test_scratch_space_belongs_to_one_process(shop: Shop, jobs: Jobs) -> None:
    config = read(CompactorConfig, environment(shop))
    async with open_service(config):
        with pytest.raises(Unavailable, match="another process"):
            async with open_service(config):
                pass
    (shop.folder / "scratch" / "building" / "left").mkdir()
    async with open_service(config):
        assert list((shop.folder / "scratch" / "building").iterdir()) == []


def test_the_pause_names_a_step() -> None:
    assert parse_pause("") is None
    assert parse_pause("uploaded:2.5") == Pause(Step.UPLOADED, 2.5)
    for text in ("nowhere:1", "uploaded", "uploaded:x"):
        with pytest.raises(ValueError, match=r".+"):
            parse_pause(text)


def test_a_wrong_setting_is_refused() -> None:
    base = {"REDIS_URL": "redis://127.0.0.1/0", "POLYCHROME_BUCKET_URL": "memory://"}
    for name, value in (("LEASE_S", "0.1"), ("THREADS", "0"), ("PAUSE_AT", "x:1"), ("NO_SUCH", "1")):
        with pytest.raises(ConfigError):
            read(CompactorConfig, base | {f"POLYCHROME_COMPACTOR_{name}": value})


@pytest.mark.parametrize("step", list(Step))
async def test_a_real_process_killed_at_any_step_leaves_nothing_that_its_successor_cannot_finish(
    shop: Shop, jobs: Jobs, step: Step
) -> None:
    for number in range(3):
        await shop.write(Op.UPSERT, {f"id{n}": row(random.Random(n + number)) for n in range(number, 30)})
    await jobs.put(shop.collection.id, 0, 1.0)
    more = {"POLYCHROME_COMPACTOR_PAUSE_AT": f"{step}:600", "POLYCHROME_LOG_LEVEL": "debug"}
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "compactor", env={**os.environ, **environment(shop, **more)},
        cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert victim.stderr is not None
    try:
        async for line in victim.stderr:
            if b'"step"' in line and f'"{step}"'.encode() in line:
                break
        else:
            pytest.fail("the compactor ended before the step")
    finally:
        victim.send_signal(signal.SIGKILL)
        await victim.communicate()
    async with open_service(read(CompactorConfig, environment(shop))) as service:
        await shop.redis.delete(shop.keys.job_leases)  # as if the lease had expired
        await jobs.put(shop.collection.id, 0, 1.0)
        assert await service.run_once("me")
    assert (await shop.published()).version == 1
    assert await shop.records() == shop.model


async def test_however_often_opening_is_tried_the_process_gives_way_only_so_much(
    shop: Shop, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    niceness = [1]

    def nice(more: int) -> int:
        niceness.append(niceness[-1] + more)
        return niceness[-1]

    monkeypatch.setattr(os, "nice", nice)
    config = read(CompactorConfig, environment(shop, POLYCHROME_COMPACTOR_NICE="4"))
    for _ in range(3):
        async with open_service(config):
            assert niceness[-1] == 4
