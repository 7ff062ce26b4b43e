"""Proofs about a read of a shard's stream: that it skipped no entry, and that it reached the end. Pure.

Entries form a chain: each names the id of the entry before it in its stream, and the shard's state names the newest. So
a reader that has everything up to the entry `last` knows, from one consistent read of state and entries, that

1. it skipped nothing, when the first entry that it read follows `last`;
2. it is current, when the last entry that it read is the newest;
3. what it has is in the log still, when the chain goes on from that of `last`: a log that lost its end, and was written
   to again, may well have an entry of the same id.

A reader that has only a manifest so far stands between two entries: then the entry before must be one that the manifest
covers. When a proof fails, entries were trimmed that the reader never saw: it has to begin again from a newer manifest.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import Corrupt
from shared.log.state import Entry, ShardRead, ShardState, position_of


class LogGap(Exception):
    """The stream does not continue what the reader has, which is everything up to the entry `last`. `state` is the
    shard's as of the same moment.
    """

    def __init__(self, state: ShardState, last: str) -> None:
        super().__init__(f"the stream does not continue {last}")
        self.state = state
        self.last = last


def check_continuity(read: ShardRead, last: str, covers: int, chain: str = "") -> None:
    """Raises LogGap unless the read continues the entry `last`, given a manifest that covers everything below `covers`,
    and, when it says that it is complete, reaches the newest entry. `chain` is that of `last`, "" when it has none.
    """
    entries = read.entries
    if entries and not _follows(entries[0].previous, last, covers):
        raise LogGap(read.state, last)
    if chain and entries and entries[0].previous == last and entries[0].chain and entries[0].before_chain != chain:
        raise LogGap(read.state, last)
    if chain and not entries and read.state.tail == last and read.state.chain not in ("", chain):
        raise LogGap(read.state, last)
    newest = entries[-1].id if entries else last
    if read.complete and not _follows(read.state.tail, newest, covers):
        raise LogGap(read.state, newest)


def _follows(previous: str, last: str, covers: int) -> bool:
    """Whether an entry whose predecessor is `previous` comes next for a reader that has everything up to `last`."""
    return previous == last or (position_of(last) < covers and position_of(previous) < covers)


def complete_appends(entries: Sequence[Entry]) -> int:
    """How many of the first entries belong to appends of which all entries are there."""
    return max((number + 1 for number, entry in enumerate(entries) if entry.last), default=0)


def check_no_partial_append(read: ShardRead, entries: Sequence[Entry]) -> None:
    """Raises Corrupt when a complete read leaves entries of an append without the append's last one: appends are
    atomic.
    """
    if read.complete and entries:
        raise Corrupt(f"the log ends inside the append at {entries[0].first}")
