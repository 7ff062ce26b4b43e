"""Currency checks: a view is brought up to the end of the log, without a gap.

One read of the log brings what was appended since the last one, or says in a word that nothing was. Everything that it
brings is proved to continue what the view has (`queryworker.shards.log_continuity`).
"""

from __future__ import annotations

from typing import Final, Protocol

from prometheus_client import Counter

from queryworker.shards.log_continuity import LogGap, check_continuity, check_no_partial_append, complete_appends
from queryworker.thread_pool import ThreadPool
from queryworker.view.shard_view import ShardView
from shared.errors import Gone, StaleGeneration
from shared.log.decoding import decode_entries
from shared.log.state import Entry, ShardRead, ShardState, position_of
from shared.log.verification import DamagedEntry
from shared.process.clock import Clock

READ_BYTES_MAX: Final = 64 * 1024 * 1024
"""Payload of one log read; a longer tail takes several."""

APPLIED_ON_LOOP_BYTES_MAX: Final = 16 * 1024
APPLIED_ON_LOOP_OPS_MAX: Final = 32
"""Bytes of entries, and operations in them, that take no longer to apply than to be handed to a thread. Operations
count because each may look up a row of a segment and copy it.
"""

DAMAGE_RETRY_S: Final = 1.0
"""Seconds for which a damaged entry counts as damaged: what lies behind it is not fetched again for every request."""

_BEHIND_EVERYTHING: Final = f"{2**63 - 1}-0"
"""An id that no entry comes after: a read from there brings the state alone."""

CHECKS: Final = Counter("polychrome_queryworker_currency_checks_total", "Log reads made to keep views current.")
ENTRIES: Final = Counter("polychrome_queryworker_entries_applied_total", "Log entries applied to views.")


class LogReader(Protocol):
    """The part of `shared.log.log.Log` that is used here."""

    async def read(
        self,
        collection_id: str,
        shard: int,
        after: str = ...,
        bytes_max: int | None = None,
        known: ShardRead | None = None,
        after_chain: str = ...,
    ) -> ShardRead: ...


class LogTailer:
    """Reads the log of one shard as it grows and applies it to views of the shard. Everything but `ShardView.apply`
    runs on the event loop.
    """

    def __init__(self, collection: str, number: int, log: LogReader, threads: ThreadPool, clock: Clock) -> None:
        self._collection = collection
        self._number = number
        self._log = log
        self._threads = threads  # not asyncio's own, which downloads may keep busy
        self._clock = clock
        self._last_read: tuple[ShardView, ShardRead] | None = None
        """The last complete read, without its entries, and the view that they were applied to."""
        self._damage: tuple[ShardView, DamagedEntry, float] | None = None
        """The damage that a view ends at, and until when that counts."""
        self.unchanged = False
        """Whether the last currency check found nothing new."""
        self.checked_s = float("-inf")
        """Time at which the last currency check began that found the shard alive."""

    @property
    def last_state(self) -> ShardState | None:
        """The shard's state as of the last currency check, if a view is kept current."""
        return None if self._last_read is None else self._last_read[1].state

    async def state(self) -> ShardState:
        """The shard's state alone. Raises Gone, StaleGeneration, Unavailable."""
        return _alive(await self._log.read(self._collection, self._number, _BEHIND_EVERYTHING)).state

    async def catch_up(self, view: ShardView) -> ShardState:
        """Apply what the log has after the view; the shard's state as of that moment. Raises LogGap, DamagedEntry where
        the log is damaged, with everything applied that comes before, Corrupt, and as `state` does. A view to which
        something could not be applied is broken.
        """
        self._raise_known_damage(view)
        pending: list[Entry] = []
        known = self._last_read[1] if self._last_read is not None and self._last_read[0] is view else None
        chain = ""  # not the view's: a view that this log does not continue is dropped, and the log may be whole
        while True:
            last = pending[-1].id if pending else view.last_entry
            CHECKS.inc()
            began_s = self._clock.monotonic()
            try:
                read = _alive(await self._log.read(self._collection, self._number, last, READ_BYTES_MAX, known, chain))
            except DamagedEntry as damage:
                raise self._noted(view, damage) from None
            self.checked_s = began_s
            self.unchanged = read is known
            if read is known:
                return read.state
            known = None
            check_continuity(read, last, view.manifest.covers, "" if chain else view.last_chain)
            pending += read.entries
            chain = read.entries[-1].chain if read.entries else chain
            ready = complete_appends(pending)
            if ready:
                await self._apply(view, pending[:ready], read.state)
                del pending[:ready]
            if read.complete:
                check_no_partial_append(read, pending)
                view.position = read.state.head
                self._last_read = (view, read.without_entries())
                return read.state

    def _raise_known_damage(self, view: ShardView) -> None:
        if self._damage is not None:
            damaged, damage, until_s = self._damage
            if damaged is view and self._clock.monotonic() < until_s:
                raise damage
            self._damage = None

    def _noted(self, view: ShardView, damage: DamagedEntry) -> Exception:
        """The error to raise for damage that the view ends at: it, or LogGap where a newer manifest covers it."""
        self.unchanged = False
        state = damage.state
        if state is not None and state.pointer is not None and position_of(damage.entry_id) < state.pointer.covers:
            return LogGap(state, view.last_entry)
        self._damage = (view, damage, self._clock.monotonic() + DAMAGE_RETRY_S)
        return damage

    def committed(self, view: ShardView) -> int:
        """The position up to which a manifest is known to cover what the view has; at least the view's own manifest
        does.
        """
        pointer = None
        if self._last_read is not None and self._last_read[0] is view:
            pointer = self._last_read[1].state.pointer
        return max(pointer.covers if pointer else 0, view.manifest.covers)

    def forget(self) -> None:
        """Let go of the view that was read for last."""
        self._last_read = self._damage = None

    async def _apply(self, view: ShardView, entries: list[Entry], state: ShardState) -> None:
        """Applies entries of whole appends, and moves the view behind them. Raises DamagedEntry for one that does not
        decode, when the appends before it are applied.
        """
        bytes_, operations = sum(len(entry.payload) for entry in entries), sum(entry.count for entry in entries)
        try:
            if bytes_ <= APPLIED_ON_LOOP_BYTES_MAX and operations <= APPLIED_ON_LOOP_OPS_MAX:
                applied, damage = self._apply_decoded(view, entries)
            else:
                applied, damage = await self._threads.run(self._apply_decoded, view, entries)
        except BaseException:
            view.broken = True  # it may have half of an entry now; when cancelled, a thread may still be at it
            raise
        if applied:
            newest = entries[applied - 1]
            view.last_entry, view.last_chain, view.position = newest.id, newest.chain, newest.end
            ENTRIES.inc(applied)
        if damage is not None:
            damage.state = state
            raise self._noted(view, damage)

    def _apply_decoded(self, view: ShardView, entries: list[Entry]) -> tuple[int, DamagedEntry | None]:
        batches, damage = decode_entries(self._collection, self._number, entries)
        whole = len(entries) if damage is None else complete_appends(entries[: len(batches)])
        view.apply(entries[:whole], batches[:whole])
        return whole, damage


def _alive(read: ShardRead) -> ShardRead:
    """The read, of a shard that serves. Raises Gone for a deleted collection, StaleGeneration for a shard of an earlier
    layout.
    """
    if read.state.deleted:
        raise Gone("the collection was deleted")
    if not read.state.serves:
        raise StaleGeneration(f"shard {read.state.number} is none of the collection's")
    return read
