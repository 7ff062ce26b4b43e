"""Sets of names in Redis that the log service looks at, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from redis.asyncio import Redis

from shared.redis.client import command, retry_idempotent
from shared.redis.scripts import PIPELINE_MAX, Script

NOTES: Final = Script("shared.catalog", "notes")
SOME: Final = 16


class Notes:
    """The set under `key`. Noting is never refused for want of memory. Everything raises Unavailable."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key

    async def add(self, names: Iterable[str]) -> None:
        """Notes these names."""
        every = list(names)
        for start in range(0, len(every), PIPELINE_MAX):
            await NOTES.run(self._redis, [self._key], ["add", *every[start : start + PIPELINE_MAX]])

    async def some(self) -> list[str]:
        """Some of the names, in no order; none when there are none."""
        call = ("SRANDMEMBER", self._key, SOME)
        found: list[bytes] = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        garbled = [name for name in found if name.decode(errors="replace").encode() != name]
        if garbled:  # nobody's: they would be returned again and again
            await NOTES.run(self._redis, [self._key], ["remove", *garbled])
        return [name.decode() for name in found if name not in garbled]

    async def remove(self, name: str) -> None:
        """Forgets a name."""
        await NOTES.run(self._redis, [self._key], ["remove", name])

    async def count(self) -> int:
        """The number of names."""
        return int(await retry_idempotent(lambda: command(self._redis, "SCARD", self._key), writes=False))
