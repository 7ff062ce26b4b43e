"""The list of live processes. A hint: a listed member may be dead, and one that is not listed may still answer."""

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
    """A live process: its id, and the address at which it takes calls. While it drains it takes no new ones."""

    id: str
    address: str
    draining: bool = False


class Membership:
    """The members of one role: "frontend", "logservice", "compactor", "queryworker" or "embedder"."""

    def __init__(self, redis: Redis, keys: Keys, role: str) -> None:
        self._redis = redis
        self._keys = [keys.members(role), keys.heartbeats(role)]

    async def announce(self, member: Member, ttl_s: float) -> None:
        """Lists the member for `ttl_s` seconds; to be repeated well before they are over. Raises Unavailable."""
        row = orjson.dumps({"id": member.id, "address": member.address, "draining": member.draining})
        await self._run("announce", member.id, row, int(ttl_s * 1000))

    async def leave(self, member_id: str) -> None:
        """Removes the member from the list. Raises Unavailable."""
        await self._run("leave", member_id)

    async def members(self) -> list[Member]:
        """The members that announced themselves and have neither expired nor left, by id. Raises Unavailable."""
        rows = [orjson.loads(row) for row in await self._run("list", writes=False)]
        return sorted((Member(row["id"], row["address"], row["draining"]) for row in rows), key=lambda m: m.id)

    async def _run(self, verb: str, *args: Argument, writes: bool = True) -> Any:
        return await MEMBERS.run(self._redis, self._keys, [verb, *args], writes=writes)
