"""Trims streams up to manifests that were committed and have been read back (promise 2), once what goes is sealed where
a collection keeps its history (`logservice.trimming.seal`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter

from logservice.trimming.seal import Sealer
from shared.catalog.damage import DamageReporter
from shared.errors import Corrupt, Unavailable
from shared.log.log import Log
from shared.log.state import Pointer
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger

log = get_logger(__name__)

TRIMS: Final = Counter("polychrome_logservice_trims_total", "Times that a shard's stream was trimmed.")
TRIMMED_ENTRIES: Final = Counter("polychrome_logservice_trimmed_entries_total", "Log entries dropped by trimming.")
UNREADABLE: Final = Counter(
    "polychrome_logservice_unreadable_manifests_total",
    "Committed manifests that did not read back; nothing was trimmed.",
)

AT_ONCE: Final = 8
"""Shards that are trimmed at a time."""
NOT_TRIMMED: Final = "the log of the shard is kept"
RETRY_S: Final = 10.0
"""Pause before a manifest that did not read back is tried again."""

Shard = tuple[str, int]

Trimmed = Callable[[Manifest], None]
"""Called with a committed manifest once the log was trimmed up to it."""


def _ignored(_: Manifest) -> None:
    """For those who need not know what was trimmed."""


class Trimmer:
    """Trims the shards that the scheduler hands over. A shard that is handed over again before it was trimmed is
    trimmed once, up to the newest pointer. `epoch` is that in which this process began to lead.
    """

    def __init__(
        self,
        log_: Log,
        objects: ObjectStore,
        clock: Clock,
        epoch: int,
        sealer: Sealer,
        damage: DamageReporter,
        trimmed: Trimmed = _ignored,
    ) -> None:
        self._log = log_
        self._trimmed = trimmed
        self._damage = damage
        self._damaged: dict[Shard, str] = {}
        """The names of what was found damaged when a shard was to be trimmed."""
        self._epoch = epoch
        self._sealer = sealer
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._clock = clock
        self._waiting: dict[Shard, Pointer] = {}
        self._failed: dict[Shard, tuple[Pointer, float]] = {}
        self._added = asyncio.Event()

    def add(self, shard: Shard, pointer: Pointer) -> None:
        """Has the shard trimmed up to the manifest that `pointer` names, unless that has just failed to read back."""
        failed = self._failed.get(shard)
        if failed is not None and failed[0] == pointer and self._clock.monotonic() < failed[1]:
            return
        self._waiting[shard] = pointer
        self._added.set()

    async def run(self) -> None:
        """Trims for ever."""
        while True:
            await self._added.wait()
            self._added.clear()
            await self.trim_waiting()

    async def trim_waiting(self) -> None:
        """Trims all shards that were handed over until now."""
        waiting, self._waiting = self._waiting, {}
        await map_concurrently(self._trim, waiting.items(), at_once=AT_ONCE)

    async def _trim(self, handed_over: tuple[Shard, Pointer]) -> None:
        shard, pointer = handed_over
        collection_id, number = shard
        try:
            manifest = await self._read_back(shard, pointer)
            sealed = await self._sealer.seal(collection_id, number, pointer)
            dropped = await self._log.trim(collection_id, number, sealed, self._epoch)
        except Unavailable as error:
            log.warning("trim_postponed", collection=collection_id, shard=number, message=error.message)
        except Corrupt as error:
            await self._unreadable(shard, pointer, error)
        else:
            self._failed.pop(shard, None)
            self._trimmed(manifest)
            if (name := self._damaged.pop(shard, None)) is not None:
                self._damage.whole(name)
            TRIMS.inc()
            TRIMMED_ENTRIES.inc(dropped)
            log.debug("trimmed", collection=collection_id, shard=number, covers=pointer.covers, entries=dropped)

    async def _read_back(self, shard: Shard, pointer: Pointer) -> Manifest:
        """The manifest. Raises Corrupt unless it can be read and its segments' files are there, whole. The pointer
        proves only that it was committed.
        """
        manifest = await self._manifests.load(*shard, pointer)
        if manifest.covers != pointer.covers:
            raise Corrupt(f"{manifest.key} covers {manifest.covers}, its pointer {pointer.covers}")
        for segment in manifest.segments:
            await verify_present(self._objects, segment.info)
        return manifest

    async def _unreadable(self, shard: Shard, pointer: Pointer, error: Corrupt) -> None:
        """Reports a manifest that did not read back, whose log is kept: it is all there is. A deleted collection's
        manifest may be missing by right.
        """
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
        if state.pointer == pointer:  # an earlier one may have been collected meanwhile
            self._damaged[shard] = self._damage.met(error, NOT_TRIMMED, *shard)
