"""The number of changes of the catalog: a hint to take a new snapshot of it."""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis

from shared.catalog.notes import Notes
from shared.catalog.scripts import TENANTS_NOTE, CatalogScripts
from shared.errors import Unavailable
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys

DRAWN_MAX: Final = 100_000
"""More numbers than can have been drawn for entries of the journal that are not in the bucket yet."""


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
        """A number that is another one after every change. Raises Unavailable, too when it was lost."""
        stored = await self._stored()
        if stored and not stored.isdigit():
            await Notes(self._redis, self._keys.losses).add([TENANTS_NOTE])
            raise Unavailable("The number of changes was lost and is being restored")
        return int(stored or 0)

    async def restore(self, known: int) -> bool:
        """Raises the number beyond the one that the bucket knows, if it was lost or is lower: entries of the journal
        are numbered by it. Returns whether that was so.
        """
        stored = await self._stored()
        number = int(stored) if stored and stored.isdigit() else None
        if (number or 0) >= known and (number is not None or stored is None):
            return False
        await self._scripts.tenants("counted", known + DRAWN_MAX)
        return True

    async def forget(self) -> bool:
        """Removes a number that cannot be read, in a Redis that is not open: what the bucket has is newer than none.
        Returns whether that was so.
        """
        stored = await self._stored()
        if stored is None or stored.isdigit():
            return False
        await retry_idempotent(lambda: command(self._redis, "DEL", self._keys.changes), writes=True)
        return True

    async def _stored(self) -> bytes | None:
        found: bytes | None = await retry_idempotent(
            lambda: command(self._redis, "GET", self._keys.changes), writes=False
        )
        return found
