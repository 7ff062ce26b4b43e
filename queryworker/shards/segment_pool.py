"""Open segments, shared by all views that use them: an old view and the one that replaces it have most in common.

The pool holds segments weakly: a segment lives as long as some view does. Its memory goes with the last view, and its
files may then be evicted from the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prometheus_client import Gauge

from shared.errors import Unavailable
from shared.records.indexing import Indexing
from shared.segment.cache import SegmentCache
from shared.segment.format import SegmentInfo
from shared.segment.mending import as_held
from shared.segment.reader import Segment, open_segment

EF_SEARCH: Final = 1
"""The least beam of an opened graph: a search chooses its own by how many rows it asks for."""

OPEN: Final = Gauge("polychrome_queryworker_open_segments", "Segments in memory.")


class SegmentPool:
    """Opens segments, each once however many views ask for it. All methods are called on one event loop."""

    def __init__(self, cache: SegmentCache) -> None:
        self._cache = cache
        self._open: weakref.WeakValueDictionary[str, Segment] = weakref.WeakValueDictionary()
        self._opening: dict[str, asyncio.Task[Segment]] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    async def open(self, info: SegmentInfo, indexing: Indexing) -> Segment:
        """The segment, fetched into the cache and verified if need be; mended by the collection's `indexing` where the
        bucket has derived files damaged. Raises Corrupt, Unavailable.
        """
        segment = self._open.get(info.id)
        if segment is not None:
            return segment
        opening = self._opening.get(info.id)
        if opening is None:
            # A task of its own: when one caller is cancelled, others may still want the segment.
            opening = asyncio.create_task(self._hold_and_open(info, indexing))
            self._opening[info.id] = opening
            opening.add_done_callback(lambda task: self._opened(info.id, task))
        return await asyncio.shield(opening)

    async def close(self) -> None:
        """Cancel what is being opened or released."""
        tasks = [*self._opening.values(), *self._releasing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def damaged(self, segment_id: str) -> Mapping[str, str]:
        """The files of an open segment that the bucket has damaged, each with what is wrong."""
        return self._cache.damaged(segment_id)

    async def recheck(self, info: SegmentInfo) -> Mapping[str, str]:
        """The files of an open segment that are damaged on the local disk by now, each with what is wrong. If there are
        any, the segment is opened anew when it is wanted next. Raises Unavailable.
        """
        damaged = await self._cache.recheck(info)
        if damaged:
            self._open.pop(info.id, None)
        return damaged

    async def _hold_and_open(self, info: SegmentInfo, indexing: Indexing) -> Segment:
        """The segment, whose files are held in the cache until it is garbage."""
        async with contextlib.AsyncExitStack() as hold:
            folder = await hold.enter_async_context(self._cache.hold(info, indexing))
            try:
                segment = await asyncio.to_thread(_open, folder, info)
            except OSError as error:  # no file descriptors left, say
                raise Unavailable(f"segment {info.id} cannot be opened here: {error}") from error
            loop = asyncio.get_running_loop()
            # The last reference may go in any thread; the cache belongs to the event loop.
            finalizer = weakref.finalize(segment, self._release_soon, loop, hold.pop_all())
            finalizer.atexit = False
        return segment

    def _opened(self, segment_id: str, task: asyncio.Task[Segment]) -> None:
        del self._opening[segment_id]
        if not task.cancelled() and task.exception() is None:
            self._open[segment_id] = task.result()
            OPEN.set(len(self._open))

    def _release_soon(self, loop: asyncio.AbstractEventLoop, hold: contextlib.AsyncExitStack) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the cache with it
            loop.call_soon_threadsafe(self._release, hold)

    def _release(self, hold: contextlib.AsyncExitStack) -> None:
        OPEN.set(len(self._open))
        task = asyncio.get_running_loop().create_task(hold.aclose())
        self._releasing.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._releasing.discard)


def _open(folder: Path, info: SegmentInfo) -> Segment:
    return open_segment(folder, as_held(folder, info), EF_SEARCH)
