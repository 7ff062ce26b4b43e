"""Reads that fail in a thread, over a view that was loaded without fault: what their files have become since.

Files are verified when they are taken into the cache, and mapped when they are opened. The disk may damage them after
that. A read that meets it raises Corrupt, or an error of whatever reads the bytes. Then every file of the view's
segments is compared with its checksum. Those that are damaged are named in the registry of damage, and the shard gets
a view of files that are fetched anew, and made again where the bucket's are damaged, too (`shared.segment.cache`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from queryworker.view.read_view import ReadView
from shared.catalog.damage import DamageReporter
from shared.cluster.placement import ShardKey
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.segment.format import SegmentInfo

FETCHED_AGAIN: Final = "this worker fetches it again"
EXAMINE_AGAIN_S: Final = 60.0
"""Pause after an examination of a shard that found nothing: every byte of its segments is read."""

log = get_logger(__name__)


class DamagedReads:
    """Examines the files of views, one examination of a shard at a time. For one event loop. `recheck` gives the
    damaged files of a segment, each with what is wrong, and has the segment fetched again when it is opened next.
    """

    def __init__(
        self,
        recheck: Callable[[SegmentInfo], Awaitable[Mapping[str, str]]],
        damage: DamageReporter,
        clock: Clock,
    ) -> None:
        self._recheck = recheck
        self._damage = damage
        self._clock = clock
        self._running: dict[ShardKey, asyncio.Task[str]] = {}
        self._not_before_s: dict[ShardKey, float] = {}

    async def examine(self, key: ShardKey, view: ReadView) -> str:
        """The name of a file of the view that is damaged, once all were compared; "" when all are whole, or were found
        whole a moment ago.
        """
        running = self._running.get(key)
        if running is None:
            if self._clock.monotonic() < self._not_before_s.get(key, 0.0):
                return ""
            running = self._running[key] = asyncio.create_task(self._examine(key, view))
            running.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(running)

    async def _examine(self, key: ShardKey, view: ReadView) -> str:
        first = ""
        for segment in view.base.segments.segments:
            for name, what in sorted((await self._recheck(segment.info)).items()):
                file = segment.info.key(name)
                first = first or file
                self._damage.found(file, f"{what} on a worker's disk", FETCHED_AGAIN, collection=key[0], shard=key[1])
        self._not_before_s[key] = self._clock.monotonic() + (0.0 if first else EXAMINE_AGAIN_S)
        if not first:
            log.info("view_is_whole", collection=key[0], shard=key[1])
        return first

    async def close(self) -> None:
        """Gives up the examinations under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
