"""For how long collections keep their history: what reads of the past, and forks of it, can go back to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis

from shared.catalog.readable import collection_row
from shared.catalog.reading import CatalogReader, is_text
from shared.errors import Garbled
from shared.log.naming import state_name
from shared.redis.keys import Keys

HISTORY_KEY: Final = "polychrome:history_s"
"""The metadata key by which a client says for how many seconds a collection keeps its history; without it, the setting
of the log service says so."""

HISTORY_S_MAX: Final = 10 * 365 * 24 * 3600
"""Longest history that a collection may ask for, in seconds."""


def history_of(metadata: Mapping[str, Any] | None, default_s: float) -> float:
    """The history of a collection with this metadata, in seconds; 0: none."""
    given = (metadata or {}).get(HISTORY_KEY)
    return default_s if type(given) is not int else float(given)


class Histories:
    """The histories of collections by their rows as they are now. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys, default_s: float) -> None:
        self._reader = CatalogReader(redis, keys)
        self._keys = keys
        self._default_s = default_s

    async def of(self, collection_id: str) -> float:
        """The collection's history in seconds; 0 when it has no row (any more, or yet). Raises Garbled when row or
        state cannot be read: nothing may be given up that a history needs.
        """
        database = await self._reader.one("HGET", self._keys.state(collection_id), "db")
        if database is None:
            return 0.0
        if not is_text(database):
            raise Garbled("the database in the state cannot be read", state_name(collection_id))
        row = await self._reader.one("HGET", self._keys.rows(database.decode()), collection_id)
        return 0.0 if row is None else history_of(collection_row(collection_id, row)["metadata"], self._default_s)
