"""The log service's process: one of several leads, by a lease; the others stand by."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from prometheus_client import Gauge

from logservice.accounting.gauges import TenantGauges
from logservice.accounting.rollup import Rollup
from logservice.accounting.stored_counter import StoredCounter
from logservice.catalog.snapshots import Snapshots
from logservice.config import LogserviceConfig
from logservice.erasing.caches import Caches
from logservice.healing.put_back import Healing
from logservice.leader import Leader, LeaderServices
from logservice.restoring.reconcile import Reconciler
from logservice.writable import WritableBucket
from shared.catalog import Catalog
from shared.catalog.collector import Collector
from shared.catalog.damage import Damages
from shared.catalog.functions import Functions
from shared.catalog.history import Histories
from shared.catalog.image import Images
from shared.catalog.journal import open_journal
from shared.cluster.lease import Lease
from shared.cluster.membership import Member, Membership
from shared.errors import Unavailable
from shared.log.cuts import Cuts
from shared.log.heal import Heal
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.log.statements import Statements
from shared.objects.open import open_store
from shared.objects.port import ObjectStore
from shared.objects.verified import VerifiedStore
from shared.process.clock import Clock, SystemClock
from shared.process.telemetry import get_logger
from shared.redis.append_only import AppendOnlyFile
from shared.redis.client import open_redis
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from shared.tenancy.control_records import ControlRecords
from shared.tenancy.erasure_marks import ErasureMarks
from shared.tenancy.stored import StoredTable
from shared.tenancy.usage import LOG_SOURCE, UsageTotals
from shared.tenancy.usage_flush import UsageFlusher
from shared.tenancy.usage_parts import UsageParts
from shared.tenancy.usage_table import UsageTable

log = get_logger(__name__)

LEASE_NAME: Final = "logservice"
RENEWALS_PER_LEASE: Final = 3
MEMBER_TTL_S: Final = 15.0
LOG_SUBJECTS_MAX: Final = 1_000_000
"""Collections whose writes in one hour are counted: as many as there may be in a large cluster."""

CACHING_ROLES: Final = ("compactor", "queryworker")
"""Roles whose processes have segments on their disks."""

LEADING: Final = Gauge("polychrome_logservice_leading", "1 while this process leads.")


class LogService:
    """Leads while it has the lease. Ready when it leads an open cluster, or when another one leads."""

    def __init__(
        self, leader: Leader, lease: Lease, membership: Membership, clock: Clock, config: LogserviceConfig
    ) -> None:
        self._leader = leader
        self._lease = lease
        self._membership = membership
        self._clock = clock
        self._config = config
        self._renew_s = config.lease_s / RENEWALS_PER_LEASE
        self._leading = False
        self._standing_by = False
        self._stopping = asyncio.Event()
        self._resigned = asyncio.Event()

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        return [self._serve, self._announce]

    def ready(self) -> bool:
        return not self._stopping.is_set() and (self._standing_by or (self._leading and self._leader.reconciled))

    async def drain(self) -> None:
        """Gives the lease back, so that a standby takes over at once."""
        self._stopping.set()
        await self._resigned.wait()
        await self._membership.leave(self._config.process_id)

    async def _serve(self) -> None:
        while not self._stopping.is_set():
            if await self._acquire():
                await self._lead()
            else:
                await self._pause()
        self._resigned.set()
        await asyncio.get_running_loop().create_future()  # a loop never returns: it is cancelled when all have drained

    async def _acquire(self) -> bool:
        try:
            acquired = await self._lease.acquire()
        except Unavailable as error:
            log.warning("lease_unavailable", message=error.message)
            return False
        self._standing_by = not acquired
        return acquired

    async def _pause(self) -> None:
        """Waits until the next try for the lease, or for the stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._renew_s):
                await self._stopping.wait()

    async def _lead(self) -> None:
        """Works until the lease is lost or the process stops. A defect in the work, or in keeping the lease, is raised:
        it takes the process down.
        """
        log.info("leading")
        self._leading = True
        LEADING.set(1)
        ends = [asyncio.create_task(each) for each in (self._leader.run(), self._keep_lease(), self._stopped())]
        try:
            ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            self._leading = False
            LEADING.set(0)
        log.info("leading_ended")
        try:
            await self._lease.release()
        except Unavailable as error:
            log.warning("lease_not_released", message=error.message)

    async def _stopped(self) -> None:
        await self._stopping.wait()

    async def _keep_lease(self) -> None:
        """Renews the lease until it is lost, or must have expired because Redis was away for so long."""
        renewed_s = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._renew_s)
            try:
                if not await self._lease.renew():
                    log.warning("lease_lost")
                    return
                renewed_s = self._clock.monotonic()
            except Unavailable as error:
                log.warning("lease_not_renewed", message=error.message)
                if self._clock.monotonic() - renewed_s > self._config.lease_s:
                    return

    async def _announce(self) -> None:
        member = Member(self._config.process_id, socket.gethostname())
        while True:
            if not self._stopping.is_set():
                try:
                    await self._membership.announce(member, MEMBER_TTL_S)
                except Unavailable as error:
                    log.warning("not_announced", message=error.message)
            await self._clock.sleep(MEMBER_TTL_S / RENEWALS_PER_LEASE)


