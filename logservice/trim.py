"""Trims streams up to manifests that were committed and have been read back (promise 2)."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import Counter

from shared.errors import Corrupt, Unavailable
from shared.log.log import Log
from shared.log.state import Pointer
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

log = get_logger(__name__)

TRIMS: Final = Counter("polychrome_logservice_trims", "Times that a shard's stream was trimmed.")
TRIMMED_ENTRIES: Final = Counter("polychrome_logservice_trimmed_entries", "Log entries dropped by trimming.")
UNREADABLE: Final = Counter(
    "polychrome_logservice_unreadable_manifests", "Committed manifests that did not read back; nothing was trimmed."
)

CONCURRENCY: Final = 8
RETRY_S: Final = 10.0

Shard = tuple[str, int]


class Trimmer:
    """Trims what the scheduler hands over. A shard is at work once at a time; the newest pointer wins."""

    def __init__(self, log_: Log, objects: ObjectStore, clock: Clock) -> None:
        self._log = log_
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._clock = clock
        self._waiting: dict[Shard, Pointer] = {}
        self._failed: dict[Shard, tuple[Pointer, float]] = {}
        self._some = asyncio.Event()

    def add(self, shard: Shard, pointer: Pointer) -> None:
        """Something to trim. A manifest that just failed to read back is not tried again at once."""
        failed = self._failed.get(shard)
        if failed is not None and failed[0] == pointer and self._clock.monotonic() < failed[1]:
            return
        self._waiting[shard] = pointer
        self._some.set()

    async def run(self) -> None:
        """Trims for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self.trim_waiting()

    async def trim_waiting(self) -> None:
        """Trims all that waits now."""
        some, self._waiting = self._waiting, {}
        limit = asyncio.Semaphore(CONCURRENCY)

        async def one(shard: Shard, pointer: Pointer) -> None:
            async with limit:
                await self._trim(shard, pointer)

        async with asyncio.TaskGroup() as group:
            for shard, pointer in some.items():
                group.create_task(one(shard, pointer))

    async def _trim(self, shard: Shard, pointer: Pointer) -> None:
        collection_id, number = shard
        try:
            await self._read_back(shard, pointer)
            dropped = await self._log.trim(collection_id, number, pointer)
        except Unavailable as error:
            log.warning("trim_postponed", collection=collection_id, shard=number, message=error.message)
        except Corrupt as error:
            await self._unreadable(shard, pointer, error)
        else:
            self._failed.pop(shard, None)
            TRIMS.inc()
            TRIMMED_ENTRIES.inc(dropped)
            log.debug("trimmed", collection=collection_id, shard=number, covers=pointer.covers, entries=dropped)

    async def _read_back(self, shard: Shard, pointer: Pointer) -> None:
        """The pointer proves that somebody committed the manifest; only reading it proves that it can be read, and only
        looking at its segments' files that they are there, whole.
        """
        manifest = await self._manifests.load(*shard, pointer)
        if manifest.covers != pointer.covers:
            raise Corrupt(f"{manifest.key} covers {manifest.covers}, its pointer {pointer.covers}")
        for segment in manifest.segments:
            await verify_present(self._objects, segment.info)

    async def _unreadable(self, shard: Shard, pointer: Pointer, error: Corrupt) -> None:
        """The log is kept: it is all there is. A deleted collection's manifest may be missing by right."""
        try:
            (state,) = await self._log.states([shard])
        except Unavailable as away:
            log.warning("trim_postponed", collection=shard[0], shard=shard[1], message=away.message)
            return
        if state is None or state.deleted:
            return
        self._failed[shard] = (pointer, self._clock.monotonic() + RETRY_S)
        UNREADABLE.inc()
        log.error("manifest_unreadable", collection=shard[0], shard=shard[1], message=error.message)
