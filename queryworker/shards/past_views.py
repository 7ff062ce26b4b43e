"""Views of the past: of a shard as of a position that its views do not reach back to.

A view of the past is that of a manifest which was committed then, with the log after it replayed up to the position
that was asked for, from the sealed log and the stream (`shared.history`). It serves every position between, and is
moved forward for later ones. Such views are kept, the longest unused ones only as long as there is memory for them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from typing import Final, Protocol

from prometheus_client import Counter, Gauge

from queryworker.thread_pool import ThreadPool
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.cluster.placement import ShardKey
from shared.errors import StaleRead
from shared.history.past_log import PastBase, PastLog
from shared.history.past_manifests import PastManifest
from shared.log.state import ShardState

LOADS: Final = Counter("polychrome_queryworker_past_loads_total", "Views of the past that were made.")
BYTES: Final = Gauge("polychrome_queryworker_past_bytes", "Memory that views of the past take, mapped files included.")


class PastManifestLoader(Protocol):
    """Opens manifests of the past (`queryworker.shards.manifest_loader`)."""

    async def load_past(self, past: PastManifest | None, state: ShardState) -> OpenManifest:
        """The manifest with its segments opened; None: one without segments. Raises Corrupt, Unavailable."""
        ...


class PastViews:
    """The views of the past of all shards of a worker. They take about `bytes_max` in total, unless one alone takes
    more.
    """

    def __init__(self, past_log: PastLog, manifests: PastManifestLoader, threads: ThreadPool, bytes_max: int) -> None:
        self._past_log = past_log
        self._manifests = manifests
        self._threads = threads
        self._bytes_max = bytes_max
        self._views: OrderedDict[tuple[ShardKey, int], ShardView] = OrderedDict()
        """By shard and what the view's manifest covers; the longest unused one comes first."""
        self._last_reads: weakref.WeakKeyDictionary[ShardView, ReadView] = weakref.WeakKeyDictionary()
        """The last read of each view."""
        self._making: weakref.WeakValueDictionary[ShardKey, asyncio.Lock] = weakref.WeakValueDictionary()

    async def read_view(self, collection: str, shard: int, position: int, state: ShardState) -> ReadView:
        """The shard as of the position, which was its head or below it when `state` was read. Raises StaleRead when the
        past is not kept so far back, Corrupt, Unavailable.
        """
        if position > state.head:
            raise StaleRead(f"position {position} is ahead of the log's head {state.head}")
        key = (collection, shard)
        found = self._kept(key, position)
        if found is None:
            lock = self._making.setdefault(key, asyncio.Lock())
            async with lock:  # a read of the same position, or a later one, uses what the first one made
                found = self._kept(key, position) or await self._make(key, position, state)
        return self._read(found, position)

    def forget(self, key: ShardKey) -> None:
        """Lets go of the views of a shard: what they show is being erased."""
        for number in [number for number in self._views if number[0] == key]:
            del self._views[number]

    def _read(self, view: ShardView, position: int) -> ReadView:
        """The view as of the position: reads of one position, one after the other, get the same object."""
        last = self._last_reads.get(view)
        if last is None or last.position != position:
            last = self._last_reads[view] = view.read_view(position)
        return last

    def _kept(self, key: ShardKey, position: int) -> ShardView | None:
        """A view that reaches the position."""
        for number, view in self._views.items():
            if number[0] == key and view.manifest.covers <= position <= view.position:
                self._views.move_to_end(number)
                return view
        return None

    async def _make(self, key: ShardKey, position: int, state: ShardState) -> ShardView:
        base = await self._past_log.base(*key, position, state.pointer)
        number = (key, base.covers)
        view = self._views.get(number)
        if view is None or view.broken:
            LOADS.inc()
            view = await self._threads.run(ShardView, await self._manifests.load_past(base.manifest, state))
        await self._replay(view, key, base, position)
        self._views[number] = view
        self._views.move_to_end(number)
        self._evict()
        return view

    async def _replay(self, view: ShardView, key: ShardKey, base: PastBase, position: int) -> None:
        """Brings the view up to the position."""
        begin = view.position
        try:
            async for entries in self._past_log.pages(*key, base, position, begin):
                await self._threads.run(view.apply, entries)
                view.position = max(view.position, entries[-1].end if entries[-1].last else entries[-1].first)
        except BaseException:
            view.broken = True  # it may have a part of what was to be applied
            self._views.pop((key, base.covers), None)
            raise
        view.position = max(view.position, position)

    def _evict(self) -> None:
        sizes = {number: view.bytes for number, view in self._views.items()}
        total = sum(sizes.values())
        while total > self._bytes_max and len(self._views) > 1:
            number, _ = self._views.popitem(last=False)
            total -= sizes[number]
        BYTES.set(total)
