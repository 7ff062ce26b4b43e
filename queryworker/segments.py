"""Open segments, shared by all views that use them: an old view and the one that replaces it have most in common.

The pool holds them weakly: a segment lives as long as some view does, and its memory goes with the last one.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from prometheus_client import Counter

from queryworker.cache import SegmentCache
from shared import telemetry
from shared.errors import Corrupt
from shared.segment.format import SegmentInfo
from shared.segment.reader import Segment, open_segment

EF_SEARCH: Final = 1
"""The graph's own least beam: searches choose theirs by how many rows they ask for."""

CORRUPT: Final = Counter("polychrome_queryworker_corrupt_segments", "Segments that failed their check.")

log = telemetry.get_logger(__name__)


class SegmentPool:
    """Opens segments, each once."""

    def __init__(self, cache: SegmentCache) -> None:
        self._cache = cache
        self._open: WeakValueDictionary[str, Segment] = WeakValueDictionary()
        self._opening: dict[str, asyncio.Task[Segment]] = {}

    async def open(self, info: SegmentInfo) -> Segment:
        """The segment, fetched and verified if need be. Raises Corrupt, Unavailable."""
        segment = self._open.get(info.id)
        if segment is not None:
            return segment
        opening = self._opening.get(info.id)
        if opening is None:
            # A task of its own: who waits for it may give up, others may still want it.
            opening = asyncio.create_task(self._fetch_and_open(info))
            self._opening[info.id] = opening
            opening.add_done_callback(lambda task: self._opened(info.id, task))
        return await asyncio.shield(opening)

    def in_use(self) -> frozenset[str]:
        return frozenset(self._open) | frozenset(self._opening)

    async def forget_files(self, segments: frozenset[str]) -> None:
        """Delete the files of segments that no newer manifest names."""
        for segment in segments - frozenset(self._opening):
            await self._cache.remove(segment)

    async def trim(self) -> int:
        return await self._cache.trim(self.in_use())

    async def close(self) -> None:
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)

    def _opened(self, segment: str, task: asyncio.Task[Segment]) -> None:
        del self._opening[segment]
        if not task.cancelled() and task.exception() is None:
            self._open[segment] = task.result()

    async def _fetch_and_open(self, info: SegmentInfo) -> Segment:
        try:
            return await self._attempt(info)
        except Corrupt as error:
            # The copy may be at fault; the original gets one more chance. `fetch` has removed the copy.
            CORRUPT.inc()
            log.warning("segment is damaged, fetching it again", segment=info.id, error=error.message)
        try:
            return await self._attempt(info)
        except Corrupt as error:
            CORRUPT.inc()
            log.error("segment is damaged in object storage", segment=info.id, path=info.path, error=error.message)  # noqa: TRY400 (the message says it all)
            raise

    async def _attempt(self, info: SegmentInfo) -> Segment:
        folder = await self._cache.fetch(info)
        try:
            return await asyncio.to_thread(open_segment, folder, info, EF_SEARCH)
        except Corrupt:
            await self._cache.remove(info.id)
            raise
