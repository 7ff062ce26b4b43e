"""The list of live processes. A hint: a member that is listed may be dead, one that is not may answer still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

MEMBERS = Script("shared.cluster", "members")


@dataclass(frozen=True)
class Member:
    """A live process. A draining one finishes what it has and wants nothing new."""

    id: str
    address: str
    draining: bool = False


class Membership:
    """The members of one role: "frontend", "logservice", "compactor", "queryworker" or "embedder"."""

    def __init__(self, redis: Redis, keys: Keys, role: str) -> None:
        self._redis = redis
        self._keys = [keys.members(role), keys.heartbeats(role)]

    async def announce(self, member: Member, ttl_s: float) -> None:
        """Lists the member for `ttl_s`; to be repeated well before that."""
        row = orjson.dumps({"id": member.id, "address": member.address, "draining": member.draining})
        await self._run("announce", member.id, row, int(ttl_s * 1000))

    async def leave(self, member_id: str) -> None:
        await self._run("leave", member_id)

    async def members(self) -> list[Member]:
        """Everybody who announced itself and has not expired or left, by id."""
        rows = [orjson.loads(row) for row in await self._run("list", writes=False)]
        return sorted((Member(row["id"], row["address"], row["draining"]) for row in rows), key=lambda m: m.id)

    async def _run(self, verb: str, *args: Argument, writes: bool = True) -> Any:
        return await MEMBERS.run(self._redis, self._keys, [verb, *args], writes=writes)
