"""Has the manifests that a restoration took up prove against their records, while the cluster is open."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from shared.catalog.damage import Damage, Damages, kind_of
from shared.catalog.notes import Notes
from shared.errors import Corrupt
from shared.manifest.digests import verify_digest
from shared.manifest.store import ManifestStore
from shared.objects.keys import parse_manifest_key
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger

log = get_logger(__name__)

AT_ONCE: Final = 2
"""Manifests that prove at a time: the bucket has the reads of clients to serve."""
DOING: Final = "found when the manifest that a restoration took up was compared with its records; reads go on"

PROVEN: Final = Counter(
    "polychrome_logservice_proven_manifests_total",
    "Manifests taken up by a restoration and compared with their records since, by outcome.",
    ["outcome"],
)


class Prover:
    """The loop's step. Two at once do no harm."""

    def __init__(self, unproven: Notes, damages: Damages, objects: ObjectStore, clock: Clock, by: str) -> None:
        self._unproven = unproven
        self._damages = damages
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._clock = clock
        self._by = by

    async def step(self) -> None:
        """Has some manifests prove. What is damaged is named in the log and in the registry of damage. Raises
        Unavailable, Backoff.
        """
        await map_concurrently(self._prove, await self._unproven.some(), at_once=AT_ONCE)

    async def _prove(self, key: str) -> None:
        parsed = parse_manifest_key(key)
        if parsed is not None:
            collection, shard, version = parsed
            try:
                found = await self._manifests.find(collection, shard, version)
                if found is not None:
                    await verify_digest(self._objects, found[0])
                PROVEN.labels("whole" if found else "gone").inc()
            except Corrupt as error:
                PROVEN.labels("damaged").inc()
                name = error.name or key
                log.error("restored_data_damaged", manifest=key, object=name, what=error.message)  # noqa: TRY400 (no stack: data is at fault)
                now_s = self._clock.now()
                await self._damages.report(
                    Damage(name, kind_of(name), error.message, DOING, self._by, now_s, collection, shard)
                )
        await self._unproven.remove(key)
