"""Counts what tenants have stored, and writes it into Redis (`shared.tenancy.stored`).

By the way it collects what was written (`shared.tenancy.usage`): the totals in the states that it reads.

Two loops of the leader. `sweep` looks at every collection, database after database, and so finds what was created and
deleted. `refresh` looks at collections whose log was trimmed since, which is soon after each of their compactions.

A manifest is read once, and its amounts are kept; the trimmer, which reads each new one, hands them over. A new leader
knows none. So that it need not read all of them before it can say anything, a tenant's amounts are written as soon as
its own manifests are read; those that an earlier leader wrote stay until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from logservice.accounting.ledger import DatabaseLedger, is_current, total_of
from shared.catalog import Catalog, Database
from shared.errors import Corrupt, Unavailable
from shared.log.layouts import OwnedLayout
from shared.log.log import Log
from shared.log.state import Pointer
from shared.manifest.amounts import NO_MANIFEST, ManifestAmounts, amounts_of, shard_sums
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger
from shared.redis.scripts import PIPELINE_MAX
from shared.tenancy.stored import StoredAmounts, StoredTable
from shared.tenancy.usage import Measure, Subject, UsageTotals, hour_of, parse_written

log = get_logger(__name__)

MANIFESTS_AT_ONCE: Final = 8
"""Manifests that are read at a time."""
WAITING_MAX: Final = 100_000
"""Collections that wait for `refresh`; those beyond it wait for the next sweep."""
SWEEP_S: Final = 60.0
REWRITE_S: Final = 3600.0
"""Amounts that don't change are written again after so long, in seconds, long before they are forgotten."""

OWNERS_KEPT: Final = 10_000
"""Collections whose tenants are remembered although they may be deleted: what was done for them has to be counted."""
WRITTEN_HOURS: Final = 48
"""Age, in hours, of what was written and nobody has counted, beyond which nobody will: while no log service runs."""
STORED_TIME_S_MAX: Final = 2 * 3600
"""Longest time between two sweeps for which stored amounts are counted, in seconds."""

Shard = tuple[str, int]


