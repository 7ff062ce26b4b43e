"""One shard on this worker: its view, kept current, and replaced when a newer manifest appears.

Currency. A read must see every write acknowledged before it began. So it needs one read of the log that *begins* after
the request arrived; all requests that wait share it: who comes while a read is in flight joins the next one.

    request   1    2 3                 4
    log read  [---1---][----2, 3----]  [---4---]

Replacement. The state that every log read brings names the committed manifest. When it is not the view's, the new
manifest is loaded beside the view; then a view of it takes over the tail after `covers` and is swapped in. Readers keep
the old view until then. Only when that cannot be kept current any more, because entries were trimmed that it never saw,
do they wait for a view that is filled from the log. The view that was replaced is kept for a while, for reads as of a
position that the new one does not reach back to.

Growth. While a shard that is read is also written fast, the log is followed without waiting for the next read, so that
no read has much to apply. A tail that has grown is indexed in the background (`queryworker.tail_graphs`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Final, Protocol

from prometheus_client import Counter, Histogram

from queryworker.tailing import TailGap, nothing_left_over, prove, whole_appends
from queryworker.threads import Threads
from queryworker.view import OpenManifest, ShardView, Snapshot
from shared import telemetry
from shared.clock import Clock
from shared.errors import Corrupt, Gone, StaleGeneration, Unavailable
from shared.log.state import Entry, Pointer, ShardRead, ShardState

READ_BYTES_MAX: Final = 64 * 1024 * 1024
"""Payload of one log read; a longer tail takes several."""

RETIRED_VIEW_S: Final = 30.0
"""How long a replaced view serves reads as of older positions."""

LOAD_RETRY_S: Final = 1.0
"""Pause after loading a manifest failed, while the old view still serves."""

CORRUPT_RETRY_S: Final = 10.0
"""How long a manifest that is corrupt is believed to be: its files are not fetched again for every read."""

APPLIED_ON_LOOP_MAX: Final = 16 * 1024
APPLIED_ON_LOOP_OPS_MAX: Final = 32
"""Bytes of entries, and operations in them, that take no longer to apply than to be handed to a thread. Operations
count because each may look up a row of a segment and copy it.
"""

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

_BEHIND_EVERYTHING: Final = f"{2**63 - 1}-0"

CHECKS: Final = Counter("polychrome_queryworker_currency_checks", "Log reads made to keep views current.")
ENTRIES: Final = Counter("polychrome_queryworker_entries_applied", "Log entries applied to views.")
LOADS: Final = Counter("polychrome_queryworker_loads", "Manifests loaded, by outcome.", ["outcome"])
LOAD_SECONDS: Final = Histogram(
    "polychrome_queryworker_load_seconds",
    "Time to load a manifest and replay the log after it.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)

log = telemetry.get_logger(__name__)


class LogReader(Protocol):
    """The part of `shared.log.Log` that is used here."""

    async def read(
        self,
        collection_id: str,
        shard: int,
        after: str = ...,
        bytes_max: int | None = None,
        known: ShardRead | None = None,
    ) -> ShardRead: ...


class BaseLoader(Protocol):
    """Opens manifests (`queryworker.loader`)."""

    async def load(self, collection: str, shard: int, state: ShardState) -> OpenManifest:
        """The committed manifest that the state names, opened. Raises Corrupt, Unavailable."""
        ...


class ServedShard:
    """See the module. Everything but `ShardView.apply` runs on the event loop."""

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
        self.collection = collection
        self.number = number
        self.used_s = clock.monotonic()
        self._log = log_
        self._loader = loader
        self._threads = threads  # not the loop's own, which downloads may keep busy
        self._indexer = indexer
        self._clock = clock
        self._view: ShardView | None = None
        self._retired: tuple[ShardView, float] | None = None
        self._known: tuple[ShardView, ShardRead] | None = None  # the last complete read, and the view that has it
        self._running: asyncio.Task[ShardView] | None = None
        self._next: asyncio.Task[ShardView] | None = None
        self._loading: asyncio.Task[ShardView] | None = None
        self._unchanged = False
        """Whether the last look at the log found nothing new."""
        self._looked_s = float("-inf")
        """When the last look began that found the shard alive."""
        self._load_after_s = 0.0
        self._corrupt: tuple[Pointer | None, str, float] | None = None
        self._indexing: asyncio.Task[None] | None = None
        self._following: asyncio.TimerHandle | None = None
        # Held while the newest view is moved forward, and while another one takes over its tail.
        self._moving = asyncio.Lock()

    # ---- what requests use

    async def current(self) -> ShardView:
        """A view that has every write acknowledged before this call. Raises Gone, StaleGeneration, Corrupt,
        Unavailable.
        """
        return await asyncio.shield(self._next_check())

    async def snapshot(self, as_of: int | None, *, fresh: bool) -> Snapshot:
        """The shard as of a position (None: now). Not `fresh`: without the log's tail, as of the committed manifest.
        The log is not asked for a position that the worker has, unless the last look at it is too old. Raises
        StaleRead too.
        """
        self.used_s = self._clock.monotonic()
        view = self._view if self.used_s - self._looked_s <= LOOK_AGE_MAX_S else None
        if as_of is not None and view is not None and as_of <= view.position:
            return self._at(view, as_of)
        if as_of is None and not fresh:
            return await self._compacted()
        view = await self.current()
        return view.at() if as_of is None else self._at(view, as_of)

    def likely(self) -> Snapshot | None:
        """The newest snapshot of a shard that had not changed when the log was looked at last."""
        return self._view.at() if self._view is not None and self._unchanged else None

    async def _compacted(self) -> Snapshot:
        """As of the committed manifest, whether it is loaded or only its operations are in the tail. When the log does
        not answer soon, as of the one that is loaded.
        """
        check = self._next_check()
        if self._view is not None:
            await asyncio.wait([check], timeout=INDEX_ONLY_WAIT_S)
        view = self._view
        if view is None or (check.done() and not isinstance(check.exception(), Unavailable)):
            view = await asyncio.shield(check)
            if self._known is not None and self._known[0] is view:
                pointer = self._known[1].state.pointer
                return view.at(max(pointer.covers if pointer else 0, view.base.covers))
        return view.at(view.base.covers)

    @property
    def bytes(self) -> int:
        """About what the shard holds in memory."""
        views = [self._view, self._retired[0] if self._retired else None]
        return sum(view.bytes for view in views if view is not None)

    @property
    def tail_slots(self) -> int:
        return 0 if self._view is None else self._view.memtable.slots

    def drop_retired(self) -> None:
        """Let go of a replaced view whose time is over."""
        if self._retired is not None and self._clock.monotonic() >= self._retired[1]:
            self._retired = None

    async def close(self) -> None:
        """Stop the work in the background and let go of everything."""
        if self._following is not None:
            self._following.cancel()
        tasks = [t for t in (self._running, self._next, self._loading, self._indexing) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._view = self._retired = self._known = None

    def _at(self, view: ShardView, as_of: int) -> Snapshot:
        if as_of < view.base.covers and self._retired is not None:
            retired = self._retired[0]
            if retired.base.covers <= as_of <= retired.position:
                return retired.at(as_of)
        return view.at(as_of)

    # ---- currency

    def _next_check(self) -> asyncio.Task[ShardView]:
        """The check that begins next; a request that arrives now may share it."""
        if self._next is None:
            self._next = asyncio.create_task(self._check_after(self._running))
            self._next.add_done_callback(_retrieve)
        return self._next

    async def _check_after(self, running: asyncio.Task[ShardView] | None) -> ShardView:
        if running is not None:
            await asyncio.wait([running])
        # From here on newcomers need the read after this one.
        self._running, self._next = self._next, None
        try:
            return await self._check()
        except (Gone, StaleGeneration):
            self._view = self._retired = self._known = None
            raise
        finally:
            self._running = None

    async def _check(self) -> ShardView:
        """Bring the view up to the log's end, whatever it takes."""
        view = self._view
        if view is None:
            state = await self._state()
            view = await self._load_now(state)
        while True:
            async with self._moving:
                view = self._view or view  # another one may have been swapped in
                before = view.position
                try:
                    state = await self._catch_up(view)
                except TailGap as gap:
                    # Trimmed under a newer manifest; or, with the same one, the log was lost and begins anew behind it.
                    state, view.broken = gap.state, True
            if view.broken:
                view = await self._load_now(state)
                continue
            self._keep_up(view, view.position - before)
            if state.pointer != view.base.pointer:
                self._load_beside(state)
            return view

    def _keep_up(self, view: ShardView, operations: int) -> None:
        """What a tail that has grown by so many operations needs."""
        if view.index_due and self._indexing is None:
            self._indexing = asyncio.create_task(self._index())
            self._indexing.add_done_callback(_retrieve)
        if operations >= FOLLOW_OPS_MIN and self._following is None:
            self._following = asyncio.get_running_loop().call_later(FOLLOW_S, self._follow)

    async def _index(self) -> None:
        try:
            while (view := self._view) is not None and view.index_due:
                await self._indexer.run(view.index_more)
        finally:
            self._indexing = None

    def _follow(self) -> None:
        self._following = None
        if self._clock.monotonic() - self.used_s < FOLLOW_UNREAD_S:
            self._next_check()

    async def _state(self) -> ShardState:
        return _alive(await self._log.read(self.collection, self.number, _BEHIND_EVERYTHING)).state

    async def _catch_up(self, view: ShardView) -> ShardState:
        """Apply what the log has after the view; the state as of that moment. Raises TailGap."""
        pending: list[Entry] = []
        known = self._known[1] if self._known is not None and self._known[0] is view else None
        while True:
            last = pending[-1].id if pending else view.last
            CHECKS.inc()
            began_s = self._clock.monotonic()
            read = _alive(await self._log.read(self.collection, self.number, last, READ_BYTES_MAX, known))
            self._looked_s = began_s
            self._unchanged = read is known
            if read is known:
                return read.state
            known = None
            prove(read, last, view.base.covers)
            pending += read.entries
            ready = whole_appends(pending)
            if ready:
                await self._apply(view, pending[:ready])
                view.last, view.position = pending[ready - 1].id, pending[ready - 1].end
                del pending[:ready]
            if read.complete:
                nothing_left_over(read, pending)
                view.position = read.state.head
                self._known = (view, dataclasses.replace(read, entries=[]))
                return read.state

    async def _apply(self, view: ShardView, entries: list[Entry]) -> None:
        try:
            bytes_, operations = sum(len(entry.payload) for entry in entries), sum(entry.count for entry in entries)
            if bytes_ <= APPLIED_ON_LOOP_MAX and operations <= APPLIED_ON_LOOP_OPS_MAX:
                view.apply(entries)
            else:
                await self._threads.run(view.apply, entries)
        except Exception:
            if self._view is view:  # it may have half of an entry now
                self._view = None
            raise
        ENTRIES.inc(len(entries))

    def _lost(self, gap: TailGap) -> Corrupt:
        covers = gap.state.pointer.covers if gap.state.pointer else 0
        error = Corrupt(
            f"the log of {self.collection}/{self.number} lost entries after {gap.last}, and no manifest covers them"
        )
        log.error("log has a gap", collection=self.collection, shard=self.number, after=gap.last, covers=covers)
        return error

    # ---- replacement

    async def _load_now(self, state: ShardState) -> ShardView:
        """The view of the manifest that the state names, once it is loaded; joins a loading in progress."""
        if self._corrupt is not None:
            pointer, message, until_s = self._corrupt
            if pointer == state.pointer and self._clock.monotonic() < until_s:
                raise Corrupt(message)
        if self._loading is None:
            self._begin_loading(state)
        assert self._loading is not None
        return await asyncio.shield(self._loading)

    def _load_beside(self, state: ShardState) -> None:
        if self._loading is None and self._clock.monotonic() >= self._load_after_s:
            self._begin_loading(state)

    def _begin_loading(self, state: ShardState) -> None:
        self._loading = asyncio.create_task(self._load(state))
        self._loading.add_done_callback(self._loaded)

    async def _load(self, state: ShardState) -> ShardView:
        begun = self._clock.monotonic()
        try:
            base = await self._loader.load(self.collection, self.number, state)
        except Corrupt as error:
            self._corrupt = (state.pointer, error.message, self._clock.monotonic() + CORRUPT_RETRY_S)
            raise
        view = await self._continued(base) or await self._filled(base)
        LOAD_SECONDS.observe(self._clock.monotonic() - begun)
        return view

    async def _continued(self, base: OpenManifest) -> ShardView | None:
        """The view, swapped in, that goes on with the tail of the one before; None when there is none that reaches from
        the new manifest on.
        """
        async with self._moving:
            old = self._view
            if old is None or not old.can_continue(base):
                return None
            view = await self._threads.run(ShardView, base, old)
            self._swap(view)
            return view

    async def _filled(self, base: OpenManifest) -> ShardView:
        """The view whose tail is read from the log, swapped in unless it has a gap already."""
        view = await self._threads.run(ShardView, base)
        old = self._view
        try:
            await self._catch_up(view)
            # Nobody may see the shard go back in time, not even who reads without a currency check; but if the log
            # itself went back (its server lost data), waiting would not help.
            reached = 0
            while old is not None and reached < view.position < old.position:
                reached = view.position
                await self._catch_up(view)
        except TailGap as gap:
            # A newer manifest was committed and the log trimmed meanwhile. Who waits for this view meets the same gap
            # and loads that one; who does not wait finds out at the next check.
            if gap.state.pointer == view.base.pointer:
                raise self._lost(gap) from gap
            return view
        self._swap(view)
        return view

    def _swap(self, view: ShardView) -> None:
        old, self._view = self._view, view
        if old is not None:
            self._retired = (old, self._clock.monotonic() + RETIRED_VIEW_S)

    def _loaded(self, task: asyncio.Task[ShardView]) -> None:
        self._loading = None
        if task.cancelled():
            return
        error = task.exception()
        LOADS.labels("ok" if error is None else getattr(error, "code", "internal")).inc()
        if error is not None:
            self._load_after_s = self._clock.monotonic() + LOAD_RETRY_S
            log.warning("loading failed", collection=self.collection, shard=self.number, error=str(error))


def _alive(read: ShardRead) -> ShardRead:
    if read.state.deleted:
        raise Gone("the collection was deleted")
    if not read.state.serves:
        raise StaleGeneration(f"shard {read.state.number} is none of the collection's")
    return read


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Everybody who waited may have gone; the failure is theirs all the same, and the next one meets it again."""
    if not task.cancelled():
        task.exception()
