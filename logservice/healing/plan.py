"""Rules, without effects, of what a Redis that came back with less gets back from witnesses, and what is lost.

```text
positions     head in Redis                                             newest that was witnessed
.................|[ append, whole ][ append, in part ][ nobody's ][ append, whole ]|
                   put back          lost               lost        put back
```

An append is put back whole or not at all, at its own positions: the operations in its entries must be as many as its
positions. Behind the first gap, appends that may rest on what is lost (transactions, outputs of functions) are lost,
too: with them, and without what they read, the collection would be as it never was. And nothing comes back that an
earlier restoration gave up: appends of the newest epoch alone count.

What was seen and cannot be put back is lost, and so is what nobody has seen between appends that were seen; of the
latter it is not known whether it was acknowledged. What manifests cover is not lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import msgspec

from shared.log.batch import payload_checksum
from shared.log.state import position_of
from shared.log.witness import Held, Seen

LOST_RANGES_MAX: Final = 1000
"""Most lost ranges of a collection that are named one by one; the last of them reaches to the end of all."""


class LostRange(msgspec.Struct, frozen=True):
    """Operations of a collection at the positions [first, end) that are lost. `acknowledged`: a frontend had them
    acknowledged; else they were seen in the log, or lie between such.
    """

    collection: str
    first: int
    end: int
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class LostAppend:
    """An append that can be put back: its entries, each once, ascending by shard and id."""

    first: int
    end: int
    entries: list[Held]

    @property
    def time_ms(self) -> int:
        return self.entries[0].time_ms

    @property
    def request_id(self) -> str:
        return next((entry.request_id for entry in self.entries if entry.request_id), "")

    @property
    def pairs(self) -> list[str]:
        """The (metadata key, value type) pairs that it brought along, as far as they are known."""
        return sorted({pair for entry in self.entries for pair in entry.pairs})


def lost_appends(head: int, held: Iterable[Held]) -> list[LostAppend]:
    """The appends of one collection at the head in Redis or later that witnesses hold as a whole, by position. No two
    share a position: where witnesses contradict each other, the first append by position is taken.
    """
    known = [entry for entry in held if entry.first >= head]
    epoch = max((entry.epoch for entry in known), default=0)
    sound = {
        (entry.first, entry.end, entry.shard, position_of(entry.id)): entry
        for entry in known
        if entry.epoch == epoch and payload_checksum(entry.payload) == entry.checksum
    }
    blind = {(entry.first, entry.end) for entry in known if not entry.conditional}
    found, at, dense = list[LostAppend](), head, True
    for (first, end), keys in groupby(sorted(sound), key=lambda key: key[:2]):
        entries = [sound[key] for key in keys]
        if sum(entry.count for entry in entries) != end - first or first < at:
            continue
        dense = dense and first == at
        if dense or (first, end) in blind:
            found.append(LostAppend(first, end, entries))
            at = end
    return found


def lost_ranges(
    collection: str, head: int, seen: Iterable[Seen], put_back: Iterable[tuple[int, int]], covered: int
) -> list[LostRange]:
    """The positions from the head in Redis on that were witnessed, or lie between such, and are neither put back nor
    covered by manifests, which have everything below `covered`.
    """
    known = [each for each in seen if each.first >= head]
    if not known:
        return []
    acknowledged = _merged((each.first, each.end) for each in known if each.acknowledged)
    begin, end = max(head, covered), max(each.end for each in known)
    lost: list[LostRange] = []
    for gap in _without([(begin, end)], _merged(put_back)):
        named = _without([gap], acknowledged)
        for first, stop in sorted([*named, *_without([gap], named)]):
            lost.append(LostRange(collection, first, stop, acknowledged=(first, stop) not in named))
    if len(lost) > LOST_RANGES_MAX:
        rest = lost[LOST_RANGES_MAX - 1 :]
        told = any(each.acknowledged for each in rest)
        lost[LOST_RANGES_MAX - 1 :] = [LostRange(collection, rest[0].first, rest[-1].end, acknowledged=told)]
    return lost


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges, ascending, without overlap or contact."""
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged


def _without(ranges: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The rest of the ranges without others; both ascending, without overlap."""
    left: list[tuple[int, int]] = []
    for first, end in ranges:
        at = first
        for taken_first, taken_end in taken:
            if taken_end <= at or taken_first >= end:
                continue
            if taken_first > at:
                left.append((at, taken_first))
            at = taken_end
        if at < end:
            left.append((at, end))
    return left
