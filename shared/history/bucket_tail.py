"""The log of a shard as far as the bucket alone has it, for a restoration: it begins with a manifest, and goes on with
sealed log objects. Those that writes of the durability class `bucket` left join each other and the manifest.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.errors import Corrupt
from shared.history.archive import SealedLogs, range_at
from shared.log.state import Entry, position_of
from shared.log.verification import DamagedEntry, check_follows, follows_covered
from shared.objects.port import ObjectStore


class BucketTail(NamedTuple):
    """The entries of a shard from a position on, up to `reach` (exclusive): all that there were. `damage` is what ended
    it early, if anything did.
    """

    entries: list[Entry]
    reach: int
    damage: Corrupt | None = None

    def up_to(self, position: int) -> BucketTail:
        """The part below a position, which no append of the shard lies across."""
        if position >= self.reach:
            return self
        return BucketTail([entry for entry in self.entries if entry.end <= position], position)


async def read_bucket_tail(objects: ObjectStore, collection: str, shard: int, covers: int) -> BucketTail:
    """The shard's log in the bucket behind a manifest that covers everything below `covers`. An append of which the
    last entry is not there is not in it. Raises Unavailable.
    """
    sealed = SealedLogs(objects)
    ranges = await sealed.ranges(collection, shard)
    entries, reach, damage = list[Entry](), covers, None
    while (found := range_at(ranges, reach)) is not None:
        try:
            loaded = await sealed.load(found)
            for entry in loaded or ():
                if position_of(entry.id) < reach:
                    continue
                if entries:
                    check_follows(collection, shard, entries[-1], entry)
                elif not follows_covered(entry, covers):
                    raise DamagedEntry(collection, shard, entry.id, f"it does not follow what {covers} covers")
                entries.append(entry)
        except Corrupt as error:
            damage = error
            break
        if loaded is None:
            break
        reach = found.end
    return _whole_appends(entries, reach, damage)


def _whole_appends(entries: list[Entry], reach: int, damage: Corrupt | None) -> BucketTail:
    """Without the entries of an append whose last one is missing."""
    whole = max((place + 1 for place, entry in enumerate(entries) if entry.last), default=0)
    if whole < len(entries):
        reach = entries[whole].first
    elif damage is not None and entries:
        reach = min(reach, entries[-1].end)
    return BucketTail(entries[:whole], reach, damage)
