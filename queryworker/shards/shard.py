"""One shard on this worker: its view, kept current for those who read it.

Currency. A read must see every write acknowledged before it began. So it needs one look at the log that *begins* after
the request arrived; all requests that wait share it (`queryworker.shards.coalesced`). A look moves the view forward
(`queryworker.shards.currency`), or replaces it when a newer manifest appeared (`queryworker.shards.loading`).

Growth. While a shard that is read is also written fast, the log is followed without waiting for the next read, so that
no read has much to apply. A tail that has grown is indexed in the background (`queryworker.view.tail_graphs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from queryworker.shards.coalesced import Coalesced
from queryworker.shards.currency import Follower, LogReader
from queryworker.shards.loading import BaseLoader, Loading
from queryworker.shards.tailing import TailGap
from queryworker.shards.views import Views
from queryworker.threads import Threads
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import ShardView
from shared.errors import Gone, StaleGeneration, Unavailable
from shared.process.clock import Clock

LOOK_AGE_MAX_S: Final = 1.0
"""Reads that need not ask the log are answered when the last look at it is no older. So nobody can go on reading a
collection that was deleted.
"""

FOLLOW_OPS_MIN: Final = 256
"""A log that grew by this many operations from one look to the next is looked at again by itself."""

FOLLOW_S: Final = 0.05
"""How soon."""

FOLLOW_UNREAD_S: Final = 5.0
"""A shard that nobody reads is followed for so long."""

INDEX_ONLY_WAIT_S: Final = 0.25
"""How long a read of what is compacted waits to hear which manifest is the newest."""

Result = TypeVar("Result")


class ServedShard:
    """See the module."""

    def __init__(
        self,
        collection: str,
        number: int,
        log_: LogReader,
        loader: BaseLoader,
        threads: Threads,
        indexer: Threads,
        clock: Clock,
    ) -> None:
        self.used_s = clock.monotonic()
        self._clock = clock
        self._indexer = indexer
        self.views = Views(clock)
        self._follower = Follower(collection, number, log_, threads, clock)
        self.loading = Loading(collection, number, loader, self.views, self._follower, threads, clock)
        self._checks = Coalesced(self._check)
        self._indexing: asyncio.Task[None] | None = None
        self._following: asyncio.TimerHandle | None = None
        self._behind: set[asyncio.Task[Any]] = set()
        """What is done in the background."""

    # ---- what requests use

    async def current(self) -> ShardView:
        """A view that has every write acknowledged before this call. Raises Gone, StaleGeneration, Corrupt,
        Unavailable.
        """
        return await self._checks.run()

    async def read_view(self, as_of: int | None, *, fresh: bool) -> ReadView:
        """The shard as of a position (None: now). Not `fresh`: without the log's tail, as of the committed manifest.
        The log is not asked for a position that the worker has, unless the last look at it is too old. Raises
        StaleRead too.
        """
        self.used_s = self._clock.monotonic()
        view = self.views.newest if self.used_s - self._follower.looked_s <= LOOK_AGE_MAX_S else None
        if as_of is not None and view is not None and as_of <= view.position:
            return self.views.read_view(view, as_of)
        if as_of is None and not fresh:
            return await self._compacted()
        view = await self.current()
        return view.read_view() if as_of is None else self.views.read_view(view, as_of)

    def likely(self) -> ReadView | None:
        """The newest snapshot of a shard that had not changed when the log was looked at last."""
        view = self.views.newest
        return view.read_view() if view is not None and self._follower.unchanged else None

    async def _compacted(self) -> ReadView:
        """As of the committed manifest, whether it is loaded or only its operations are in the tail. When the log does
        not answer soon, as of the one that is loaded.
        """
        check = self._begin(self.current())
        if self.views.newest is not None:
            await asyncio.wait([check], timeout=INDEX_ONLY_WAIT_S)
        view = self.views.newest
        if view is None or (check.done() and not isinstance(check.exception(), Unavailable)):
            view = await asyncio.shield(check)
            return view.read_view(self._follower.committed(view))
        return view.read_view(view.manifest.covers)

    @property
    def tail_slots(self) -> int:
        return 0 if self.views.newest is None else self.views.newest.memtable.rows

    async def close(self) -> None:
        """Stop the work in the background and let go of everything."""
        if self._following is not None:
            self._following.cancel()
        self._checks.stop()
        loading = [] if self.loading.task is None else [self.loading.task]
        tasks = [*self._behind, *loading]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forget()

    # ---- currency

    async def _check(self) -> ShardView:
        try:
            return await self._look()
        except (Gone, StaleGeneration):
            self._forget()
            raise

    async def _look(self) -> ShardView:
        """Bring the view up to the log's end, whatever it takes."""
        view = self.views.newest
        if view is None or view.broken:
            view = await self.loading.now(await self._follower.state())
        while True:
            async with self.views.moving:
                view = self.views.newest or view  # another one may have been swapped in
                before = view.position
                try:
                    state = await self._follower.catch_up(view)
                except TailGap as gap:
                    # Trimmed under a newer manifest; or, with the same one, the log was lost and begins anew behind it.
                    state, view.broken = gap.state, True
            if view.broken:
                view = await self.loading.now(state)
                continue
            self._keep_up(view, view.position - before)
            if state.pointer != view.manifest.pointer:
                self.loading.beside(state)
            return view

    def _forget(self) -> None:
        self.views.forget()
        self._follower.forget()

    # ---- growth

    def _keep_up(self, view: ShardView, operations: int) -> None:
        """What a tail that has grown by so many operations needs."""
        if view.graph_step_due and self._indexing is None:
            self._indexing = self._begin(self._index())
        if operations >= FOLLOW_OPS_MIN and self._following is None:
            self._following = asyncio.get_running_loop().call_later(FOLLOW_S, self._follow)

    async def _index(self) -> None:
        try:
            while (view := self.views.newest) is not None and view.graph_step_due:
                await self._indexer.run(view.build_graph_step)
        finally:
            self._indexing = None

    def _follow(self) -> None:
        self._following = None
        if self._clock.monotonic() - self.used_s < FOLLOW_UNREAD_S:
            self._begin(self.current())

    def _begin(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Who waited for it may have gone; the failure is theirs all the same, and the next one meets it again."""
        self._behind.discard(task)
        if not task.cancelled():
            task.exception()
