"""Recovers what Redis lost of the catalog alone (`shared.catalog.losses`): tenants first
(`logservice.restoring.tenant_recovery`), then of a database names, rows, places in the order, states.

1. Names, rows and order say the same of each collection, so each is put back from the others; a row that nobody in
   Redis has comes from the bucket, where every change of the catalog is.
2. A pointer that covers less than the log was trimmed to was lost: the bucket has its manifest.
3. A state that is not whole is restored (`logservice.restoring.recover`): its log goes on where its streams are whole,
   else from what the bucket has.

A database is looked at within a second of the first request that misses something of it, and in every sweep. Metadata
keys are watched over by the snapshots (`logservice.catalog.snapshots`), which know what there was.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from logservice.catalog.stored import StoredCatalog
from logservice.restoring.missing_rows import MissingRows, rows_by_database
from logservice.restoring.recover import Recovery
from logservice.restoring.row_recovery import RowRecovery
from logservice.restoring.tenant_recovery import TenantRecovery
from shared.catalog import Catalog, Collection, Database
from shared.catalog.collector import Collector
from shared.catalog.image import CatalogImage
from shared.catalog.scripts import TENANTS_NOTE
from shared.catalog.slots import Slot
from shared.errors import Corrupt, Unavailable
from shared.log.log import Log
from shared.manifest.newest import newest_manifest
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

log = get_logger(__name__)


class DatabaseRecovery:
    """The loops' steps of one leader. Everything raises Unavailable and Backoff."""

    def __init__(
        self,
        catalog: Catalog,
        collector: Collector,
        log_: Log,
        objects: ObjectStore,
        journaled: StoredCatalog,
        recovery: Recovery,
        tenants: TenantRecovery,
        clock: Clock,
    ) -> None:
        self._tenants = tenants
        self._catalog = catalog
        self._log = log_
        self._objects = objects
        self._collector = collector
        self._journaled = journaled
        self._recovery = recovery
        self._stored_rows: Mapping[str, Mapping[str, str]] = {}
        """The rows in the bucket, by id, of each database, by its key."""
        self._rows = RowRecovery(catalog, clock)
        self._missing_rows = MissingRows(catalog, self._read_stored)

    async def step(self) -> None:
        """Recovers the databases in which somebody missed something."""
        losses = self._catalog.losses
        noted = await losses.noted.some()
        if not noted:
            return
        whole = await self._tenants.recover(self._read_stored) if TENANTS_NOTE in noted else True
        databases = [database async for database in self._catalog.databases.all(set()) if database.key in noted]
        await self._recover(databases, missed=True)
        for key in noted:
            if key != TENANTS_NOTE or whole:
                await losses.noted.remove(key)

    async def sweep(self) -> None:
        """Recovers all tenants and databases."""
        if not await self._tenants.recover(self._read_stored):
            await self._catalog.losses.note(TENANTS_NOTE)
        await self._recover([database async for database in self._catalog.databases.all(set())], missed=False)

    async def _recover(self, databases: Sequence[Database], *, missed: bool) -> None:
        """Recovers these databases, the rows of all before the states of any: a state is not restored without a
        snapshot, and none is taken while rows are missing. What is damaged in the bucket does not keep others from
        being recovered. `missed`: somebody missed something of each of them.
        """
        slots = {database.key: Slot(database=database.key) for database in databases}
        surveys = {key: await self._catalog.garbled.survey(slot) for key, slot in slots.items()}
        stored = await self._read_stored()
        self._stored_rows = rows_by_database(stored)
        for database in databases:
            await self._rows.put_right(database, surveys[database.key], stored, is_open=True)
        for recover in (self._recover_rows, functools.partial(self._recover_states, missed=missed)):
            for database in databases:
                try:
                    await recover(database)
                except Corrupt as error:
                    names = {"database": database.name, "tenant": database.tenant}
                    log.error("database_not_recovered", **names, message=error.message)  # noqa: TRY400 (no stack: data is at fault)

    async def _read_stored(self) -> CatalogImage | None:
        """The catalog in the bucket; None when no snapshot can be read."""
        try:
            stored = await self._journaled.newest()
        except Corrupt as error:
            log.error("catalog_snapshots_damaged", message=error.message)  # noqa: TRY400 (no stack: data is at fault)
            return None
        return stored.image if stored else None

    async def _recover_states(self, database: Database, *, missed: bool) -> None:
        await self._collector.repair_database(database, self._recovery.recover)
        damaged: dict[str, str] = {}
        collections = await self._catalog.collections.present(database, damaged)
        await self._log.states([(each.id, shard) for each in collections for shard in each.layout.numbers], damaged)
        dropped = {each: fields for each in damaged if (fields := await self._recovery.drop_shard_fields(each))}
        if dropped:
            damaged = {}
            collections = await self._catalog.collections.present(database, damaged)
        await self._recover_streams(collections, dropped, missed=missed)
        await self._recover_pointers(collections, damaged, dropped)
        for collection in collections:
            if collection.id in dropped:
                await self._recovery.refilled(collection, dropped[collection.id])

    async def _recover_streams(
        self, collections: Sequence[Collection], dropped: Mapping[str, Sequence[str]], *, missed: bool
    ) -> None:
        """Has the states filled in that do not say any more what their streams hold. That all of it is missing for a
        stream that is not empty shows whoever reads it or appends to it.
        """
        shards = [(each, shard) for each in collections for shard in each.layout.numbers]
        states = await self._log.states([(each.id, shard) for each, shard in shards], {})
        torn = {
            each.id: each
            for (each, _), state in zip(shards, states, strict=True)
            if state is not None and not state.deleted and (missed or state.torn or each.id in dropped)
        }
        for collection in torn.values():
            await self._recovery.recover_streams(collection)

    async def _recover_pointers(
        self, collections: Sequence[Collection], damaged: dict[str, str], dropped: Mapping[str, Sequence[str]]
    ) -> None:
        shards = [(each.id, shard) for each in collections for shard in each.layout.numbers]
        for (collection_id, shard), state in zip(shards, await self._log.states(shards, damaged), strict=True):
            is_lost = f"m:{shard}" in dropped.get(collection_id, ())
            if state is not None and (state.lost_pointer or is_lost) and not state.deleted:
                newest = await newest_manifest(self._objects, collection_id, shard)
                pointer = newest.found[1] if newest.found else None
                done = pointer is not None and await self._log.repoint(collection_id, shard, pointer, state.epoch)
                outcome = "pointer_restored" if done else "pointer_lost"
                log.error(outcome, collection=collection_id, shard=shard, trimmed=state.trimmed, damaged=newest.damaged)

    async def _recover_rows(self, database: Database) -> None:
        if not await self._missing_rows.recover(database, self._stored_rows.get(database.key, {})):
            raise Unavailable(f"Collections of {database.name} were forgotten while its rows were put back")
