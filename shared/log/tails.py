"""The tail of a shard's log as of one moment, for a copy of the shard: a fork or a backup."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shared.errors import PolychromeError
from shared.log.log import Log
from shared.log.state import Entry, ShardRead, after_position, position_of
from shared.log.verification import follows_covered

PAGE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a shard's log that are read at a time."""


class TailGone(PolychromeError):
    """The tail is not in the log any more: it was compacted and trimmed, or dropped with its layout."""

    code = "tail_gone"


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a shard's stream at a moment: all entries at the position `covers` or later, up to `head` (exclusive).
    The newest of them was at the position `written`.
    """

    collection: str
    shard: int
    covers: int
    head: int
    written: int


def pages(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """The entries in their order, about PAGE_BYTES of payload at a time."""
    begin, size = 0, 0
    for place, entry in enumerate(entries):
        if size >= PAGE_BYTES:
            yield entries[begin:place]
            begin, size = place, 0
        size += len(entry.payload)
    if begin < len(entries):
        yield entries[begin:]


async def pages_of(log: Log, tail: LogTail) -> AsyncIterator[list[Entry]]:
    """The entries of the tail, in order, some of them at a time. Raises TailGone, at the end at the latest; and as
    `Log.read`.
    """
    if tail.written < tail.covers:
        return
    last: Entry | None = None
    while True:
        after, chain = (last.id, last.chain) if last else (after_position(tail.covers), "")
        read = await log.read(tail.collection, tail.shard, after, PAGE_BYTES, after_chain=chain)
        _check_joined(read, last, tail)
        entries = [entry for entry in read.entries if entry.end <= tail.head]
        if entries:
            yield entries
            last = entries[-1]
        if read.complete or len(entries) < len(read.entries):
            break
    if last is None or position_of(last.id) != tail.written:
        raise TailGone(f"the log of {tail.collection}/{tail.shard} does not reach position {tail.written} any more")


def _check_joined(read: ShardRead, last: Entry | None, tail: LogTail) -> None:
    """Raises TailGone when entries are gone that were not read yet, behind the entry `last`. That the others follow
    each other, and that they continue the chain of `last`, the read has proved.
    """
    if read.entries:
        first = read.entries[0]
        if not (first.previous == last.id if last else follows_covered(first, tail.covers)):
            behind = last.id if last else tail.covers
            raise TailGone(f"the log of {tail.collection}/{tail.shard} was trimmed beyond {behind}")
