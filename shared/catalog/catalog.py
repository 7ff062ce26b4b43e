"""The catalog: tenants, databases, collections, in Redis.

What decides is one script in one hash slot: the row of a collection in its database's slot, the row of a database in
its tenant's. Everything else that a creation or deletion needs stands in other slots and follows: before the commit as
an orphan, after it as trash. The process that changed something finishes it before it answers; what a process leaves
by dying, `shared.catalog.collector` completes.

Every change is in the bucket before it is acknowledged (`shared.catalog.journal`).

Every change may be repeated after a lost answer: rows carry keys that are unique for ever, and scripts recognise them.
"""

from __future__ import annotations

from contextlib import suppress

from redis.asyncio import Redis

from shared.catalog.changes import Changes
from shared.catalog.cluster import ClusterMark
from shared.catalog.collections import Collections
from shared.catalog.damage import Damages
from shared.catalog.databases import Databases
from shared.catalog.garbled_rows import GarbledRows
from shared.catalog.journal import Journal, after_commit
from shared.catalog.losses import Losses
from shared.catalog.model import DEFAULT_DATABASE, DEFAULT_DATABASE_ID, DEFAULT_TENANT
from shared.catalog.notes import Notes
from shared.catalog.quotas import DEFAULT_QUOTAS, CatalogQuotas
from shared.catalog.removal import Removal
from shared.catalog.scripts import CatalogScripts
from shared.catalog.slot_recovery import SlotRecovery
from shared.catalog.slots import TENANTS
from shared.catalog.tenants import Tenants
from shared.errors import AlreadyExists
from shared.redis.keys import Keys


class Catalog:
    """The parts of the catalog over one connection, and what concerns all of them. Everything raises Unavailable while
    Redis is away or not restored.

    `journal` is the bucket's for every process that changes the catalog; without one, changes of the last moment are
    lost with Redis. `quotas` bound what is created through it.
    """

    def __init__(
        self, redis: Redis, keys: Keys, journal: Journal | None = None, quotas: CatalogQuotas = DEFAULT_QUOTAS
    ) -> None:
        self.journal = journal or Journal(redis, keys)
        self.mark = ClusterMark(redis, keys)
        self.changes = Changes(redis, keys)
        self.damages = Damages(redis, keys)
        self.losses = Losses(redis, keys)
        self.unproven = Notes(redis, keys.unproven)
        """Manifests that a restoration took up without a pointer's hash, and that have still to be compared with their
        records (`logservice.restoring.proving`)."""
        self.tenants = Tenants(redis, keys, self.journal, quotas.tenants)
        self.databases = Databases(redis, keys, self.tenants, self.journal, quotas)
        self.collections = Collections(redis, keys, self.databases, self.journal, quotas)
        self.slots = SlotRecovery(redis, keys)
        self.garbled = GarbledRows(redis, keys)
        self._scripts = CatalogScripts(redis, keys)
        self._removal = Removal(redis, keys, self.journal)

    async def bootstrap(self) -> None:
        """Makes the default tenant and database, if they are missing."""
        await self.mark.require()
        # Looked for first: a full server takes no creation, and a frontend must be able to start beside it.
        if await self.tenants.get(DEFAULT_TENANT) is None:
            with suppress(AlreadyExists):
                await self.tenants.create(DEFAULT_TENANT)
        if await self.databases.get(DEFAULT_TENANT, DEFAULT_DATABASE) is None:
            with suppress(AlreadyExists):
                await self.databases.create(DEFAULT_TENANT, DEFAULT_DATABASE, DEFAULT_DATABASE_ID)

    async def reset(self) -> None:
        """Removes everything and makes the defaults again."""
        async with self.journal.change((TENANTS,)):
            await self._scripts.tenants("reset")
            with after_commit():
                await self._removal.finish_tenants()
                await self.bootstrap()
