"""Completes or removes what processes left that died half-way: deletions that were committed and not finished, states
that never got a row, rows whose state is behind or gone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any, Final

from redis.asyncio import Redis

from shared.catalog.catalog import Catalog
from shared.catalog.families import Families
from shared.catalog.losses import Losses
from shared.catalog.model import Database
from shared.catalog.pending import PendingChanges
from shared.catalog.readable import collection_row
from shared.catalog.reading import text_of
from shared.catalog.removal import Removal
from shared.catalog.scripts import CatalogScripts
from shared.catalog.slots import TENANTS, Path, Slot, path_of, path_of_tenant, path_to
from shared.errors import Garbled
from shared.log.lifecycle import Lifecycle, Owner
from shared.log.required import checked_fields, is_whole
from shared.process.telemetry import get_logger
from shared.redis.client import command, retry_idempotent, translated_errors
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX

log = get_logger(__name__)

ORPHAN_AGE_S: Final = 600.0
"""Age from which a state without a row counts as an orphan, whose creator has died. If the creator is alive after all,
it has to begin anew.
"""


Recover = Callable[[str, dict[str, Any]], Awaitable[bool]]
"""Called with the id and the row of a collection whose state is gone. Returns whether the row must stay."""


class Collector:
    """The collector of what dead processes left: rounds of several kinds, run by the leading log service, one of each
    kind at a time. Everything raises Unavailable.
    """

    def __init__(self, redis: Redis, keys: Keys, catalog: Catalog, orphan_age_s: float = ORPHAN_AGE_S) -> None:
        self._redis = redis
        self._keys = keys
        self._catalog = catalog
        self._removal = Removal(redis, keys, catalog.journal)
        self._scripts = CatalogScripts(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)
        self._losses = Losses(redis, keys)
        self._families = Families(redis, keys)
        self._pending = PendingChanges(redis, keys)
        self._orphan_age_s = orphan_age_s

    async def collect_deleted(self) -> int:
        """Finishes and collects every committed deletion; returns how many collections that was."""
        deleted = await self._removal.collect([tenant.name for tenant in await self._catalog.tenants.all(set())])
        async for database in self._catalog.databases.all(set()):
            deleted += await self._removal.collect_database(database.tenant, database.key)
        return deleted

    async def settle_journal(self) -> int:
        """Makes every change durable that is not in the journal because the process that made it died, or could not
        write it; returns in how many slots that was.
        """
        paths: dict[Slot, Path] = {TENANTS: (TENANTS,)}
        for tenant in await self._catalog.tenants.all(set()):
            paths[Slot(tenant=tenant.name)] = path_of_tenant(tenant.name)
            for database in await self._catalog.databases.of_tenant(tenant.name, damaged=set()):
                paths[Slot(database=database.key)] = path_of(tenant.name, database.key)
        behind = await self._pending.any_of(list(paths))
        for slot in behind:
            await self._catalog.journal.settle(paths[slot])
        return len(behind)

    async def graves(self) -> dict[str, float]:
        """Collections that the catalog deleted and whose objects may not be gone, each with the time since when."""
        return await self._removal.graves()

    async def forget_families(self, living: Set[str]) -> None:
        """Forgets the families without a member. `living` are the roots of all others."""
        await self._families.forget_all_but(living)

    async def forget(self, collection_ids: Sequence[str]) -> None:
        """Forgets deleted collections of which nothing at all is left."""
        await self._removal.forget(collection_ids)

    async def collect_orphans(self) -> int:
        """Collects states that have no row and are old enough; returns how many."""
        collected = 0
        async for owner in self._lifecycle.owners():
            if owner.age_s < self._orphan_age_s:
                continue
            if await self._has_row(owner):
                continue
            # The id goes to the trash first, in the slot where a row would be committed: from here on it can't be.
            _, abandoned = await self._scripts.collections(owner.database_key, "abandon", owner.collection_id)
            if abandoned:
                await self._collect_orphan(owner)
                collected += 1
        return collected

    async def _has_row(self, owner: Owner) -> bool:
        """Whether a database has a row of the collection. If it is another one than the state says, the state is
        damaged, and no orphan: it is noted, to be restored.
        """
        if await self._rows_with([owner.database_key], owner.collection_id):
            return True
        others = await self._rows_with([each.key async for each in self._catalog.databases.all()], owner.collection_id)
        for key in others:
            log.error("state_of_another_database", collection=owner.collection_id, says=owner.database_key, row=key)
            await self._losses.note(key)
        return bool(others)

    async def _rows_with(self, database_keys: Sequence[str], collection_id: str) -> list[str]:
        """Those of the databases that have a row of this id."""
        found: list[str] = []
        for start in range(0, len(database_keys), PIPELINE_MAX):
            some = database_keys[start : start + PIPELINE_MAX]
            with translated_errors():
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for key in some:
                        pipeline.hexists(self._keys.rows(key), collection_id)
                    there = await pipeline.execute()
            found += [key for key, is_there in zip(some, there, strict=True) if is_there]
        return found

    async def _collect_orphan(self, owner: Owner) -> None:
        """Removes an orphan. A fork has objects before it has a row, so it gets a grave; a row that comes too late is
        removed by `repair_database` because of the grave.
        """
        if owner.family:
            await self._families.remove(owner.family, owner.collection_id)
            await self._removal.bury({owner.collection_id: time.time()})
        await self._lifecycle.mark_deleted([owner.collection_id])
        await self._lifecycle.collect(owner.collection_id)
        await self._scripts.collections(owner.database_key, "collected", owner.collection_id)

    async def repair_database(self, database: Database, recover: Recover) -> int:
        """Brings states up to the generation of the database's rows where the process that changed the row died before
        that. Rows whose state is gone are given to `recover`, and removed only when that does not know the collection:
        nothing could be read or written there. Returns how many rows needed something.
        """
        touched = 0
        for start in itertools.count(0, PIPELINE_MAX):
            some = await self._rows(database.key, start)
            if not some:
                break
            for collection_id, row, generation in some:
                try:
                    fields = collection_row(collection_id, row)
                except Garbled:
                    await self._losses.note(database.key)
                    continue
                touched += await self._repair(database, collection_id, fields, generation, recover)
        return touched

    async def _rows(self, database_key: str, start: int) -> list[tuple[str, bytes, bytes | None]]:
        """Id, row and the state's generation (None: no whole state) of a page of collections, in order of creation."""
        page = ("ZRANGE", self._keys.order(database_key), start, start + PIPELINE_MAX - 1)
        ids = await retry_idempotent(lambda: command(self._redis, *page), writes=False)
        if not ids:
            return []
        with translated_errors():
            rows = await command(self._redis, "HMGET", self._keys.rows(database_key), *ids)
            async with self._redis.pipeline(transaction=False) as pipeline:
                for collection_id in ids:
                    pipeline.hmget(self._keys.state(text_of(collection_id)), ["gen", *checked_fields()])
                states = await pipeline.execute()
        return [
            (text_of(collection_id), row, generation if _is_whole(checked, database_key) else None)
            for collection_id, row, (generation, *checked) in zip(ids, rows, states, strict=True)
            if row is not None
        ]

    async def _repair(
        self, database: Database, collection_id: str, row: dict[str, Any], state: bytes | None, recover: Recover
    ) -> bool:
        if state is None:
            # Not while Redis is lost or just restored: then the state is missing only for this moment.
            alone = await self._losses.has_row_alone(database.key, collection_id)
            if not alone or await self._catalog.mark.read() is None:
                return False
            if not await self._removal.is_buried(collection_id) and await recover(collection_id, row):
                return True
            async with self._catalog.journal.change(path_to(database)):
                await self._scripts.collections(database.key, "delete", row["name"], collection_id)
            log.warning("row_without_state", collection=collection_id, name=row["name"])
            return True
        if int(state) < row["generation"]:
            return await self._lifecycle.raise_generation(collection_id, row["generation"])
        return False


def _is_whole(checked: Sequence[bytes | None], database_key: str) -> bool:
    """Whether a state with these values of `checked_fields` is whole; its row is in this database."""
    return is_whole(dict(zip(checked_fields(), checked, strict=True)), database_key)
