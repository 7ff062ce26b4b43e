"""Removes erased segments from the cache of a process: those that the log service names (`ErasureMarks`)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

from shared.cluster.placement import ShardKey
from shared.errors import Backoff, Unavailable
from shared.process.clock import Clock
from shared.process.concurrency import cancellations, require_uncancelled
from shared.process.telemetry import get_logger
from shared.segment.cache import SegmentCache
from shared.tenancy.erasure_marks import ErasureMarks

PERIOD_S: Final = 2.0
OVERLAP_S: Final = 60.0
"""Names are read again for so long: the clocks of processes differ a little."""

log = get_logger(__name__)


def _nothing(_: ShardKey) -> None:
    """For caches whose users let go by themselves."""


class ErasedSegments:
    """The loop of one process. `release` lets go of a shard that uses a segment which is to be removed."""

    def __init__(
        self,
        marks: ErasureMarks,
        cache: SegmentCache,
        process: str,
        clock: Clock,
        release: Callable[[ShardKey], None] = _nothing,
    ) -> None:
        self._marks = marks
        self._cache = cache
        self._process = process
        self._clock = clock
        self._release = release
        self._done_s = 0.0
        self._kept: list[str] = []
        """The segments that were in use in the last step."""

    async def run(self) -> None:
        """Removes what is named, for ever. The first look is at all that was named."""
        while True:
            before = cancellations()
            try:
                await self.step()
            except (Unavailable, Backoff) as error:
                require_uncancelled(before)
                log.warning("erased_segments_not_removed", message=error.message)
            await self._clock.sleep(PERIOD_S)

    async def step(self) -> None:
        """Removes what was named since the last step, and says so once all of it is removed. Raises Unavailable."""
        named = await self._marks.segments_since(self._done_s - OVERLAP_S)
        if not named:
            return
        paths = {path.rpartition("/")[2]: path for path, _ in named}
        kept = await self._cache.remove(paths)
        for segment in kept:
            collection, shard, *_ = paths[segment].split("/")
            self._release((collection, int(shard)))
        if kept and kept == self._kept:
            gc.collect()  # what was let go may hang in a cycle of references
        self._kept = kept
        newest_s = max(named_s for _, named_s in named)
        if not kept and newest_s > self._done_s:
            await self._marks.note_dropped(self._process, newest_s)
            self._done_s = newest_s
