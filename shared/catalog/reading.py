"""Reads of the catalog's keys, for which a server that has lost everything is unavailable, and not empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from shared.catalog.cluster import ClusterMark
from shared.redis.client import command, translated_errors
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX


class CatalogReader:
    """Single reads, without a second try: a client asks again. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._mark = ClusterMark(redis, keys)

    async def require_cluster(self) -> None:
        """To be called before an empty answer is believed. Raises Unavailable unless the cluster is open."""
        await self._mark.require()

    async def one(self, *call: Any) -> Any:
        """The reply to one command; None only when the cluster is open."""
        with translated_errors():
            reply = await command(self._redis, *call)
        if reply is None:
            await self.require_cluster()
        return reply

    async def members_in_order(self, key: str, limit: int | None = None, offset: int = 0) -> list[str]:
        """Members of a zset by score, `limit` of them at most (None: all), without the first `offset`."""
        if limit == 0:
            return []
        stop = -1 if limit is None else offset + limit - 1
        with translated_errors():
            return [member.decode() for member in await command(self._redis, "ZRANGE", key, offset, stop)]

    async def values(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        """The values of a hash's fields; None for a field that is not there."""
        found: list[bytes | None] = []
        with translated_errors():
            for start in range(0, len(fields), PIPELINE_MAX):
                found += await command(self._redis, "HMGET", key, *fields[start : start + PIPELINE_MAX])
        return found

    async def all_values(self, key: str) -> dict[str, bytes]:
        """All fields of a hash with their values."""
        with translated_errors():
            found: Mapping[bytes, bytes] = await command(self._redis, "HGETALL", key)
        return {field.decode(): value for field, value in found.items()}
