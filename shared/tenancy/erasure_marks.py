"""Marks in Redis for erasures under way: which collections compactors have to rewrite, and which segments caches have
to drop. All of it is made again of the control records by the log service.

```text
pc:{catalog}:erasures           hash   collection id -> id of the erasure: compactions leave no dead row in its segments
pc:{catalog}:erasures:segments  zset   path of a segment that is erased -> when (s)
pc:{catalog}:erasures:heard     hash   process -> up to which time its local cache has dropped them (s)
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from redis.asyncio import Redis

from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys

NAMED_S: Final = 30 * 86_400.0
"""Time for which erased segments are named, in seconds: a process that comes back later finds nothing said of them."""


class ErasureMarks:
    """The marks. Everything raises Unavailable while Redis is away."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def is_erasing(self, collection_id: str) -> bool:
        """Whether the collection's segments must not keep dead rows."""
        call = ("HEXISTS", self._keys.erasures, collection_id)
        return bool(await retry_idempotent(lambda: command(self._redis, *call), writes=False))

    async def marked(self) -> dict[str, str]:
        """The erasure of each collection that is marked."""
        call = ("HGETALL", self._keys.erasures)
        found = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        pairs = found.items() if isinstance(found, Mapping) else zip(found[0::2], found[1::2], strict=True)
        return {collection.decode(): erasure.decode() for collection, erasure in pairs}

    async def mark(self, collections: Mapping[str, str]) -> None:
        """Marks these collections, each with its erasure."""
        if collections:
            pairs = [part for pair in collections.items() for part in pair]
            await self._write("HSET", self._keys.erasures, *pairs)

    async def unmark(self, collections: Iterable[str]) -> None:
        """Takes these marks away."""
        if names := list(collections):
            await self._write("HDEL", self._keys.erasures, *names)

    # Segments that caches have to drop

    async def name_segments(self, segments: Iterable[str], now_s: float) -> None:
        """Tells all caches that these segments (by path) are erased."""
        if pairs := [part for segment in segments for part in (now_s, segment)]:
            await self._write("ZADD", self._keys.erased_segments, *pairs)
            await self._write("ZREMRANGEBYSCORE", self._keys.erased_segments, "-inf", now_s - NAMED_S)

    async def segments_since(self, since_s: float) -> list[tuple[str, float]]:
        """The paths of the segments that were named at this time or later, each with the time."""
        newest = await self._named("ZREVRANGE", 0)
        if not newest or newest[0][1] < since_s:
            return []
        return [each for each in await self._named("ZRANGE", -1) if each[1] >= since_s]

    async def _named(self, order: str, last: int) -> list[tuple[str, float]]:
        call = (order, self._keys.erased_segments, 0, last, "WITHSCORES")
        found = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        nested = bool(found) and isinstance(found[0], list | tuple)
        pairs = found if nested else zip(found[0::2], found[1::2], strict=True)
        return [(path.decode(), float(named_s)) for path, named_s in pairs]

    async def note_dropped(self, process: str, until_s: float) -> None:
        """Notes that the process's cache has none of the segments any more that were named up to this time."""
        await self._write("HSET", self._keys.erased_heard, process, repr(until_s))

    async def heard(self) -> dict[str, float]:
        """Up to which time each process has dropped what was named."""
        call = ("HGETALL", self._keys.erased_heard)
        found = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        pairs = found.items() if isinstance(found, Mapping) else zip(found[0::2], found[1::2], strict=True)
        return {process.decode(): float(until_s) for process, until_s in pairs}

    async def forget(self, processes: Iterable[str]) -> None:
        """Forgets processes that are gone."""
        if names := list(processes):
            await self._write("HDEL", self._keys.erased_heard, *names)

    async def _write(self, *call: str | float) -> None:
        await retry_idempotent(lambda: command(self._redis, *call), writes=True)
