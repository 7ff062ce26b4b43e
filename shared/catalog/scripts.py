"""The catalog's scripts, each with the keys of its hash slot: the whole cluster's, a tenant's, a database's."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis

from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

TENANTS: Final = Script("shared.catalog", "tenants")
DATABASES: Final = Script("shared.catalog", "databases")
COLLECTIONS: Final = Script("shared.catalog", "collections")


class CatalogScripts:
    """The catalog's scripts, a method for each; verbs, arguments and replies are in the scripts' headers."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def tenants(self, verb: str, *args: Argument) -> Any:
        names = self._keys
        keys = [names.tenants, names.resources, names.tenant_trash, names.cleared_tenants, names.changes]
        keys += [names.catalog_version, names.catalog_pending]
        return await TENANTS.run(self._redis, keys, [verb, *args])

    async def databases(self, tenant: str, verb: str, *args: Argument) -> Any:
        names = self._keys
        keys = [names.databases(tenant), names.database_order(tenant), names.database_trash(tenant)]
        keys += [names.tenant_version(tenant), names.tenant_pending(tenant)]
        return await DATABASES.run(self._redis, keys, [verb, *args])

    async def collections(self, database_key: str, verb: str, *args: Argument) -> list[Any]:
        key, names = database_key, self._keys
        keys = [names.names(key), names.rows(key), names.order(key), names.trash(key), names.closed(key)]
        keys += [names.functions(key), names.database_version(key), names.database_pending(key)]
        reply: list[Any] = await COLLECTIONS.run(self._redis, keys, [verb, *args])
        return reply