@asynccontextmanager
async def open_service(config: LogserviceConfig) -> AsyncIterator[LogService]:
    """Opens object storage and Redis. Raises Unavailable while one of them is away."""
    keys, clock = Keys(config.redis_prefix), SystemClock()
    async with (
        _open_objects(config.bucket_url) as objects,
        open_redis(config.redis_url) as redis,
        open_journal(redis, keys, objects) as journal,
    ):
        catalog = Catalog(redis, keys, journal)
        snapshots = Snapshots(objects, config.snapshots_kept)
        healing = Healing(Statements(redis, keys), Heal(redis, keys), objects, clock, config.witness_wait_s)
        reconciler = Reconciler(
            catalog, Images(redis, keys, catalog), Log(redis, keys), objects, snapshots, clock, healing,
            ControlRecords(redis, keys, objects, clock, config.process_id),
        )  # fmt: skip
        leader = Leader(
            reconciler,
            lambda: _open_leader_services(config, keys, objects),
            objects,
            snapshots,
            clock,
            config,
        )
        lease = Lease(redis, keys, LEASE_NAME, config.process_id, config.lease_s)
        yield LogService(leader, lease, Membership(redis, keys, "logservice"), clock, config)


@asynccontextmanager
async def _open_objects(url: str) -> AsyncIterator[ObjectStore]:
    """Object storage that creates objects atomically, which is proven now or, while it takes no writes, before the
    first one: a Redis that restarts meanwhile needs a log service. Raises UnfitStore.
    """
    async with open_store(url) as store:
        objects = VerifiedStore(store)
        try:
            await WritableBucket(store).require()  # says so sooner than the proof does
            await objects.verify()
        except Unavailable as error:
            log.warning("object_storage_not_verified", message=error.message)
        yield objects


@asynccontextmanager
async def _open_leader_services(
    config: LogserviceConfig, keys: Keys, objects: ObjectStore
) -> AsyncIterator[LeaderServices]:
    """Opens the leader's services. Raises Unavailable while Redis is away or not verified."""
    async with open_verified_redis(config.redis_url, keys) as redis, open_journal(redis, keys, objects) as journal:
        catalog, clock, log_ = Catalog(redis, keys, journal), SystemClock(), Log(redis, keys)
        totals, table = UsageTotals(subjects_max=LOG_SUBJECTS_MAX), UsageTable(redis, keys)
        stored = StoredCounter(StoredTable(redis, keys), catalog, log_, objects, clock, totals)
        yield LeaderServices(
            catalog=catalog,
            images=Images(redis, keys, catalog),
            collector=Collector(redis, keys, catalog),
            functions=Functions(redis, keys, catalog.collections),
            histories=Histories(redis, keys, config.history_s),
            log=log_,
            jobs=Jobs(redis, keys),
            damages=Damages(redis, keys),
            cuts=Cuts(redis, keys),
            control=ControlRecords(redis, keys, objects, clock, config.process_id),
            stored=stored,
            usage=UsageFlusher(table, totals, clock, f"{LOG_SOURCE}{config.process_id}"),
            marks=(marks := ErasureMarks(redis, keys)),
            append_only=AppendOnlyFile(redis, clock),
            caches=Caches(marks, [Membership(redis, keys, role) for role in CACHING_ROLES], clock),
            rollup=Rollup(table, UsageParts(objects), clock, config.process_id, stored.tenant_of),
            gauges=TenantGauges(stored, table, clock),
        )
