"""Loading: from a committed manifest to a view of it, which takes the place of the view before.

The state that every read of the log brings names the committed manifest. When it is not the view's own, the new
manifest is loaded in the background; then a view of it takes over the tail after `covers` and becomes the newest. Reads
use the old view until then. Only when the old view cannot be kept current any more, because entries were trimmed that
it never saw, do reads wait for a view whose tail is replayed from the log. The view that was replaced is kept for a
while, for reads as of a position that the new one does not reach back to (`queryworker.shards.views`).
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from prometheus_client import Counter, Histogram

from queryworker.shards.log_continuity import LogGap
from queryworker.shards.log_tailer import LogTailer
from queryworker.shards.views import ShardViews
from queryworker.thread_pool import ThreadPool
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.errors import Corrupt
from shared.log.naming import stream_name
from shared.log.state import Pointer, ShardState
from shared.log.verification import DamagedEntry
from shared.process import telemetry
from shared.process.clock import Clock

LOAD_RETRY_S: Final = 1.0
"""Pause after loading a manifest failed, while the old view still serves."""

CORRUPT_RETRY_S: Final = 10.0
"""Time for which a manifest that was found corrupt counts as corrupt: its files are not fetched again for every read.
"""

LOADS: Final = Counter("polychrome_queryworker_loads_total", "Manifests loaded, by outcome.", ["outcome"])
LOAD_SECONDS: Final = Histogram(
    "polychrome_queryworker_load_seconds",
    "Time to load a manifest and replay the log after it.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)

log = telemetry.get_logger(__name__)


class ManifestLoader(Protocol):
    """Opens manifests (`queryworker.shards.manifest_loader`)."""

    async def load(self, collection: str, shard: int, state: ShardState) -> OpenManifest:
        """The committed manifest that the state names, with its segments opened. Raises Corrupt, Unavailable."""
        ...


class ViewLoader:
    """Makes views of the manifests of one shard, one at a time, and replaces the newest view by them."""

    def __init__(
        self,
        collection: str,
        shard: int,
        manifests: ManifestLoader,
        views: ShardViews,
        tailer: LogTailer,
        threads: ThreadPool,
        clock: Clock,
    ) -> None:
        self._collection = collection
        self._shard = shard
        self._manifests = manifests
        self._views = views
        self._tailer = tailer
        self._threads = threads
        self._clock = clock
        self.task: asyncio.Task[ShardView] | None = None
        """The load in progress."""
        self._not_before_s = 0.0
        self._corrupt: tuple[Pointer | None, Corrupt, float] | None = None
        """The manifest that was found corrupt, what was found, and until when that counts."""

    async def load(self, state: ShardState) -> ShardView:
        """A view of the manifest that the state names, once it is loaded; or of the one whose load is in progress,
        which may be an earlier one. Raises Corrupt, Unavailable.
        """
        if self._corrupt is not None:
            pointer, found, until_s = self._corrupt
            if pointer == state.pointer and self._clock.monotonic() < until_s:
                raise Corrupt(found.message, found.name)
        return await asyncio.shield(self.task or self._begin(state))

    def load_in_background(self, state: ShardState) -> None:
        """Load the manifest that the state names while reads go on, unless a load is in progress or failed a moment
        ago.
        """
        if self.task is None and self._clock.monotonic() >= self._not_before_s:
            self._begin(state)

    def _begin(self, state: ShardState) -> asyncio.Task[ShardView]:
        self.task = asyncio.create_task(self._load(state))
        self.task.add_done_callback(self._ended)
        return self.task

    async def _load(self, state: ShardState) -> ShardView:
        begun = self._clock.monotonic()
        try:
            manifest = await self._manifests.load(self._collection, self._shard, state)
        except Corrupt as error:
            self._corrupt = (state.pointer, error, self._clock.monotonic() + CORRUPT_RETRY_S)
            raise
        view = await self._continued_view(manifest, state.epoch) or await self._replayed_view(manifest, state.epoch)
        LOAD_SECONDS.observe(self._clock.monotonic() - begun)
        return view

    async def _continued_view(self, manifest: OpenManifest, epoch: int) -> ShardView | None:
        """The new newest view, which goes on with the tail of the one before; None when there is no view of this epoch
        that has the tail from the new manifest on.
        """
        async with self._views.advancing:
            old = self._views.newest
            if old is None or old.epoch != epoch or not old.can_continue(manifest):
                return None
            view = await self._threads.run(ShardView, manifest, old)
            view.epoch = epoch
            self._views.replace(view)
            return view

    async def _replayed_view(self, manifest: OpenManifest, epoch: int) -> ShardView:
        """A view whose tail is read from the log. It becomes the newest, unless it has a gap already."""
        view = await self._threads.run(ShardView, manifest)
        view.epoch = epoch
        old = self._views.newest
        try:
            await self._tailer.catch_up(view)
            # No read may see the shard go back in time, not even one without a currency check; but if the log itself
            # went back (its server lost data), waiting would not help.
            reached = 0
            while old is not None and reached < view.position < old.position:
                reached = view.position
                await self._tailer.catch_up(view)
        except LogGap as gap:
            # A newer manifest was committed and the log trimmed meanwhile. A read that waits for this view meets the
            # same gap and loads that manifest; the other reads find out at the next currency check.
            if gap.state.pointer == view.manifest.pointer:
                raise self._entries_lost(gap) from gap
            return view
        except DamagedEntry as damage:
            # What is before the damage can be read as of then. Who waits for more meets it at the currency check.
            log.warning("log_damaged", collection=self._collection, shard=self._shard, error=damage.message)
        self._views.replace(view)
        return view

    def _entries_lost(self, gap: LogGap) -> Corrupt:
        covers = gap.state.pointer.covers if gap.state.pointer else 0
        shard = f"{self._collection}/{self._shard}"
        log.error("log_gap", collection=self._collection, shard=self._shard, after=gap.last, covers=covers)
        message = f"the log of {shard} lost entries after {gap.last}, and no manifest covers them"
        return Corrupt(message, stream_name(self._collection, self._shard))

    def _ended(self, task: asyncio.Task[ShardView]) -> None:
        self.task = None
        if task.cancelled():
            return
        error = task.exception()
        LOADS.labels("ok" if error is None else getattr(error, "code", "internal")).inc()
        if error is not None:
            self._not_before_s = self._clock.monotonic() + LOAD_RETRY_S
            log.warning("load_failed", collection=self._collection, shard=self._shard, error=str(error))
