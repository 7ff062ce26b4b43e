"""Drives erasures, each step until it is done. Every step may be repeated, by another process as well: what has to be
kept in mind is in the erasure's control record, everything else is asked anew.

1. Collections that are erased as wholes are deleted, if whoever asked for it died before that.
2. Of the others a *mark* in Redis has compactions keep no dead rows, and then a barrier is appended
   (`logservice.erasing.barrier`).
3. Once the log is trimmed beyond it and the shards are clean (`logservice.erasing.remains`), what is suspect in the
   bucket is noted in the record. Of deleted collections everything is, once Redis has nothing of them.
4. Garbage is collected without regard to retention and history, until nothing is left but what forks name.
5. Old snapshots of the catalog and its journal go, where they name deleted collections.
6. Caches are told which segments are erased, and drop them.
7. Redis writes its append-only file anew.
8. The receipt is written, then the control record is deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Final

import msgspec
from prometheus_client import Gauge

from logservice.erasing.barrier import append_barrier
from logservice.erasing.caches import Caches
from logservice.erasing.catalog_copies import CatalogCopies
from logservice.erasing.forks import ForkHolds
from logservice.erasing.remains import CleanShard, Remains, counted, remains_of_deleted, remains_of_living
from logservice.erasing.shards import clean_shards
from shared.catalog import Catalog
from shared.errors import Gone
from shared.log.log import Log
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.redis.append_only import AppendOnlyFile
from shared.tenancy.control_model import ControlKind
from shared.tenancy.control_records import ControlRecords
from shared.tenancy.erasure_marks import ErasureMarks
from shared.tenancy.erasures import Erasure, ErasureState, Receipt, Remaining, Removed, decode_erasure

OPEN: Final = Gauge("polychrome_logservice_erasures_open", "Erasures that have no receipt yet.")
OVERDUE: Final = Gauge("polychrome_logservice_erasures_overdue", "Erasures without a receipt that are late.")

BARRIER_AGAIN_S: Final = 30.0
"""Time after which another barrier is appended while a compaction that began before the mark holds up an erasure."""
REWRITE_S: Final = 60.0
"""Longest wait for Redis to write its append-only file anew; then it is looked at again in the next step."""
SEGMENTS_NAMED_MAX: Final = 1500
"""Most segments that an erasure names: its record stays below the bound of control records."""

Collect = Callable[[Set[str]], Awaitable[None]]
"""Collects garbage in the bucket once, with these collections as erased ones."""

log = get_logger(__name__)


class Eraser:
    """The erasures of one leader. Everything raises Unavailable and Backoff."""

    def __init__(
        self,
        control: ControlRecords,
        marks: ErasureMarks,
        catalog: Catalog,
        log_: Log,
        objects: ObjectStore,
        copies: CatalogCopies,
        caches: Caches,
        append_only: AppendOnlyFile,
        collect: Collect,
        clock: Clock,
        within_s: float,
    ) -> None:
        self._within_s = within_s
        self._control = control
        self._marks = marks
        self._catalog = catalog
        self._log = log_
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._copies = copies
        self._caches = caches
        self._append_only = append_only
        self._collect = collect
        self._clock = clock
        self._forks = ForkHolds(catalog.collections, objects)
        self._appended_s: dict[str, float] = {}

    async def step(self) -> None:
        """Takes every open erasure as far as it goes now."""
        found = [record async for record in self._control.all(ControlKind.ERASURES) if record.content is not None]
        erasures = [decode_erasure(record.content or b"") for record in found]
        OPEN.set(len(erasures))
        OVERDUE.set(sum(self._due_s(erasure) < self._clock.now() for erasure in erasures))
        await self._mark(erasures)
        for erasure in sorted(erasures, key=lambda each: (each.requested_s, each.id)):
            await self._advance(erasure)

    async def _mark(self, erasures: list[Erasure]) -> None:
        wanted = {collection: each.id for each in erasures if each.of_records for collection in each.collections}
        marked = await self._marks.marked()
        await self._marks.mark({name: erasure for name, erasure in wanted.items() if name not in marked})
        await self._marks.unmark(marked.keys() - wanted.keys())

    async def _advance(self, erasure: Erasure) -> None:
        if erasure.state is ErasureState.REQUESTED:
            ready = await (self._barred(erasure) if erasure.of_records else self._deleted(erasure))
            if ready is None:
                return
            erasure = ready
        remains = await self._remains(erasure)
        if remains is None:
            return
        if not erasure.noted:
            erasure = await self._note(erasure, remains)
        if any(each.keys for each in remains.values()):
            await self._collect({*erasure.collections})
            return
        if erasure.snapshot and not await self._copies.drop_before(erasure.snapshot):
            return
        await self._finish(erasure)

    async def _barred(self, erasure: Erasure) -> Erasure | None:
        """The erasure with its barrier appended; None while its collection is being restored."""
        barriers: dict[str, int] = {}
        for collection, owned in (await self._log.layouts(erasure.collections)).items():
            try:
                barriers[collection] = await append_barrier(self._log, collection, owned.layout)
            except Gone:
                continue  # it was deleted meanwhile: then all of it goes
        self._appended_s[erasure.id] = self._clock.monotonic()
        return await self._change(erasure, barriers=barriers, state=ErasureState.ERASING)

    async def _deleted(self, erasure: Erasure) -> Erasure | None:
        """The erasure once its collections are deleted, and Redis has nothing of them; None before that."""
        living = await self._log.layouts(erasure.collections)
        if living:
            await self._delete(erasure, living)
        if living or any(await self._log.states([(collection, 0) for collection in erasure.collections])):
            return None
        number = await self._copies.next_number()
        await self._catalog.changes.count()
        return await self._change(erasure, snapshot=number, state=ErasureState.ERASING)

    async def _delete(self, erasure: Erasure, living: Iterable[str]) -> None:
        """Deletes collections, each by its id: another one may have its name by now."""
        for database in await self._catalog.databases.of_tenant(erasure.tenant):
            for collection_id in living:
                found = await self._catalog.collections.get_by_id(database, collection_id)
                if found is not None:
                    await self._catalog.collections.delete(database, found.name, only=collection_id)

    async def _remains(self, erasure: Erasure) -> dict[str, Remains] | None:
        """The suspect objects that the bucket still has, by collection, but for what forks have a right to; None while
        it cannot be told, because shards are not clean yet.
        """
        found: dict[str, Remains] = {}
        layouts = await self._log.layouts(erasure.collections)
        for collection in erasure.collections:
            clean: Mapping[int, CleanShard] | None = {}
            barrier = erasure.barriers.get(collection, 0)
            if collection in layouts:
                clean = await clean_shards(self._log, self._manifests, collection, layouts[collection].layout, barrier)
            if clean is None:
                await self._bar_again(erasure, collection)
                return None
            objects = [info async for info in self._objects.list(f"{collection}/")]
            remains = remains_of_living(objects, barrier, clean) if clean else remains_of_deleted(objects)
            held = await self._forks.held(collection, remains.segments) if remains.segments else {}
            found[collection] = remains.without(held)
        return found

    async def _bar_again(self, erasure: Erasure, collection: str) -> None:
        """Appends another barrier when the last one is old: a compaction that began before the mark, or before a Redis
        without it, may have taken the last one along and left dead rows.
        """
        appended_s = self._appended_s.setdefault(erasure.id, self._clock.monotonic())
        if self._clock.monotonic() - appended_s > BARRIER_AGAIN_S:
            log.warning("erasure_held_up", erasure=erasure.id, collection=collection, attempts=erasure.attempts)
            await self._change(erasure, state=ErasureState.REQUESTED, attempts=erasure.attempts + 1)

    async def _note(self, erasure: Erasure, remains: Mapping[str, Remains]) -> Erasure:
        """Notes in the record what is going to be removed, before any of it is."""
        objects = {name: counted(erasure.objects.get(name, {}), each.counts) for name, each in remains.items()}
        segments = sorted(path for each in remains.values() for path in each.segments)
        return await self._change(erasure, objects=objects, segments=segments[:SEGMENTS_NAMED_MAX], noted=True)

    async def _finish(self, erasure: Erasure) -> None:
        """Steps 6 to 8."""
        held = {
            collection: await self._forks.held(collection, await self._segments_of(collection))
            for collection in erasure.collections
        }
        remaining = [
            Remaining(path, f"fork {fork} has it by its own right")
            for each in held.values()
            for path, fork in each.items()
        ]
        told = await self._caches.drop(erasure)
        if told is None:
            return
        problem = await self._append_only.rewrite(REWRITE_S)
        if problem is not None:
            remaining.append(Remaining("append-only file of Redis", problem))
        await self._write_receipt(erasure, [*remaining, *told])

    async def _segments_of(self, collection: str) -> frozenset[str]:
        objects = [info async for info in self._objects.list(f"{collection}/")]
        return remains_of_deleted(objects).segments

    async def _write_receipt(self, erasure: Erasure, remaining: list[Remaining]) -> None:
        removed = [
            Removed(name, erasure.objects.get(name, {}), [path for path in erasure.segments if path.startswith(name)])
            for name in erasure.collections
        ]
        receipt = Receipt(
            id=erasure.id,
            tenant=erasure.tenant,
            database=erasure.database,
            collection=erasure.collection,
            records=erasure.records,
            requested_s=erasure.requested_s,
            due_s=self._due_s(erasure),
            done_s=self._clock.now(),
            barriers=erasure.barriers,
            snapshot=erasure.snapshot,
            removed=removed,
            remaining=remaining,
        )
        if not await self._objects.create(receipt.key, receipt.encode()):
            log.info("receipt_there_already", erasure=erasure.id)
        await self._control.change(ControlKind.ERASURES, erasure.id, lambda _: None)
        self._appended_s.pop(erasure.id, None)
        log.info("erased", erasure=erasure.id, late=receipt.late, remaining=len(remaining))

    async def _change(self, erasure: Erasure, **fields: object) -> Erasure:
        changed = msgspec.structs.replace(erasure, **fields)

        def change(present: bytes | None) -> bytes | None:
            return None if present is None else changed.encode()  # done already, by another log service

        await self._control.change(ControlKind.ERASURES, erasure.id, change)
        return changed

    def _due_s(self, erasure: Erasure) -> float:
        return erasure.requested_s + (self._within_s if erasure.within_s is None else erasure.within_s)
