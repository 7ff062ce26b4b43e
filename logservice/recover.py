"""Gives a collection's lost state back, of which the catalog still has the row."""

from __future__ import annotations

from typing import Any

import msgspec

from logservice.restoration import StoredCollection
from logservice.snapshots import Snapshots
from logservice.stored_catalog import StoredCatalog
from shared.catalog import Cluster
from shared.catalog.image import Images, merged
from shared.errors import Unavailable
from shared.manifest.newest import newest_manifest
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.process.telemetry import get_logger

log = get_logger(__name__)


class Recovery:
    """Restores states one by one, from the newest snapshot and the manifests; for `Collector.repair_rows`."""

    def __init__(self, cluster: Cluster, images: Images, snapshots: Snapshots, objects: ObjectStore) -> None:
        self._cluster = cluster
        self._images = images
        self._snapshots = snapshots
        self._journaled = StoredCatalog(objects, snapshots, SystemClock())
        self._objects = objects

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
        manifests = [await newest_manifest(self._objects, collection_id, shard) for shard in known.layout.numbers]
        stored = StoredCollection(known, manifests)
        restored = stored.restored()
        # First a snapshot with this head: a loss of Redis right after must begin from it.
        lost = msgspec.structs.replace(image, tenants=[], databases=[], collections=[restored], graves={}, families={})
        now = merged(await self._images.take(self._cluster), lost, {collection_id: restored.head})
        if not await self._snapshots.write(now, number):
            raise Unavailable("Another snapshot of the catalog was written meanwhile")
        await self._images.restore_state(restored, restored.head, self._cluster.epoch, stored.pointers)
        log.error("state_restored", collection=collection_id, name=row["name"], head=restored.head)
        return True
