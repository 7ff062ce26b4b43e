"""Manifests that a restoration took up without the hash that a pointer has, and that have still to prove against their
records (`shared.manifest.digests`). The log service does that after it has opened the cluster: their checksum has
shown that they are as they were written, and reading the digests of a large cluster takes long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from redis.asyncio import Redis

from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX

SOME: Final = 16


class Unproven:
    """The keys of these manifests' objects, in Redis. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._key = keys.unproven

    async def add(self, manifests: Iterable[str]) -> None:
        """Notes manifests that were taken up."""
        names = list(manifests)
        for start in range(0, len(names), PIPELINE_MAX):
            call = ("SADD", self._key, *names[start : start + PIPELINE_MAX])
            await retry_idempotent(lambda call=call: command(self._redis, *call), writes=True)  # type: ignore[misc] # no type for a lambda with a default

    async def some(self) -> list[str]:
        """Some of them, in no order; none when all have proven."""
        call = ("SRANDMEMBER", self._key, SOME)
        found: list[bytes] = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return [name.decode() for name in found]

    async def remove(self, manifest: str) -> None:
        """Forgets a manifest: it has proven, it is in the registry of damage, or nothing names it any more."""
        await retry_idempotent(lambda: command(self._redis, "SREM", self._key, manifest), writes=True)

    async def count(self) -> int:
        """How many there are."""
        return int(await retry_idempotent(lambda: command(self._redis, "SCARD", self._key), writes=False))
