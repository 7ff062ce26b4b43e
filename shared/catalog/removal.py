"""The steps that follow a committed deletion, in the order in which they must happen. Each may be repeated, by any
process.

```text
reset      tenants gone            -> per tenant: its databases go to its trash, then per database as below
database   row gone, key in trash  -> closed, its collections go to its trash -> these are marked deleted
collection row gone, id in trash   -> marked deleted -> its state goes, its id to the graves -> its objects go
```

A *grave* says that the catalog deleted the collection with this id, and since when its state is gone. The garbage
collector of the bucket goes by graves: what is merely not in the catalog may have been lost from it. A deletion is in
the journal before there is a grave: the collection must not be restored once its objects may be gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from redis.asyncio import Redis

from shared.catalog.journal import Journal
from shared.catalog.reading import is_text
from shared.catalog.scripts import CatalogScripts
from shared.catalog.slots import path_of
from shared.errors import Unavailable
from shared.log.lifecycle import Lifecycle
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX

CLEAR_TRIES: Final = 32
"""Tries of clearing a removed tenant, which begin anew when its slots changed meanwhile."""
CLOSED_TTL_S: Final = 24 * 3600
"""Time for which a deleted database refuses creations after nothing was left of it. Only a process that has held on to
the database for longer could still create something in it, which no client would ever see.
"""


class Removal:
    """The steps between the commit of a deletion and its end. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys, journal: Journal) -> None:
        self._redis = redis
        self._journal = journal
        self._keys = keys
        self._scripts = CatalogScripts(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)

    async def finish_tenants(self) -> None:
        """After a reset: marks everything that belonged to the removed tenants."""
        for tenant in await self._members(self._keys.tenant_trash):
            await self.clear_tenant(tenant)

    async def clear_tenant(self, tenant: str) -> None:
        """Marks everything that belonged to a removed tenant, whose name may be used again then. A process that sleeps
        here while others do the same, and the name is used again, changes nothing of the new tenant: the scripts
        compare the versions that the slots had before the tenant was seen to be in the trash.
        """
        for _ in range(CLEAR_TRIES):
            _, databases = await self._versions(tenant)
            if not await self._is_removed(tenant):
                return
            if await self._scripts.databases(tenant, "clear", databases) == b"LATER":
                continue
            for key in await self._members(self._keys.database_trash(tenant)):
                await self.finish_database(key)
            # Other tenants change the version, too, so it is asked for again after what may have taken long.
            tenants, _ = await self._versions(tenant)
            if not await self._is_removed(tenant) or await self._has_databases(tenant):
                continue
            if await self._scripts.tenants("cleared", tenant, tenants) == b"OK":
                return
        raise Unavailable("The server is being reset")

    async def _versions(self, tenant: str) -> tuple[int, int]:
        """The versions of the tenants' slot, and of the slot with this tenant's databases."""
        calls = [("GET", self._keys.catalog_version), ("GET", self._keys.tenant_version(tenant))]
        first, second = [
            await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            for call in calls
        ]
        return _number(first), _number(second)

    async def _is_removed(self, tenant: str) -> bool:
        """Whether the tenant is in the trash: nobody can use its name again until it is cleared."""
        call = ("SISMEMBER", self._keys.tenant_trash, tenant)
        return bool(await retry_idempotent(lambda: command(self._redis, *call), writes=False))

    async def _has_databases(self, tenant: str) -> bool:
        call = ("EXISTS", self._keys.databases(tenant))
        return bool(await retry_idempotent(lambda: command(self._redis, *call), writes=False))

    async def finish_database(self, key: str) -> None:
        """Closes a deleted database and marks its collections."""
        await self._scripts.collections(key, "close")
        await self._lifecycle.mark_deleted(await self._members(self._keys.trash(key)))

    async def collect(self, tenants: Iterable[str]) -> int:
        """Completes every deletion that was committed and removes what is left; returns how many collections that was.
        `tenants` are the live ones.
        """
        await self.finish_tenants()
        cleared = await self._members(self._keys.cleared_tenants)
        collected = 0
        for tenant in {*tenants, *cleared}:
            for key in await self._members(self._keys.database_trash(tenant)):
                await self.finish_database(key)
                collected += await self.collect_database(tenant, key)
                await self._scripts.collections(key, "expire", CLOSED_TTL_S)
                await self._scripts.databases(tenant, "collected", key)
        for tenant in cleared:
            await self._scripts.tenants("collected", tenant)
        return collected

    async def collect_database(self, tenant: str, key: str) -> int:
        """Removes what is left of the deleted collections of a tenant's database; returns how many."""
        doomed = await self._members(self._keys.trash(key))
        if not doomed:
            return 0
        await self._journal.settle(path_of(tenant, key))
        await self._lifecycle.mark_deleted(doomed)
        for collection_id in doomed:
            await self._lifecycle.collect(collection_id)
        await self.bury(dict.fromkeys(doomed, time.time()))
        for batch in _batches(doomed):
            await self._scripts.collections(key, "collected", *batch)
        return len(doomed)

    async def waiting(self, tenant: str) -> set[str]:
        """Collections of a tenant that were deleted and have no grave yet."""
        found: set[str] = set()
        for key in await self._members(self._keys.database_trash(tenant)):
            found |= await self.waiting_in(key)
        return found

    async def waiting_in(self, database_key: str) -> set[str]:
        """Collections of a database that were deleted and have no grave yet."""
        return set(await self._members(self._keys.trash(database_key)))

    async def bury(self, graves: Mapping[str, float]) -> None:
        """Gives deleted collections graves, each with the time since when it is deleted (seconds since the epoch). A
        grave that is there keeps its time.
        """
        for batch in _batches(list(graves)):
            pairs = [part for collection_id in batch for part in (graves[collection_id], collection_id)]
            call = ("ZADD", self._keys.graves, "NX", *pairs)
            await retry_idempotent(lambda call=call: command(self._redis, *call), writes=True)  # type: ignore[misc] # no type for a lambda with a default

    async def graves(self) -> dict[str, float]:
        """Collections that the catalog deleted and whose objects may not be gone, each with the time since when."""
        call = ("ZRANGE", self._keys.graves, 0, -1, "WITHSCORES")
        found = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        graves = zip(found[0::2], found[1::2], strict=True)
        return {collection_id.decode(): float(since) for collection_id, since in graves if is_text(collection_id)}

    async def is_buried(self, collection_id: str) -> bool:
        """Whether the collection has a grave."""
        call = ("ZSCORE", self._keys.graves, collection_id)
        return await retry_idempotent(lambda: command(self._redis, *call), writes=False) is not None

    async def forget(self, collection_ids: Sequence[str]) -> None:
        """Removes the graves of collections of which nothing at all is left."""
        for batch in _batches(collection_ids):
            call = ("ZREM", self._keys.graves, *batch)
            await retry_idempotent(lambda call=call: command(self._redis, *call), writes=True)  # type: ignore[misc] # no type for a lambda with a default

    async def _members(self, key: str) -> list[str]:
        """The members of a set, sorted."""
        found = await retry_idempotent(lambda: command(self._redis, "SMEMBERS", key), writes=False)
        return sorted(member.decode() for member in found if is_text(member))


def _number(version: bytes | None) -> int:
    """A version; 0 for one that is missing or cannot be read, as the scripts have it."""
    return int(version) if version and version.isdigit() else 0


def _batches(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + PIPELINE_MAX] for start in range(0, len(ids), PIPELINE_MAX))
