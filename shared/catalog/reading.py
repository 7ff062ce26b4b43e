"""Reads of the catalog's keys, for which a server that has lost everything is unavailable, and not empty."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from shared.catalog.cluster import ClusterMark
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX

CATALOG_READ_S: Final = 5.0
"""Longest time of a read with its retries, in seconds: a server that is started again is back before."""

T = TypeVar("T")


async def repeated(read: Callable[[], Awaitable[T]]) -> T:
    """The result of `read`, which only reads, and is repeated while the server is away. Raises Unavailable when it
    stays away.
    """
    return await retry_idempotent(read, writes=False, deadline_s=CATALOG_READ_S)


_COLLECTION_ID: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

NO_TEXT: Final = "\ufffd"
"""The character in the place of bytes of a name or an id that are no text."""


def text_of(stored: bytes) -> str:
    """A name or an id that Redis has. Bytes that are no text become a name that nothing has."""
    return stored.decode(errors="replace")


def is_text(stored: bytes) -> bool:
    """Whether a name or an id that Redis has is one. Members of sets that are none are nobody's, and passed over."""
    return text_of(stored).encode() == stored


def is_collection_id(stored: bytes) -> bool:
    """Whether an id that Redis has is one of a collection: of another one no key may be read."""
    return _COLLECTION_ID.fullmatch(stored) is not None


class CatalogReader:
    """Single reads. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._mark = ClusterMark(redis, keys)

    async def require_cluster(self) -> None:
        """To be called before an empty answer is believed. Raises Unavailable unless the cluster is open."""
        await self._mark.require()

    async def one(self, *call: Any) -> Any:
        """The reply to one command; None only when the cluster is open."""
        reply = await self._reply(*call)
        if reply is None:
            await self.require_cluster()
        return reply

    async def members_in_order(self, key: str, limit: int | None = None, offset: int = 0) -> list[str]:
        """Members of a zset by score, `limit` of them at most (None: all), without the first `offset`."""
        if limit == 0:
            return []
        stop = -1 if limit is None else offset + limit - 1
        return [text_of(member) for member in await self._reply("ZRANGE", key, offset, stop)]

    async def some_in_order(self, key: str, members: Collection[str]) -> list[str]:
        """Those of the members that a zset has, by score."""
        given = sorted(members)
        if not given:
            return []
        scores = await self._reply("ZMSCORE", key, *given)
        found = [(float(score), member) for score, member in zip(scores, given, strict=True) if score is not None]
        return [member for _, member in sorted(found)]

    async def values(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        """The values of a hash's fields; None for a field that is not there."""
        found: list[bytes | None] = []
        for start in range(0, len(fields), PIPELINE_MAX):
            found += await self._reply("HMGET", key, *fields[start : start + PIPELINE_MAX])
        return found

    async def all_values(self, key: str) -> dict[str, bytes]:
        """All fields of a hash with their values."""
        found: Mapping[bytes, bytes] = await self._reply("HGETALL", key)
        return {text_of(field): value for field, value in found.items()}

    async def _reply(self, *call: Any) -> Any:
        return await repeated(lambda: command(self._redis, *call))
