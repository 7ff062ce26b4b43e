"""What follows a committed deletion, in the order in which it must happen; each step may be repeated by anybody.

reset      tenants gone            -> per tenant: its databases go to its trash, then per database as below
database   row gone, key in trash  -> closed, its collections go to its trash -> these are marked deleted
collection row gone, id in trash   -> marked deleted
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from redis.asyncio import Redis

from shared.catalog.slots import Slots
from shared.log.lifecycle import Lifecycle
from shared.redis.client import command, persist
from shared.redis.keys import Keys

CLOSED_TTL_S: Final = 24 * 3600
"""How long a deleted database refuses creations after nothing was left of it. Only a process that has held on to the
database for longer could still create something in it, which nobody would ever see."""


class Removal:
    """Steps between the commit of a deletion and its end."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._slots = Slots(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)

    async def finish_tenants(self) -> None:
        """After a reset: marks everything that belonged to the removed tenants."""
        for tenant in await self._members(self._keys.tenant_trash):
            await self.clear_tenant(tenant)

    async def clear_tenant(self, tenant: str) -> None:
        await self._slots.databases(tenant, "clear")
        for key in await self._members(self._keys.database_trash(tenant)):
            await self.finish_database(key)
        await self._slots.tenants("cleared", tenant)

    async def finish_database(self, key: str) -> None:
        await self._slots.collections(key, "close")
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
                collected += await self.collect_database(key)
                await self._slots.collections(key, "expire", CLOSED_TTL_S)
                await self._slots.databases(tenant, "collected", key)
        for tenant in cleared:
            await self._slots.tenants("collected", tenant)
        return collected

    async def collect_database(self, key: str) -> int:
        """Removes what is left of a database's deleted collections; returns how many."""
        doomed = await self._members(self._keys.trash(key))
        await self._lifecycle.mark_deleted(doomed)
        for collection_id in doomed:
            await self._lifecycle.collect(collection_id)
            await self._slots.collections(key, "collected", collection_id)
        return len(doomed)

    async def _members(self, key: str) -> list[str]:
        found = await persist(lambda: command(self._redis, "SMEMBERS", key), writes=False)
        return sorted(member.decode() for member in found)
