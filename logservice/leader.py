"""The work of the leading log service, from taking the lead to losing it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from logservice.accounting.gauges import TenantGauges
from logservice.accounting.rollup import Rollup
from logservice.accounting.stored_counter import StoredCounter
from logservice.audit.keeper import AuditKeeper
from logservice.catalog.snapshots import Snapshots, Snapshotter
from logservice.catalog.stored import JournalTidier, StoredCatalog
from logservice.config import LogserviceConfig
from logservice.damage import DamageWatch
from logservice.erasing.caches import Caches
from logservice.erasing.catalog_copies import CatalogCopies
from logservice.erasing.eraser import Collect, Eraser
from logservice.erasing.pacing import Paced
from logservice.garbage.collector import GarbageCollector
from logservice.garbage.plan import CatalogView, LayoutChange
from logservice.loops import PAUSE_AFTER_FAILURE_S, SWEEP_REST_RATIO, every
from logservice.restoring.database_recovery import DatabaseRecovery
from logservice.restoring.owed_snapshot import OWED
from logservice.restoring.proving import Prover
from logservice.restoring.reconcile import Reconciler
from logservice.restoring.recover import Recovery
from logservice.restoring.tenant_recovery import TenantRecovery
from logservice.scheduling.rounds import Rounds
from logservice.scheduling.scheduler import Scheduler
from logservice.trimming.seal import Sealer
from logservice.trimming.trim import Trimmer
from logservice.writable import WritableBucket
from shared.catalog import Catalog, Cluster, Collection, Pointer
from shared.catalog.collector import Collector
from shared.catalog.damage import DamageReporter, Damages
from shared.catalog.functions import Functions
from shared.catalog.history import Histories, history_of
from shared.catalog.image import Images
from shared.cluster.placement import ShardKey
from shared.errors import Backoff, Corrupt, Unavailable
from shared.log.cuts import Cuts
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.manifest.commits import CommitNumbers
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import cancellations, require_uncancelled, together
from shared.process.telemetry import get_logger
from shared.redis.append_only import AppendOnlyFile
from shared.tenancy.control_records import ControlRecords
from shared.tenancy.erasure_marks import ErasureMarks
from shared.tenancy.usage_flush import FLUSH_S, UsageFlusher

log = get_logger(__name__)

WATCH_S: Final = 0.5
"""Period of the check whether Redis has restarted."""
COLLECT_DELETED_S: Final = 5.0
TIDY_COMMITS_S: Final = 30.0
RECOVERY_S: Final = 1.0
PROVE_S: Final = 5.0
WATCH_DAMAGE_S: Final = 5.0
PROJECT_CONTROL_S: Final = 5.0
TIDY_CONTROL_S: Final = 300.0
AUDIT_HEADS_S: Final = 60.0
COLLECT_ORPHANS_S: Final = 300.0
COUNT_STORED_S: Final = 2.0
REFRESH_STORED_S: Final = 2.0
ROLL_UP_S: Final = 30.0
ERASE_S: Final = 1.0


@dataclass(frozen=True)
class LeaderServices:
    """The parts of the catalog and the log that the leader's loops work with. Their connections, like those of every
    other process, reach a verified server only: a loop that is under way when Redis restarts does not go on with a
    server that may have gone back.
    """

    catalog: Catalog
    images: Images
    collector: Collector
    functions: Functions
    histories: Histories
    log: Log
    jobs: Jobs
    damages: Damages
    cuts: Cuts
    control: ControlRecords
    stored: StoredCounter
    usage: UsageFlusher
    rollup: Rollup
    gauges: TenantGauges
    marks: ErasureMarks
    append_only: AppendOnlyFile
    caches: Caches


class RedisChanged(Exception):  # not an error: a reason to begin anew
    """Redis lost the cluster or was restarted: reconcile before going on."""


class Leader:
    """Reconciles, then runs all loops, and begins again whenever Redis has restarted."""

    def __init__(
        self,
        reconciler: Reconciler,
        open_services: Callable[[], AbstractAsyncContextManager[LeaderServices]],
        objects: ObjectStore,
        snapshots: Snapshots,
        clock: Clock,
        config: LogserviceConfig,
    ) -> None:
        self._reconciler = reconciler
        self._open_services = open_services
        self._objects = objects
        self._snapshots = snapshots
        self._clock = clock
        self._config = config
        self._garbage = GarbageCollector(objects, clock, config.periods)
        self.reconciled = False

    async def run(self) -> None:
        """Leads until it is cancelled: reconciles, works, and begins again when Redis has changed."""
        while True:
            before = cancellations()
            self.reconciled = False
            try:
                cluster = await self._reconciler.run()
                async with self._open_services() as services:
                    self.reconciled = True
                    await self._work(cluster, services)
            except (Unavailable, Backoff) as error:
                require_uncancelled(before)  # else two would lead, and get into each other's way
                log.warning("reconciliation_postponed", message=error.message)
                await self._clock.sleep(PAUSE_AFTER_FAILURE_S)
            except Corrupt as error:  # until it is put right: ending here would only begin the same elsewhere
                log.error("reconciliation_refused", name=error.name, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
                await self._clock.sleep(PAUSE_AFTER_FAILURE_S)

    async def _work(self, cluster: Cluster, services: LeaderServices) -> None:
        """Runs all loops until Redis has changed. Any other failure of a loop is raised. (No task group: that of Python
        3.11 forgets a cancellation that comes while it ends the other loops, and two log services would lead for ever.)
        """
        try:
            await together(self._loops(cluster, services))
        except RedisChanged:
            log.warning("redis_restarted")

    def _loops(self, cluster: Cluster, services: LeaderServices) -> list[Coroutine[Any, Any, None]]:
        config, clock = self._config, self._clock
        reporter = DamageReporter(services.damages, config.process_id, clock)
        sealer = Sealer(services.log, self._objects, services.histories)
        trimmer = Trimmer(services.log, self._objects, clock, cluster.epoch, sealer, reporter, services.stored.trimmed)
        commits = CommitNumbers(self._objects)
        prover = Prover(services.catalog.unproven, services.damages, self._objects, clock, config.process_id)
        rounds = Rounds(services.cuts, self._objects, clock)
        scheduler = self._scheduler(services, rounds, trimmer)
        snapshotter = Snapshotter(services.images, self._snapshots, cluster, clock)
        tidier = JournalTidier(self._objects, clock)
        database_recovery = self._database_recovery(cluster, services)
        writable = WritableBucket(self._objects)
        audit = AuditKeeper(self._objects, clock, config.process_id, config.audit_retention_days)
        damage = DamageWatch(services.damages, services.log, services.jobs, services.collector.graves, clock)

        async def collect_garbage(erased: Set[str] = frozenset()) -> None:
            collections = [collection async for collection in services.catalog.collections.all()]
            view = catalog_view(
                collections,
                await services.collector.graves(),
                snapshotter.layout_changes(collections),
                {collection.id: history_of(collection.metadata, config.history_s) for collection in collections},
                erased,
            )
            collected = await self._garbage.collect(view, lambda: services.catalog.mark.require_same(cluster))
            await services.collector.forget(collected.forgotten)
            await services.collector.forget_families({collection.root for collection in collections})

        async def repair_rows() -> None:
            await database_recovery.sweep()
            await services.functions.repair([collection async for collection in services.catalog.collections.all()])

        async def snapshot() -> None:
            standing = await services.catalog.mark.standing()
            await writable.require()
            try:
                wrote = await snapshotter.step(await services.catalog.changes.number())
            except Unavailable:
                writable.doubt()
                raise
            if wrote:
                await services.catalog.mark.settle_raises(standing.run)
                OWED.set(0)

        async def tidy_journal() -> None:
            await tidier.step(snapshotter.written)

        return [
            self._watch(cluster),
            trimmer.run(),
            reporter.run(),
            every("schedule", config.tick_s, scheduler.tick, clock),
            every("sweep", config.sweep_s, scheduler.sweep, clock, SWEEP_REST_RATIO),
            every("snapshot", config.snapshot_s, snapshot, clock),
            every("tidy_journal", config.snapshot_s, tidy_journal, clock),
            every("collect_deleted", COLLECT_DELETED_S, services.collector.collect_deleted, clock),
            every("settle_journal", COLLECT_DELETED_S, services.collector.settle_journal, clock, SWEEP_REST_RATIO),
            every("recover", RECOVERY_S, database_recovery.step, clock),
            every("repair_rows", config.sweep_s, repair_rows, clock, SWEEP_REST_RATIO),
            every("collect_orphans", COLLECT_ORPHANS_S, services.collector.collect_orphans, clock),
            every("damage", WATCH_DAMAGE_S, damage.step, clock),
            every("prove", PROVE_S, prover.step, clock),
            *self._control_loops(services.control),
            every("audit_heads", AUDIT_HEADS_S, audit.step, clock, SWEEP_REST_RATIO),
            *self._accounting_loops(services),
            self._erasing_loop(services, collect_garbage),
            every("commit_numbers", TIDY_COMMITS_S, commits.tidy, clock),
            every("garbage", config.garbage_s, collect_garbage, clock),
        ]

    def _scheduler(self, services: LeaderServices, rounds: Rounds, trimmer: Trimmer) -> Scheduler:
        """The scheduler of compactions, in which tenants take turns."""
        policy, clock, tenant_of = self._config.policy, self._clock, services.stored.tenant_of
        return Scheduler(services.catalog, services.log, services.jobs, rounds, policy, clock, trimmer.add, tenant_of)

    def _database_recovery(self, cluster: Cluster, services: LeaderServices) -> DatabaseRecovery:
        """The recovery of what Redis loses of the catalog alone."""
        objects, clock, images = self._objects, self._clock, services.images
        return DatabaseRecovery(
            services.catalog,
            services.collector,
            services.log,
            objects,
            StoredCatalog(objects, self._snapshots, clock),
            Recovery(cluster, images, services.log, self._snapshots, objects, clock),
            TenantRecovery(services.catalog, images, clock),
            clock,
        )

    def _control_loops(self, control: ControlRecords) -> list[Coroutine[Any, Any, None]]:
        """The loops that keep Redis' copy of the control records up to the bucket, and the bucket free of old ones."""
        return [
            every("project_control", PROJECT_CONTROL_S, control.project, self._clock),
            every("tidy_control", TIDY_CONTROL_S, control.tidy, self._clock),
        ]

    def _accounting_loops(self, services: LeaderServices) -> list[Coroutine[Any, Any, None]]:
        """The loops that count what tenants have and use."""
        stored = services.stored
        return [
            every("count_stored", COUNT_STORED_S, stored.sweep_when_due, self._clock, SWEEP_REST_RATIO),
            every("refresh_stored", REFRESH_STORED_S, stored.refresh, self._clock),
            every("flush_usage", FLUSH_S, services.usage.flush, self._clock),
            every("roll_up_usage", ROLL_UP_S, services.rollup.step, self._clock),
            services.gauges.run(),
        ]

    def _erasing_loop(self, services: LeaderServices, collect: Collect) -> Coroutine[Any, Any, None]:
        """The loop that drives erasures."""
        eraser = Eraser(
            services.control,
            services.marks,
            services.catalog,
            services.log,
            self._objects,
            CatalogCopies(self._objects, self._snapshots),
            services.caches,
            services.append_only,
            Paced(collect, self._config.erase_grace_s, self._clock),
            self._clock,
            self._config.erase_within_s,
        )
        return every("erase", ERASE_S, eraser.step, self._clock, SWEEP_REST_RATIO)

    async def _watch(self, cluster: Cluster) -> None:
        """Raises RedisChanged as soon as the server is another run of itself, or empty, or in another epoch."""
        while True:
            try:
                if not await self._reconciler.reconciled(cluster):
                    raise RedisChanged
            except Unavailable:
                log.debug("redis_away")
            await self._clock.sleep(WATCH_S)


def catalog_view(
    collections: Sequence[Collection],
    graves: Mapping[str, float],
    layout_changes: Mapping[str, LayoutChange],
    histories: Mapping[str, float],
    erasing: Set[str] = frozenset(),
) -> CatalogView:
    """The catalog as the collection of garbage sees it."""
    ancestors = {collection.id: collection.ancestors for collection in collections if collection.ancestors}
    return CatalogView(pointers_of_all(collections), graves, layout_changes, ancestors, histories, erasing)


def pointers_of_all(collections: Iterable[Collection]) -> dict[ShardKey, Pointer | None]:
    """The pointer of every shard of these collections, of those included that are being built."""
    found: dict[ShardKey, Pointer | None] = {}
    for collection in collections:
        for shards in (collection, collection.rebuild):
            if shards is not None:
                for number, pointer in zip(shards.layout.numbers, shards.pointers, strict=True):
                    found[collection.id, number] = pointer
    return found
