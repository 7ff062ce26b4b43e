"""Seals what is about to be trimmed: the entries of a stream become objects in the bucket (`shared.history`), for
collections that keep their history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from prometheus_client import Counter

from shared.catalog.history import Histories
from shared.history.archive import SealedLogs
from shared.history.past_log import PAGE_BYTES, PastLog
from shared.history.sealed_log import OBJECT_BYTES
from shared.log.log import Log
from shared.log.state import FIRST_ID, Entry, Pointer, after_position, position_of
from shared.log.verification import DamagedEntry, check_follows
from shared.objects.keys import SealedRange
from shared.objects.port import ObjectStore
from shared.process.telemetry import get_logger

SEALED: Final = Counter("polychrome_logservice_sealed_objects_total", "Sealed log objects that were written.")
SEALED_BYTES: Final = Counter("polychrome_logservice_sealed_bytes_total", "Payload bytes of the entries in them.")
LOST: Final = Counter(
    "polychrome_logservice_history_gaps_total", "Stretches of a log that were damaged, and are missing in its history."
)

log = get_logger(__name__)


class Sealer:
    """Seals the logs of shards."""

    def __init__(self, log_: Log, objects: ObjectStore, histories: Histories) -> None:
        self._log = log_
        self._sealed = SealedLogs(objects)
        self._past = PastLog(log_, objects)
        self._histories = histories

    async def seal(self, collection: str, shard: int, pointer: Pointer) -> Pointer:
        """Seals what the committed manifest lets be trimmed, if the collection keeps its history. Returns the pointer
        with the position up to which the stream may be trimmed now: the manifest's, or where a rebuild is still to copy
        from. Raises Corrupt, Unavailable.

        A damaged entry costs the history the stretch that it lies in, and never keeps a stream from being trimmed: what
        compaction has got past is not needed for anything else.
        """
        if not await self._histories.of(collection):
            return pointer
        read = await self._log.read(collection, shard, FIRST_ID, 1)
        kept_from = read.state.kept_from
        end = pointer.covers if kept_from is None else min(pointer.covers, kept_from)
        first = await self._past.stream_begin(read.state, collection, read.entries)
        try:
            await self._write(SealedRange(collection, shard, first, end))
        except DamagedEntry as error:
            LOST.inc()
            log.error("history_has_a_gap", collection=collection, shard=shard, end=end, entry=error.entry_id)  # noqa: TRY400 (no stack: data is at fault)
        return Pointer(pointer.version, pointer.hash, end)

    async def _write(self, whole: SealedRange) -> None:
        """Writes the entries of the range, in one object or several that join."""
        first, entries, size = whole.first, list[Entry](), 0
        async for entry in self._entries(whole):
            if size >= OBJECT_BYTES:
                await self._create(whole, first, position_of(entry.id), entries)
                first, entries, size = position_of(entry.id), [], 0
            entries.append(entry)
            size += len(entry.payload)
        if first < whole.end:
            await self._create(whole, first, whole.end, entries)

    async def _create(self, whole: SealedRange, first: int, end: int, entries: Sequence[Entry]) -> None:
        await self._sealed.create(SealedRange(whole.collection, whole.shard, first, end), entries)
        SEALED.inc()
        SEALED_BYTES.inc(sum(len(entry.payload) for entry in entries))

    async def _entries(self, whole: SealedRange) -> AsyncIterator[Entry]:
        """The stream's entries in the range."""
        after, last = after_position(whole.first), None
        while True:
            read = await self._log.read(whole.collection, whole.shard, after, PAGE_BYTES)
            for entry in read.entries:
                if position_of(entry.id) >= whole.end:
                    return
                if last is not None:
                    check_follows(whole.collection, whole.shard, last, entry)
                yield entry
                last = entry
                after = entry.id
            if read.complete:
                return
