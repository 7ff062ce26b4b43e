"""The sealed log objects of one bucket: creating, finding and reading them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.errors import Corrupt
from shared.history.sealed_log import HEADER_BYTES, Times, decode_sealed, decode_times, encode_sealed
from shared.log.state import Entry
from shared.objects.keys import SealedRange, log_prefix, parse_log_key
from shared.objects.port import ObjectNotFound, ObjectStore


class SealedLogs:
    """Sealed log objects. The methods raise Unavailable while the bucket is away."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def create(self, sealed: SealedRange, entries: Sequence[Entry]) -> None:
        """Creates the object of these entries; one that is there already has to be the same. Raises Corrupt when it is
        not, and UnknownOutcome when it may have been created.
        """
        data = encode_sealed(sealed, entries)
        if not await self._objects.create(sealed.key, data) and await self._objects.get(sealed.key) != data:
            raise Corrupt(f"{sealed.key} is there already, with other entries", sealed.key)

    async def ranges(self, collection: str, shard: int) -> list[SealedRange]:
        """The objects of a shard, by their first positions."""
        return [
            found
            async for info in self._objects.list(log_prefix(collection, shard))
            if (found := parse_log_key(info.key)) is not None
        ]

    async def times(self, sealed: SealedRange) -> Times | None:
        """The times in the object's header; None when the object is gone. Raises Corrupt."""
        try:
            return decode_times(await self._objects.get_range(sealed.key, 0, HEADER_BYTES))
        except ObjectNotFound:
            return None

    async def load(self, sealed: SealedRange) -> list[Entry] | None:
        """The verified entries of the object; None when it is gone. Raises Corrupt."""
        try:
            return decode_sealed(sealed, await self._objects.get(sealed.key))
        except ObjectNotFound:
            return None


def range_at(ranges: Sequence[SealedRange], position: int) -> SealedRange | None:
    """The object that has the position; of several, the one that reaches furthest. None when none has it."""
    having = [sealed for sealed in ranges if sealed.first <= position < sealed.end]
    return max(having, key=lambda sealed: sealed.end, default=None)


def widest(ranges: Iterable[SealedRange]) -> list[SealedRange]:
    """The objects that no other one contains, ascending: the firsts and the ends of these ascend both."""
    found: list[SealedRange] = []
    for sealed in sorted(ranges, key=lambda each: (each.first, -each.end)):
        if not found or sealed.end > found[-1].end:
            found.append(sealed)
    return found


def whole_from(ranges: Sequence[SealedRange], position: int) -> int:
    """The position from which on these objects, without a gap, have everything up to `position`."""
    while True:
        joined = [sealed.first for sealed in ranges if sealed.first < position <= sealed.end]
        if not joined:
            return position
        position = min(joined)
