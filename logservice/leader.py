"""What the leading log service does, from taking the lead to losing it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from logservice.config import LogserviceConfig
from logservice.garbage import Garbage
from logservice.loops import PAUSE_AFTER_FAILURE_S, every
from logservice.reconcile import Reconciler
from logservice.schedule import Scheduler
from logservice.snapshots import Snapshots, Snapshotter
from logservice.trim import Trimmer
from shared.catalog import Catalog, Cluster
from shared.catalog.collector import Collector
from shared.catalog.image import Images
from shared.clock import Clock
from shared.errors import Backoff, Unavailable
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.manifest import ManifestStore
from shared.objects.port import ObjectStore
from shared.telemetry import get_logger

log = get_logger(__name__)

WATCH_S: Final = 0.5
COLLECT_DELETED_S: Final = 5.0
COLLECT_ORPHANS_S: Final = 300.0


@dataclass(frozen=True)
class Tools:
    """What the loops work with."""

    catalog: Catalog
    images: Images
    collector: Collector
    log: Log
    jobs: Jobs
    objects: ObjectStore
    clock: Clock


class RedisChanged(Exception):  # not an error: a reason to begin anew
    """Redis lost the cluster or was restarted: reconcile before going on."""


class Leader:
    """Reconciles, then runs all loops, and begins again whenever Redis has restarted."""

    def __init__(self, tools: Tools, config: LogserviceConfig) -> None:
        self._tools = tools
        self._config = config
        self._snapshots = Snapshots(tools.objects, config.snapshots_kept)
        self._reconciler = Reconciler(
            tools.catalog, tools.images, tools.log, tools.objects, self._snapshots, tools.clock
        )
        self._garbage = Garbage(tools.objects, tools.clock, config.periods)
        self.reconciled = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.reconciled = False
            try:
                cluster = await self._reconciler.run()
            except (Unavailable, Backoff) as error:
                log.warning("reconciliation_postponed", message=error.message)
                await self._tools.clock.sleep(PAUSE_AFTER_FAILURE_S)
                continue
            self.reconciled = True
            try:
                await self._work(cluster)
            except* RedisChanged:
                log.warning("redis_restarted")

    async def _work(self, cluster: Cluster) -> None:
        async with asyncio.TaskGroup() as group:
            for loop in self._loops(cluster):
                group.create_task(loop)

    def _loops(self, cluster: Cluster) -> list[Coroutine[Any, Any, None]]:
        tools, config, clock = self._tools, self._config, self._tools.clock
        trimmer = Trimmer(tools.log, ManifestStore(tools.objects), clock)
        scheduler = Scheduler(tools.catalog, tools.log, tools.jobs, config.policy, clock, trimmer.add)
        snapshotter = Snapshotter(tools.images, self._snapshots, cluster, clock)

        async def snapshot() -> None:
            await snapshotter.step(await tools.catalog.changes())

        return [
            self._watch(),
            trimmer.run(),
            every("schedule", config.tick_s, scheduler.tick, clock),
            every("sweep", config.sweep_s, scheduler.sweep, clock),
            every("snapshot", config.snapshot_s, snapshot, clock),
            every("collect_deleted", COLLECT_DELETED_S, tools.collector.collect_deleted, clock),
            every("repair_rows", config.sweep_s, tools.collector.repair_rows, clock),
            every("collect_orphans", COLLECT_ORPHANS_S, tools.collector.collect_orphans, clock),
            every("garbage", config.garbage_s, self._collect_garbage, clock),
        ]

    async def _collect_garbage(self) -> None:
        shards = {
            (collection.id, shard): pointer
            async for collection in self._tools.catalog.collections()
            for shard, pointer in enumerate(collection.pointers)
        }
        await self._garbage.collect(shards)

    async def _watch(self) -> None:
        """Raises RedisChanged as soon as the server is another run of itself, or empty."""
        while True:
            try:
                if await self._tools.catalog.cluster() is None or not (await self._tools.catalog.server_run())[1]:
                    raise RedisChanged
            except Unavailable:
                log.debug("redis_away")
            await self._tools.clock.sleep(WATCH_S)
