"""The number of changes of the catalog: a hint to take a new snapshot of it."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.catalog.scripts import CatalogScripts
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys


class Changes:
    """The number of changes of the whole catalog, in Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = CatalogScripts(redis, keys)

    async def count(self) -> None:
        """Counts one change, after it was made: of a tenant, a database or a collection, or of what a snapshot holds
        beside them.
        """
        await self._scripts.tenants("changed")

    async def number(self) -> int:
        """A number that is another one after every change. Raises Unavailable."""
        return int(await retry_idempotent(lambda: command(self._redis, "GET", self._keys.changes), writes=False) or 0)
