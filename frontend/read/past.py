"""Reads of the past: as of a position of the log, or a time, that a client names (docs/wire.md, section 22)."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from shared.errors import InvalidArgument, StaleRead
from shared.process.concurrency import together

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.parse.as_of import AsOf
    from frontend.read.past_times import PastTimes
    from shared.catalog import Collection
    from shared.history.past_log import PastLog
    from shared.log.log import Log
    from shared.process.clock import Clock

Result = TypeVar("Result")


class Past:
    """The past of collections. The methods raise Gone, NotFound, Corrupt, Unavailable."""

    def __init__(self, log: Log, past_log: PastLog, times: PastTimes, rows: RowCache, clock: Clock) -> None:
        self._log = log
        self._past_log = past_log
        self._times = times
        self._rows = rows
        self._clock = clock

    async def read(self, collection: Collection, as_of: AsOf, read: Callable[[int], Awaitable[Result]]) -> Result:
        """The result of `read(position)`, as of the position that the point in the past is. Raises InvalidArgument for
        a point that is still to come; StaleRead, which names the oldest one that is left, for one that is not kept.
        """
        try:
            return await read(await self.position(collection, as_of))
        except StaleRead:
            raise await self._too_old(collection, as_of) from None

    async def position(self, collection: Collection, as_of: AsOf) -> int:
        """The position that the point in the past is. Raises InvalidArgument, and StaleRead for a time that is further
        back than what is kept.
        """
        head = (await self._log.readable(collection.id))[-1]
        if as_of.position is not None:
            if as_of.position > head:
                raise InvalidArgument(f"as_of: position {as_of.given} is still to come; the log's next one is {head}")
            return as_of.position
        if as_of.time_ms > self._clock.now() * 1000:
            raise InvalidArgument(f"as_of: {as_of.given} is still to come")
        current = await self._rows.refresh(collection)  # of now: layout and pointers are compared with the log
        return await self._times.position_at(current, as_of.time_ms, head)

    async def _too_old(self, collection: Collection, as_of: AsOf) -> StaleRead:
        current = await self._rows.refresh(collection)
        found = await together([self._past_log.oldest(current.id, shard) for shard in current.layout.numbers])
        oldest = max(found)
        return StaleRead(
            f"stale read: the past as of {as_of.given} is not kept; the oldest position that is left is "
            f"{oldest.position}{_shown_time(oldest.time_ms)}{shown_beginning(current)}"
        )


def shown_beginning(collection: Collection) -> str:
    """For the message about a past that is not kept: what the past of the collection begins with at the earliest, if
    that is not its creation. "" where it is.
    """
    if collection.layout.first:
        moment = _shown(collection.laid_s)
        return f"; a past begins when a collection gets other shards, and this one got its present ones at {moment}"
    return "; a fork has a past since it was made, and its origin has the one before" if collection.ancestors else ""


def _shown_time(time_ms: int) -> str:
    return f", after which the next write came at {_shown(time_ms / 1000)}" if time_ms else ""


def _shown(time_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(time_s, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