class StoredCounter:
    """The stored amounts of all tenants, as one leader counts them. Everything raises Unavailable while Redis or the
    bucket is away.
    """

    def __init__(
        self,
        table: StoredTable,
        catalog: Catalog,
        log_: Log,
        objects: ObjectStore,
        clock: Clock,
        usage: UsageTotals | None = None,
    ) -> None:
        self._usage = UsageTotals() if usage is None else usage
        self._swept_s: float | None = None
        self._swept_at_s: float | None = None
        self._unseen = False
        """Whether something was written in a database that is newer than the last sweep."""
        self._catalog = catalog
        self._log = log_
        self._manifests = ManifestStore(objects)
        self._table = table
        self._clock = clock
        self._known: dict[Shard, ManifestAmounts] = {}
        self._tenants: dict[str, dict[str, DatabaseLedger]] = {}
        """The ledgers of each tenant's databases, by the database's key."""
        self._databases: dict[str, DatabaseLedger] = {}
        """All ledgers, by the database's key."""
        self._written: dict[str, StoredAmounts] = {}
        self._waiting: set[str] = set()
        self._owners: dict[str, str] = {}
        self._turn = asyncio.Lock()

    def tenant_of(self, collection_id: str) -> str:
        """The tenant of a collection; empty when the last sweep has not seen it."""
        return self._owners.get(collection_id, "")

    @property
    def written(self) -> Mapping[str, StoredAmounts]:
        """The amounts of each tenant that this leader wrote last."""
        return self._written

    def trimmed(self, manifest: Manifest) -> None:
        """Has the collection counted again: its log was trimmed up to this manifest."""
        self._known[manifest.collection, manifest.shard] = amounts_of(manifest)
        if len(self._waiting) < WAITING_MAX:
            self._waiting.add(manifest.collection)

    # Looks

    async def sweep_when_due(self) -> None:
        """Sweeps a minute after the last time, and as soon as there is a database that it has not seen."""
        now_s = self._clock.monotonic()
        if self._unseen or self._swept_at_s is None or now_s - self._swept_at_s >= SWEEP_S:
            self._unseen = False
            await self.sweep()
            self._swept_at_s = now_s

    async def sweep(self) -> None:
        """Counts every collection, tenant after tenant."""
        tenants = [tenant.name for tenant in await self._catalog.tenants.all()]
        seen: set[str] = set()
        for tenant in tenants:
            ledgers: dict[str, DatabaseLedger] = {}
            for database in await self._catalog.databases.of_tenant(tenant):
                async with self._turn:
                    ledgers[database.key] = self._databases[database.key] = await self._count_database(database)
                seen.update(ledgers[database.key].collections)
            self._tenants[tenant] = ledgers
            await self._write(tenant)
        async with self._turn:
            self._forget(set(tenants), seen)
        self._count_stored_time()

    async def refresh(self) -> int:
        """Counts the collections again whose log was trimmed; returns how many. One whose database is newer than the
        last sweep waits for the next one, which is due then.
        """
        waiting, self._waiting = self._waiting, set()
        try:
            async with self._turn:
                tenants = await self._refresh(sorted(waiting))
        except Unavailable:
            self._waiting |= waiting
            raise
        for tenant in sorted(tenants & self._tenants.keys()):  # of others the sweep knows only a part yet
            await self._write(tenant)
        return len(waiting)

    async def _refresh(self, ids: Sequence[str]) -> set[str]:
        """Counts collections in the ledgers of their databases; the tenants that these are of."""
        tenants: set[str] = set()
        for start in range(0, len(ids), PIPELINE_MAX):
            batch = ids[start : start + PIPELINE_MAX]
            layouts = await self._log.layouts(batch)
            for database_key, members in _by_database(layouts).items():
                ledger = self._databases.get(database_key)
                if ledger is None:
                    self._unseen = True
                else:
                    await self._count(ledger, members)
                    tenants.add(ledger.tenant)
        return tenants

    async def _count_database(self, database: Database) -> DatabaseLedger:
        ledger = DatabaseLedger(database.tenant, database.name)
        ids = await self._catalog.collections.ids(database)
        for start in range(0, len(ids), PIPELINE_MAX):
            layouts = await self._log.layouts(ids[start : start + PIPELINE_MAX])
            await self._count(ledger, layouts)
        return ledger

    async def _count(self, ledger: DatabaseLedger, owned: Mapping[str, OwnedLayout]) -> None:
        self._count_written(ledger.tenant, owned)
        layouts = {collection_id: each.layout for collection_id, each in owned.items()}
        shards = [(collection_id, number) for collection_id, layout in layouts.items() for number in layout.numbers]
        damaged: dict[str, str] = {}
        states = dict(zip(shards, await self._log.states(shards, damaged), strict=True))
        present = {shard: state for shard, state in states.items() if state is not None and not state.deleted}
        await self._learn({shard: state.pointer for shard, state in present.items()})
        for collection_id, layout in layouts.items():
            found = [(state, shard) for n in layout.numbers if (state := present.get(shard := (collection_id, n)))]
            if found:
                ledger.put(collection_id, [shard_sums(state, self._known[shard]) for state, shard in found])
            else:
                ledger.drop(collection_id)

    def _count_written(self, tenant: str, owned: Mapping[str, OwnedLayout]) -> None:
        newest = hour_of(self._clock.now()) + 1  # the clock of the log's server may be ahead
        self._owners.update(dict.fromkeys(owned, tenant))
        for collection_id, each in owned.items():
            for hour, used in (found for field in each.written for found in parse_written(field)):
                if newest - WRITTEN_HOURS <= hour <= newest:
                    self._usage.raise_to(hour, Subject(tenant, collection_id), used)

    def _count_stored_time(self) -> None:
        """Counts what tenants have stored for the time since the last sweep."""
        now_s, before_s = self._clock.now(), self._swept_s
        self._swept_s = now_s
        seconds = 0 if before_s is None else min(max(0, round(now_s - before_s)), STORED_TIME_S_MAX)
        for tenant, amounts in self._written.items():
            used = {
                Measure.STORED_RECORD_S.value: amounts.sums.records * seconds,
                Measure.STORED_BYTE_S.value: amounts.sums.bytes * seconds,
            }
            if any(used.values()):
                self._usage.add(hour_of(now_s), Subject(tenant), used)

    # What is read

    async def _learn(self, pointers: Mapping[Shard, Pointer | None]) -> None:
        """Reads the manifests whose amounts are not known."""
        new = [
            (shard, pointer) for shard, pointer in pointers.items() if not is_current(self._known.get(shard), pointer)
        ]
        await map_concurrently(self._read_manifest, new, at_once=MANIFESTS_AT_ONCE)

    async def _read_manifest(self, named: tuple[Shard, Pointer | None]) -> None:
        shard, pointer = named
        if pointer is None:
            self._known[shard] = NO_MANIFEST
            return
        try:
            self._known[shard] = amounts_of(await self._manifests.load(*shard, pointer))
        except Corrupt as error:  # the trimmer or the next read reports it as damage
            log.warning("stored_amounts_unknown", collection=shard[0], shard=shard[1], message=error.message)
            before = self._known.get(shard, NO_MANIFEST)
            self._known[shard] = before._replace(version=pointer.version, readable=False)

    # What is written

    async def _write(self, tenant: str) -> None:
        """Writes the amounts of a tenant unless they are there already."""
        ledgers = self._tenants.get(tenant, {})
        by_name = {ledger.name: ledger.sums for ledger in ledgers.values()}
        amounts = StoredAmounts(total_of(ledgers), by_name, self._clock.now())
        before = self._written.get(tenant)
        if before is None or before[:2] != amounts[:2] or amounts.at_s - before.at_s >= REWRITE_S:
            await self._table.write(tenant, amounts)
            self._written[tenant] = amounts

    def _forget(self, tenants: set[str], collections: set[str]) -> None:
        """Forgets what a sweep has not seen."""
        for gone in self._tenants.keys() - tenants:
            del self._tenants[gone]
            self._written.pop(gone, None)
        self._databases = {key: ledger for ledgers in self._tenants.values() for key, ledger in ledgers.items()}
        if len(self._owners) > 2 * len(collections) + OWNERS_KEPT:  # else those of deleted collections are still of use
            self._owners = {each: tenant for each, tenant in self._owners.items() if each in collections}
        self._known = {shard: known for shard, known in self._known.items() if shard[0] in collections}


def _by_database(layouts: Mapping[str, OwnedLayout]) -> dict[str, dict[str, OwnedLayout]]:
    found: dict[str, dict[str, OwnedLayout]] = {}
    for collection_id, owned in layouts.items():
        found.setdefault(owned.database_key, {})[collection_id] = owned
    return found
