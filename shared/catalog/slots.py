"""The catalog's scripts, each with the keys of its slot."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

TENANTS = Script("shared.catalog", "tenants")
DATABASES = Script("shared.catalog", "databases")
COLLECTIONS = Script("shared.catalog", "collections")


class Slots:
    """One method per slot; verbs, arguments and outcomes are in the scripts' headers."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def tenants(self, verb: str, *args: Argument) -> Any:
        names = self._keys
        keys = [names.tenants, names.resources, names.tenant_trash, names.cleared_tenants, names.changes]
        return await TENANTS.run(self._redis, keys, [verb, *args])

    async def databases(self, tenant: str, verb: str, *args: Argument) -> Any:
        names = self._keys
        keys = [names.databases(tenant), names.database_order(tenant), names.database_trash(tenant)]
        return await DATABASES.run(self._redis, keys, [verb, *args])

    async def collections(self, database_key: str, verb: str, *args: Argument) -> Any:
        key, names = database_key, self._keys
        keys = [names.names(key), names.rows(key), names.order(key), names.trash(key), names.closed(key)]
        keys.append(names.functions(key))
        return await COLLECTIONS.run(self._redis, keys, [verb, *args])

    async def changed(self) -> None:
        """Counts a change of the catalog: a hint to take a new snapshot of it."""
        await self.tenants("changed")
