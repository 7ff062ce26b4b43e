"""Families of collections: an original, its forks, and theirs. A quota bounds the forks that a family ever made."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

from redis.asyncio import Redis

from shared.catalog.reading import is_text
from shared.errors import QuotaExceeded
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Script

FAMILIES: Final = Script("shared.catalog", "families")


class Families:
    """The forks of each family. A family is named by the id of its root, the original, which may be deleted by now.
    Everything raises Unavailable.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def add(self, root: str, fork_id: str, limit: int) -> None:
        """Counts a fork of the family. Raises QuotaExceeded when it has made `limit` already."""
        outcome, count = await self._run(root, "add", root, fork_id, limit)
        if outcome == b"FULL":
            raise QuotaExceeded(
                "Quota exceeded: 'Number of forks' exceeded quota limit for action 'Fork Collection': "
                f"current usage of {count + 1} exceeds limit of {limit}"
            )

    async def remove(self, root: str, fork_id: str) -> None:
        """Takes back what `add` did, of a fork that was given up."""
        await self._run(root, "remove", root, fork_id)

    async def count(self, root: str) -> int:
        """The number of forks that the family ever made."""
        key = self._keys.forks(root)
        return int(await retry_idempotent(lambda: command(self._redis, "SCARD", key), writes=False))

    async def every(self) -> dict[str, list[str]]:
        """The forks of each family that has any, by its root."""
        roots = await self._members(self._keys.families)
        return {root: forks for root in roots if (forks := await self._members(self._keys.forks(root)))}

    async def restore(self, families: Mapping[str, Sequence[str]]) -> None:
        """Puts back the forks that are missing in these families."""
        for root, forks in families.items():
            for fork_id in forks:
                await self.add(root, fork_id, sys.maxsize)

    async def forget_all_but(self, living: Set[str]) -> None:
        """Forgets families that have no member any more. `living` are the roots of all that have."""
        for root in await self._members(self._keys.families):
            if root not in living:
                await self._run(root, "forget", root)

    async def _members(self, key: str) -> list[str]:
        found = await retry_idempotent(lambda: command(self._redis, "SMEMBERS", key), writes=False)
        return sorted(member.decode() for member in found if is_text(member))

    async def _run(self, root: str, *args: str | int) -> list[Any]:
        keys = [self._keys.forks(root), self._keys.families]
        answer: list[Any] = await FAMILIES.run(self._redis, keys, args)
        return answer
