"""The snapshot with raised heads after a restart of Redis, and what is done while the bucket takes none.

Heads are raised after every restart, for Redis may have gone back behind positions that were handed out. A snapshot
must have the new heads, or else a loss of Redis would begin from the old ones and hand positions out again. While the
bucket takes no writes, reads and writes go on without it:

1. Before heads are raised, the mark counts it (`owed`); when they are, it names the run of the server, so that a log
   service that begins again does not raise them twice.
2. If the snapshot cannot be written, the cluster is opened all the same, as long as at most `limits.OWED_RAISES_MAX`
   raises are owed. A restoration goes that many ceilings further than it would have to, so that no position is handed
   out twice even if Redis is lost before the snapshot is there.
3. The leader writes the snapshot as soon as the bucket takes it, and then nothing is owed.

What is weaker meanwhile: a Redis that comes back older than a raise that is owed does not show it by its heads. This
process remembers the heads that it knew, and compares them, too; another log service does not have them.

None of this opens a Redis that is empty or went back: the new epoch must be in the bucket first. Nor one that cannot be
compared, because the bucket cannot be read.
"""

from __future__ import annotations

from typing import Final

import msgspec
from prometheus_client import Gauge

from logservice.catalog.snapshots import Snapshots
from logservice.restoring.restoration import raised_heads
from logservice.writable import WritableBucket
from shared import limits
from shared.catalog.cluster import ClusterMark
from shared.catalog.image import CatalogImage, Images
from shared.errors import Unavailable
from shared.objects.port import ObjectStore
from shared.process.telemetry import get_logger

OWED: Final = Gauge("polychrome_logservice_owed_raises", "Restarts of Redis whose raised heads are in no snapshot yet.")

log = get_logger(__name__)


class OwedSnapshot:
    """Raises heads, and writes the snapshot that has them or lets it be owed. Everything raises Unavailable."""

    def __init__(self, mark: ClusterMark, images: Images, objects: ObjectStore, snapshots: Snapshots) -> None:
        self._mark = mark
        self._images = images
        self._objects = objects
        self._snapshots = snapshots
        self._known: CatalogImage | None = None

    def with_known_heads(self, image: CatalogImage) -> CatalogImage:
        """The image, with the heads that this process knows to be higher from an earlier comparison."""
        if self._known is None or self._known.cluster != image.cluster:
            return image
        heads = {collection.id: collection.head for collection in self._known.collections}
        collections = [
            msgspec.structs.replace(collection, head=max(collection.head, heads.get(collection.id, 0)))
            for collection in image.collections
        ]
        return msgspec.structs.replace(image, collections=collections)

    async def raise_heads(self, now: CatalogImage, run: str) -> dict[str, int]:
        """The heads of all collections, raised for this run of the server if they were not yet. Raises Unavailable,
        and changes nothing, when too many raises are owed and the bucket takes no writes.
        """
        raises = await self._mark.owed_raises()
        if raises.run == run:
            return {collection.id: collection.head for collection in now.collections}
        if raises.owed >= limits.OWED_RAISES_MAX:
            await WritableBucket(self._objects).require()
        raised = raised_heads(now)
        await self._mark.owe_raise(now.epoch)
        await self._images.raise_heads(raised)
        await self._mark.mark_raised(run, now.epoch)
        return raised

    async def write(self, image: CatalogImage, number: int, run: str) -> None:
        """Writes the snapshot with the raised heads, under this number, or lets it be owed. Raises Unavailable when
        more would be owed than a restoration allows for, or another log service was faster.
        """
        self._known = image
        try:
            await WritableBucket(self._objects).require()
            written = await self._snapshots.write(image, number)
        except Unavailable as error:
            owed = (await self._mark.owed_raises()).owed
            OWED.set(owed)
            if owed > limits.OWED_RAISES_MAX:
                raise
            log.warning("snapshot_owed", raises=owed, message=error.message)
            return
        if not written:
            raise Unavailable("Another log service is opening the cluster")
        await self._mark.settle_raises(run)
        OWED.set(0)
