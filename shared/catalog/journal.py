"""The catalog's journal: every change of the catalog is in the bucket before it is acknowledged.

1. A writer enters `change` with the path of slots that it is about to change, and remembers what the cluster rests on.
2. It commits in Redis. The script that does so notes the row as pending, in the same step.
3. On leaving, one task of this process reads what is pending in the slots of all writers that wait, gives it a number,
   and writes it to the bucket as one entry. What comes meanwhile goes into the next entry.
4. The cluster still rests on the same run of the same epoch: so Redis lost nothing since the change, and whatever
   restores it later finds the entry. Only now is the change acknowledged.
5. The rows are pending no more.

A process that dies before step 3 leaves its rows pending, and whoever writes next in the same database, or the log
service, writes them too. So an entry never says less than the state of its slots at their versions, together with the
entries and snapshots before it: a name that a collection has in an entry was given up by another one there or earlier.

While the bucket takes no entries, changes are refused before anything is done, but for those that had begun: their
outcome is unknown. This process tries again until the bucket has what it owes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, NamedTuple

from prometheus_client import Counter
from redis.asyncio import Redis

from shared.catalog.changes import Changes
from shared.catalog.cluster import Cluster, ClusterMark, Standing
from shared.catalog.journal_entry import JournalEntry
from shared.catalog.pending import Observation, PendingChanges
from shared.catalog.slots import TENANTS, Path, Slot
from shared.errors import Backoff, JournalAway, NotJournaled, PolychromeError, Unavailable, UnknownOutcome
from shared.objects.port import ObjectStore
from shared.process.concurrency import together
from shared.process.telemetry import get_logger
from shared.redis.keys import Keys

WRITE_S_MAX: Final = 4.0
"""Longest time of one attempt to read what is pending and to write it, in seconds."""
WAIT_S_MAX: Final = 8.0
"""Longest time that a change waits for its entry, in seconds: for the attempt under way, and for its own."""
PAUSE_AFTER_FAILURE_S: Final = 1.0

ENTRIES: Final = Counter("polychrome_catalog_journal_entries_total", "Entries of the catalog's journal written.")
FAILURES: Final = Counter("polychrome_catalog_journal_failures_total", "Entries that could not be written.")

log = get_logger(__name__)


@contextmanager
def after_commit() -> Iterator[None]:
    """For what follows on a change that was committed. Raises UnknownOutcome in place of Unavailable, which would say
    that nothing was changed.
    """
    try:
        yield
    except UnknownOutcome:
        raise
    except Unavailable as error:
        raise UnknownOutcome(error.message) from error


class Journal:
    """The gate that every writer of the catalog goes through. This one keeps no journal and only counts the changes: it
    is for readers of the catalog, and for tests. Everything raises Unavailable.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._mark = ClusterMark(redis, keys)
        self._changes = Changes(redis, keys)

    @asynccontextmanager
    async def change(self, path: Path) -> AsyncIterator[None]:
        """Wraps a change of the lowest slot of `path`, or of several of it. Left without an exception, everything that
        was pending on the path is durable, whoever changed it. Raises Unavailable before anything was done while the
        cluster is not open.
        """
        await self._mark.require()
        yield
        await self._changes.count()

    async def settle(self, path: Path) -> None:
        """Makes everything durable that is pending on the path."""

    async def settle_row(self, path: Path, row: str) -> None:
        """Makes everything durable that is pending on the path, if this row of its lowest slot is."""


class _Waiting(NamedTuple):
    """A change that waits for its entry."""

    path: Path
    standing: Standing
    done: asyncio.Future[None]
    own: Path
    """The slots of the path of which no row may be left out."""


@asynccontextmanager
async def open_journal(redis: Redis, keys: Keys, objects: ObjectStore) -> AsyncIterator[BucketJournal]:
    """The journal of a process that changes the catalog."""
    journal = BucketJournal(redis, keys, objects)
    try:
        yield journal
    finally:
        await journal.close()


