"""Following a shard's stream: proofs that nothing was skipped and that a view is current. Pure.

Entries form a chain: each names the id of the one before it in its stream, and the state names the newest. So a reader
that holds everything up to `last` knows, from one consistent read of state and entries, that

1. it skipped nothing, when the first entry read follows `last`;
2. it is current, when the last one read is the tail.

A reader that has only a manifest so far stands between two entries: then the entry before must be one that the
manifest covers. When a proof fails, entries have been trimmed that the reader never saw: it has to start from a newer
manifest.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import Corrupt
from shared.log.state import Entry, ShardRead, ShardState, position_of


class TailGap(Exception):
    """The stream does not continue what the reader has. `state` is of the same moment."""

    def __init__(self, state: ShardState, last: str) -> None:
        super().__init__(f"the stream does not continue {last}")
        self.state = state
        self.last = last


def prove(read: ShardRead, last: str, covers: int) -> None:
    """Raises TailGap unless the read continues `last`, given a manifest that covers everything below `covers`."""
    entries = read.entries
    if entries and not _continues(entries[0].previous, last, covers):
        raise TailGap(read.state, last)
    newest = entries[-1].id if entries else last
    if read.complete and not _continues(read.state.tail, newest, covers):
        raise TailGap(read.state, newest)


def _continues(before: str, last: str, covers: int) -> bool:
    return before == last or (position_of(last) < covers and position_of(before) < covers)


def whole_appends(entries: Sequence[Entry]) -> int:
    """How many of the first entries belong to appends that are there in full."""
    return max((number + 1 for number, entry in enumerate(entries) if entry.last), default=0)


def nothing_left_over(read: ShardRead, entries: Sequence[Entry]) -> None:
    """Raises Corrupt when a complete read ends inside an append: appends are atomic."""
    if read.complete and entries:
        raise Corrupt(f"the log ends inside the append at {entries[0].first}")
