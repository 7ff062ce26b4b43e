"""Gives a collection's lost state back, of which the catalog still has the row."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any, Final

import msgspec

from logservice.choice import choose
from logservice.evidence import Evidence
from logservice.restoration import restoration_of
from logservice.snapshots import Snapshots
from logservice.stored_catalog import StoredCatalog
from shared.catalog import Cluster
from shared.catalog.image import Images, merged
from shared.errors import Unavailable
from shared.log.state import Pointer
from shared.manifest.model import Manifest, ParentRef
from shared.manifest.roots import RootStore, make_root
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.digest import to_hex
from shared.records.model import FIRST_POSITION

log = get_logger(__name__)

EMPTY_DIGEST: Final = to_hex(0)
"""The digest of a shard without records."""


class Recovery:
    """Restores states one by one, from the newest snapshot and the roots; for `Collector.repair_rows`."""

    def __init__(
        self, cluster: Cluster, images: Images, snapshots: Snapshots, objects: ObjectStore, clock: Clock
    ) -> None:
        self._cluster = cluster
        self._images = images
        self._snapshots = snapshots
        self._journaled = StoredCatalog(objects, snapshots, clock)
        self._objects = objects
        self._clock = clock
        self._manifests = ManifestStore(objects)
        self._roots = RootStore(objects)
        self._evidence = Evidence(objects)
        self._written_by = f"logservice {uuid.uuid4().hex}"

    async def recover(self, collection_id: str, row: dict[str, Any]) -> bool:
        """Whether the row must stay, because the bucket knows the collection. Then its state is back, with a head
        beyond every position that was handed out, unless no snapshot says what it was like. Raises Unavailable,
        Corrupt.
        """
        number = await self._snapshots.next_number()
        journaled = await self._journaled.newest()
        image = journaled.image if journaled else None
        known = (
            next((collection for collection in image.collections if collection.id == collection_id), None)
            if image
            else None
        )
        if image is None or known is None:
            is_in_bucket = bool([True async for _ in self._objects.list(f"{collection_id}/")])
            if is_in_bucket:
                log.error("state_lost", collection=collection_id, name=row["name"])
            return is_in_bucket
        stored = await self._evidence.stored(collection_id, known.layout)
        restoration = restoration_of(collection_id, known.name, choose(None, stored), stored, known.head)
        restored, choice = restoration.restored(known), restoration.choice
        # First a snapshot with this head: a loss of Redis right after must begin from it.
        lost = msgspec.structs.replace(image, tenants=[], databases=[], collections=[restored], graves={}, families={})
        now = merged(await self._images.take(self._cluster), lost, {collection_id: restored.head})
        if not await self._snapshots.write(now, number):
            raise Unavailable("Another snapshot of the catalog was written meanwhile")
        epoch, shards = self._cluster.epoch, list(zip(choice.layout.numbers, choice.pointers, strict=True))
        pointers = [await self._supersede(collection_id, shard, pointer, epoch) for shard, pointer in shards]
        await self._roots.create(
            make_root(collection_id, epoch, restored.head, choice.layout, pointers, self._written_by, self._clock.now())
        )
        await self._images.restore_state(restored, restored.head, epoch, restored.head, pointers)
        log.error("state_restored", **asdict(restoration.missing))
        return True

    async def _supersede(self, collection_id: str, shard: int, pointer: Pointer | None, epoch: int) -> Pointer | None:
        """The manifest itself, or a copy of it whose version is beyond those of all manifests of the shard: those that
        were not taken are of the same epoch, and one that continues this one would be completed.
        """
        versions = await self._manifests.versions(collection_id, shard)
        version = max(versions, default=0)
        if version <= (pointer.version if pointer else 0):
            return pointer
        taken = await self._manifests.load(collection_id, shard, pointer) if pointer else None
        while True:
            version += 1
            created = await self._manifests.create(
                Manifest(
                    collection=collection_id,
                    shard=shard,
                    version=version,
                    parent=ParentRef(pointer.version, pointer.hash) if pointer else None,
                    covers=taken.covers if taken else FIRST_POSITION,
                    dimension=taken.dimension if taken else 0,
                    segments=taken.segments if taken else [],
                    rows=taken.rows if taken else 0,
                    digest=taken.digest if taken else EMPTY_DIGEST,
                    written_by=self._written_by,
                    created_s=self._clock.now(),
                    epoch=epoch,
                )
            )
            if created is not None:
                return created
