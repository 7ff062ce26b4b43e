"""A shard on this worker: its views, kept current for the reads of it.

Currency. A read must see every write that was acknowledged before it began. So it needs one currency check, a read of
the log, that *begins* after the request arrived; all requests that wait share one (`shared.process.coalesced`). A
check moves the newest view forward (`queryworker.shards.log_tailer`), or has it replaced when a newer manifest appeared
(`queryworker.shards.view_loader`).

Growth. While a shard that is read is also written fast, the log is polled without waiting for the next read, so that no
read has much to apply. Over a tail that has grown, neighbour graphs are built in the background
(`queryworker.view.tail_graphs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from queryworker.shards.log_continuity import LogGap
from queryworker.shards.log_tailer import LogReader, LogTailer
from queryworker.shards.view_loader import ManifestLoader, ViewLoader
from queryworker.shards.views import ShardViews
from queryworker.thread_pool import ThreadPool
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import ShardView
from shared.errors import Gone, StaleGeneration, StaleRead, Unavailable
from shared.log.state import ShardState
from shared.log.verification import DamagedEntry
from shared.process import telemetry
from shared.process.clock import Clock
from shared.process.coalesced import Coalesced

CHECK_AGE_MAX_S: Final = 1.0
"""Reads that need no currency check of their own are answered while the last one is no older than this. So a deleted
collection can be read no longer than this.
"""

POLL_OPS_MIN: Final = 256
"""A log that grew by this many operations from one currency check to the next is polled once more by itself."""

POLL_DELAY_S: Final = 0.05
"""Time from the check to the poll, in seconds."""

POLL_UNREAD_S: Final = 5.0
"""A shard that was not read for this long is not polled."""

INDEX_ONLY_WAIT_S: Final = 0.25
"""Time that a read of what is compacted waits to hear which manifest is the newest."""

GRAPH_RETRY_S: Final = 30.0
"""Pause after building a graph over the tail failed. Reads go on meanwhile: rows without a graph are scanned."""

Result = TypeVar("Result")

log = telemetry.get_logger(__name__)


class ServedShard:
    """A shard that is read here. Everything runs on the event loop but what is handed to the threads: applying the
    log to views, and building graphs (`graph_threads`).
    """

    def __init__(
        self,
        collection: str,
        number: int,
        log_reader: LogReader,
        manifests: ManifestLoader,
        threads: ThreadPool,
        graph_threads: ThreadPool,
        clock: Clock,
    ) -> None:
        self.used_s = clock.monotonic()
        """Time at which the shard was last read."""
        self._collection = collection
        self._number = number
        self._clock = clock
        self._graph_threads = graph_threads
        self.views = ShardViews(clock)
        self._tailer = LogTailer(collection, number, log_reader, threads, clock)
        self.loader = ViewLoader(collection, number, manifests, self.views, self._tailer, threads, clock)
        self._checks = Coalesced(self._check)
        self._compacted_check: tuple[asyncio.Task[ShardView], int] | None = None
        """The last check on behalf of reads of what is compacted, and how many checks had begun before it."""
        self._graph_build: asyncio.Task[None] | None = None
        self._graphs_not_before_s = 0.0
        self._poll_timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[object]] = set()
        """Tasks of the shard's own, which no request awaits, or not to their end."""

    # ---- what requests use

    async def current_view(self) -> ShardView:
        """A view that has every write acknowledged before this call. Raises Gone, StaleGeneration, Corrupt,
        Unavailable.
        """
        return await self._checks.run()

    async def read_view(self, as_of: int | None, *, fresh: bool) -> ReadView:
        """The shard as of a position, None for now. Not `fresh`: without the log's tail, as of the committed manifest.
        There is no currency check for a position that the worker has, unless the last check is too old. Raises
        StaleRead, Gone, StaleGeneration, Corrupt, Unavailable.
        """
        self.used_s = self._clock.monotonic()
        view = self.views.newest if self.used_s - self._tailer.checked_s <= CHECK_AGE_MAX_S else None
        if as_of is not None and view is not None and as_of <= view.position:
            self._refuse_lost(as_of, fresh=fresh)
            return self.views.read_view(view, as_of)
        if as_of is None and not fresh:
            return await self._compacted()
        view = await self.current_view()
        if as_of is None:
            return view.read_view()
        self._refuse_lost(as_of, fresh=fresh)
        return self.views.read_view(view, as_of)

    def _refuse_lost(self, as_of: int, *, fresh: bool) -> None:
        """Raises StaleRead for a position of before the last restart of Redis, which may have lost what was there: of
        this shard it would be read without that, of another one, which answered before, with it.
        """
        state = self._tailer.last_state
        if fresh and state is not None and as_of < state.floor:
            raise StaleRead(f"position {as_of} is from before a restoration, which ended at {state.floor}; read again")

    def reload(self) -> None:
        """Has the newest view replaced before the next read: files of it were found damaged."""
        if self.views.newest is not None:
            self.views.newest.broken = True

    async def state(self) -> ShardState:
        """The shard's state, which may be as old as the last currency check. Raises Gone, StaleGeneration,
        Unavailable.
        """
        return self._tailer.last_state or await self._tailer.state()

    def unchecked_view(self) -> ReadView | None:
        """The newest read view, without a currency check, of a shard that had not changed at the last check; None of
        any other shard. A check that finds nothing new makes it the very object that `read_view` returns.
        """
        view = self.views.newest
        return view.read_view() if view is not None and self._tailer.unchanged else None

    async def _compacted(self) -> ReadView:
        """As of the committed manifest, whether it is loaded or only its operations are in the tail. When the log is
        damaged, or does not answer within INDEX_ONLY_WAIT_S, as of the manifest that is loaded.
        """
        check = self._check_in_background()
        if self.views.newest is not None:
            await asyncio.wait([check], timeout=INDEX_ONLY_WAIT_S)
        view = self.views.newest
        if view is None or (check.done() and not isinstance(check.exception(), Unavailable | DamagedEntry)):
            try:
                view = await asyncio.shield(check)
            except DamagedEntry:
                view = self.views.newest  # the first check has made one
                if view is None:
                    raise
            else:
                return view.read_view(self._tailer.committed(view))
        return view.read_view(view.manifest.covers)

    def _check_in_background(self) -> asyncio.Task[ShardView]:
        """A currency check that begins after this call, and goes on when the read that wants it does not wait for its
        end. Reads that would share it share its task, too: else they would pile up while the log does not answer.
        """
        if self._compacted_check is not None:
            check, begun_before = self._compacted_check
            if begun_before == self._checks.runs_begun and not check.done():
                return check
        check = self._spawn(self.current_view())
        self._compacted_check = (check, self._checks.runs_begun)
        return check

    @property
    def tail_rows(self) -> int:
        """The number of rows in the tail of the newest view."""
        return 0 if self.views.newest is None else self.views.newest.memtable.rows

    async def close(self) -> None:
        """Stop the work in the background and let go of all views."""
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        self._checks.cancel_waiting()
        load = [] if self.loader.task is None else [self.loader.task]
        tasks = [*self._background, *load]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forget()

    # ---- currency

    async def _check(self) -> ShardView:
        """Does a currency check. A shard that serves no more lets go of its views."""
        try:
            return await self._advance()
        except (Gone, StaleGeneration):
            self._forget()
            raise

    async def _advance(self) -> ShardView:
        """Bring the newest view up to the log's end; loads a manifest first where no view can be brought there."""
        view = self.views.newest
        if view is None or view.broken:
            view = await self.loader.load(await self._tailer.state())
        while True:
            async with self.views.advancing:
                view = self.views.newest or view  # another view may have taken its place
                before = view.position
                try:
                    state = await self._tailer.catch_up(view)
                except LogGap as gap:
                    # Trimmed under a newer manifest; or, with the same one, the log was lost and begins anew behind it.
                    state, view.broken = gap.state, True
                except DamagedEntry as damage:
                    if damage.state is not None and damage.state.pointer != view.manifest.pointer:
                        self.loader.load_in_background(damage.state)
                    raise
            if view.broken or view.epoch != state.epoch:
                # Restored meanwhile: to what the view is made of, or to something else.
                view.broken = True
                view = await self.loader.load(state)
                continue
            self._keep_up(view, view.position - before)
            if state.pointer != view.manifest.pointer:
                self.loader.load_in_background(state)
            return view

    def _forget(self) -> None:
        self.views.clear()
        self._tailer.forget()
        self._compacted_check = None

    # ---- growth

    def _keep_up(self, view: ShardView, operations: int) -> None:
        """Begin in the background what a view needs whose tail has grown by so many operations."""
        if view.graph_step_due and self._graph_build is None and self._clock.monotonic() >= self._graphs_not_before_s:
            self._graph_build = self._spawn(self._build_graphs())
        if operations >= POLL_OPS_MIN and self._poll_timer is None:
            self._poll_timer = asyncio.get_running_loop().call_later(POLL_DELAY_S, self._poll)

    async def _build_graphs(self) -> None:
        try:
            while (view := self.views.newest) is not None and view.graph_step_due:
                await self._graph_threads.run(view.build_graph_step)
        except Exception:
            self._graphs_not_before_s = self._clock.monotonic() + GRAPH_RETRY_S
            log.exception("tail_graph_failed", collection=self._collection, shard=self._number)
        finally:
            self._graph_build = None

    def _poll(self) -> None:
        self._poll_timer = None
        if self._clock.monotonic() - self.used_s < POLL_UNREAD_S:
            self._spawn(self.current_view())

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._background.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[object]) -> None:
        """Marks a failure as retrieved. It is that of a currency check: a request that awaits the task raises it, and
        where none does any more, the next request's own check meets it again.
        """
        self._background.discard(task)
        if not task.cancelled():
            task.exception()
