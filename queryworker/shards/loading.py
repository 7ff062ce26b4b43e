"""Loading: from the committed manifest to a view of it, swapped in for the one before.

The state that every read of the log brings names the committed manifest. When it is not the view's, the new manifest is
loaded beside the view; then a view of it takes over the tail after `covers` and is swapped in. Readers keep the old
view until then. Only when that cannot be kept current any more, because entries were trimmed that it never saw, do they
wait for a view that is filled from the log. The view that was replaced is kept for a while, for reads as of a position
that the new one does not reach back to.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from prometheus_client import Counter, Histogram

from queryworker.shards.currency import Follower
from queryworker.shards.tailing import TailGap
from queryworker.shards.views import Views
from queryworker.threads import Threads
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.errors import Corrupt
from shared.log.state import Pointer, ShardState
from shared.process import telemetry
from shared.process.clock import Clock

LOAD_RETRY_S: Final = 1.0
"""Pause after loading a manifest failed, while the old view still serves."""

CORRUPT_RETRY_S: Final = 10.0
"""How long a manifest that is corrupt is believed to be: its files are not fetched again for every read."""

LOADS: Final = Counter("polychrome_queryworker_loads", "Manifests loaded, by outcome.", ["outcome"])
LOAD_SECONDS: Final = Histogram(
    "polychrome_queryworker_load_seconds",
    "Time to load a manifest and replay the log after it.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)

log = telemetry.get_logger(__name__)


class BaseLoader(Protocol):
    """Opens manifests (`queryworker.shards.loader`)."""

    async def load(self, collection: str, shard: int, state: ShardState) -> OpenManifest:
        """The committed manifest that the state names, opened. Raises Corrupt, Unavailable."""
        ...


class Loading:
    """Loads the manifests of one shard, one at a time."""

    def __init__(
        self,
        collection: str,
        number: int,
        loader: BaseLoader,
        views: Views,
        follower: Follower,
        threads: Threads,
        clock: Clock,
    ) -> None:
        self._collection = collection
        self._number = number
        self._loader = loader
        self._views = views
        self._follower = follower
        self._threads = threads
        self._clock = clock
        self.task: asyncio.Task[ShardView] | None = None
        """The loading in progress."""
        self._not_before_s = 0.0
        self._corrupt: tuple[Pointer | None, str, float] | None = None

    async def now(self, state: ShardState) -> ShardView:
        """The view of the manifest that the state names, once it is loaded; joins a loading in progress. Raises
        Corrupt, Unavailable.
        """
        if self._corrupt is not None:
            pointer, message, until_s = self._corrupt
            if pointer == state.pointer and self._clock.monotonic() < until_s:
                raise Corrupt(message)
        return await asyncio.shield(self.task or self._begin(state))

    def beside(self, state: ShardState) -> None:
        """Load it while others read, unless that has failed a moment ago."""
        if self.task is None and self._clock.monotonic() >= self._not_before_s:
            self._begin(state)

    def _begin(self, state: ShardState) -> asyncio.Task[ShardView]:
        self.task = asyncio.create_task(self._load(state))
        self.task.add_done_callback(self._ended)
        return self.task

    async def _load(self, state: ShardState) -> ShardView:
        begun = self._clock.monotonic()
        try:
            manifest = await self._loader.load(self._collection, self._number, state)
        except Corrupt as error:
            self._corrupt = (state.pointer, error.message, self._clock.monotonic() + CORRUPT_RETRY_S)
            raise
        view = await self._continued(manifest) or await self._filled(manifest)
        LOAD_SECONDS.observe(self._clock.monotonic() - begun)
        return view

    async def _continued(self, manifest: OpenManifest) -> ShardView | None:
        """The view, swapped in, that goes on with the tail of the one before; None when there is none that reaches from
        the new manifest on.
        """
        async with self._views.moving:
            old = self._views.newest
            if old is None or not old.can_continue(manifest):
                return None
            view = await self._threads.run(ShardView, manifest, old)
            self._views.replace(view)
            return view

    async def _filled(self, manifest: OpenManifest) -> ShardView:
        """The view whose tail is read from the log, swapped in unless it has a gap already."""
        view = await self._threads.run(ShardView, manifest)
        old = self._views.newest
        try:
            await self._follower.catch_up(view)
            # Nobody may see the shard go back in time, not even who reads without a currency check; but if the log
            # itself went back (its server lost data), waiting would not help.
            reached = 0
            while old is not None and reached < view.position < old.position:
                reached = view.position
                await self._follower.catch_up(view)
        except TailGap as gap:
            # A newer manifest was committed and the log trimmed meanwhile. Who waits for this view meets the same gap
            # and loads that one; who does not wait finds out at the next check.
            if gap.state.pointer == view.manifest.pointer:
                raise self._lost(gap) from gap
            return view
        self._views.replace(view)
        return view

    def _lost(self, gap: TailGap) -> Corrupt:
        covers = gap.state.pointer.covers if gap.state.pointer else 0
        shard = f"{self._collection}/{self._number}"
        log.error("log has a gap", collection=self._collection, shard=self._number, after=gap.last, covers=covers)
        return Corrupt(f"the log of {shard} lost entries after {gap.last}, and no manifest covers them")

    def _ended(self, task: asyncio.Task[ShardView]) -> None:
        self.task = None
        if task.cancelled():
            return
        error = task.exception()
        LOADS.labels("ok" if error is None else getattr(error, "code", "internal")).inc()
        if error is not None:
            self._not_before_s = self._clock.monotonic() + LOAD_RETRY_S
            log.warning("loading failed", collection=self._collection, shard=self._number, error=str(error))
