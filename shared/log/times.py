"""When entries of the log were appended."""

from __future__ import annotations

from typing import Final, NamedTuple

from redis.asyncio import Redis

from shared.redis.keys import Keys
from shared.redis.scripts import Script

FIRST_AFTER: Final = Script("shared.log", "first_after")


class LateEntry(NamedTuple):
    """The first entry of a shard that was appended after a time: the first position of its append, the id of the entry
    before it, and the time of that one in ms since the epoch, 0 where it is not known.
    """

    first: int
    previous: str
    previous_ms: int


class EntryTimes:
    """Finds entries of streams by their times. Raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def first_after(self, collection: str, shard: int, time_ms: int) -> LateEntry | None:
        """The first entry of the shard's stream that was appended after the time; None when there is none."""
        found = await FIRST_AFTER.run(self._redis, [self._keys.log(collection, shard)], [time_ms], writes=False)
        return None if found is None else LateEntry(found[0], found[1].decode(), int(found[2]))
