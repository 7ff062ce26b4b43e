"""From a time to a position: of all appends to a collection, those at or before the time lie below it.

Times never shrink along the log, whose entries carry them. So the position is where the first append begins that came
later, over all shards; or the head, when none did. In every shard the entry before that one has to be known as well, or
earlier entries may have been later than the time, too, and are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.errors import StaleRead
from shared.history.archive import SealedLogs, widest
from shared.history.past_manifests import PastManifests
from shared.log.state import FIRST_ID, Pointer, position_of
from shared.log.times import EntryTimes, LateEntry
from shared.objects.keys import SealedRange
from shared.process.concurrency import together

if TYPE_CHECKING:
    from shared.catalog import Collection
    from shared.objects.port import ObjectStore


class PastTimes:
    """Finds positions by times. Raises StaleRead for a time that is further back than what is kept, Corrupt,
    Unavailable.
    """

    def __init__(self, entry_times: EntryTimes, objects: ObjectStore) -> None:
        self._entry_times = entry_times
        self._sealed = SealedLogs(objects)
        self._manifests = PastManifests(objects)

    async def position_at(self, collection: Collection, time_ms: int, head: int) -> int:
        """The position below which all appends at or before the time lie, and no other. `head` was the collection's
        after the time.
        """
        if time_ms < collection.laid_s * 1000:
            raise StaleRead(f"the collection has its shards since {collection.laid_s:.3f}")
        shards = zip(collection.layout.numbers, collection.pointers, strict=True)
        found = await together([self._first_after(collection.id, shard, pointer, time_ms) for shard, pointer in shards])
        return min((late for late in found if late is not None), default=head)

    async def _first_after(self, collection: str, shard: int, pointer: Pointer | None, time_ms: int) -> int | None:
        """The first position of the shard's first append after the time; None when there is none."""
        # The stream first: what is trimmed from it meanwhile was sealed before.
        late = await self._entry_times.first_after(collection, shard, time_ms)
        ranges = await self._sealed.ranges(collection, shard)
        sealed = await self._first_sealed_after(ranges, time_ms)
        if sealed is not None and (late is None or sealed.first <= late.first):
            late = sealed
        if late is None:
            return None
        if late.previous_ms == 0 and not await self._begins_with(collection, shard, pointer, late, ranges):
            raise StaleRead("when the entry before was written is not known")
        return late.first

    async def _first_sealed_after(self, ranges: Sequence[SealedRange], time_ms: int) -> LateEntry | None:
        """The first sealed entry that was appended after the time. Of objects that no other one contains a later one
        ends later, in time as in the log; those without entries say nothing.
        """
        searched = widest(ranges)
        low, high = 0, len(searched)
        while low < high:
            middle = (low + high) // 2
            place, last_ms = await self._next_time(searched, middle, high)
            if place == high or last_ms > time_ms:
                high = middle
            else:
                low = place + 1
        for sealed in searched[low:]:
            before_ms = 0
            for entry in await self._sealed.load(sealed) or ():
                if entry.time_ms > time_ms:
                    return LateEntry(entry.first, entry.previous, before_ms)
                before_ms = entry.time_ms
        return None

    async def _next_time(self, searched: Sequence[SealedRange], begin: int, end: int) -> tuple[int, int]:
        """The place, from `begin` on, of the first object that has entries with times, and the latest time in it; `end`
        and 0 when none has.
        """
        for place in range(begin, end):
            times = await self._sealed.times(searched[place])
            if times is not None and times.last_ms:
                return place, times.last_ms
        return end, 0

    async def _begins_with(
        self, collection: str, shard: int, pointer: Pointer | None, late: LateEntry, ranges: Sequence[SealedRange]
    ) -> bool:
        """Whether the entry before `late` is known to be no later than the time: it is sealed, in an object that is not
        late; or there was none, and nothing before but what a fork or a layout began with.
        """
        if late.previous != FIRST_ID:
            place = position_of(late.previous)
            holding = [sealed for sealed in ranges if sealed.first <= place < sealed.end]
            times = [await self._sealed.times(sealed) for sealed in holding]
            return any(each is not None and each.last_ms for each in times)
        base = await self._manifests.at(collection, shard, late.first, pointer)
        return base is None or base.manifest.parent is None
