"""The compactor's process: claims jobs, keeps their leases, compacts."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter, Gauge

from compactor.cancellation import Abandoned, CancellationToken
from compactor.checkpoints import Checkpoints, Step
from compactor.compaction import Compactor, Ending, ResourceLimits
from compactor.config import CompactorConfig
from compactor.functions import FunctionRunner
from compactor.metering import JobMetering
from compactor.rebuild import Rebuilder
from shared.catalog import Catalog
from shared.catalog.damage import DamageReporter, Damages
from shared.catalog.erased_segments import ErasedSegments
from shared.catalog.functions import Functions
from shared.cluster.membership import Member, Membership
from shared.errors import Corrupt, Gone, PolychromeError, Unavailable
from shared.log.jobs import FUNCTION, REBUILD, Job, Jobs
from shared.log.log import Log
from shared.log.outputs import Outputs
from shared.log.rebuild import Rebuilds
from shared.objects.open import open_store, verify_conditional_create
from shared.process.clock import Clock, SystemClock
from shared.process.disk import full_disk, is_full
from shared.process.telemetry import get_logger
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from shared.segment.cache import SegmentCache
from shared.tenancy.erasure_marks import ErasureMarks
from shared.tenancy.usage_table import UsageTable

log = get_logger(__name__)

FAILURES: Final = Counter(
    "polychrome_compactor_failures_total", "Jobs that ended in an error, by its class.", ["error"]
)
RUNNING: Final = Gauge("polychrome_compactor_running", "Jobs at work now.")

PAUSE_AFTER_FAILURE_S: Final = 1.0
"""Pause, in seconds, after the job queue or something that a job needs was away."""

COMPACTION_STOPPED: Final = "the shard is not compacted, and its log is kept"

RENEWALS_PER_LEASE: Final = 3
"""Times that a lease is renewed, and this process announced, before either expires."""

MEMBER_TTL_S: Final = 15.0
"""Seconds after which a compactor that says nothing is listed no more."""


class CompactorService:
    """The running compactor: loops that claim jobs and do them, one at a time each."""

    def __init__(
        self,
        jobs: Jobs,
        compactor: Compactor,
        rebuilder: Rebuilder,
        functions: FunctionRunner,
        checkpoints: Checkpoints,
        clock: Clock,
        config: CompactorConfig,
        membership: Membership,
        damage: DamageReporter,
        metering: JobMetering,
        erased: ErasedSegments,
    ) -> None:
        self._metering = metering
        self._erased = erased
        self._jobs = jobs
        self._compactor = compactor
        self._rebuilder = rebuilder
        self._functions = functions
        self._checkpoints = checkpoints
        self._clock = clock
        self._config = config
        self._membership = membership
        self._damage = damage
        self._damaged: dict[Job, str] = {}
        """The names of what jobs have found damaged."""
        self._stopping = False
        self._idle = asyncio.Condition()
        self._running = 0

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        own = (self._announce, self._damage.run, self._metering.run, self._erased.run)
        return [*own, *[self._work] * self._config.concurrency]

    def ready(self) -> bool:
        return not self._stopping

    async def drain(self) -> None:
        """Claims no new jobs; returns when those that were claimed are done."""
        self._stopping = True
        async with self._idle:
            await self._idle.wait_for(lambda: not self._running)
        await self._metering.close()
        try:
            await self._membership.leave(self._config.process_id)
        except Unavailable as error:
            log.warning("member_not_removed", error=error.message)

    async def _announce(self) -> None:
        """Lists this process for the operators of the cluster; no work depends on it."""
        member = Member(self._config.process_id, socket.gethostname())
        while True:
            if not self._stopping:
                try:
                    await self._membership.announce(member, MEMBER_TTL_S)
                except Unavailable as error:
                    log.warning("not_announced", error=error.message)
            await self._clock.sleep(MEMBER_TTL_S / RENEWALS_PER_LEASE)

    async def _work(self) -> None:
        holder = f"{self._config.process_id}/{uuid.uuid4().hex[:8]}"
        while True:
            pause_s = self._config.poll_s
            if not self._stopping:
                try:
                    if await self.run_once(holder):
                        continue
                except Unavailable as error:
                    log.warning("log_unavailable", error=error.message)
                    pause_s = PAUSE_AFTER_FAILURE_S
            await self._clock.sleep(pause_s)

    async def run_once(self, holder: str) -> bool:
        """Claims a job and does it; False when there was none. Raises Unavailable when the queue is away."""
        self._running += 1
        RUNNING.inc()
        try:
            job = await self._jobs.claim(holder, self._config.lease_s)
            if job is None:
                return False
            began_s = self._clock.monotonic()
            finished = await self._do(job, holder)
            self._metering.count(job.collection_id, self._clock.monotonic() - began_s)
            if finished:
                await self._jobs.finish(job, holder)
            return True
        finally:
            RUNNING.dec()
            async with self._idle:
                self._running -= 1
                self._idle.notify_all()

    async def _do(self, job: Job, holder: str) -> bool:
        """Does a job, while its lease is renewed. Errors end the job, not the process: what is still to do is queued
        again by the log service, and one broken shard must not stop the others. Returns whether to give the lease back:
        a shard that would fail again rests until the lease expires, for by its age it goes before all others.
        """
        token = CancellationToken()
        renewal = asyncio.create_task(self._keep(job, holder, token))
        where = {"collection": job.collection_id, "shard": job.shard}
        try:
            await self._checkpoints.reached(Step.CLAIMED, job.collection_id, job.shard)
            if job.shard == REBUILD:
                await self._rebuilder.step(job.collection_id)
            elif job.shard == FUNCTION:
                await self._functions.run(job.collection_id)
            else:
                await self._compact(job, token)
            if (name := self._damaged.pop(job, None)) is not None:
                self._damage.whole(name)
        except Gone:
            log.info("collection_deleted", **where)
        except Abandoned:
            log.warning("lease_lost", **where)
        except Unavailable as error:
            FAILURES.labels(type(error).__name__).inc()
            log.warning("unavailable", error=error.message, **where)
            await self._clock.sleep(PAUSE_AFTER_FAILURE_S)
        except OSError as error:
            FAILURES.labels(type(error).__name__).inc()
            if not is_full(error):
                log.exception("failed", **where)
                return False
            log.warning("disk_full", error=full_disk(self._config.scratch_dir), **where)
            await self._clock.sleep(PAUSE_AFTER_FAILURE_S)
        except Corrupt as error:
            FAILURES.labels(type(error).__name__).inc()
            log.exception("compaction_corrupt", **where)
            self._damaged[job] = self._damage.met(error, COMPACTION_STOPPED, job.collection_id, job.shard)
            return False
        except Exception as error:  # a defect of ours: reported whole, counted, and kept to its shard
            FAILURES.labels(type(error).__name__).inc()
            log.exception("failed", **where)
            return False
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
        return True

    async def _compact(self, job: Job, token: CancellationToken) -> None:
        """Compacts until nothing is left of the log as it was, or another shard waits."""
        while True:
            ending = await self._compactor.compact(job.collection_id, job.shard, token)
            await self._follow(job)
            if ending not in (Ending.PARTIAL, Ending.COMPLETED) or await self._should_yield():
                return

    async def _follow(self, job: Job) -> None:
        """Runs the function that follows the compaction, if there is one. Its failure is not the compaction's, and the
        log service finds an output that is behind.
        """
        try:
            await self._functions.follow(job.collection_id)
        except PolychromeError as error:
            FAILURES.labels(type(error).__name__).inc()
            log.exception("function_failed", input=job.collection_id)

    async def _should_yield(self) -> bool:
        """Whether to leave the rest of a shard for later: one that is written faster than it is compacted would keep
        this process for itself.
        """
        queued, _ = await self._jobs.counts()
        return self._stopping or queued > 0

    async def _keep(self, job: Job, holder: str, token: CancellationToken) -> None:
        """Renews the lease until cancelled. When it is lost, another compactor may be at the job, which is given up."""
        while True:
            await self._clock.sleep(self._config.lease_s / RENEWALS_PER_LEASE)
            try:
                kept = await self._jobs.renew(job, holder, self._config.lease_s)
            except Unavailable as error:
                log.warning("lease_not_renewed", job=job.name, error=error.message)
                continue
            if not kept:
                token.cancel()
                return


@contextlib.asynccontextmanager
async def open_service(config: CompactorConfig) -> AsyncIterator[CompactorService]:
    """Opens scratch space, object storage and the log. Raises Unavailable while one of them is away."""
    _give_way(config.nice)  # before there are threads: they inherit it
    clock = SystemClock()
    with _scratch(config.scratch_dir) as (building, cached):
        keys = Keys(config.redis_prefix)
        async with open_store(config.bucket_url) as objects, open_verified_redis(config.redis_url, keys) as redis:
            await verify_conditional_create(objects)
            cache = SegmentCache(objects, cached, config.cache_bytes)
            await cache.open()
            checkpoints = Checkpoints(clock, config.pause_at)
            shard_log, jobs, name = Log(redis, keys), Jobs(redis, keys), config.process_id
            limits = ResourceLimits(config.threads, config.fold_bytes)
            damages = Damages(redis, keys)
            marks = ErasureMarks(redis, keys)
            compactor = Compactor(shard_log, objects, cache, building, checkpoints, clock, limits, name, damages, marks)
            rebuilds = Rebuilds(redis, keys)
            rebuilder = Rebuilder(shard_log, rebuilds, jobs, objects, cache, checkpoints, clock, name)
            functions = Functions(redis, keys, Catalog(redis, keys).collections)
            runner = FunctionRunner(functions, Outputs(redis, keys), shard_log, jobs, objects, cache)
            membership = Membership(redis, keys, "compactor")
            damage = DamageReporter(damages, name, clock)
            metering = JobMetering(UsageTable(redis, keys), clock, name)
            erased = ErasedSegments(marks, cache, name, clock)
            yield CompactorService(
                jobs, compactor, rebuilder, runner, checkpoints, clock, config, membership, damage, metering, erased
            )


def _give_way(nice: int) -> None:
    """Lowers the priority of this process to `nice`. Opening is tried again while something is away, and `os.nice` adds
    to what earlier calls have added.
    """
    os.nice(max(0, nice - os.nice(0)))


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[tuple[Path, Path]]:
    """The folders for building and for the cache, this process's alone. What an earlier process was building is gone.
    Raises Unavailable while another process uses them.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another process works in {root}") from None
        building, cached = root / "building", root / "segments"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        yield building, cached