class BucketJournal(Journal):
    """The journal of one process, in the bucket. To be closed."""

    def __init__(self, redis: Redis, keys: Keys, objects: ObjectStore) -> None:
        super().__init__(redis, keys)
        self._pending = PendingChanges(redis, keys)
        self._objects = objects
        self._writer = uuid.uuid4().hex[:12]
        self._waiting: list[_Waiting] = []
        self._owed: dict[Slot, None] = {}
        self._refused = False
        self._closed = False
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends the attempts; what is owed is left to the log service."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @asynccontextmanager
    async def change(self, path: Path) -> AsyncIterator[None]:
        """As in `Journal`. Raises JournalAway, before anything was done, while the bucket takes no entries, and
        NotJournaled when it stopped doing so meanwhile, or when Redis was restarted or restored.
        """
        if self._refused:
            raise JournalAway("The catalog's journal takes no changes")
        standing = await self._mark.standing()
        try:
            yield
        except (UnknownOutcome, asyncio.CancelledError):
            self._owe(path)  # it may be committed, and then it should not wait for the log service
            raise
        await self._save(path, standing)

    async def settle(self, path: Path) -> None:
        if await self._pending.any_of(path):
            await self._save(path, await self._mark.standing(), own=())  # rows that cannot be read wait for themselves

    async def settle_row(self, path: Path, row: str) -> None:
        if await self._pending.has(path[0], row):
            await self._save(path, await self._mark.standing())

    async def _save(self, path: Path, standing: Standing, own: Path | None = None) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(path, standing, done, path[:1] if own is None else own)
        self._waiting.append(waiting)
        self._arrived.set()
        self._wake()
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                await waiting.done
        except TimeoutError:
            raise NotJournaled("The catalog's journal did not take the change in time") from None

    def _owe(self, path: Path) -> None:
        self._owed.update(dict.fromkeys(path))
        self._wake()

    def _wake(self) -> None:
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        """Writes entries until nobody waits and nothing is owed. What an entry has is cleared while the next one is
        read: the command goes out first, so that the rows are not in that one, too.
        """
        written: list[Observation] = []
        while self._waiting or self._owed or written:
            if not (self._waiting or self._owed):
                await self._clear(written)
                written = []
                continue
            group, self._waiting = self._waiting, []
            slots = _in_order([*(waiting.path for waiting in group), tuple(self._owed)])
            try:
                async with asyncio.timeout(WRITE_S_MAX):
                    written, unreadable, standing = await self._write(group, slots, written)
            except (PolychromeError, TimeoutError) as error:
                self._failed(group, slots, error)
                await self._pause()
                continue
            except Exception as error:  # a defect: the callers report it
                _fail(group, error)
                raise
            self._refused = False  # also when another process has written what was owed
            for slot in slots:
                self._owed.pop(slot, None)
            for waiting in group:
                _acknowledge(waiting, standing, unreadable)

    async def _write(
        self, group: Sequence[_Waiting], slots: Sequence[Slot], written: Sequence[Observation]
    ) -> tuple[list[Observation], set[tuple[Slot, str]], Standing]:
        """Clears what was written, and writes an entry with what is pending in the slots; what that was, which pending
        rows cannot be read and are not in it, and what the cluster rests on after it.
        """
        known = {waiting.standing for waiting in group}
        before = known.pop() if len(known) == 1 else await self._mark.standing()
        _, found = await together([self._clear(written), self._pending.observe(slots)])
        observed = [each for each in found if each.rows]
        unreadable = await self._create(before.cluster, observed) if observed else set()
        standing = await self._mark.standing()
        # Read in another epoch than the entry says: nothing of it counts, and nothing may be cleared.
        written = [each.without(unreadable) for each in observed] if standing == before else []
        return [each for each in written if each.rows], unreadable, standing

    async def _create(self, cluster: Cluster, observed: Sequence[Observation]) -> set[tuple[Slot, str]]:
        """Creates the entry of these rows; returns those that it has not, because they cannot be read."""
        (slots, unreadable), number = await asyncio.gather(self._pending.described(observed), self._pending.number())
        if not slots:
            return unreadable
        entry = JournalEntry(cluster.id, cluster.epoch, number, self._writer, time.time(), slots)
        try:
            created = await self._objects.create(entry.key, entry.encode())
        except (Unavailable, asyncio.CancelledError):
            self._refused = True
            raise
        if not created:
            raise Unavailable(f"{entry.key} is there already")
        ENTRIES.inc()
        return unreadable

    async def _pause(self) -> None:
        """Waits before the next attempt, for less when there is another change to write."""
        self._arrived.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_AFTER_FAILURE_S):
                await self._arrived.wait()

    async def _clear(self, observed: Sequence[Observation]) -> Sequence[Observation]:
        """Clears these rows, if any; returns those that stay pending, because Redis is away. They are written once
        more then, which does no harm.
        """
        try:
            await self._pending.clear(observed)
        except (Unavailable, Backoff) as error:
            log.warning("journal_not_cleared", message=error.message)
            return observed
        return ()

    def _failed(self, group: Sequence[_Waiting], slots: Sequence[Slot], error: Exception) -> None:
        FAILURES.inc()
        reason = error.message if isinstance(error, PolychromeError) else "no answer in time"
        log.warning("journal_not_written", message=reason, changes=len(group))
        self._owed.update(dict.fromkeys(slots))
        _fail(group, NotJournaled(f"The catalog's journal did not take the change: {reason}"))


def _fail(group: Sequence[_Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)


def _acknowledge(waiting: _Waiting, standing: Standing, unreadable: Set[tuple[Slot, str]]) -> None:
    """Ends the wait of a change, which is in the journal, unless it was of a row that cannot be read any more."""
    if waiting.done.done():
        return
    if any(slot in waiting.own or (slot == TENANTS and Slot(tenant=row) in waiting.own) for slot, row in unreadable):
        waiting.done.set_exception(NotJournaled("What was changed in the catalog was damaged before it was durable"))
    elif waiting.standing == standing:
        waiting.done.set_result(None)
    else:
        waiting.done.set_exception(NotJournaled("Redis was restarted or restored while the catalog was changed"))


def _in_order(paths: Iterable[Path]) -> list[Slot]:
    """The slots of all paths, each once, no slot after one above it: those of databases, then those of tenants' names,
    then the tenants.
    """
    slots = dict.fromkeys(slot for path in paths for slot in path)
    return sorted(slots, key=lambda slot: (slot.database is None, slot.tenant is None))
