"""The list of live processes. A hint: a listed member may be dead, and one that is not listed may still answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson
from redis.asyncio import Redis

from shared.process.telemetry import get_logger
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

log = get_logger(__name__)

MEMBERS = Script("shared.cluster", "members")


@dataclass(frozen=True)
class Member:
    """A live process: its id, and the address at which it takes calls. While it drains it takes no new ones."""

    id: str
    address: str
    draining: bool = False


_MEMBER: Final = msgspec.json.Decoder(Member)


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
        """The members that announced themselves and have neither expired nor left, by id. One that cannot be read is
        left out until it announces itself again. Raises Unavailable.
        """
        found: list[Member] = []
        for row in filter(None, await self._run("list", writes=False)):
            try:
                found.append(_MEMBER.decode(row))
            except ValueError as error:
                log.error("member_unreadable", row=repr(row), message=str(error))  # noqa: TRY400 (no stack: data is at fault)
        return sorted(found, key=lambda member: member.id)

    async def _run(self, verb: str, *args: Argument, writes: bool = True) -> Any:
        return await MEMBERS.run(self._redis, self._keys, [verb, *args], writes=writes)
