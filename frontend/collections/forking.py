"""Making forks of collections, in the steps of docs/design/2026-11-21-fork.md.

1. Reserve: the fork's id counts in its family from now on, and its state is there, an orphan.
2. Sow: each shard of the fork gets a first manifest, with the content of the origin's newest.
3. Look at the origin again: when it was compacted, restored or got other shards meanwhile, give up and begin anew.
4. Copy: the origin's log after those manifests, up to the fork's head.
5. Commit: the fork's row in the catalog makes it a collection.

A fork that fails or is cancelled before step 5 is given up: its id counts no more, and its manifests are garbage.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.catalog import NewCollection
from shared.errors import AlreadyExists, Corrupt, Gone, PolychromeError, Unavailable
from shared.log.state import FIRST_ID, Pointer
from shared.log.tails import LogTail, TailGone, pages_of
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.process.concurrency import together
from shared.process.shielding import run_to_end
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION

if TYPE_CHECKING:
    from shared.catalog import Collection, Database
    from shared.catalog.collections import Collections
    from shared.catalog.forking import Forking
    from shared.history.past_log import PastBase, PastLog
    from shared.log.forks import Forks
    from shared.log.log import Log
    from shared.log.state import Entry
    from shared.objects.port import ObjectStore
    from shared.process.clock import Clock

TRIES: Final = 16
"""Times that a fork is begun, at most: it begins anew when its origin was compacted or got other shards in the middle.
Either takes longer than a try.
"""

SHARDS_AT_ONCE: Final = 16
"""Shards of one fork that are worked on at a time."""

GIVE_UP_S_MAX: Final = 10.0
"""Longest time that giving a reservation back may take, in seconds; a few commands to Redis, each with its own
deadline."""

CLOSE_S_MAX: Final = 5.0
"""Longest time that a stopping frontend waits for that, in seconds; what is not given back by then is left to the
collector of orphans."""

log = get_logger(__name__)


class _MovedOn(Exception):  # not an error: a reason to begin anew
    """The origin is not what it was at the beginning."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The origin as the fork begins: its row with the head and the manifests that the fork gets. Of the past, `bases`
    are these manifests, shard by shard.
    """

    collection: Collection
    bases: Sequence[PastBase] | None = None


class Forker:
    """Makes forks. A family may have `forks_max` of them; `written_by` names the process in manifests."""

    def __init__(
        self,
        collections: Collections,
        forking: Forking,
        forks: Forks,
        log: Log,
        past_log: PastLog,
        objects: ObjectStore,
        clock: Clock,
        forks_max: int,
        written_by: str,
    ) -> None:
        self._collections = collections
        self._forking = forking
        self._forks = forks
        self._log = log
        self._past_log = past_log
        self._manifests = ManifestStore(objects)
        self._clock = clock
        self._forks_max = forks_max
        self._written_by = written_by
        self._in_progress = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def count(self, collection: Collection) -> int:
        """The forks that the collection's family ever made."""
        return await self._forking.count(collection)

    async def fork(
        self, db: Database, collection_id: str, name: str, as_of: int | None = None, most: float = math.inf
    ) -> Collection:
        """The new collection: what the other one is at a moment of this call, or was as of a position of its past.
        The family may make `most` forks, and no more than this process allows. Raises Gone, AlreadyExists, NotFound,
        QuotaExceeded, Unavailable, Corrupt, and StaleRead for a past that is not
        kept. An append that the position lies within is not in the fork.

        Nothing is left of a fork that fails, or is cancelled, before its commit. A commit that has begun is finished.
        """
        self._in_progress += 1
        self._idle.clear()
        try:
            return await self._fork(db, collection_id, name, as_of, int(min(most, self._forks_max)))
        finally:
            self._in_progress -= 1
            if not self._in_progress:
                self._idle.set()

    async def close(self) -> None:
        """Waits for forks that were cancelled and are still giving back what they reserved. Redis must be there yet."""
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._idle.wait()
        except TimeoutError:
            log.warning("forks_left", forks=self._in_progress)

    async def _fork(self, db: Database, collection_id: str, name: str, as_of: int | None, most: int) -> Collection:
        for _ in range(TRIES):
            origin = await self._origin(db, collection_id)
            if await self._collections.get(db, name) is not None:
                raise AlreadyExists(f"Collection [{name}] already exists")
            source = _Source(origin) if as_of is None else await self._past_source(origin, as_of)
            new = _like(origin, name)
            fork_id = await self._reserve(origin, new, most)
            try:
                await self._fill(db, source, fork_id)
            except _MovedOn:
                await self._give_up(origin.root, fork_id)
                continue
            except (Exception, asyncio.CancelledError):  # whatever it was, the id must not stay reserved
                await self._give_up(origin.root, fork_id)
                raise
            forked = await run_to_end(self._forking.commit(db, fork_id, new))
            if forked is not None:
                return forked
        raise Unavailable("The collection changes faster than it can be forked")

    async def _reserve(self, origin: Collection, new: NewCollection, most: int) -> str:
        """The id of the fork to be, which now counts in its family; given up when the caller was cancelled meanwhile.
        Raises QuotaExceeded.
        """
        reserving = asyncio.ensure_future(self._forking.reserve(origin, new, most))
        try:
            return await run_to_end(reserving)
        except asyncio.CancelledError:
            if not reserving.cancelled() and reserving.exception() is None:
                await self._give_up(origin.root, reserving.result())
            raise

    async def _give_up(self, root: str, fork_id: str) -> None:
        """Gives the reservation back, however often the caller is cancelled. What fails here is left to the collector
        of orphans: why the fork was given up matters more to the caller.
        """
        try:
            await run_to_end(self._forking.give_up(root, fork_id), deadline_s=GIVE_UP_S_MAX)
        except (PolychromeError, TimeoutError) as error:
            log.warning("fork_not_given_up", fork=fork_id, family=root, error=str(error))

    async def _origin(self, db: Database, collection_id: str) -> Collection:
        found = await self._collections.get_by_id(db, collection_id)
        if found is None:
            raise Gone(f"collection {collection_id} was deleted")
        return found

    async def _past_source(self, origin: Collection, as_of: int) -> _Source:
        """The origin as it was."""
        shards = zip(origin.layout.numbers, origin.pointers, strict=True)
        bases = await together([self._past_log.base(origin.id, shard, as_of, pointer) for shard, pointer in shards])
        pointers = tuple(base.manifest.pointer if base.manifest else None for base in bases)
        appended = min(origin.appended, max(as_of - FIRST_POSITION, 0))
        return _Source(dataclasses.replace(origin, head=as_of, pointers=pointers, appended=appended), bases)

    async def _fill(self, db: Database, source: _Source, fork_id: str) -> None:
        """Gives the fork its manifests and its log. Raises _MovedOn."""
        origin, limit = source.collection, asyncio.Semaphore(SHARDS_AT_ONCE)

        async def sow(number: int) -> Pointer | None:
            async with limit:
                return await self._sow(origin, fork_id, number)

        async def copy(number: int) -> int:
            async with limit:
                return await self._copy(source, fork_id, number)

        shards = range(origin.shards)
        try:
            pointers = await together([sow(number) for number in shards])
        except Corrupt as error:
            # The pointer is moved before a manifest is collected: only one that is still named is damaged.
            if await self._is_kept(source, await self._origin(db, origin.id)):
                raise
            raise _MovedOn from error
        # Now that the garbage collector can see the fork's manifests: were the origin's kept until now?
        if not await self._is_kept(source, await self._origin(db, origin.id)):
            raise _MovedOn
        copied = sum(await together([copy(number) for number in shards]))
        await self._forks.open(
            fork_id,
            origin.epoch,
            head=origin.head,
            dimension=origin.dimension,
            pointers=pointers,
            ops_before=origin.appended - copied,
            pairs=sorted(origin.keys),
        )

    async def _is_kept(self, source: _Source, now: Collection) -> bool:
        """Whether the origin's manifests were kept until `now`: they are the present ones, or, of the past, are there
        yet. The collector deletes segments only in a later round than their last manifest.
        """
        origin = source.collection
        if (now.epoch, now.layout) != (origin.epoch, origin.layout):
            return False
        if source.bases is None:
            return now.pointers == origin.pointers
        shards = zip(origin.layout.numbers, origin.pointers, strict=True)
        return all(
            [
                pointer is None or await self._manifests.exists(origin.id, shard, pointer.version)
                for shard, pointer in shards
            ]
        )

    async def _sow(self, origin: Collection, fork_id: str, number: int) -> Pointer | None:
        """The first manifest of the fork's shard; None where the origin's has none."""
        pointer = origin.pointers[number]
        if pointer is None:
            return None
        theirs = await self._manifests.load(origin.id, origin.layout.numbers[number], pointer)
        created = await self._manifests.create(
            Manifest(
                collection=fork_id, shard=number, version=1, parent=None, covers=theirs.covers,
                dimension=theirs.dimension, segments=theirs.segments, rows=theirs.rows, digest=theirs.digest,
                written_by=f"{self._written_by} {uuid.uuid4().hex}", created_s=self._clock.now(),
                epoch=origin.epoch,
            )
        )  # fmt: skip
        if created is None:
            raise Unavailable(f"the fork {fork_id} has a manifest already")
        return created

    async def _copy(self, source: _Source, fork_id: str, number: int) -> int:
        """Copies the shard's stream from where the manifest ends to the fork's head; returns the number of operations
        that were copied. Raises _MovedOn, Unavailable.
        """
        origin, last, operations = source.collection, FIRST_ID, 0
        try:
            async for entries in self._pages(source, number):
                if not await self._forks.copy(fork_id, origin.epoch, number, entries, last):
                    raise Unavailable(f"another process is making the fork {fork_id}")
                last, operations = entries[-1].id, operations + sum(entry.count for entry in entries)
        except TailGone as error:
            raise _MovedOn from error
        return operations

    async def _pages(self, source: _Source, number: int) -> AsyncIterator[list[Entry]]:
        """The entries of the origin's shard from its manifest to the fork's head."""
        origin, shard = source.collection, source.collection.layout.numbers[number]
        if source.bases is None:
            pointer = origin.pointers[number]
            covers = pointer.covers if pointer else FIRST_POSITION
            tail = LogTail(origin.id, shard, covers=covers, head=origin.head, written=origin.written[number])
            async for entries in pages_of(self._log, tail):
                yield entries
        else:
            async for page in self._past_log.pages(origin.id, shard, source.bases[number], origin.head):
                entries = [entry for entry in page if entry.end <= origin.head]
                if entries:
                    yield entries


def _like(origin: Collection, name: str) -> NewCollection:
    """The fork as a new collection: as its origin, but for the name and the numbers of the shards."""
    return NewCollection(
        name,
        origin.metadata,
        origin.configuration,
        origin.schema,
        {**origin.fixed, "shards": origin.shards},
        (*origin.ancestors, origin.id),
    )
