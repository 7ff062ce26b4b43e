"""The log of a shard from a position of the past on: from sealed log objects, then from the stream.

That nothing is skipped is proved twice. The objects' ranges, and that of the stream, join without a gap; and every
entry names the one before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from shared.errors import StaleRead
from shared.history.archive import SealedLogs, range_at, whole_from
from shared.history.past_manifests import PastManifest, PastManifests
from shared.log.log import Log
from shared.log.state import FIRST_ID, Entry, Pointer, ShardState, after_position, position_of
from shared.log.verification import check_follows, follows_covered
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.records.model import FIRST_POSITION

PAGE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a stream that are read at a time."""

TRIES: Final = 3
"""Times that the objects are listed anew, at most, because the stream was trimmed or an object collected meanwhile."""


class PastBase(NamedTuple):
    """The beginning of a read of the past: a manifest, or (None) the shard as it was when it had nothing."""

    manifest: PastManifest | None
    is_newest: bool
    """Whether there was no later manifest: then the stream has all that comes after, and what is sealed may be of no
    account (Redis may have been restored to this manifest)."""

    @property
    def covers(self) -> int:
        """The position, exclusive, up to which the manifest holds everything."""
        return self.manifest.pointer.covers if self.manifest else FIRST_POSITION


class Oldest(NamedTuple):
    """The oldest position as of which a shard can be read; and the time of an entry from which on it can be read as of
    times, in ms since the epoch, 0 where none is known.
    """

    position: int
    time_ms: int


class PastLog:
    """Reads the past of shards. Raises StaleRead for a past that is not kept, Corrupt, Unavailable, Gone."""

    def __init__(self, log: Log, objects: ObjectStore) -> None:
        self._log = log
        self._sealed = SealedLogs(objects)
        self._manifests = PastManifests(objects)
        self._store = ManifestStore(objects)

    async def base(self, collection: str, shard: int, position: int, newest: Pointer | None) -> PastBase:
        """The newest manifest that covers at most `position`, or nothing."""
        found = await self._manifests.at(collection, shard, position, newest)
        return PastBase(found, (found.pointer if found else None) == newest)

    async def pages(
        self, collection: str, shard: int, base: PastBase, position: int, begin: int | None = None
    ) -> AsyncIterator[list[Entry]]:
        """The entries of all appends that began before `position`, from the base on, or from `begin`, where an append
        after the base ended; in order, some at a time.
        """
        begin = base.covers if begin is None else begin
        at, last, tries = begin, None, 0
        ranges = [] if base.is_newest else await self._sealed.ranges(collection, shard)
        while at < position:
            sealed = range_at(ranges, at)
            if sealed is not None:
                loaded = await self._sealed.load(sealed)
                if loaded is None:  # collected meanwhile: another object may have what it had
                    tries, ranges = tries + 1, await self._sealed.ranges(collection, shard)
                    if tries >= TRIES:
                        raise _not_kept(collection, shard, position)
                    continue
                entries = loaded
                reached, complete = sealed.end, False
            else:
                read = await self._log.read(collection, shard, after_position(at), PAGE_BYTES)
                if at < await self._stream_begin(read.state, collection, read.entries, base):
                    tries += 1
                    if tries >= TRIES:
                        raise _not_kept(collection, shard, position)
                    ranges = await self._sealed.ranges(collection, shard)
                    continue
                entries, complete = read.entries, read.complete
                reached = position_of(entries[-1].id) + entries[-1].count if entries else position
            page = [entry for entry in entries if position_of(entry.id) >= at and entry.first < position]
            for entry in page:
                _check_joined(collection, shard, last, entry, begin)
                last = entry
            if page:
                yield page
            if complete:
                return
            at = reached

    async def oldest(self, collection: str, shard: int) -> Oldest:
        """The oldest position as of which the shard can be read, and every later one."""
        read = await self._log.read(collection, shard, FIRST_ID, 1)
        ranges = await self._sealed.ranges(collection, shard)
        least = whole_from(ranges, await self.stream_begin(read.state, collection, read.entries))
        if least > FIRST_POSITION:
            manifest = await self._manifests.oldest(collection, shard, read.state.pointer, least)
            least = manifest.pointer.covers if manifest else read.state.head
        sealed = range_at(ranges, least)
        times = await self._sealed.times(sealed) if sealed is not None else None
        later = [entry.time_ms for entry in read.entries if position_of(entry.id) >= least]
        return Oldest(least, times.first_ms if times else next(iter(later), 0))

    async def stream_begin(self, state: ShardState, collection: str, entries: Sequence[Entry]) -> int:
        """The position from which on the shard's stream has everything, going by its state and, as of the same moment,
        its first entries.

        A stream that was never trimmed says nothing of it: it may belong to a fork or to a new layout, whose first
        manifest has what came before, or Redis may have been restored. Then it is known that it has what the
        newest manifest was made of.
        """
        if state.trimmed or state.pointer is None:
            return state.trimmed or FIRST_POSITION
        newest = await self._store.load(collection, state.number, state.pointer)
        parent = await self._manifests.parent(newest)
        if parent is not None:
            return parent.pointer.covers
        is_original = newest.parent is None and state.number < int(state.fixed["shards"])
        made_of_the_stream = bool(entries) and position_of(entries[0].id) < newest.covers
        return FIRST_POSITION if is_original and made_of_the_stream else newest.covers

    async def _stream_begin(self, state: ShardState, collection: str, entries: Sequence[Entry], base: PastBase) -> int:
        pointer = base.manifest.pointer if base.manifest else None
        if pointer == state.pointer:  # the present manifest, or none, with the stream behind it
            return base.covers
        return await self.stream_begin(state, collection, entries)


def _check_joined(collection: str, shard: int, last: Entry | None, entry: Entry, begin: int) -> None:
    if last is not None:
        check_follows(collection, shard, last, entry)
    elif not follows_covered(entry, begin):
        raise _not_kept(collection, shard, begin)


def _not_kept(collection: str, shard: int, position: int) -> StaleRead:
    return StaleRead(f"the past of {collection}/{shard} at position {position} is not kept (any more)")
