"""A cluster whose Redis can be wiped or set back at any point of a change of its catalog."""

from __future__ import annotations

from dataclasses import dataclass, field

from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshots
from logservice.catalog.stored import JournalTidier, entry_names
from logservice.restoring.reconcile import Reconciler
from shared.catalog import Catalog, Cluster, Database
from shared.catalog.collector import Collector
from shared.catalog.image import CatalogImage, Images
from shared.catalog.journal import BucketJournal
from shared.log.log import Log
from shared.process.clock import SystemClock
from shared.redis.client import command
from shared.redis.keys import Keys
from tests.shared.objects.faults import FaultyStore


@dataclass
class JournaledCluster:
    """One Redis, one bucket, and as many writers as are asked for."""

    redis: Redis
    keys: Keys
    objects: FaultyStore
    journals: list[BucketJournal] = field(default_factory=list)
    written: CatalogImage | None = None

    def __post_init__(self) -> None:
        self.catalog = self.writer()
        self.images = Images(self.redis, self.keys, self.catalog)
        self.snapshots = Snapshots(self.objects, 3)
        self.collector = Collector(self.redis, self.keys, self.catalog)
        self.log = Log(self.redis, self.keys)
        self.tidier = JournalTidier(self.objects, SystemClock())

    def writer(self) -> Catalog:
        """The catalog of another process."""
        self.journals.append(BucketJournal(self.redis, self.keys, self.objects))
        return Catalog(self.redis, self.keys, self.journals[-1])

    async def close(self) -> None:
        for journal in self.journals:
            await journal.close()

    def reconciler(self) -> Reconciler:
        """That of another log service."""
        return Reconciler(self.catalog, self.images, self.log, self.objects, self.snapshots, SystemClock())

    async def reconcile(self) -> Cluster:
        return await self.reconciler().run()

    async def snapshot(self) -> None:
        """As the leader's loops take one, and tidy after it."""
        cluster = await self.catalog.mark.read()
        assert cluster is not None
        number = await self.snapshots.next_number()
        self.written = await self.images.take(cluster)
        assert await self.snapshots.write(self.written, number)

    async def tidy(self) -> int:
        """As the leader's loop does after the snapshot. What one snapshot contains stays until the next one."""
        return await self.tidier.step(self.written)

    async def wipe(self) -> None:
        """Redis loses everything, between two commands."""
        for key in await command(self.redis, "KEYS", f"{self.keys.prefix}:*"):
            await command(self.redis, "DEL", key)

    async def cluster(self) -> Cluster:
        found = await self.catalog.mark.read()
        assert found is not None
        return found

    async def entries(self) -> int:
        return len(await entry_names(self.objects))

    async def database(self, tenant: str = "default_tenant", name: str = "default_database") -> Database:
        found = await self.catalog.databases.get(tenant, name)
        assert found is not None
        return found
