"""From a committed manifest to a base that views stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from queryworker.segments import SegmentPool
from queryworker.view import Base
from shared import telemetry
from shared.log.state import ShardState
from shared.manifest import ManifestStore
from shared.model import Space
from shared.segment.stack import SegmentStack

log = telemetry.get_logger(__name__)


class Loader:
    """Loads manifests and their segments; deletes the files of segments that a later manifest dropped."""

    def __init__(self, manifests: ManifestStore, pool: SegmentPool) -> None:
        self._manifests = manifests
        self._pool = pool
        self._cleaning: set[asyncio.Task[None]] = set()

    async def load(self, collection: str, shard: int, state: ShardState) -> Base:
        """The base of the committed manifest; an empty one where there is none. Raises Corrupt, Unavailable."""
        space = Space(state.fixed["space"])
        if state.pointer is None:
            return Base(None, SegmentStack([], []), state.dimension, space, 0)
        manifest = await self._manifests.load(collection, shard, state.pointer)
        segments = await asyncio.gather(*(self._pool.open(ref.info) for ref in manifest.segments))
        tombstones = [ref.bitmap() for ref in manifest.segments]
        size = sum(file.bytes for ref in manifest.segments for file in ref.info.files)
        dimension = manifest.dimension or state.dimension
        return Base(state.pointer, SegmentStack(segments, tombstones), dimension, space, size)

    def replaced(self, old: Base, new: Base | None) -> None:
        kept = frozenset(segment.info.id for segment in new.stack.segments) if new else frozenset()
        dropped = frozenset(segment.info.id for segment in old.stack.segments) - kept
        if dropped:
            self._begin(self._pool.forget_files(dropped))

    async def close(self) -> None:
        for task in self._cleaning:
            task.cancel()
        await asyncio.gather(*self._cleaning, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._cleaning.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._cleaned)

    def _cleaned(self, task: asyncio.Task[None]) -> None:
        self._cleaning.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("could not delete the files of dropped segments", error=str(error))
